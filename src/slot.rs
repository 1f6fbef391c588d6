//! Slots: where staging has a name, and where an exchange leaves the displaced version.
//!
//! `.atomik-N.NAME` stands beside the destination (or in `tmp_dir`). Whoever holds its lock owns it;
//! without a holder it is an orphan, which the next writer removes. Nobody ever waits.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::sys::{self, Lock, User, errno};
use crate::tree::{self, Checkpoint};

/// Longer names are shortened: `.atomik-NNNNN.` and 120 bytes fit the shortest limit in use (143, eCryptfs).
const LONGEST: usize = 120;
/// A litter of this many slots is somebody's mischief: go to a random name.
const MOST: u32 = 100_000;

/// FUSE servers keep an unlinked file that was open under a hidden name until they hear, a moment
/// later, that it was closed: how often, a millisecond apart, a slot is tried.
const FORGETTING: u32 = 50;

/// The name of slot `n` (or of the lock: `lock`) of a destination.
pub(crate) fn name(n: &str, destination: &OsStr) -> OsString {
    let bytes = destination.as_bytes();
    let mut name = format!(".atomik-{n}.").into_bytes();
    if bytes.len() <= LONGEST {
        name.extend_from_slice(bytes);
    } else {
        // Cut between characters: some filesystems refuse broken UTF-8.
        let keep = LONGEST - 17;
        let keep = match std::str::from_utf8(bytes) {
            Ok(text) => (0..=keep).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0),
            Err(_) => keep,
        };
        name.extend_from_slice(&bytes[..keep]);
        name.extend_from_slice(format!("~{:016x}", fnv1a(bytes)).as_bytes());
    }
    OsString::from_vec(name)
}

/// FNV-1a, 64 bits: the same in every process and release, since slots are found by name.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A folder slot that this process owns.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) name: OsString,
    pub(crate) fd: OwnedFd,
    /// Its number; `None` where locks do not work and the name is random.
    number: Option<u32>,
}

/// What became of a slot that somebody else may own.
enum Reclaimed {
    /// There is nothing of that name (any more).
    Missing,
    /// It lives, is pinned, is not ours, or is no slot at all: leave it.
    Kept,
}

impl Slot {
    /// Makes a folder slot for `destination` in `dir`; an orphan in its place is removed first.
    pub(crate) fn take(dir: BorrowedFd, destination: &OsStr, user: &User) -> io::Result<Slot> {
        let mut number = 0;
        while number < MOST {
            let name = name(&number.to_string(), destination);
            if !sys::mkdir(dir, &name, 0o700)? {
                if let Reclaimed::Kept = reclaim(dir, &name, user, &mut tree::go_on)? {
                    number += 1;
                }
                continue;
            }
            match own(dir, &name, user) {
                Ok((fd, Lock::Held)) => return Ok(Slot { name, fd, number: Some(number) }),
                Ok((_, Lock::Taken)) => number += 1,
                Ok((_, Lock::Unsupported)) => {
                    sys::rmdir(dir, &name)?;
                    break;
                }
                // Another writer took it for an orphan before it was locked.
                Err(error) if errno(&error) == libc::ENOENT => {}
                Err(error) => {
                    // It is empty; the error is what matters.
                    drop(sys::rmdir(dir, &name));
                    return Err(error);
                }
            }
        }
        let name = name(&format!("r{:016x}", sys::random()?), destination);
        if !sys::mkdir(dir, &name, 0o700)? {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        let fd = sys::open_folder(dir, &name)?;
        Ok(Slot { name, fd, number: None })
    }

    /// Removes everything in the slot; `false` if a reader has pinned what is there.
    pub(crate) fn clear(&self, checkpoint: Checkpoint) -> io::Result<bool> {
        clear(self.fd.as_fd(), checkpoint)
    }

    /// Gives the slot back, with what is still in it removed. An error leaves it as an orphan.
    pub(crate) fn release(&self, dir: BorrowedFd, checkpoint: Checkpoint) -> io::Result<()> {
        match sys::rmdir(dir, &self.name) {
            Err(error) if matches!(errno(&error), libc::ENOTEMPTY | libc::EEXIST) => {
                for _ in 0..FORGETTING {
                    // Pinned: its last reader, or the next writer, removes it.
                    if !self.clear(checkpoint)? {
                        return Ok(());
                    }
                    match sys::rmdir(dir, &self.name) {
                        Err(error) if matches!(errno(&error), libc::ENOTEMPTY | libc::EEXIST) => {
                            std::thread::sleep(std::time::Duration::from_millis(1));
                        }
                        other => return other,
                    }
                }
                sys::rmdir(dir, &self.name)
            }
            Err(error) if errno(&error) == libc::ENOENT => Ok(()),
            other => other,
        }
    }

    /// The slots after this one.
    pub(crate) fn next(&self) -> u32 {
        self.number.map_or(0, |number| number + 1)
    }
}

/// Opens and locks a folder just made; `ENOENT` if the name leads elsewhere by then.
fn own(dir: BorrowedFd, name: &OsStr, user: &User) -> io::Result<(OwnedFd, Lock)> {
    let fd = sys::open_folder(dir, name)?;
    let lock = sys::lock(fd.as_fd(), false)?;
    if lock == Lock::Held && !is_ours(dir, name, fd.as_fd(), user)? {
        return Err(io::Error::from_raw_os_error(libc::ENOENT));
    }
    Ok((fd, lock))
}

/// Gives a locked unnamed file the name of the first free slot; answers the name and the number
/// after it.
pub(crate) fn link(file: BorrowedFd, dir: BorrowedFd, destination: &OsStr, user: &User) -> io::Result<(OsString, u32)> {
    let mut number = 0;
    while number < MOST {
        let slot = name(&number.to_string(), destination);
        match sys::link_fd(file, dir, &slot) {
            Ok(()) => return Ok((slot, number + 1)),
            Err(error) if errno(&error) == libc::EEXIST => {}
            Err(error) => return Err(error),
        }
        if let Reclaimed::Kept = reclaim(dir, &slot, user, &mut tree::go_on)? {
            number += 1;
        }
    }
    Err(io::Error::from_raw_os_error(libc::EEXIST))
}

/// Removes orphans from slot `number` on, until four names in a row are missing, the slot before
/// `number`, just given back, being the first: litter stays bounded without ever listing a folder.
pub(crate) fn sweep_from(
    dir: BorrowedFd,
    destination: &OsStr,
    number: u32,
    user: &User,
    checkpoint: Checkpoint,
) -> io::Result<()> {
    let mut missing = 1;
    for number in number..number.saturating_add(MOST) {
        if missing == 4 {
            break;
        }
        match reclaim(dir, &name(&number.to_string(), destination), user, checkpoint)? {
            Reclaimed::Missing => missing += 1,
            Reclaimed::Kept => missing = 0,
        }
    }
    Ok(())
}

/// Does the name still lead to this inode, and is it this user's?
fn is_ours(dir: BorrowedFd, name: &OsStr, fd: BorrowedFd, user: &User) -> io::Result<bool> {
    let open = sys::stat_fd(fd)?;
    let named = sys::stat(dir, name)?;
    Ok(named.is_some_and(|named| named.same(&open)) && open.uid == user.id())
}

/// Removes what has the name of a slot if it is an orphan of this user: a folder or a file whose
/// lock is free. There is no other test.
fn reclaim(dir: BorrowedFd, name: &OsStr, user: &User, checkpoint: Checkpoint) -> io::Result<Reclaimed> {
    let fd = match sys::open_any(dir, name) {
        Ok(fd) => fd,
        Err(error) => {
            return match errno(&error) {
                libc::ENOENT => Ok(Reclaimed::Missing),
                // A symlink, a socket, a file of somebody else's: no slot of ours.
                libc::ELOOP | libc::ENXIO | libc::ENODEV | libc::EACCES | libc::EPERM => Ok(Reclaimed::Kept),
                _ => Err(error),
            };
        }
    };
    if sys::lock(fd.as_fd(), false)? != Lock::Held || !is_ours(dir, name, fd.as_fd(), user)? {
        // Alive, or gone meanwhile: the caller goes on to the next number either way.
        return Ok(Reclaimed::Kept);
    }
    let removed = match sys::stat_fd(fd.as_fd())?.kind() {
        libc::S_IFDIR => match clear(fd.as_fd(), checkpoint) {
            Ok(true) => sys::rmdir(dir, name),
            Ok(false) => return Ok(Reclaimed::Kept),
            Err(error) => Err(error),
        },
        libc::S_IFREG => sys::unlink(dir, name),
        _ => return Ok(Reclaimed::Kept),
    };
    match removed {
        Ok(()) => Ok(Reclaimed::Missing),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
        // Something in it resists (immutable, a mount): it stays, and nobody's commit fails for it.
        Err(_) => Ok(Reclaimed::Kept),
    }
}

/// Removes everything in a locked slot; `false` if a version in it is pinned.
fn clear(slot: BorrowedFd, checkpoint: Checkpoint) -> io::Result<bool> {
    let mut entries = Vec::new();
    let reader = sys::open_folder(slot, OsStr::new("."))?;
    let mut buffer = vec![0_u8; 4096];
    while sys::read_folder(reader.as_fd(), &mut buffer, &mut entries)? {}
    for (name, _) in &entries {
        match sys::open_folder(slot, name) {
            Ok(version) if sys::lock(version.as_fd(), false)? == Lock::Taken => return Ok(false),
            // The lock is kept until the version has gone: no reader pins what is being removed.
            Ok(version) => {
                match tree::remove_below(version.as_fd(), checkpoint) {
                    // Its owner may read but not search or change it.
                    Err(error) if errno(&error) == libc::EACCES => {
                        sys::chmod(version.as_fd(), 0o700)?;
                        tree::remove_below(version.as_fd(), checkpoint)?;
                    }
                    other => other?,
                }
                sys::rmdir(slot, name)?;
            }
            Err(error) if matches!(errno(&error), libc::ENOTDIR | libc::ELOOP) => sys::unlink(slot, name)?,
            // Not readable by its owner: the removal below knows how.
            Err(_) => tree::remove_below(slot, checkpoint)?,
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_shortened_between_characters_and_stays_unique() {
        let long = OsString::from("ä".repeat(127));
        let short = name("0", &long);
        assert!(short.len() <= 255 && short.to_str().is_some());
        assert_ne!(short, name("0", OsStr::new(&"ä".repeat(126))));
        assert_eq!(name("7", OsStr::new("data")), ".atomik-7.data");
    }

    #[test]
    fn a_living_slot_is_left_and_an_orphan_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let dir = sys::open_folder(sys::CWD, folder.path().as_os_str()).unwrap();
        let first = Slot::take(dir.as_fd(), OsStr::new("x"), &User::default()).unwrap();
        let second = Slot::take(dir.as_fd(), OsStr::new("x"), &User::default()).unwrap();
        assert_eq!((first.name.to_str(), second.name.to_str()), (Some(".atomik-0.x"), Some(".atomik-1.x")));
        std::fs::write(folder.path().join(".atomik-0.x/litter"), "").unwrap();
        drop(first);
        let third = Slot::take(dir.as_fd(), OsStr::new("x"), &User::default()).unwrap();
        assert_eq!(third.name, ".atomik-0.x");
        assert!(!folder.path().join(".atomik-0.x/litter").exists());
        second.release(dir.as_fd(), &mut tree::go_on).unwrap();
        third.release(dir.as_fd(), &mut tree::go_on).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

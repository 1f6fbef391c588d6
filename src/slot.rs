//! Slots: where staging has a name, and where an exchange leaves the displaced version.
//!
//! `.atomik-N.NAME` stands beside the destination (or in `tmp_dir`). Whoever holds its lock owns it;
//! without a holder it is an orphan, which the next writer removes. Nobody ever waits.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::lock::NamedLock;
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

/// Where the slots of a destination are, and whose.
#[derive(Clone, Copy)]
pub(crate) struct Beside<'a> {
    pub(crate) dir: BorrowedFd<'a>,
    pub(crate) destination: &'a OsStr,
    pub(crate) user: &'a User,
}

impl<'a> Beside<'a> {
    /// Waits for one's turn among the writers that use more than the first slot.
    fn turn(&self) -> io::Result<NamedLock<'a>> {
        NamedLock::take(self.dir, name("sweep", self.destination), self.user)
    }

    fn name(&self, number: u32) -> OsString {
        name(&number.to_string(), self.destination)
    }
}

/// A folder slot that this process owns.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) name: OsString,
    pub(crate) fd: OwnedFd,
    /// Its number; `None` where locks do not work and the name is random.
    number: Option<u32>,
}

/// What was found under the name of a slot.
#[derive(PartialEq, Eq)]
enum Found {
    /// Nothing.
    Missing,
    /// An orphan, which was removed or, if that was asked, emptied.
    Orphan,
    /// Somebody holds its lock.
    Alive,
    /// Pinned, another user's, resisting, or no slot at all: it is left.
    Kept,
}

/// What to do with an orphan.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Orphans {
    Remove,
    Empty,
}

impl Slot {
    /// Makes a folder slot for a destination; an orphan in its place is removed first.
    pub(crate) fn take(beside: Beside) -> io::Result<Slot> {
        let Beside { dir, destination, user } = beside;
        let mut number = 0;
        while number < MOST {
            let name = beside.name(number);
            // Above the first, slots are made in turn, each on the one below: an orphan far up is
            // found only if there is no gap on the way.
            let mut turn = None;
            if number > 0 {
                if matches!(look(beside, &name, Orphans::Empty, &mut tree::go_on)?, Found::Alive | Found::Kept) {
                    number += 1;
                    continue;
                }
                turn = Some(beside.turn()?);
                if sys::stat(dir, &beside.name(number - 1))?.is_none() {
                    number = 0;
                    continue;
                }
            }
            if !sys::mkdir(dir, &name, 0o700)? {
                if matches!(look(beside, &name, Orphans::Remove, &mut tree::go_on)?, Found::Alive | Found::Kept) {
                    number += 1;
                    continue;
                }
                if !sys::mkdir(dir, &name, 0o700)? {
                    continue;
                }
            }
            match own(dir, &name, user) {
                Ok((fd, Lock::Held)) => {
                    drop(turn);
                    return Ok(Slot { name, fd, number: Some(number) });
                }
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

    /// Gives the slot back, with what is still in it and all orphans removed. An error leaves it as
    /// an orphan.
    ///
    /// While a slot further up is alive, this one stays, empty and unlocked, as a stepping stone:
    /// if that writer is killed, the next one still finds the way to its orphan. The last of them to
    /// end removes the stones. They take turns (`.atomik-sweep.NAME`): what one sees of the others is
    /// still so when it removes its own.
    pub(crate) fn give_back(self, beside: Beside, checkpoint: Checkpoint) -> io::Result<()> {
        let Some(number) = self.number else { return self.remove(beside.dir, checkpoint) };
        // What takes long comes first, and without a lock.
        let above = sweep(beside, number + 1, Orphans::Empty, checkpoint);
        if number == 0 && matches!(above, Ok(Above::Nothing)) {
            return self.remove(beside.dir, checkpoint);
        }
        if !clear(self.fd.as_fd(), checkpoint)? {
            return Ok(());
        }
        let turn = beside.turn()?;
        let above = sweep(beside, number + 1, Orphans::Remove, checkpoint);
        if matches!(above, Ok(Above::Alive)) {
            // Unlocked within one's turn: the next one sees a stone, not somebody alive.
            drop(self);
        } else {
            self.remove(beside.dir, checkpoint)?;
            drop(self);
            for below in (0..number).rev() {
                // Who is alive there goes on when it ends.
                if look(beside, &beside.name(below), Orphans::Remove, checkpoint)? == Found::Alive {
                    break;
                }
            }
        }
        drop(turn);
        above.map(drop)
    }

    /// Removes the slot with what is in it.
    fn remove(&self, dir: BorrowedFd, checkpoint: Checkpoint) -> io::Result<()> {
        let full = |error: &io::Error| matches!(errno(error), libc::ENOTEMPTY | libc::EEXIST);
        for _ in 0..FORGETTING {
            match sys::rmdir(dir, &self.name) {
                Err(error) if full(&error) => {}
                Err(error) if errno(&error) == libc::ENOENT => return Ok(()),
                other => return other,
            }
            // Pinned: its last reader, or the next writer, removes it.
            if !clear(self.fd.as_fd(), checkpoint)? {
                return Ok(());
            }
            match sys::rmdir(dir, &self.name) {
                Err(error) if full(&error) => std::thread::sleep(std::time::Duration::from_millis(1)),
                other => return other,
            }
        }
        sys::rmdir(dir, &self.name)
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

/// A file's name in a slot, for the moment before it is renamed.
pub(crate) struct Linked<'a> {
    pub(crate) name: OsString,
    /// The number from which to sweep.
    pub(crate) next: u32,
    /// Where the first slot is in use, they take turns with the next: orphans stay close together.
    _turn: Option<NamedLock<'a>>,
}

/// Gives a locked unnamed file the name of the first free slot.
pub(crate) fn link<'a>(file: BorrowedFd, beside: Beside<'a>) -> io::Result<Linked<'a>> {
    let (mut number, mut turn) = (0, None);
    while number < MOST {
        let name = beside.name(number);
        match sys::link_fd(file, beside.dir, &name) {
            Ok(()) => return Ok(Linked { name, next: number + 1, _turn: turn }),
            Err(error) if errno(&error) == libc::EEXIST => {}
            Err(error) => return Err(error),
        }
        if matches!(look(beside, &name, Orphans::Remove, &mut tree::go_on)?, Found::Alive | Found::Kept) {
            if turn.is_none() {
                turn = Some(beside.turn()?);
            }
            number += 1;
        }
    }
    Err(io::Error::from_raw_os_error(libc::EEXIST))
}

/// What is above a slot.
pub(crate) enum Above {
    Nothing,
    /// Orphans, now removed or emptied, or what is no slot.
    Orphans,
    Alive,
}

/// Removes the orphans from slot `number` on: what a file's publish does after it.
pub(crate) fn sweep_from(beside: Beside, number: u32, checkpoint: Checkpoint) -> io::Result<()> {
    sweep(beside, number, Orphans::Remove, checkpoint).map(drop)
}

/// Empties orphans from slot `number` on, until four names in a row are missing, the slot before
/// `number`, just given back, being the first: litter stays bounded without ever listing a folder.
/// If asked, removes those that are not below one that is alive: the others lead to it.
fn sweep(beside: Beside, number: u32, orphans: Orphans, checkpoint: Checkpoint) -> io::Result<Above> {
    let (mut missing, mut found, mut alive) = (1, Vec::new(), None);
    let mut above = Above::Nothing;
    for number in number..number.saturating_add(MOST) {
        if missing == 4 {
            break;
        }
        match look(beside, &beside.name(number), Orphans::Empty, checkpoint)? {
            Found::Missing => {
                missing += 1;
                continue;
            }
            Found::Orphan => found.push(number),
            Found::Alive => alive = Some(number),
            Found::Kept => {}
        }
        above = Above::Orphans;
        missing = 0;
    }
    if orphans == Orphans::Remove {
        for number in found.into_iter().rev().take_while(|number| alive.is_none_or(|alive| *number > alive)) {
            // Somebody looks at it just now, and still has a turn to come: leave that one the way up.
            if look(beside, &beside.name(number), Orphans::Remove, checkpoint)? == Found::Alive {
                return Ok(Above::Alive);
            }
        }
    }
    Ok(if alive.is_some() { Above::Alive } else { above })
}

/// Does the name still lead to this inode, and is it this user's?
fn is_ours(dir: BorrowedFd, name: &OsStr, fd: BorrowedFd, user: &User) -> io::Result<bool> {
    let open = match sys::stat_fd(fd) {
        // FUSE says so of a folder that was removed while it is open.
        Err(error) if matches!(errno(&error), libc::ENOENT | libc::ESTALE) => return Ok(false),
        other => other?,
    };
    let named = sys::stat(dir, name)?;
    Ok(named.is_some_and(|named| named.same(&open)) && open.uid == user.id())
}

/// Looks at what has the name of a slot, and removes or empties it if it is an orphan of this user: a
/// folder or a file whose lock is free. There is no other test.
fn look(beside: Beside, name: &OsStr, orphans: Orphans, checkpoint: Checkpoint) -> io::Result<Found> {
    let dir = beside.dir;
    let fd = match sys::open_any(dir, name) {
        Ok(fd) => fd,
        Err(error) => {
            return match errno(&error) {
                libc::ENOENT => Ok(Found::Missing),
                // A symlink, a socket, a file of somebody else's: no slot of ours.
                libc::ELOOP | libc::ENXIO | libc::ENODEV | libc::EACCES | libc::EPERM => Ok(Found::Kept),
                _ => Err(error),
            };
        }
    };
    match sys::lock(fd.as_fd(), false)? {
        Lock::Taken => return Ok(Found::Alive),
        Lock::Unsupported => return Ok(Found::Kept),
        Lock::Held if is_ours(dir, name, fd.as_fd(), beside.user)? => {}
        // Gone meanwhile, or another user's.
        Lock::Held => return Ok(if sys::stat(dir, name)?.is_none() { Found::Missing } else { Found::Kept }),
    }
    let removed = match sys::stat_fd(fd.as_fd())?.kind() {
        libc::S_IFDIR => match clear(fd.as_fd(), checkpoint) {
            Ok(true) if orphans == Orphans::Remove => sys::rmdir(dir, name),
            Ok(true) => Ok(()),
            Ok(false) => return Ok(Found::Kept),
            Err(error) => Err(error),
        },
        libc::S_IFREG => sys::unlink(dir, name),
        _ => return Ok(Found::Kept),
    };
    match removed {
        Ok(()) => Ok(Found::Orphan),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
        // Something in it resists (immutable, a mount): it stays, and nobody's commit fails for it.
        Err(_) => Ok(Found::Kept),
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
        let user = User::default();
        let beside = Beside { dir: dir.as_fd(), destination: OsStr::new("x"), user: &user };
        let first = Slot::take(beside).unwrap();
        let second = Slot::take(beside).unwrap();
        assert_eq!((first.name.to_str(), second.name.to_str()), (Some(".atomik-0.x"), Some(".atomik-1.x")));
        std::fs::write(folder.path().join(".atomik-0.x/litter"), "").unwrap();
        drop(first);
        let third = Slot::take(beside).unwrap();
        assert_eq!(third.name, ".atomik-0.x");
        assert!(!folder.path().join(".atomik-0.x/litter").exists());
        second.give_back(beside, &mut tree::go_on).unwrap();
        third.give_back(beside, &mut tree::go_on).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_orphan_far_up_is_found_over_stepping_stones() {
        let folder = tempfile::tempdir().unwrap();
        let dir = sys::open_folder(sys::CWD, folder.path().as_os_str()).unwrap();
        let user = User::default();
        let beside = Beside { dir: dir.as_fd(), destination: OsStr::new("x"), user: &user };
        let mut slots: Vec<_> = (0..10).map(|_| Slot::take(beside).unwrap()).collect();
        let killed = slots.pop();
        for slot in slots {
            slot.give_back(beside, &mut tree::go_on).unwrap();
        }
        // Its lock goes with the process; nothing else is done for it.
        drop(killed);
        Slot::take(beside).unwrap().give_back(beside, &mut tree::go_on).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

//! Slots: where staging has a name, and where an exchange leaves the displaced version.
//!
//! `.atomik-N.NAME` stands beside the destination (or in `tmp_dir`). Whoever holds its lock owns it;
//! without a holder it is an orphan, which the next writer removes. Nobody ever waits.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::time::Duration;

use crate::lock::NamedLock;
use crate::sys::{self, Lock, Stat, User, errno};
use crate::tree::{self, Checkpoint};

mod name;
mod orphans;

pub(crate) use name::{destination_of, is_name, name, number_of};
use orphans::{Above, Found, Orphans, clear, is_empty, is_named, is_ours, list, look, stat_opened, sweep};
pub(crate) use orphans::{Inspected, inspect, remove_displaced, remove_orphan_lock, sweep_all, sweep_from};

/// A litter of this many slots is somebody's mischief, and so is a slot that as often is there when it
/// is made and gone when it is opened: go to a random name.
const MOST: u32 = 10_000;

/// FUSE servers keep an unlinked file that was open under a hidden name until they hear, a moment
/// later, that it was closed: how often, a millisecond apart, a slot is tried.
const FORGETTING: u32 = 50;

/// How long a file waits for the one before it, which needs two system calls (and, on an old btrfs, a
/// sync), before it takes the next slot; and how often it looks.
const PATIENCE: Duration = Duration::from_secs(2);

const PASSING: Duration = Duration::from_micros(50);

/// Where the slots of a destination are, and whose.
#[derive(Clone, Copy)]
pub(crate) struct Beside<'a> {
    pub(crate) dir: BorrowedFd<'a>,
    pub(crate) destination: &'a OsStr,
    pub(crate) user: &'a User,
    /// What `dir` is like, once somebody has looked.
    pub(crate) folder: &'a OnceLock<Stat>,
}

impl<'a> Beside<'a> {
    /// Waits for one's turn among the writers that use more than the first slot.
    fn turn(&self) -> io::Result<NamedLock<'a>> {
        NamedLock::take(self.dir, self.lock(), self.user)
    }

    /// What the folder is like.
    fn look(&self) -> io::Result<Stat> {
        if let Some(folder) = self.folder.get() {
            return Ok(*folder);
        }
        let folder = sys::stat_fd(self.dir)?;
        Ok(*self.folder.get_or_init(|| folder))
    }

    /// The mode of a slot. Where others can rename in the folder, a folder of ours that is no slot might be
    /// given a slot's name, to be emptied: there slots are marked by a bit that no other folder has
    /// beside this mode.
    pub(crate) fn mode(&self) -> io::Result<u32> {
        let open = self.look()?.others_rename(0o022);
        Ok(if open { 0o1700 } else { 0o700 })
    }

    fn lock(&self) -> OsString {
        name("lock", self.destination)
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
    /// Has its owner held the lock of the destination here? Then nobody's is left.
    pub(crate) lock_taken: bool,
}

impl Slot {
    /// Makes a folder slot for a destination; an orphan in its place is removed first.
    pub(crate) fn take(beside: Beside) -> io::Result<Slot> {
        let Beside { dir, destination, .. } = beside;
        let mut number = 0;
        for _ in 0..MOST {
            let name = beside.name(number);
            // Above the first, slots are made in turn, each on the one below: an orphan far up is
            // found only if there is no gap on the way.
            let mut turn = None;
            if number > 0 {
                if look(beside, &name, Orphans::Empty, &mut tree::go_on)?.is_taken() {
                    number += 1;
                    continue;
                }
                turn = Some(beside.turn()?);
                if sys::stat(dir, &beside.name(number - 1))?.is_none() {
                    number = 0;
                    continue;
                }
            }
            if !sys::mkdir(dir, &name, beside.mode()?)? {
                if look(beside, &name, Orphans::Remove, &mut tree::go_on)?.is_taken() {
                    number += 1;
                    continue;
                }
                if !sys::mkdir(dir, &name, beside.mode()?)? {
                    continue;
                }
            }
            match own(beside, &name) {
                Ok((fd, Lock::Held)) => {
                    // Somebody may have used the name between the making and the locking, and have left there
                    // what a reader pins: what is owned is looked into, whoever made it.
                    let free = is_empty(fd.as_fd())
                        .and_then(|empty| Ok(empty || clear(beside, fd.as_fd(), &mut tree::go_on)?))
                        .inspect_err(|_| drop(sys::rmdir(dir, &name)))?;
                    if !free {
                        number += 1;
                        continue;
                    }
                    drop(turn);
                    return Ok(Slot { name, fd, number: Some(number), lock_taken: false });
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
        if !sys::mkdir(dir, &name, beside.mode()?)? {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        let (fd, lock) = own(beside, &name)?;
        if lock == Lock::Taken {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        Ok(Slot { name, fd, number: None, lock_taken: false })
    }

    /// Gives the slot back, with what is still in it and all orphans removed. An error leaves it as
    /// an orphan.
    ///
    /// While a slot further up is alive, this one stays, empty and unlocked, as a stepping stone:
    /// if that writer is killed, the next one still finds the way to its orphan. The last of them to
    /// end removes the stones. They take turns, under the destination's lock: what one sees of the
    /// others is still so when it removes its own.
    pub(crate) fn give_back(self, beside: Beside, checkpoint: Checkpoint) -> io::Result<()> {
        let Some(number) = self.number else { return self.remove(beside, checkpoint) };
        // What takes long comes first, and without a lock.
        let above = sweep(beside, number + 1, 4, Orphans::Empty, checkpoint);
        if number == 0 && matches!(above, Ok(Above::Nothing)) {
            self.remove(beside, checkpoint)?;
            return if self.lock_taken { Ok(()) } else { remove_orphan_lock(beside.dir, &beside.lock(), beside.user) };
        }
        if !clear(beside, self.fd.as_fd(), checkpoint)? {
            return Ok(());
        }
        let turn = beside.turn()?;
        let mut failed = Ok(());
        let above = sweep(beside, number + 1, 4, Orphans::Remove, checkpoint);
        if matches!(above, Ok(Above::Alive)) {
            // Unlocked within one's turn: the next one sees a stone, not somebody alive.
            drop(self);
        } else {
            self.remove(beside, checkpoint)?;
            drop(self);
            for below in (0..number).rev() {
                match look(beside, &beside.name(below), Orphans::Remove, checkpoint)? {
                    // It may be the stone that a member of our own group has left.
                    Found::Failed(error) => failed = Err(error),
                    // Who is alive there goes on when it ends.
                    found if found.is_in_use() => break,
                    _ => {}
                }
            }
        }
        let released = turn.release();
        above.and(failed)?;
        if released { Ok(()) } else { remove_orphan_lock(beside.dir, &beside.lock(), beside.user) }
    }

    /// Removes the slot with what is in it.
    fn remove(&self, beside: Beside, checkpoint: Checkpoint) -> io::Result<()> {
        let dir = beside.dir;
        let full = |error: &io::Error| matches!(errno(error), libc::ENOTEMPTY | libc::EEXIST);
        for _ in 0..FORGETTING {
            match sys::rmdir(dir, &self.name) {
                Err(error) if full(&error) => {}
                Err(error) if errno(&error) == libc::ENOENT => return Ok(()),
                other => return other,
            }
            // Pinned: its last reader, or the next writer, removes it.
            if !clear(beside, self.fd.as_fd(), checkpoint)? {
                return Ok(());
            }
            match sys::rmdir(dir, &self.name) {
                Err(error) if full(&error) => std::thread::sleep(Duration::from_millis(1)),
                other => return other,
            }
        }
        sys::rmdir(dir, &self.name)
    }
}

/// Opens and locks a folder just made; `ENOENT` if the name leads elsewhere by then.
fn own(beside: Beside, name: &OsStr) -> io::Result<(OwnedFd, Lock)> {
    let fd = sys::open_folder(beside.dir, name)?;
    let lock = sys::lock(fd.as_fd(), false)?;
    let elsewhere = || io::Error::from_raw_os_error(libc::ENOENT);
    let stat = stat_opened(fd.as_fd())?.ok_or_else(elsewhere)?;
    if lock == Lock::Held && !is_named(beside.dir, name, &stat)? {
        return Err(elsewhere());
    }
    if lock != Lock::Taken && !is_ours(beside, &stat)? {
        // Not what was made, unless a filesystem (bindfs) leaves out the mark: then there is nothing in it.
        if stat.uid != beside.user.id() || !list(fd.as_fd())?.is_empty() {
            return Ok((fd, Lock::Taken));
        }
        // Changing the mode might cost a group that is to be inherited.
        if stat.mode & libc::S_ISGID == 0 {
            sys::chmod(fd.as_fd(), stat.permissions() | 0o1000)?;
        }
    }
    Ok((fd, lock))
}

/// A file's name in a slot, for the moment before it is renamed.
pub(crate) struct Linked {
    pub(crate) name: OsString,
    /// The number from which to sweep.
    pub(crate) next: u32,
}

/// Gives a locked unnamed file the name of the first slot that is no folder's. Another file there is
/// gone in a moment: waiting for it, not going further up, keeps orphans together without a lock.
pub(crate) fn link(file: BorrowedFd, beside: Beside) -> io::Result<Linked> {
    let (mut number, mut gone) = (0, 0);
    let mut patience = PATIENCE;
    while number + gone < MOST {
        let name = beside.name(number);
        match sys::link_fd(file, beside.dir, &name) {
            Ok(()) => return Ok(Linked { name, next: number + 1 }),
            Err(error) if errno(&error) == libc::EEXIST => {}
            Err(error) => return Err(error),
        }
        match look(beside, &name, Orphans::Remove, &mut tree::go_on)? {
            Found::Passing if !patience.is_zero() => {
                patience = patience.saturating_sub(PASSING);
                std::thread::sleep(PASSING);
            }
            Found::Passing | Found::Alive | Found::Kept | Found::Failed(_) => number += 1,
            Found::Missing | Found::Orphan => gone += 1,
        }
    }
    Err(io::Error::from_raw_os_error(libc::EEXIST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_slot_is_left_and_an_orphan_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let dir = sys::open_folder(sys::CWD, folder.path().as_os_str()).unwrap();
        let (user, look) = (User::default(), OnceLock::new());
        let beside = Beside { dir: dir.as_fd(), destination: OsStr::new("x"), user: &user, folder: &look };
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
        let (user, look) = (User::default(), OnceLock::new());
        let beside = Beside { dir: dir.as_fd(), destination: OsStr::new("x"), user: &user, folder: &look };
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

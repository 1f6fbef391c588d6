//! Slots: where staging has a name, and where an exchange leaves the displaced version.
//!
//! The first writer to a destination has the slot `.atomik-0.NAME~`, the porch. A writer that finds the porch taken makes
//! a slot of any free name in the room, the folder `.atomik-uUID.NAME~/`, one a user. Whoever holds the lock of a slot owns
//! it; a slot whose lock is free is an orphan, which the next writer removes. Nobody ever waits for a slot.
//!
//! ```text
//!     mkdir, open, flock, statx, getdents64           the body                rename, or exchange
//!  ───────────────────────────────────────▶ staging ──────────▶ complete ──────────────────────▶ displaced, or empty
//!     anything unexpected: start over                                                                    │ clear, rmdir
//!                                                                                                        ▼
//!     death at any of these points leaves an orphan; pinned by a reader: left to that reader           gone
//! ```
//!
//! Whatever is not as expected (a name that is gone, locked, or leads elsewhere) starts the step over. Nothing is removed
//! by name that this process does not hold locked, but for a room, which `rmdir` removes only if it is empty.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::checkpoint::{self, Checkpoint};
use crate::sys::{self, Lock, errno};

mod beside;
mod displaced;
mod domain;
mod inspect;
mod linked;
mod lock;
mod mark;
mod name;
mod observe;
mod orphans;
mod owner;
mod patience;
mod reclaim;
mod room;

pub(crate) use beside::{Beside, Known};
pub(crate) use displaced::{is_displaced, is_removed};
pub use domain::LockReach;
pub(crate) use domain::learn;
pub(crate) use inspect::{Inspected, Terms, inspect_all};
pub(crate) use linked::Linked;
pub(crate) use lock::{PublishLock, remove_orphan_lock};
pub(crate) use mark::{complete, mark};
pub(crate) use name::{Kind, is_ours, is_reserved, parse, scratch};
pub(crate) use observe::{is_change, list};
use observe::{is_empty, is_named};
use orphans::remove_others;
pub(crate) use orphans::{remove_displaced, remove_orphans};
pub(crate) use patience::Patience;
use patience::rounds;
use reclaim::{Cleared, clear, is_free, reclaim, stays};

/// FUSE and NFS keep an unlinked file that was open under a hidden name until the server hears, a moment later, that it was
/// closed: how often, a millisecond apart, a slot is tried.
const MAX_PAUSES: u32 = 50;

/// A folder slot that this process owns.
#[derive(Debug)]
pub(crate) struct Slot {
    /// The room that it is in; `None` beside the destination.
    room: Option<(OsString, OwnedFd)>,
    name: OsString,
    pub(crate) fd: OwnedFd,
    /// Has its owner held the lock of the destination here? Then nobody's is left.
    pub(crate) lock_taken: bool,
}

impl Slot {
    fn new(room: Option<(OsString, OwnedFd)>, name: OsString, fd: OwnedFd) -> Self {
        Self { room, name, fd, lock_taken: false }
    }
}

/// What came of making a slot under one name.
enum Made {
    Slot(OwnedFd),
    /// Another process was faster: start over.
    Again,
    /// Somebody else's, alive, pinned, or nothing that this user may remove.
    Taken,
    /// It is made, and cannot be locked.
    Unlockable,
}

impl Slot {
    /// Makes a slot: the porch, or a slot in the room if the porch is taken. An orphan in its place is removed first.
    pub(crate) fn take(beside: Beside) -> io::Result<Slot> {
        let mut patience = Patience::default();
        loop {
            match Self::attempt(beside) {
                Err(error) if patience.again(beside, &error) => {}
                slot => return slot,
            }
        }
    }

    fn attempt(beside: Beside) -> io::Result<Slot> {
        let porch = beside.porch();
        for _ in rounds(beside) {
            match make(beside, None, &porch)? {
                Made::Slot(fd) => return Ok(Slot::new(None, porch, fd)),
                Made::Again => continue,
                Made::Unlockable => {
                    // Nobody else can lock it either: what this process has made is still its own.
                    sys::rmdir(beside.dir, &porch)?;
                    return Self::unlocked(beside);
                }
                Made::Taken => {}
            }
            // Before there is a room that would be left if this failed.
            let name = name::in_room(sys::random()?);
            let Some(room) = room::enter(beside)? else { return Self::spare(beside) };
            let made = make(beside, Some(room.1.as_fd()), &name);
            match made {
                Ok(Made::Slot(fd)) => return Ok(Slot::new(Some(room), name, fd)),
                Ok(Made::Again | Made::Taken) => continue,
                Ok(Made::Unlockable) => sys::rmdir(room.1.as_fd(), &name)?,
                Err(_) => {}
            }
            // If the room stays, the next writer removes it.
            drop(room::leave(beside, &mut checkpoint::go_on));
            return made.and_then(|_| Self::unlocked(beside));
        }
        Self::spare(beside)
    }

    /// Makes a slot under a random name, where something else has the names of porch and room. The next writer does not look
    /// there; a sweep does, and the last reader of a version in it.
    fn spare(beside: Beside) -> io::Result<Slot> {
        let name = beside.name(Kind::Spare(sys::random()?));
        match make(beside, None, &name)? {
            Made::Slot(fd) => Ok(Slot::new(None, name, fd)),
            Made::Unlockable => {
                sys::rmdir(beside.dir, &name)?;
                Self::unlocked(beside)
            }
            Made::Again | Made::Taken => Err(io::Error::from_raw_os_error(libc::EEXIST)),
        }
    }

    /// Makes a slot as if in a lock domain of its own, where folders cannot be locked. Nobody takes it for an orphan; a sweep
    /// may, by its age.
    fn unlocked(beside: Beside) -> io::Result<Slot> {
        let exists = || io::Error::from_raw_os_error(libc::EEXIST);
        let name = name::name(Kind::Porch, Some(sys::random()?), beside.destination);
        let Made::Slot(fd) = make(beside, None, &name).and_then(|made| match made {
            Made::Unlockable => {
                let fd = sys::open_folder(beside.dir, &name)?;
                let (_, ours) = beside.claim(fd.as_fd(), sys::stat_fd(fd.as_fd())?)?;
                Ok(if ours { Made::Slot(fd) } else { Made::Taken })
            }
            made => Ok(made),
        })?
        else {
            return Err(exists());
        };
        Ok(Slot::new(None, name, fd))
    }

    /// Where it is, from the folder that it is made in.
    pub(crate) fn path(&self) -> PathBuf {
        match &self.room {
            Some((room, _)) => Path::new(room).join(&self.name),
            None => self.name.clone().into(),
        }
    }

    /// Gives the slot back, with what is still in it, and removes the orphans of this destination. An error leaves an orphan.
    pub(crate) fn give_back(self, beside: Beside, checkpoint: Checkpoint) -> io::Result<()> {
        let place = self.path();
        let Self { room, name, fd, lock_taken } = self;
        let inside = room.as_ref().map(|(_, room)| room.as_fd());
        let removed = remove(beside, inside, &name, fd.as_fd(), lock_taken, checkpoint);
        drop(fd);
        let removed = removed.map_err(|error| stays(beside, &place, error)).and_then(|pinned| {
            let Some(version) = pinned else { return Ok(()) };
            let free = is_free(&version)?;
            // Its lock goes before the next look.
            drop(version);
            if free { reclaim(beside, inside, &name, checkpoint)?.named(beside, &place) } else { Ok(()) }
        });
        let inside = room.is_some();
        let others = remove_others(beside, inside, checkpoint);
        removed.and(others).and(if lock_taken { Ok(()) } else { remove_orphan_lock(beside) })
    }
}

/// Makes and locks a slot. Until it is locked it looks like an orphan, and may be removed or used by others: it is looked
/// into, although this process has made it.
fn make(beside: Beside, room: Option<BorrowedFd>, name: &OsStr) -> io::Result<Made> {
    let at = room.unwrap_or(beside.dir);
    // What cannot be opened could not be locked, and so not be removed either: whether there is a descriptor left is found
    // out before the slot is made.
    drop(sys::duplicate(at, 3)?);
    match sys::mkdir(at, name, beside.mode()?) {
        Ok(true) => {}
        Ok(false) => {
            let found = reclaim(beside, room, name, &mut checkpoint::go_on)?;
            return Ok(if found.is_gone() { Made::Again } else { Made::Taken });
        }
        // The room was removed by the last who left it.
        Err(error) if room.is_some() && is_change(&error) => return Ok(Made::Again),
        Err(error) => return Err(error),
    }
    let locked = || -> io::Result<Made> {
        let fd = sys::open_folder(at, name)?;
        match sys::lock(fd.as_fd(), false)? {
            Lock::Held => {}
            Lock::Taken => return Ok(Made::Again),
            Lock::Unsupported => return Ok(Made::Unlockable),
        }
        let stat = sys::stat_fd(fd.as_fd())?;
        if !is_named(at, name, &stat)? || !is_empty(fd.as_fd())? {
            return Ok(Made::Again);
        }
        let (_, ours) = beside.claim(fd.as_fd(), stat)?;
        Ok(if ours { Made::Slot(fd) } else { Made::Taken })
    };
    match locked() {
        Err(error) if is_change(&error) => Ok(Made::Again),
        Err(error) => {
            // What this process could not lock is another's by now, or an orphan: the next look tells.
            drop(reclaim(beside, room, name, &mut checkpoint::go_on));
            Err(error)
        }
        made => made,
    }
}

/// Removes a slot that this process holds locked, with what is in it. Answers the version in it that is pinned, if one is:
/// then it stays, for the last reader or the next writer. What has held the publish lock has something in it.
fn remove(
    beside: Beside,
    room: Option<BorrowedFd>,
    name: &OsStr,
    slot: BorrowedFd,
    full_by_now: bool,
    checkpoint: Checkpoint,
) -> io::Result<Option<OwnedFd>> {
    if full_by_now {
        if let Cleared::Pinned(version) = clear(beside, slot, checkpoint)? {
            return Ok(Some(version));
        }
    }
    let full = |error: &io::Error| matches!(errno(error), libc::ENOTEMPTY | libc::EEXIST);
    let mut pauses = 0;
    loop {
        match sys::rmdir(room.unwrap_or(beside.dir), name) {
            Err(error) if full(&error) && pauses < MAX_PAUSES => {}
            Err(error) if is_change(&error) => return Ok(None),
            other => return other.map(|()| None),
        }
        if pauses > 0 {
            sys::sleep(Duration::from_millis(1));
        }
        pauses += 1;
        if let Cleared::Pinned(version) = clear(beside, slot, checkpoint)? {
            return Ok(Some(version));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "x";

    struct Home {
        folder: tempfile::TempDir,
        dir: OwnedFd,
        known: Known,
    }

    impl Home {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let dir = sys::open_folder(sys::CWD, folder.path().as_os_str()).unwrap();
            Self { folder, dir, known: Known::default() }
        }

        fn beside(&self) -> Beside<'_> {
            Beside { dir: self.dir.as_fd(), destination: OsStr::new(NAME), known: &self.known }
        }

        fn take(&self) -> Slot {
            Slot::take(self.beside()).unwrap()
        }

        fn give_back(&self, slot: Slot) {
            slot.give_back(self.beside(), &mut checkpoint::go_on).unwrap();
        }

        fn names(&self) -> Vec<OsString> {
            std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect()
        }
    }

    #[test]
    fn the_first_writer_has_the_porch_and_the_others_have_the_room() {
        let home = Home::new();
        let (first, second, third) = (home.take(), home.take(), home.take());
        assert_eq!(first.path(), Path::new(".atomik-0.x~"));
        let room = format!(".atomik-u{}.x~", home.known.user.id());
        assert!(second.path().starts_with(&room) && third.path().starts_with(&room));
        for slot in [third, first, second] {
            home.give_back(slot);
        }
        assert_eq!(home.names(), [""; 0]);
    }

    #[test]
    fn where_others_have_the_names_of_porch_and_room_a_slot_has_a_name_that_a_sweep_knows() {
        let home = Home::new();
        let room = format!(".atomik-u{}.x~", home.known.user.id());
        for name in [".atomik-0.x~", room.as_str()] {
            std::os::unix::fs::symlink("nowhere", home.folder.path().join(name)).unwrap();
        }
        let spare = home.take();
        assert!(matches!(parse(spare.path().as_os_str()).unwrap().kind, Kind::Spare(_)));
        drop(spare);
        assert_eq!(crate::Sweep::new().run(home.folder.path()).unwrap().len(), 1);
        assert_eq!(home.names().len(), 2);
    }

    #[test]
    fn a_living_slot_is_left_and_orphans_are_removed() {
        let home = Home::new();
        let slots = [home.take(), home.take(), home.take()];
        let paths = slots.each_ref().map(|slot| home.folder.path().join(slot.path()));
        for path in &paths {
            std::fs::write(path.join("litter"), "").unwrap();
        }
        // Its lock goes with the process; nothing else is done for it.
        let [first, second, third] = slots;
        drop((first, second));
        home.give_back(home.take());
        assert!(!paths[0].exists() && !paths[1].exists() && paths[2].join("litter").exists());
        home.give_back(third);
        assert_eq!(home.names(), [""; 0]);
    }
}

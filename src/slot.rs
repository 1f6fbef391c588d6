//! Slots: names of the library that hold staging, and after an exchange the displaced version.
//!
//! The first writer to a destination has the slot `.atomik-0.NAME~`, the porch. A writer that finds the porch taken
//! makes a slot with a random name in the room, the folder `.atomik-uUID.NAME~/`, of which each user has one. The
//! process that holds the lock of a slot owns it. A slot whose lock is free is an orphan, and the next writer removes
//! it. No writer ever waits for a slot.
//!
//! ```text
//!     mkdir, open, flock, statx, getdents64           the body                rename, or exchange
//!  ───────────────────────────────────────▶ staging ──────────▶ complete ──────────────────────▶ displaced, or empty
//!     anything unexpected: start over                                                                    │ empty, rmdir
//!                                                                                                        ▼
//!     death at any of these points leaves an orphan; pinned by a reader: left to that reader           gone
//! ```
//!
//! A step starts over if a name is gone, locked, or leads to another inode than expected. Nothing is removed by name
//! unless this process holds its lock. Three removals need no lock: `rmdir` removes a room only if it is empty, a sweep
//! removes old slots of other lock domains, and where nothing can be locked a process removes the slots that it has
//! made.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::checkpoint::{self, Checkpoint};
use crate::sys::{self, Lock};

mod beside;
mod displaced;
mod domain;
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
mod sweep;

pub(crate) use beside::{Beside, Known};
pub(crate) use displaced::{is_displaced, is_removed};
pub use domain::LockReach;
pub(crate) use domain::learn;
pub(crate) use linked::Linked;
pub(crate) use lock::{PublishLock, remove_orphan_lock};
pub(crate) use mark::{complete, mark};
pub(crate) use name::{Kind, is_ours, is_reserved, parse, scratch};
use observe::is_empty;
pub(crate) use observe::{is_change, list};
use orphans::remove_others;
pub(crate) use orphans::{complete_backups, remove_displaced, remove_orphans};
pub(crate) use patience::Patience;
use patience::rounds;
use reclaim::{Contents, is_unpinned, leftover, reclaim, remove_slot};
pub(crate) use sweep::{SweepTerms, Swept, sweep_name};

/// A folder slot that this process owns.
#[derive(Debug)]
pub(crate) struct Slot {
    /// The room that holds the slot; `None` for a slot beside the destination.
    room: Option<(OsString, OwnedFd)>,
    name: OsString,
    pub(crate) fd: OwnedFd,
    /// Has its owner held the publish lock in the slot's folder? Then no killed writer's lock is left there.
    pub(crate) lock_taken: bool,
}

impl Slot {
    fn new(room: Option<(OsString, OwnedFd)>, name: OsString, fd: OwnedFd) -> Self {
        Self { room, name, fd, lock_taken: false }
    }
}

/// The result of making a slot under one name.
enum Made {
    Slot(OwnedFd),
    /// Another process has removed, locked or filled the slot meanwhile.
    StartOver,
    /// The name belongs to a slot that is alive or pinned, or to something that this user may not remove.
    Taken,
    /// The slot is made, and this filesystem cannot lock it.
    Unlockable,
}

impl Slot {
    /// Makes a slot: the porch, or a slot in the room if the porch is taken. An orphan in its place is removed first.
    pub(crate) fn take(beside: Beside) -> io::Result<Slot> {
        let mut patience = Patience::default();
        loop {
            match Self::take_once(beside) {
                Err(error) if patience.again(beside, &error) => {}
                slot => return slot,
            }
        }
    }

    /// Makes a slot as [`take`](Self::take) does, but fails on each odd answer of the filesystem.
    fn take_once(beside: Beside) -> io::Result<Slot> {
        let porch = beside.porch();
        for _ in rounds(beside) {
            match make_and_lock(beside, None, &porch)? {
                Made::Slot(fd) => return Ok(Slot::new(None, porch, fd)),
                Made::StartOver => continue,
                Made::Unlockable => {
                    // No other process can lock the folder either, so it still belongs to this one.
                    sys::rmdir(beside.dir, &porch)?;
                    return Self::take_unlocked(beside);
                }
                Made::Taken => {}
            }
            // This may fail, so it comes before there is a room that would be left.
            let name = name::in_room(sys::random()?);
            let Some(room) = room::open_or_make(beside)? else { return Self::take_spare(beside) };
            let made = make_and_lock(beside, Some(room.1.as_fd()), &name);
            match made {
                Ok(Made::Slot(fd)) => return Ok(Slot::new(Some(room), name, fd)),
                Ok(Made::StartOver | Made::Taken) => continue,
                Ok(Made::Unlockable) => sys::rmdir(room.1.as_fd(), &name)?,
                Err(_) => {}
            }
            // If the room stays, the next writer removes it.
            drop(room::remove(beside, &mut checkpoint::go_on));
            return made.and_then(|_| Self::take_unlocked(beside));
        }
        Self::take_spare(beside)
    }

    /// Makes a slot with a random name beside the destination, where something else has the names of porch and room.
    /// The next writer does not look there. A sweep removes the slot, or the last reader of a version in it.
    fn take_spare(beside: Beside) -> io::Result<Slot> {
        let name = beside.name(Kind::Spare(sys::random()?));
        match make_and_lock(beside, None, &name)? {
            Made::Slot(fd) => Ok(Slot::new(None, name, fd)),
            Made::Unlockable => {
                sys::rmdir(beside.dir, &name)?;
                Self::take_unlocked(beside)
            }
            Made::StartOver | Made::Taken => Err(io::Error::from_raw_os_error(libc::EEXIST)),
        }
    }

    /// Makes a slot in a random lock domain, where folders cannot be locked. No writer takes it for an orphan; a sweep
    /// may, by its age.
    fn take_unlocked(beside: Beside) -> io::Result<Slot> {
        let exists = || io::Error::from_raw_os_error(libc::EEXIST);
        let name = name::name(Kind::Porch, Some(sys::random()?), beside.destination);
        let Made::Slot(fd) = make_and_lock(beside, None, &name).and_then(|made| match made {
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

    /// Its path from the folder that holds porch and room.
    pub(crate) fn path(&self) -> PathBuf {
        match &self.room {
            Some((room, _)) => Path::new(room).join(&self.name),
            None => self.name.clone().into(),
        }
    }

    /// Removes the slot with everything in it, and then the orphans of this destination. An error leaves an orphan.
    /// Answers the descriptor of a slot that is gone, if it may be closed later, together with others.
    pub(crate) fn give_back(self, beside: Beside, checkpoint: Checkpoint) -> io::Result<Option<OwnedFd>> {
        let place = self.path();
        let Self { room, name, fd, lock_taken } = self;
        let (in_room, room) = (room.is_some(), room.as_ref().map(|(_, room)| room.as_fd()));
        let removed = remove_slot(beside, room.unwrap_or(beside.dir), &name, fd.as_fd(), lock_taken, checkpoint);
        // CIFS keeps the name of what is open, and the room with it.
        let fd = Some(fd).filter(|_| matches!(removed, Ok(Contents::Removed)) && beside.domain().is_none());
        let again = match removed {
            Ok(Contents::Removed) => Ok(false),
            Ok(Contents::Pinned(version)) => is_unpinned(&version),
            // FUSE says so of what is there, too.
            Err(error) if is_change(&error) => Ok(true),
            Err(error) => Err(leftover(beside, &place, error)),
        };
        let removed = again.and_then(|again| {
            if again { reclaim(beside, room, &name, checkpoint)?.into_result(beside, &place) } else { Ok(()) }
        });
        let others = remove_others(beside, in_room, checkpoint);
        removed.and(others).and(if lock_taken { Ok(()) } else { remove_orphan_lock(beside) }).map(|()| fd)
    }
}

/// Makes and locks a slot. Until it is locked it looks like an orphan, and other processes may remove or use it. So it
/// is checked to be empty although this process has made it. An orphan that has the name is removed.
fn make_and_lock(beside: Beside, room: Option<BorrowedFd>, name: &OsStr) -> io::Result<Made> {
    let at = room.unwrap_or(beside.dir);
    // Without a free descriptor the slot could be made, but neither locked nor removed. So that is tried first.
    sys::has_descriptor_left()?;
    match sys::mkdir(at, name, beside.mode()?) {
        Ok(true) => {}
        Ok(false) => {
            let found = reclaim(beside, room, name, &mut checkpoint::go_on)?;
            return Ok(if found.is_gone() { Made::StartOver } else { Made::Taken });
        }
        // The last writer that left the room has removed it.
        Err(error) if room.is_some() && is_change(&error) => return Ok(Made::StartOver),
        Err(error) => return Err(error),
    }
    let locked = || -> io::Result<Made> {
        let fd = sys::open_folder(at, name)?;
        match sys::lock(fd.as_fd(), false)? {
            Lock::Held => {}
            Lock::Taken => return Ok(Made::StartOver),
            Lock::Unsupported => return Ok(Made::Unlockable),
        }
        let stat = sys::stat_fd(fd.as_fd())?;
        if !beside.still_names(at, name, &stat)? || !is_empty(fd.as_fd())? {
            return Ok(Made::StartOver);
        }
        let (_, ours) = beside.claim(fd.as_fd(), stat)?;
        Ok(if ours { Made::Slot(fd) } else { Made::Taken })
    };
    match locked() {
        Err(error) if is_change(&error) => Ok(Made::StartOver),
        Err(error) => {
            // The slot could not be locked. It is an orphan, unless another process has taken it by now.
            drop(reclaim(beside, room, name, &mut checkpoint::go_on));
            Err(error)
        }
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;
    use crate::faults::{Fault, inject};

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
    fn of_two_writers_killed_before_their_backups_were_named_the_later_one_gives_the_backup() {
        let home = Home::new();
        let at = |name: &str| home.folder.path().join(name);
        std::fs::write(at(NAME), "first").unwrap();
        let slots = [home.take(), home.take()];
        for (slot, content) in slots.iter().zip(["second", "third"]) {
            std::fs::write(at(NAME).with_file_name(slot.path()).join(NAME), content).unwrap();
            let _lock = PublishLock::take(home.beside()).unwrap().unwrap();
            complete_backups(home.beside()).unwrap();
            mark(slot.fd.as_fd(), home.beside(), OsStr::new("backup")).unwrap();
            sys::renameat2(slot.fd.as_fd(), OsStr::new(NAME), home.dir.as_fd(), OsStr::new(NAME), sys::EXCHANGE)
                .unwrap();
        }
        drop(slots);
        home.give_back(home.take());
        let read = |name: &str| std::fs::read_to_string(at(name)).unwrap();
        assert_eq!((read(NAME).as_str(), read("backup").as_str()), ("third", "second"));
        assert_eq!(home.names().len(), 2);
    }

    /// FUSE keeps the names of files that are still open, and says of what is there that it is gone. rclone answers `EIO` of a
    /// file that it uploads, and of the folder that the file was in.
    #[test]
    fn slots_that_are_full_or_gone_for_a_moment_are_removed() {
        let scene = |domain, faults: &[Fault]| {
            let home = Home::new();
            home.known.domain.set(domain).unwrap();
            let slot = home.take();
            std::fs::write(home.folder.path().join(slot.path()).join("file"), "").unwrap();
            // A killed writer leaves its slot in the room.
            drop(home.take());
            let (given_back, calls) = inject(faults, || slot.give_back(home.beside(), &mut checkpoint::go_on));
            let left = given_back.unwrap().err();
            assert_eq!(home.names().is_empty(), left.is_none(), "{faults:?}: {left:?}");
            (left.is_none(), calls)
        };
        for (domain, odd) in [(None, false), (Some(1), true)] {
            let (_, calls) = scene(domain, &[]);
            let made = |name: &str| (0..calls.len()).filter(|number| calls[*number].name == name).collect::<Vec<_>>();
            let [_full, own, _full_room, orphan, _empty_room] = made("rmdir")[..] else { panic!("{calls:?}") };
            let [file] = made("unlinkat")[..] else { panic!("{calls:?}") };
            let cases = [own, orphan].map(|number| [(number, Errno::ENOTEMPTY, true), (number, Errno::ENOENT, true)]);
            let refused = [own, orphan, file].map(|number| (number, Errno::EIO, odd));
            for (number, errno, expected) in cases.into_iter().flatten().chain(refused) {
                let (gone, _) = scene(domain, &[Fault::At(number, errno)]);
                assert_eq!(gone, expected, "{errno} of {} {number}, domain {domain:?}", calls[number].name);
            }
        }
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
        // A killed process leaves its slots like this: unlocked, and otherwise as they were.
        let [first, second, third] = slots;
        drop((first, second));
        home.give_back(home.take());
        assert!(!paths[0].exists() && !paths[1].exists() && paths[2].join("litter").exists());
        home.give_back(third);
        assert_eq!(home.names(), [""; 0]);
    }
}

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
use std::sync::OnceLock;
use std::time::Duration;

use crate::sys::{self, Lock, Stat, User, errno};
use crate::tree::{self, Checkpoint};

mod displaced;
mod domain;
mod inspect;
mod name;
mod owner;
mod reclaim;
mod room;

pub(crate) use displaced::{is_displaced, is_removed};
pub use domain::LockReach;
pub(crate) use inspect::{Inspected, Terms, inspect_all};
pub(crate) use name::{Kind, RESERVED, is_ours, is_reserved, parse, scratch};
use reclaim::{Cleared, Found, clear, is_empty, is_free, is_named, reclaim, stays};
pub(crate) use reclaim::{is_change, list};

/// How often a step is started over, each time since another process was faster; and after how many rounds each begins with
/// a pause, since FUSE may repeat a stale answer.
const MAX_ROUNDS: u32 = 1_000;
const EAGER_ROUNDS: u32 = 100;

/// The rounds of a step.
fn rounds(beside: Beside) -> impl Iterator<Item = u32> {
    (0..MAX_ROUNDS).inspect(move |round| {
        if *round >= EAGER_ROUNDS && beside.domain().is_some() {
            sys::sleep(Duration::from_millis(1));
        }
    })
}

/// FUSE and NFS keep an unlinked file that was open under a hidden name until the server hears, a moment later, that it was
/// closed: how often, a millisecond apart, a slot is tried.
const MAX_PAUSES: u32 = 50;

/// How often a step is repeated that a filesystem of another lock domain has failed oddly. A copy of a folder that others
/// replace all the time needs a moment without them: the pauses grow from 1 to 64 milliseconds, 0.6 seconds in all.
const MAX_ODD: u32 = 50;
/// After so many odd answers the pauses are twice as long.
const ODD_UNTIL_LONGER: u32 = 8;

/// Counts the odd answers in one step. FUSE and network filesystems say `ENOENT`, `ESTALE` or `ENOTDIR` of what is there
/// while other processes or machines work in the same folder (seen on bindfs, sshfs and mergerfs), NFS `ETXTBSY` of a rename.
#[derive(Default)]
pub(crate) struct Patience(u32);

impl Patience {
    /// Is the step to be repeated after this error? Pauses if so.
    pub(crate) fn again(&mut self, beside: Beside, error: &io::Error) -> bool {
        let odd = is_change(error) || errno(error) == libc::ETXTBSY;
        let odd = odd && self.0 < MAX_ODD && beside.domain().is_some();
        if odd {
            sys::sleep(Duration::from_millis(1 << (self.0 / ODD_UNTIL_LONGER)));
            self.0 += 1;
        }
        odd
    }
}

/// Where the slots of a destination are, and whose.
#[derive(Clone, Copy)]
pub(crate) struct Beside<'a> {
    pub(crate) dir: BorrowedFd<'a>,
    pub(crate) destination: &'a OsStr,
    pub(crate) known: &'a Known,
}

/// What is known of a folder, once it has been asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// Whose slots are ours.
    pub(crate) user: User,
    /// What the folder is like.
    pub(crate) folder: OnceLock<Stat>,
    domain: OnceLock<Option<u64>>,
    /// Its mount, by the number that no later mount gets, where nobody has looked at the folder.
    mount: OnceLock<u64>,
    /// What is made here by this process shows, where that is not what was asked for.
    fresh: OnceLock<owner::Fresh>,
}

impl Known {
    /// The same for another folder of the same mount.
    pub(crate) fn on_the_same_mount(&self) -> Self {
        Self { folder: OnceLock::new(), ..self.clone() }
    }
}

impl Beside<'_> {
    /// What the folder is like.
    pub(crate) fn look(&self) -> io::Result<Stat> {
        if let Some(folder) = self.known.folder.get() {
            return Ok(*folder);
        }
        let folder = sys::stat_fd(self.dir)?;
        Ok(*self.known.folder.get_or_init(|| folder))
    }

    /// The lock domain of the folder; `None` where locks are seen by all.
    pub(crate) fn domain(&self) -> Option<u64> {
        *self.known.domain.get_or_init(|| domain::of(*self))
    }

    /// The name of this kind, in the lock domain of the folder.
    pub(crate) fn name(&self, kind: Kind) -> OsString {
        name::name(kind, self.domain(), self.destination)
    }

    fn porch(&self) -> OsString {
        self.name(Kind::Porch)
    }
}

/// Notes what a file tells that this process has just made in the folder.
pub(crate) fn learn(beside: Beside, file: &Stat) {
    if file.mount_is_unique {
        beside.known.mount.get_or_init(|| file.mount);
    }
    // A server may make owners up.
    if beside.domain().is_none() {
        beside.known.user.know(file.uid);
    }
}

/// Chance for a name that nobody else chooses.
fn random() -> io::Result<u64> {
    sys::random()
}

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
            let name = name::in_room(random()?);
            let Some(room) = room::enter(beside)? else { return Self::spare(beside) };
            let made = make(beside, Some(room.1.as_fd()), &name);
            match made {
                Ok(Made::Slot(fd)) => return Ok(Slot::new(Some(room), name, fd)),
                Ok(Made::Again | Made::Taken) => continue,
                Ok(Made::Unlockable) => sys::rmdir(room.1.as_fd(), &name)?,
                Err(_) => {}
            }
            // If the room stays, the next writer removes it.
            drop(room::leave(beside, &mut tree::go_on));
            return made.and_then(|_| Self::unlocked(beside));
        }
        Self::spare(beside)
    }

    /// Makes a slot under a random name, where something else has the names of porch and room. The next writer does not look
    /// there; a sweep does, and the last reader of a version in it.
    fn spare(beside: Beside) -> io::Result<Slot> {
        let name = beside.name(Kind::Spare(random()?));
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
        let name = name::name(Kind::Porch, Some(random()?), beside.destination);
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
            let found = reclaim(beside, room, name, &mut tree::go_on)?;
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
            drop(reclaim(beside, room, name, &mut tree::go_on));
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

/// Removes the orphans in the porch and in the room, for one whose own slot was `inside` the room or was the porch.
fn remove_others(beside: Beside, inside: bool, checkpoint: Checkpoint) -> io::Result<()> {
    if !inside {
        return room::tidy(beside, checkpoint).map(drop);
    }
    let left = room::leave(beside, checkpoint);
    let porch = beside.porch();
    left.and(reclaim(beside, None, &porch, checkpoint)?.named(beside, &porch))
}

/// Removes the orphans of a destination: what a publish does after it that needed no slot, and a reader whose version may
/// have been displaced.
pub(crate) fn remove_orphans(beside: Beside, checkpoint: Checkpoint) -> io::Result<()> {
    let name = beside.porch();
    let porch = reclaim(beside, None, &name, checkpoint)?;
    let nothing = matches!(porch, Found::Missing);
    let room = room::tidy(beside, checkpoint);
    if nothing && matches!(room, Ok(false)) {
        return Ok(());
    }
    // A writer holds the publish lock only while it has a slot here: where no slot was, no name of a lock was left.
    porch.named(beside, &name).and(room.map(drop)).and(remove_orphan_lock(beside))
}

/// Removes a displaced version that its reader has let go of, with the slot that it is in: of whatever destination, since a
/// group has one slot for many.
pub(crate) fn remove_displaced(version: OwnedFd, checkpoint: Checkpoint) -> io::Result<()> {
    let path = PathBuf::from(sys::path_now(version.as_fd())?);
    drop(version);
    let Some(slot) = path.parent() else { return Ok(()) };
    let parsed = |path: &Path| path.file_name().and_then(parse);
    let is_porch = parsed(slot).is_some_and(|parsed| matches!(parsed.kind, Kind::Porch | Kind::Spare(_)));
    let place = if is_porch { Some(slot) } else { slot.parent() };
    let (Some(place), Some(name)) = (place, slot.file_name()) else { return Ok(()) };
    let (Some(parsed), Some(folder)) = (parsed(place), place.parent()) else { return Ok(()) };
    let (dir, _) = sys::open_parent(sys::CWD, folder.as_os_str(), false)?;
    let beside = Beside { dir: dir.as_fd(), destination: &parsed.destination, known: &Known::default() };
    if parsed.domain != beside.domain() {
        return Ok(());
    }
    let removed = if is_porch {
        reclaim(beside, None, name, checkpoint)?.named(beside, name)
    } else {
        // The whole room is looked at, as by a writer that leaves it.
        room::leave(beside, checkpoint)
    };
    removed.and(remove_orphan_lock(beside))
}

/// Removes the publish lock that a killed writer has left.
pub(crate) fn remove_orphan_lock(beside: Beside) -> io::Result<()> {
    reclaim::remove_orphan_lock(beside, &beside.name(Kind::Lock))
}

/// A file's name in a slot, for the moment before it is renamed.
#[derive(Debug)]
pub(crate) struct Linked {
    room: Option<OwnedFd>,
    pub(crate) name: OsString,
}

impl Linked {
    /// Gives a locked unnamed file the name of the porch, or a name in the room if the porch is taken.
    pub(crate) fn link(file: BorrowedFd, beside: Beside) -> io::Result<Linked> {
        let porch = beside.porch();
        for _ in rounds(beside) {
            match sys::link_fd(file, beside.dir, &porch) {
                Ok(()) => return Ok(Linked { room: None, name: porch }),
                Err(error) if errno(&error) == libc::EEXIST => {}
                Err(error) => return Err(error),
            }
            if reclaim(beside, None, &porch, &mut tree::go_on)?.is_gone() {
                continue;
            }
            // Before there is a room that would be left if this failed.
            let in_room = name::in_room(random()?);
            let Some((room_name, room)) = room::enter(beside)? else { return Self::spare(file, beside) };
            match sys::link_fd(file, room.as_fd(), &in_room) {
                Ok(()) => return Ok(Linked { room: Some(room), name: in_room }),
                Err(error) if errno(&error) == libc::EEXIST => {}
                // The room was removed by the last who left it; where it was not, the file cannot be linked.
                Err(error) if is_change(&error) && !room::is_there(beside, &room_name, room.as_fd())? => {}
                Err(error) => {
                    // The error is what matters; the next writer removes a room that stays.
                    drop(room::leave(beside, &mut tree::go_on));
                    // A sandbox that forbids other folders (Landlock) leaves names beside the destination.
                    return if errno(&error) == libc::EXDEV { Self::spare(file, beside) } else { Err(error) };
                }
            }
        }
        Err(io::Error::from_raw_os_error(libc::EBUSY))
    }

    /// Links under a random name beside the destination.
    fn spare(file: BorrowedFd, beside: Beside) -> io::Result<Linked> {
        let name = beside.name(Kind::Spare(random()?));
        sys::link_fd(file, beside.dir, &name)?;
        Ok(Linked { room: None, name })
    }

    /// The folder that the name is in.
    pub(crate) fn dir<'a>(&'a self, beside: Beside<'a>) -> BorrowedFd<'a> {
        self.room.as_ref().map_or(beside.dir, AsFd::as_fd)
    }

    /// After the name is gone: removes the orphans of this destination.
    pub(crate) fn give_back(self, beside: Beside, checkpoint: Checkpoint) -> io::Result<()> {
        remove_others(beside, self.room.is_some(), checkpoint).and(remove_orphan_lock(beside))
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
            slot.give_back(self.beside(), &mut tree::go_on).unwrap();
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

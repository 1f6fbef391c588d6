//! Finds the orphans under one name for a sweep, and removes them unless it is a dry run.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::beside::Beside;
use super::lock::remove_orphan_lock_named;
use super::name::{Kind, Parsed};
use super::observe::{is_change, is_empty, list, stat_opened};
use super::reclaim::{Contents, reclaim, remove_contents};
use crate::checkpoint::Checkpoint;
use crate::sys::{self, Lock, Stat};
use crate::tree;

/// An orphan that was found.
pub(crate) struct Swept {
    /// Its path from the folder that is swept.
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) files: u64,
    pub(crate) changed: SystemTime,
    pub(crate) removed: bool,
}

/// The options of a sweep.
#[derive(Clone, Copy)]
pub(crate) struct SweepTerms {
    pub(crate) dry_run: bool,
    /// The age from which on slots are orphans whose lock tells nothing: slots of another lock domain, or without
    /// locks.
    pub(crate) older_than: Option<Duration>,
}

impl SweepTerms {
    fn is_old(&self, stat: &Stat) -> bool {
        let age = SystemTime::now().duration_since(stat.modified()).unwrap_or_default();
        self.older_than.is_some_and(|limit| age >= limit)
    }
}

/// The sweep of one name.
struct NameSweep<'a> {
    beside: Beside<'a>,
    terms: SweepTerms,
    kind: Kind,
    /// Is the name of another lock domain?
    foreign: bool,
}

/// Finds and removes the orphans under one name. A name that vanishes meanwhile is no error.
pub(crate) fn sweep_name(
    beside: Beside,
    name: &OsStr,
    parsed: &Parsed,
    terms: SweepTerms,
    checkpoint: Checkpoint,
) -> io::Result<Vec<Swept>> {
    let foreign = parsed.domain != beside.domain();
    let sweep = NameSweep { beside, terms, kind: parsed.kind, foreign };
    let found = match parsed.kind {
        Kind::Room(user) if user != beside.known.user.id() => Ok(Vec::new()),
        Kind::Room(_) => sweep.sweep_room(name, checkpoint),
        _ => sweep.sweep_slot(None, name, checkpoint).map(|found| found.into_iter().collect()),
    };
    match found {
        Err(error) if is_change(&error) => Ok(Vec::new()),
        other => other,
    }
}

impl NameSweep<'_> {
    fn sweep_room(&self, name: &OsStr, checkpoint: Checkpoint) -> io::Result<Vec<Swept>> {
        let Some((room, stat)) = self.open_own(self.beside.dir, name)? else { return Ok(Vec::new()) };
        if !self.beside.recognizes(room.as_fd(), || self.beside.is_own_folder(&stat))? {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for entry in list(room.as_fd())? {
            let Some(one) = self.sweep_slot(Some(room.as_fd()), &entry.name, checkpoint)? else { continue };
            found.push(Swept { path: Path::new(name).join(one.path), ..one });
        }
        // An empty room is removed even if a writer is about to use it: that writer makes it again.
        let empty = !self.terms.dry_run && sys::rmdir(self.beside.dir, name).is_ok()
            || self.terms.dry_run && is_empty(room.as_fd())?;
        if empty && found.is_empty() {
            let (bytes, removed) = (stat.allocated, !self.terms.dry_run);
            found.push(Swept { path: name.into(), bytes, files: 0, changed: stat.modified(), removed });
        }
        Ok(found)
    }

    fn sweep_slot(&self, room: Option<BorrowedFd>, name: &OsStr, checkpoint: Checkpoint) -> io::Result<Option<Swept>> {
        let at = room.unwrap_or(self.beside.dir);
        let Some((fd, stat)) = self.open_own(at, name)? else { return Ok(None) };
        let slot = || self.beside.is_own_folder(&stat);
        if stat.is_folder() && !self.beside.recognizes(fd.as_fd(), slot)? && !is_empty(fd.as_fd())? {
            return Ok(None);
        }
        let lock = sys::lock(fd.as_fd(), false)?;
        let by_age = self.foreign || lock == Lock::Unsupported;
        if lock == Lock::Taken || by_age && !self.terms.is_old(&stat) {
            return Ok(None);
        }
        if !self.beside.is_locked_by_name(at, name, fd.as_fd(), &stat)? {
            return Ok(None);
        }
        let orphan = measure(&fd, &stat, checkpoint)?;
        // This lets go of the lock. The removal takes it again, and checks again whether a version is pinned.
        drop(fd);
        let removed = !self.terms.dry_run && self.remove(room, name, by_age, checkpoint)?;
        Ok(orphan.map(|(bytes, files)| Swept { path: name.into(), bytes, files, changed: stat.modified(), removed }))
    }

    /// Opens a file or folder that may be a slot of this user.
    fn open_own(&self, at: BorrowedFd, name: &OsStr) -> io::Result<Option<(OwnedFd, Stat)>> {
        let Ok(fd) = sys::open_any(at, name) else { return Ok(None) };
        let Some(stat) = stat_opened(fd.as_fd())? else { return Ok(None) };
        if stat.mount_root || !matches!(stat.kind(), libc::S_IFREG | libc::S_IFDIR) {
            return Ok(None);
        }
        // Root, too, sweeps only its own orphans: a user's next writer removes that user's.
        let owns = || Ok(self.beside.owns(&stat));
        let ours = if stat.is_folder() { self.beside.recognizes(fd.as_fd(), owns)? } else { owns()? };
        Ok(ours.then_some((fd, stat)))
    }

    fn remove(&self, room: Option<BorrowedFd>, name: &OsStr, by_age: bool, checkpoint: Checkpoint) -> io::Result<bool> {
        let at = room.unwrap_or(self.beside.dir);
        if by_age {
            // An orphan that cannot be removed is reported as not removed.
            return Ok(self.remove_by_age(at, name, checkpoint).is_ok());
        }
        if self.kind == Kind::Lock {
            remove_orphan_lock_named(self.beside, name)?;
            return Ok(sys::stat(at, name)?.is_none());
        }
        Ok(reclaim(self.beside, room, name, checkpoint)?.is_gone())
    }

    fn remove_by_age(&self, at: BorrowedFd, name: &OsStr, checkpoint: Checkpoint) -> io::Result<()> {
        let fd = sys::open_any(at, name)?;
        if !sys::stat_fd(fd.as_fd())?.is_folder() {
            return sys::unlink(at, name);
        }
        match remove_contents(self.beside, fd.as_fd(), checkpoint)? {
            Contents::Removed => sys::rmdir(at, name),
            Contents::Pinned(_) => Err(io::Error::from_raw_os_error(libc::EBUSY)),
        }
    }
}

/// The bytes of an orphan on the disk, and the number of its files; `None` if a version in it is pinned.
fn measure(fd: &OwnedFd, stat: &Stat, checkpoint: Checkpoint) -> io::Result<Option<(u64, u64)>> {
    if !stat.is_folder() {
        return Ok(Some((stat.allocated, 1)));
    }
    if is_pinned(fd.as_fd())? { Ok(None) } else { tree::measure(fd.as_fd(), checkpoint).map(Some) }
}

/// Does a reader hold a version in this slot?
fn is_pinned(slot: BorrowedFd) -> io::Result<bool> {
    for entry in list(slot)? {
        if let Ok(version) = sys::open_folder(slot, &entry.name) {
            if sys::lock(version.as_fd(), false)? == Lock::Taken {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

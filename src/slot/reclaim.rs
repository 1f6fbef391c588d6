//! Removes a slot if it is an orphan: if its lock is free. There is no other test.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::beside::Beside;
use super::mark;
use super::observe::{is_change, is_empty, is_no_slot, list, stat_opened};
use super::patience::rounds;
use crate::checkpoint::Checkpoint;
use crate::error::Stays;
use crate::sys::{self, Lock, Stat, errno};
use crate::tree;

/// The state of a slot's name after [`reclaim`].
pub(super) enum Reclaimed {
    /// Nothing had the name.
    Missing,
    /// It was an orphan, which was removed.
    Removed,
    /// Its lock is held.
    Alive,
    /// It is pinned, another user's, or no slot at all, and was left.
    Kept,
    /// It is an orphan that could not be removed: an entry in it is immutable, or a mount point, or the disk fails.
    /// Each writer that finds it reports it again.
    CannotRemove(io::Error),
}

impl Reclaimed {
    /// Is the name free now?
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Missing | Self::Removed)
    }

    /// Fails if the slot could not be removed. `place` is its path from the folder of the slots.
    pub(super) fn into_result(self, beside: Beside, place: impl AsRef<Path>) -> io::Result<()> {
        if let Self::CannotRemove(error) = self { Err(leftover(beside, place.as_ref(), error)) } else { Ok(()) }
    }
}

/// The error that reports a slot which could not be removed.
pub(super) fn leftover(beside: Beside, place: &Path, error: io::Error) -> io::Error {
    let folder = sys::path_now(beside.dir).map(PathBuf::from).unwrap_or_default();
    Stays { path: folder.join(place), error }.into()
}

/// How often a call is repeated that says that a name, or its folder, is gone.
const MAX_CHANGES: u32 = 10;

/// How often a slot is emptied again, after pauses that grow from 1 to 64 milliseconds, 0.6 seconds in all. FUSE and NFS
/// keep an unlinked file under a hidden name while it is open, and a moment longer, until the server hears that it was
/// closed. The death of a process lets go of the lock of its slot before the server hears of the files in it.
const MAX_PAUSES: u32 = 50;
const PAUSES_PER_DOUBLING: u32 = 8;

/// Removes a slot, beside the destination or in the room, if it is an orphan.
///
/// A slot with a pinned version is left to the reader. The reader lets go of the pin and then looks at the slot. This
/// function lets go of the slot and then looks at the pin. If both happen at the same moment, one of the two sees that
/// the other has let go, and removes the slot.
pub(super) fn reclaim(
    beside: Beside,
    room: Option<BorrowedFd>,
    name: &OsStr,
    checkpoint: Checkpoint,
) -> io::Result<Reclaimed> {
    let mut changes = 0;
    for _ in rounds(beside) {
        match reclaim_once(beside, room, name, checkpoint) {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            Err(error) if is_change(&error) && changes < MAX_CHANGES => changes += 1,
            // mergerfs answers ESTALE for ever for names in a removed room.
            Err(error) if is_change(&error) => return Ok(Reclaimed::Missing),
            Err(error) => return Err(error),
        }
    }
    Ok(Reclaimed::Alive)
}

/// Removes a slot if it is an orphan; `None` if another process has changed it meanwhile.
fn reclaim_once(
    beside: Beside,
    room: Option<BorrowedFd>,
    name: &OsStr,
    checkpoint: Checkpoint,
) -> io::Result<Option<Reclaimed>> {
    let at = room.unwrap_or(beside.dir);
    // Nearly always there is nothing, and looking a name up costs half of an open(2) that fails.
    let there = match sys::stat(at, name) {
        Err(error) if is_no_slot(&error) => return Ok(Some(Reclaimed::Kept)),
        Ok(None) => return Ok(Some(Reclaimed::Missing)),
        Ok(Some(there)) => there,
        Err(error) => return Err(error),
    };
    if there.mount_root || !matches!(there.kind(), libc::S_IFDIR | libc::S_IFREG) {
        return Ok(Some(Reclaimed::Kept));
    }
    let fd = match sys::open_any(at, name) {
        Err(error) if is_change(&error) => return Ok(None),
        Err(error) if is_no_slot(&error) => return Ok(Some(Reclaimed::Kept)),
        other => other?,
    };
    let Some(stat) = stat_opened(fd.as_fd())? else { return Ok(None) };
    // The owner is checked first, since another user's lock says nothing.
    if !is_ours(beside, room, fd.as_fd(), &stat)? {
        return Ok(Some(Reclaimed::Kept));
    }
    match sys::lock(fd.as_fd(), false)? {
        Lock::Taken => return Ok(Some(Reclaimed::Alive)),
        Lock::Unsupported => return Ok(Some(Reclaimed::Kept)),
        Lock::Held if beside.is_locked_by_name(at, name, fd.as_fd(), &stat)? => {}
        Lock::Held => return Ok(None),
    }
    let removed =
        if stat.is_folder() { remove_folder(beside, at, name, fd, &stat, checkpoint) } else { remove_file(at, name) };
    match removed {
        Err(error) if is_change(&error) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
        // This process is short of descriptors or memory: no other slot could be removed either.
        Err(error) if matches!(errno(&error), libc::EMFILE | libc::ENFILE | libc::ENOMEM) => Err(error),
        Err(error) => Ok(Some(Reclaimed::CannotRemove(error))),
        found => found,
    }
}

fn remove_file(at: BorrowedFd, name: &OsStr) -> io::Result<Option<Reclaimed>> {
    sys::unlink(at, name).map(|()| Some(Reclaimed::Removed))
}

/// Is this folder or file a slot of this user? Everything in the user's own room is.
fn is_ours(beside: Beside, room: Option<BorrowedFd>, fd: BorrowedFd, stat: &Stat) -> io::Result<bool> {
    match stat.kind() {
        libc::S_IFDIR => Ok(!stat.mount_root && beside.recognizes(fd, || Ok(beside.owns(stat)))?),
        libc::S_IFREG => Ok(room.is_some() || beside.is_own_file(stat)?),
        _ => Ok(false),
    }
}

/// Removes a folder that this process holds locked; `None` if it must be looked at again.
fn remove_folder(
    beside: Beside,
    at: BorrowedFd,
    name: &OsStr,
    fd: OwnedFd,
    stat: &Stat,
    checkpoint: Checkpoint,
) -> io::Result<Option<Reclaimed>> {
    // A writer killed before it set the sticky bit has left an empty folder. A full folder without that bit is no slot.
    if !beside.recognizes(fd.as_fd(), || beside.is_own_folder(stat))? && !is_empty(fd.as_fd())? {
        return Ok(Some(Reclaimed::Kept));
    }
    match remove_slot(beside, at, name, fd.as_fd(), true, checkpoint)? {
        Contents::Removed => Ok(Some(Reclaimed::Removed)),
        Contents::Pinned(version) => {
            drop(fd);
            let free = is_unpinned(&version)?;
            Ok(if free { None } else { Some(Reclaimed::Kept) })
        }
    }
}

/// Has the reader let go of a version that was pinned?
pub(super) fn is_unpinned(version: &OwnedFd) -> io::Result<bool> {
    Ok(sys::lock(version.as_fd(), false)? != Lock::Taken)
}

/// Removes a slot that this process holds locked, with everything in it. If a version in it is pinned, both stay for
/// the last reader or the next writer. A slot that `has_contents` is emptied before the first `rmdir`.
pub(super) fn remove_slot(
    beside: Beside,
    at: BorrowedFd,
    name: &OsStr,
    slot: BorrowedFd,
    has_contents: bool,
    checkpoint: Checkpoint,
) -> io::Result<Contents> {
    let full = |error: &io::Error| match errno(error) {
        libc::ENOTEMPTY | libc::EEXIST => true,
        // rclone 1.60 says so of a file that it uploads, and of the folder that the file was in.
        libc::EIO => beside.domain().is_some(),
        _ => false,
    };
    let mut pauses = 0;
    loop {
        let emptied =
            if has_contents || pauses > 0 { remove_contents(beside, slot, checkpoint) } else { Ok(Contents::Removed) };
        let removed = match emptied {
            Ok(Contents::Removed) => sys::rmdir(at, name).map(|()| Contents::Removed),
            other => other,
        };
        match removed {
            Err(error) if full(&error) && pauses < MAX_PAUSES => {}
            other => return other,
        }
        if pauses > 0 {
            sys::sleep(Duration::from_millis(1 << (pauses / PAUSES_PER_DOUBLING)));
        }
        pauses += 1;
    }
}

/// The contents of a slot after [`remove_contents`].
pub(super) enum Contents {
    Removed,
    /// This version is pinned, or another process is about to remove it.
    Pinned(OwnedFd),
}

/// Removes everything in a locked slot, except a pinned version. A version that is to be a backup gets its name first.
pub(super) fn remove_contents(beside: Beside, slot: BorrowedFd, checkpoint: Checkpoint) -> io::Result<Contents> {
    let mut entries = list(slot)?;
    if entries.iter().any(|entry| entry.name == mark::MARK) {
        mark::complete_for_killed(beside, slot)?;
        entries = list(slot)?;
    }
    for sys::Entry { name, kind, .. } in &entries {
        if !matches!(*kind, libc::DT_DIR | libc::DT_UNKNOWN) {
            match sys::unlink(slot, name) {
                // FUSE has removed it by itself: it was the hidden name of an unlinked file that was still open.
                Err(error) if is_change(&error) => {}
                other => other?,
            }
            continue;
        }
        match sys::open_folder_same_mount(slot, name) {
            Ok(version) => {
                if sys::lock(version.as_fd(), false)? == Lock::Taken {
                    return Ok(Contents::Pinned(version));
                }
                // The lock is held until the version is removed, so that no reader pins it.
                match tree::remove_below(version.as_fd(), checkpoint) {
                    // Its owner may read, but neither search nor change it.
                    Err(error) if errno(&error) == libc::EACCES => {
                        sys::chmod(version.as_fd(), 0o700)?;
                        tree::remove_below(version.as_fd(), checkpoint)?;
                    }
                    other => other?,
                }
                sys::rmdir(slot, name)?;
            }
            Err(error) if matches!(errno(&error), libc::ENOTDIR | libc::ELOOP) => sys::unlink(slot, name)?,
            // It is a mount point.
            Err(error) if errno(&error) == libc::EXDEV => return Err(error),
            // Its owner may not read it. `remove_below` changes that.
            Err(_) => tree::remove_below(slot, checkpoint)?,
        }
    }
    Ok(Contents::Removed)
}

//! Removes what others have left under a name of ours, if it is an orphan: its lock is free. There is no other test.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::beside::Beside;
use super::mark;
use super::observe::{is_change, is_empty, is_named, is_no_slot, list, stat_opened};
use super::patience::rounds;
use crate::checkpoint::Checkpoint;
use crate::error::Stays;
use crate::sys::{self, Lock, Stat, errno};
use crate::tree;

/// What is under a name of ours, after a look at it.
pub(super) enum Found {
    /// Nothing.
    Missing,
    /// An orphan, which was removed.
    Removed,
    /// Something whose lock is held.
    Alive,
    /// Pinned, another user's, or no slot at all: it is left.
    Kept,
    /// An orphan that could not be removed: something in it is immutable or mounted, or the disk fails. It is named again by
    /// each writer that meets it.
    Resists(io::Error),
}

impl Found {
    /// Is nothing there any more?
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Missing | Self::Removed)
    }

    /// The error that names it and says why, if it resists; `place` is where it is, from the folder of the slots.
    pub(super) fn named(self, beside: Beside, place: impl AsRef<Path>) -> io::Result<()> {
        if let Self::Resists(error) = self { Err(stays(beside, place.as_ref(), error)) } else { Ok(()) }
    }
}

/// The error of what could not be removed, which names it.
pub(super) fn stays(beside: Beside, place: &Path, error: io::Error) -> io::Error {
    let folder = sys::path_now(beside.dir).map(PathBuf::from).unwrap_or_default();
    Stays { path: folder.join(place), error }.into()
}

/// How often an answer is doubted that says that a name, or its folder, is gone.
const MAX_CHANGES: u32 = 10;

/// Looks at what has a name of ours, beside the destination or in the room, and removes it if it is an orphan.
///
/// A version in it that is pinned is left to its reader. The reader lets go of the pin and then looks at the slot; this
/// lets go of the slot and then looks at the pin: of two that cross, one sees that the other has gone, and starts over.
pub(super) fn reclaim(
    beside: Beside,
    room: Option<BorrowedFd>,
    name: &OsStr,
    checkpoint: Checkpoint,
) -> io::Result<Found> {
    let mut changes = 0;
    for _ in rounds(beside) {
        match attempt(beside, room, name, checkpoint) {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            Err(error) if is_change(&error) && changes < MAX_CHANGES => changes += 1,
            // mergerfs says ESTALE for ever of what is in a removed room.
            Err(error) if is_change(&error) => return Ok(Found::Missing),
            Err(error) => return Err(error),
        }
    }
    Ok(Found::Alive)
}

/// One look; `None`: something has changed under it.
fn attempt(
    beside: Beside,
    room: Option<BorrowedFd>,
    name: &OsStr,
    checkpoint: Checkpoint,
) -> io::Result<Option<Found>> {
    let at = room.unwrap_or(beside.dir);
    // Nearly always nothing is there, and looking a name up costs half of failing to open it.
    let there = match sys::stat(at, name) {
        Err(error) if is_no_slot(&error) => return Ok(Some(Found::Kept)),
        Ok(None) => return Ok(Some(Found::Missing)),
        Ok(Some(there)) => there,
        Err(error) => return Err(error),
    };
    if there.mount_root || !matches!(there.kind(), libc::S_IFDIR | libc::S_IFREG) {
        return Ok(Some(Found::Kept));
    }
    let fd = match sys::open_any(at, name) {
        Err(error) if is_change(&error) => return Ok(None),
        Err(error) if is_no_slot(&error) => return Ok(Some(Found::Kept)),
        other => other?,
    };
    let Some(stat) = stat_opened(fd.as_fd())? else { return Ok(None) };
    // Before its lock: what a stranger holds is none of ours, and nobody waits for it.
    if !is_ours(beside, room, fd.as_fd(), &stat)? {
        return Ok(Some(Found::Kept));
    }
    match sys::lock(fd.as_fd(), false)? {
        Lock::Taken => return Ok(Some(Found::Alive)),
        Lock::Unsupported => return Ok(Some(Found::Kept)),
        Lock::Held if is_named(at, name, &stat)? => {}
        Lock::Held => return Ok(None),
    }
    let removed =
        if stat.is_folder() { remove_folder(beside, at, name, fd, &stat, checkpoint) } else { unlinked(at, name) };
    match removed {
        Err(error) if is_change(&error) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
        // It is this process that cannot: the next slot would only be one more to remove.
        Err(error) if matches!(errno(&error), libc::EMFILE | libc::ENFILE | libc::ENOMEM) => Err(error),
        Err(error) => Ok(Some(Found::Resists(error))),
        found => found,
    }
}

fn unlinked(at: BorrowedFd, name: &OsStr) -> io::Result<Option<Found>> {
    sys::unlink(at, name).map(|()| Some(Found::Removed))
}

/// Is this a folder of this user, or a file on its way? All that is in the user's own room is.
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
) -> io::Result<Option<Found>> {
    // An empty folder without the mark is a slot of one killed before it made the mark; a full one is none of ours.
    if !beside.recognizes(fd.as_fd(), || beside.is_own_folder(stat))? && !is_empty(fd.as_fd())? {
        return Ok(Some(Found::Kept));
    }
    match clear(beside, fd.as_fd(), checkpoint)? {
        Cleared::Empty => match sys::rmdir(at, name) {
            Err(error) if is_change(&error) => Ok(None),
            other => other.map(|()| Some(Found::Removed)),
        },
        Cleared::Pinned(version) => {
            drop(fd);
            let free = is_free(&version)?;
            Ok(if free { None } else { Some(Found::Kept) })
        }
    }
}

/// Has the reader of a version gone that was found pinned?
pub(super) fn is_free(version: &OwnedFd) -> io::Result<bool> {
    Ok(sys::lock(version.as_fd(), false)? != Lock::Taken)
}

/// What a slot is like after it was cleared.
pub(super) enum Cleared {
    Empty,
    /// This version in it is pinned, or about to be removed by somebody else.
    Pinned(OwnedFd),
}

/// Removes everything in a locked slot, but for what is to be a backup and what is pinned.
pub(super) fn clear(beside: Beside, slot: BorrowedFd, checkpoint: Checkpoint) -> io::Result<Cleared> {
    let mut entries = list(slot)?;
    if entries.iter().any(|entry| entry.name == mark::MARK) {
        mark::resume(beside, slot)?;
        entries = list(slot)?;
    }
    for sys::Entry { name, kind, .. } in &entries {
        if !matches!(*kind, libc::DT_DIR | libc::DT_UNKNOWN) {
            match sys::unlink(slot, name) {
                // FUSE has removed it by itself: it was a file that was open when it was unlinked.
                Err(error) if is_change(&error) => {}
                other => other?,
            }
            continue;
        }
        match sys::open_folder_same_mount(slot, name) {
            Ok(version) => {
                if sys::lock(version.as_fd(), false)? == Lock::Taken {
                    return Ok(Cleared::Pinned(version));
                }
                // The lock is kept until the version has gone: no reader pins what is being removed.
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
            // Something is mounted there.
            Err(error) if errno(&error) == libc::EXDEV => return Err(error),
            // Not readable by its owner: the removal below knows how.
            Err(_) => tree::remove_below(slot, checkpoint)?,
        }
    }
    Ok(Cleared::Empty)
}

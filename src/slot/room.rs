//! The room: the folder that holds the slots of one user's writers that find the porch taken.
//!
//! No writer owns it. A writer makes it when it is missing, and removes it when `rmdir` finds it empty. Making a slot
//! in a room that was removed meanwhile fails with `ENOENT` (tried on ext4, xfs, btrfs, tmpfs, overlay and bindfs), and
//! the writer starts over.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use super::beside::Beside;
use super::name::Kind;
use super::observe::{is_change, is_empty, is_named, is_no_slot, list, stat_opened};
use super::patience::rounds;
use super::reclaim::reclaim;
use crate::checkpoint::Checkpoint;
use crate::sys::{self, errno};

pub(super) fn name(beside: Beside) -> OsString {
    beside.name(Kind::Room(beside.known.user.id()))
}

/// Opens the room of this user, and makes it if it is missing; `None` if something else has its name.
pub(super) fn open_or_make(beside: Beside) -> io::Result<Option<(OsString, OwnedFd)>> {
    let name = name(beside);
    for _ in rounds(beside) {
        let made = sys::mkdir(beside.dir, &name, beside.mode()?)?;
        match open_own(beside, &name, made) {
            // It was removed by another writer that found it empty.
            Err(error) if matches!(errno(&error), libc::ENOENT | libc::ESTALE) => {}
            Err(error) => {
                // If this fails too, the next writer removes it.
                drop(sys::rmdir(beside.dir, &name));
                return Err(error);
            }
            Ok(room) => return Ok(room.map(|room| (name, room))),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}

/// Opens the folder that has the room's name; `None` if it is no room of this user. `made`: this process has just made
/// it.
pub(super) fn open_own(beside: Beside, name: &OsStr, made: bool) -> io::Result<Option<OwnedFd>> {
    let room = match sys::open_folder(beside.dir, name) {
        Err(error) if is_no_slot(&error) || errno(&error) == libc::ENOTDIR => return Ok(None),
        other => other?,
    };
    let stat = sys::stat_fd(room.as_fd())?;
    let ours = if made && is_empty(room.as_fd())? {
        beside.claim(room.as_fd(), stat)?.1
    } else {
        beside.recognizes(room.as_fd(), || beside.is_own_folder(&stat))?
    };
    Ok(ours.then_some(room))
}

/// Does the room still have its name?
pub(super) fn is_there(beside: Beside, name: &OsStr, room: BorrowedFd) -> io::Result<bool> {
    match stat_opened(room)? {
        Some(stat) => is_named(beside.dir, name, &stat),
        None => Ok(false),
    }
}

/// Removes the orphans in the room, and the room if it is empty then; answers whether there was a room.
pub(super) fn remove_if_present(beside: Beside, checkpoint: Checkpoint) -> io::Result<bool> {
    match sys::stat(beside.dir, &name(beside)) {
        Err(error) if is_no_slot(&error) => Ok(false),
        Ok(None) => Ok(false),
        Ok(Some(_)) => remove(beside, checkpoint).map(|()| true),
        Err(error) => Err(error),
    }
}

/// Does the same where a room is expected: without looking the name up first.
pub(super) fn remove(beside: Beside, checkpoint: Checkpoint) -> io::Result<()> {
    let name = name(beside);
    if !is_not_empty(sys::rmdir(beside.dir, &name))? {
        return Ok(());
    }
    let room = match sys::open_folder(beside.dir, &name) {
        Err(error) if is_change(&error) || is_no_slot(&error) => return Ok(()),
        other => other?,
    };
    let Some(stat) = stat_opened(room.as_fd())? else { return Ok(()) };
    if !beside.recognizes(room.as_fd(), || beside.is_own_folder(&stat))? {
        return Ok(());
    }
    let mut failed = Ok(());
    for entry in list(room.as_fd())? {
        let found = reclaim(beside, Some(room.as_fd()), &entry.name, checkpoint)?;
        failed = failed.and(found.into_result(beside, Path::new(&name).join(&entry.name)));
    }
    is_not_empty(sys::rmdir(beside.dir, &name)).map(drop).and(failed)
}

/// Did `rmdir` find the room not empty? It is no error if the room is gone, or another user's.
fn is_not_empty(removed: io::Result<()>) -> io::Result<bool> {
    match removed {
        Ok(()) => Ok(false),
        // In a sticky folder another user's room stays (EPERM); a mount point stays, too (EBUSY).
        Err(error) if is_change(&error) || matches!(errno(&error), libc::EPERM | libc::EBUSY) => Ok(false),
        Err(error) if matches!(errno(&error), libc::ENOTEMPTY | libc::EEXIST) => Ok(true),
        Err(error) => Err(error),
    }
}

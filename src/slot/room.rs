//! The room: the folder that holds the slots of one user's writers that find the porch taken.
//!
//! It is nobody's: a writer makes it when it is missing, and removes it when `rmdir` finds it empty. Making something in a
//! room that was removed meanwhile is `ENOENT` (tried on ext4, xfs, btrfs, tmpfs, overlay and bindfs), and the writer
//! starts over.

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

fn name(beside: Beside) -> OsString {
    beside.name(Kind::Room(beside.known.user.id()))
}

/// Opens the room of this user, and makes it if it is missing; `None` if something else has its name.
pub(super) fn enter(beside: Beside) -> io::Result<Option<(OsString, OwnedFd)>> {
    let name = name(beside);
    for _ in rounds(beside) {
        let made = sys::mkdir(beside.dir, &name, beside.mode()?)?;
        match look_into(beside, &name, made) {
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

/// Opens what has the room's name; `None` if it is none of this user's.
fn look_into(beside: Beside, name: &OsStr, made: bool) -> io::Result<Option<OwnedFd>> {
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

/// Removes the room if there is one and nobody is in it, and the orphans in it; answers whether there was one.
pub(super) fn tidy(beside: Beside, checkpoint: Checkpoint) -> io::Result<bool> {
    match sys::stat(beside.dir, &name(beside)) {
        Err(error) if is_no_slot(&error) => Ok(false),
        Ok(None) => Ok(false),
        Ok(Some(_)) => leave(beside, checkpoint).map(|()| true),
        Err(error) => Err(error),
    }
}

/// The same for one that was in it.
pub(super) fn leave(beside: Beside, checkpoint: Checkpoint) -> io::Result<()> {
    let name = name(beside);
    if !is_full(sys::rmdir(beside.dir, &name))? {
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
        failed = failed.and(found.named(beside, Path::new(&name).join(&entry.name)));
    }
    is_full(sys::rmdir(beside.dir, &name)).map(drop).and(failed)
}

/// Is there something in the room that could not be removed? A stranger's room, and one that is gone, are no error.
fn is_full(removed: io::Result<()>) -> io::Result<bool> {
    match removed {
        Ok(()) => Ok(false),
        // Sticky folders keep a stranger's (EPERM); a mount point stays, too (EBUSY).
        Err(error) if is_change(&error) || matches!(errno(&error), libc::EPERM | libc::EBUSY) => Ok(false),
        Err(error) if matches!(errno(&error), libc::ENOTEMPTY | libc::EEXIST) => Ok(true),
        Err(error) => Err(error),
    }
}

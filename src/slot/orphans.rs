//! Removes the orphans of a destination: in the porch, in the room, and in the slot of a displaced version.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::beside::{Beside, Known};
use super::lock::remove_orphan_lock;
use super::mark;
use super::name::{Kind, parse};
use super::observe::list;
use super::reclaim::{Reclaimed, reclaim};
use super::room;
use crate::checkpoint::Checkpoint;
use crate::sys;

/// Removes the orphans of a destination after this process has removed its own slot, which was in the room or was the
/// porch.
pub(super) fn remove_others(beside: Beside, own_in_room: bool, checkpoint: Checkpoint) -> io::Result<()> {
    if !own_in_room {
        return room::remove_if_present(beside, checkpoint).map(drop);
    }
    let left = room::remove(beside, checkpoint);
    let porch = beside.porch();
    left.and(reclaim(beside, None, &porch, checkpoint)?.into_result(beside, &porch))
}

/// Removes the orphans of a destination: after a publish that needed no slot.
pub(crate) fn remove_orphans(beside: Beside, checkpoint: Checkpoint) -> io::Result<()> {
    let name = beside.porch();
    let porch = reclaim(beside, None, &name, checkpoint)?;
    let nothing = matches!(porch, Reclaimed::Missing);
    let room = room::remove_if_present(beside, checkpoint);
    if nothing && matches!(room, Ok(false)) {
        return Ok(());
    }
    // A writer holds the publish lock only while it has a slot here. Where no slot is left, no lock is left either.
    porch.into_result(beside, &name).and(room.map(drop)).and(remove_orphan_lock(beside))
}

/// Removes a displaced version that its reader has let go of, together with its slot. The slot may have the name of
/// another destination, since a group has one slot for many.
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
        reclaim(beside, None, name, checkpoint)?.into_result(beside, name)
    } else {
        // All orphans in the room are removed, as by a writer that leaves it.
        room::remove(beside, checkpoint)
    };
    removed.and(remove_orphan_lock(beside))
}

/// Completes, for a process that holds the publish lock, the backups of writers that were killed before they did so. The
/// version that this process is about to displace is newer than theirs: once it has the backup's name, the order of the
/// versions in their slots cannot be told any more.
pub(crate) fn complete_backups(beside: Beside) -> io::Result<()> {
    let porch = beside.porch();
    if mark::is_in(beside.dir, &porch) {
        complete_backup(beside, beside.dir, &porch)?;
    }
    let name = room::name(beside);
    if sys::stat(beside.dir, &name)?.is_none() {
        return Ok(());
    }
    let Some(room) = room::open_own(beside, &name, false)? else { return Ok(()) };
    for entry in list(room.as_fd())? {
        if mark::is_in(room.as_fd(), &entry.name) {
            complete_backup(beside, room.as_fd(), &entry.name)?;
        }
    }
    Ok(())
}

/// Completes the backup in one slot, unless another user has made what has its name.
fn complete_backup(beside: Beside, at: BorrowedFd, name: &OsStr) -> io::Result<()> {
    let slot = sys::open_folder(at, name)?;
    let stat = sys::stat_fd(slot.as_fd())?;
    if beside.recognizes(slot.as_fd(), || beside.is_own_folder(&stat))? {
        mark::complete_under_lock(beside, slot.as_fd())?;
    }
    Ok(())
}

//! Removes the orphans of a destination: from the porch, from the room, and from wherever a displaced version lies.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::beside::{Beside, Known};
use super::lock::remove_orphan_lock;
use super::name::{Kind, parse};
use super::reclaim::{Found, reclaim};
use super::room;
use crate::checkpoint::Checkpoint;
use crate::sys;

/// Removes the orphans in the porch and in the room, for one whose own slot was `inside` the room or was the porch.
pub(super) fn remove_others(beside: Beside, inside: bool, checkpoint: Checkpoint) -> io::Result<()> {
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

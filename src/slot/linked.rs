//! `Linked`: the name of a slot that is a file.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::beside::Beside;
use super::lock::remove_orphan_lock;
use super::name::{self, Kind};
use super::observe::is_change;
use super::orphans::remove_others;
use super::patience::rounds;
use super::reclaim::reclaim;
use super::room;
use crate::checkpoint::{self, Checkpoint};
use crate::sys::{self, errno};

/// The name that a file has for the moment before it is renamed over the destination.
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
            if reclaim(beside, None, &porch, &mut checkpoint::go_on)?.is_gone() {
                continue;
            }
            // This may fail, so it comes before there is a room that would be left.
            let in_room = name::in_room(sys::random()?);
            let Some((room_name, room)) = room::open_or_make(beside)? else { return Self::link_spare(file, beside) };
            match sys::link_fd(file, room.as_fd(), &in_room) {
                Ok(()) => return Ok(Linked { room: Some(room), name: in_room }),
                Err(error) if errno(&error) == libc::EEXIST => {}
                // The last writer that left the room has removed it. If the room is still there, the file cannot be
                // linked.
                Err(error) if is_change(&error) && !room::is_there(beside, &room_name, room.as_fd())? => {}
                Err(error) => {
                    // If the room stays, the next writer removes it.
                    drop(room::remove(beside, &mut checkpoint::go_on));
                    // A sandbox (Landlock) may forbid links into other folders, and allow them beside the destination.
                    return if errno(&error) == libc::EXDEV { Self::link_spare(file, beside) } else { Err(error) };
                }
            }
        }
        Err(io::Error::from_raw_os_error(libc::EBUSY))
    }

    /// Gives the file a random name beside the destination.
    fn link_spare(file: BorrowedFd, beside: Beside) -> io::Result<Linked> {
        let name = beside.name(Kind::Spare(sys::random()?));
        sys::link_fd(file, beside.dir, &name)?;
        Ok(Linked { room: None, name })
    }

    /// The folder that holds the name.
    pub(crate) fn dir<'a>(&'a self, beside: Beside<'a>) -> BorrowedFd<'a> {
        self.room.as_ref().map_or(beside.dir, AsFd::as_fd)
    }

    /// Removes the orphans of this destination, after the file was renamed.
    pub(crate) fn give_back(self, beside: Beside, checkpoint: Checkpoint) -> io::Result<()> {
        remove_others(beside, self.room.is_some(), checkpoint).and(remove_orphan_lock(beside))
    }
}

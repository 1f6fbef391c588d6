//! `Linked`: a file's name in a slot.

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
            if reclaim(beside, None, &porch, &mut checkpoint::go_on)?.is_gone() {
                continue;
            }
            // Before there is a room that would be left if this failed.
            let in_room = name::in_room(sys::random()?);
            let Some((room_name, room)) = room::enter(beside)? else { return Self::spare(file, beside) };
            match sys::link_fd(file, room.as_fd(), &in_room) {
                Ok(()) => return Ok(Linked { room: Some(room), name: in_room }),
                Err(error) if errno(&error) == libc::EEXIST => {}
                // The room was removed by the last who left it; where it was not, the file cannot be linked.
                Err(error) if is_change(&error) && !room::is_there(beside, &room_name, room.as_fd())? => {}
                Err(error) => {
                    // The error is what matters; the next writer removes a room that stays.
                    drop(room::leave(beside, &mut checkpoint::go_on));
                    // A sandbox that forbids other folders (Landlock) leaves names beside the destination.
                    return if errno(&error) == libc::EXDEV { Self::spare(file, beside) } else { Err(error) };
                }
            }
        }
        Err(io::Error::from_raw_os_error(libc::EBUSY))
    }

    /// Links under a random name beside the destination.
    fn spare(file: BorrowedFd, beside: Beside) -> io::Result<Linked> {
        let name = beside.name(Kind::Spare(sys::random()?));
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

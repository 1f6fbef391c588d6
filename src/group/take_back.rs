//! Takes back what a group has published before a failure.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;

use super::{Group, Member, number};
use crate::checkpoint;
use crate::destination::Destination;
use crate::error::{Error, Hint, answer};
use crate::path::listed;
use crate::slot::Slot;
use crate::sys;

/// How many paths are named in an error; of the others the number is told.
const MAX_NAMED: usize = 3;

impl Group {
    /// Takes back what was published before a failure, the last one first. The error stays that of the failure, and names
    /// what could not be taken back, and why.
    pub(super) fn take_back(&mut self, published: usize, error: Error) -> Error {
        let (mut stay, mut leftover) = (Vec::new(), None);
        for index in (0..published).rev() {
            let member = &self.members[index];
            let taken = self.places.destination(&member.place).map_err(io::Error::from).and_then(|destination| {
                let taken = self.take_one_back(member, &destination, &number(index))?;
                let restored = member.displaced_mode.filter(|_| taken).map_or(Ok(()), |mode| {
                    let old = sys::open_handle(destination.parent(), &member.place.name)?;
                    sys::chmod_handle(old.as_fd(), mode)
                });
                leftover = leftover
                    .take()
                    .or(restored.err().map(|error| self.places.failed(&member.place, "restoring the mode", error)));
                Ok(taken)
            });
            if !matches!(taken, Ok(true)) {
                let path = self.places.path(&member.place).display().to_string();
                stay.push(taken.map_or_else(|error| format!("{path} ({})", answer(&error)), |_| path.clone()));
            }
        }
        self.leftover = self.leftover.take().or(leftover);
        if published == 0 {
            return error;
        }
        if stay.is_empty() {
            return error.not_published().and_hint(Hint::TakenBack(published.to_string()));
        }
        error.after_publish().and_hint(Hint::NotTakenBack(listed(&stay, MAX_NAMED)))
    }

    /// Takes one publish back, unless somebody else's version is there by now. Under the publish lock: whoever has
    /// built on our version either has published by then, or finds it gone.
    fn take_one_back(&self, member: &Member, destination: &Destination, name: &OsStr) -> io::Result<bool> {
        // Who holds the publish lock has a slot here, so that the next writer looks for the lock after a kill. Without one,
        // on a full disk, the version is taken back all the same.
        let mark = Slot::take(destination.slots()).ok();
        let taken = self.swap_back(member, destination, name);
        if let Some(mark) = mark {
            // It is empty; if it resists, the next writer removes it.
            drop(mark.give_back(destination.slots(), &mut checkpoint::go_on));
        }
        taken
    }

    fn swap_back(&self, member: &Member, destination: &Destination, name: &OsStr) -> io::Result<bool> {
        let (slot, parent, target) = (self.places.home(&member.place).fd(), destination.parent(), &*member.place.name);
        let _lock = destination.lock_publish().map_err(io::Error::from)?;
        let ours = |stat: Option<sys::Stat>| stat.is_some_and(|stat| stat.ino == member.inode);
        if !ours(sys::stat(parent, target)?) {
            return Ok(false);
        }
        if !member.replaces && ours(sys::stat(slot, name)?) {
            // It was published by a link and has both names: renaming one to the other would do nothing.
            return sys::unlink(parent, target).map(|()| true);
        }
        let flags = if member.replaces { sys::EXCHANGE } else { 0 };
        let swap = || sys::renameat2(parent, target, slot, name, flags);
        swap()?;
        // What cannot be looked at has been ours a moment ago.
        if matches!(sys::stat(slot, name), Ok(now) if !ours(now)) {
            // Somebody replaced it in between without a lock: theirs goes back to its place.
            if member.replaces {
                swap()?;
            } else {
                sys::renameat2(slot, name, parent, target, sys::NOREPLACE)?;
            }
            return Ok(false);
        }
        Ok(true)
    }
}

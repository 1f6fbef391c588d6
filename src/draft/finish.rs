//! The end of a commit: what is published becomes durable, and what it has displaced is removed.

use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Draft, Opened, Ready, Staging};
use crate::checkpoint::{self, Checkpoint};
use crate::committed::Committed;
use crate::destination::{Destination, Kind};
use crate::error::{Error, ErrorKind, Hint, Result};
use crate::metadata;
use crate::options::{Cleanup, Durability};
use crate::publish::{self, Published};
use crate::slot::{self, Slot};
use crate::sync::Care;
use crate::sys;

impl Draft {
    /// Makes the publish durable, and cleans up. What cannot be removed is named, and stays for the next writer.
    pub(super) fn finish(
        &mut self,
        ready: Ready,
        published: Published,
        care: Option<Care>,
        checkpoint: Checkpoint,
    ) -> Result<Committed> {
        let durability = care.as_ref().map_or(self.settings.durability, |care| care.durability);
        let settled = self.make_durable(&ready, &published, durability);
        drop(care);
        let leftover = match mem::replace(&mut self.staging, Staging::Ended) {
            Staging::InSlot(slot) => self.clean_up_slot(slot, ready.opened, &published, checkpoint),
            _ => self.clean_up_unnamed(ready.opened, published, checkpoint),
        };
        match settled {
            Ok(()) => Ok(Committed::new(leftover)),
            Err(error) => Err(error.with_leftover(leftover)),
        }
    }

    /// Sets the mode that a folder could not be moved with, and the time that an exchange has changed; syncs the parents.
    fn make_durable(&self, ready: &Ready, published: &Published, durability: Durability) -> Result<()> {
        let failed = |operation, error| self.destination.failed(operation, error).after_publish();
        let mut changed = Ok(());
        if let Some(Opened { file, .. }) = &ready.opened {
            if let (Some(time), Published::Exchanged(_)) = (ready.time, published) {
                let failed = |error| failed("setting the new version's time", error);
                changed = self.destination.patiently(|| metadata::keep_time(file.as_fd(), time).map_err(failed));
            }
            if let Some(mode) = ready.later {
                let operation = "setting the new version's mode";
                let set = || sys::chmod(file.as_fd(), mode).map_err(|error| failed(operation, error));
                changed = changed.and(self.destination.patiently(set));
                if changed.is_ok() && durability != Durability::NoSync {
                    let unsynced =
                        |error| failed(operation, error).kind_is(ErrorKind::Durability).hint(Hint::ModeMayGo);
                    sys::fsync(file.as_fd()).map_err(unsynced)?;
                }
            }
        }
        // A mode that could not be set does not keep the publish from being made durable.
        let full = durability == Durability::Full;
        let synced = if full { self.destination.sync_parents(self.fd(ready)) } else { Ok(()) };
        synced.and(changed)
    }

    /// Removes the orphans of the destination, and closes what is still open.
    fn clean_up_unnamed(&mut self, new: Option<Opened>, published: Published, checkpoint: Checkpoint) -> Option<Error> {
        let slots = self.destination.slots();
        let (mut file, mut other) = new.map(|new| (new.file, new.given.held)).unzip();
        let cleaned = match published {
            Published::Renamed(Some(linked)) => linked.give_back(slots, checkpoint),
            Published::Linked(named) => {
                if named.is_none() {
                    // There may have been no descriptor left.
                    file = None;
                    publish::tell_watchers(&self.destination);
                }
                other = named.map(Some).or(other);
                slot::remove_orphans(slots, checkpoint)
            }
            Published::Renamed(None) | Published::Exchanged(_) => slot::remove_orphans(slots, checkpoint),
        };
        let cleaned = cleaned.and_then(|()| if self.base.is_some() { self.destination.remove_lock() } else { Ok(()) });
        let left = cleaned.err().map(|error| self.destination.failed("cleaning up", error).after_publish());
        self.close(file.map(Into::into), other.flatten());
        left
    }

    /// Gives the slot back with the displaced version in it.
    fn clean_up_slot(
        &mut self,
        mut slot: Slot,
        new: Option<Opened>,
        published: &Published,
        checkpoint: Checkpoint,
    ) -> Option<Error> {
        let destination = &self.destination;
        let failed = |operation, error| destination.failed(operation, error).after_publish();
        // FUSE keeps the name of what is open, and the slot with it.
        let open = new.map(|Opened { file, given, .. }| [Some(file.into()), given.held]);
        sys::close_together(open.into_iter().flatten().flatten().collect());
        let lock_gone = matches!(published, Published::Exchanged(exchanged) if exchanged.lock_gone);
        // The slot of a file is mostly empty by now: only a backup has been exchanged, and has got its name.
        slot.lock_taken = lock_gone && !destination.elsewhere() && self.kind != Kind::File;
        let lock_left = if lock_gone { None } else { destination.remove_lock().err() };
        // Only an exchange leaves something that takes long.
        let in_background = self.settings.cleanup == Cleanup::Background && lock_gone;
        let slot = if in_background { give_back_later(slot, destination) } else { Some(slot) };
        let given_back = slot.map_or(Ok(None), |slot| slot.give_back(destination.slots(), checkpoint));
        let (fd, left) = match given_back {
            Ok(fd) => (fd, None),
            Err(error) => (None, Some(failed("cleaning up", error))),
        };
        let left = left.or(lock_left.map(|error| failed("removing the lock", error)));
        self.close(fd, None);
        left
    }

    /// Closes what this commit has open last, together with the parent.
    fn close(&mut self, fd: Option<OwnedFd>, other: Option<OwnedFd>) {
        if let (Some(fd), Some(destination)) = (fd, Arc::get_mut(&mut self.destination)) {
            destination.close_with(fd, other);
        }
    }
}

/// Gives a slot back in a thread of its own; answers the slot if there can be none. The end of the
/// process ends the thread: what is left then is an orphan, which the next writer removes.
fn give_back_later(slot: Slot, destination: &Arc<Destination>) -> Option<Slot> {
    let shared = Arc::new(Mutex::new(Some(slot)));
    let take = |shared: &Mutex<Option<Slot>>| shared.lock().unwrap_or_else(PoisonError::into_inner).take();
    let (theirs, destination) = (Arc::clone(&shared), Arc::clone(destination));
    let work = move || {
        if let Some(slot) = take(&theirs) {
            // Nobody waits for it: what resists stays as an orphan for the next writer.
            drop(slot.give_back(destination.slots(), &mut checkpoint::go_on));
        }
    };
    #[cfg(test)]
    let work = crate::explore::spawn(work)?;
    match std::thread::Builder::new().name("atomik cleanup".into()).spawn(work) {
        Ok(_) => None,
        Err(_) => take(&shared),
    }
}

//! The exchange of staging and destination: what it displaces is in the slot afterwards.
//!
//! Something else may take the destination's name between the check and the exchange, by a rename that asks for no lock.
//! So what has come out is looked at, and goes back if it should not have been displaced: under the publish lock nobody
//! has built on the new version yet.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::terms::{Displaced, InSlot, Terms, failed};
use crate::destination::{Destination, Kind};
use crate::error::{Error, Hint, Result};
use crate::slot;
use crate::sys::{self, EXCHANGE, Stat, errno};

/// What an exchange has left to do.
#[derive(Debug)]
pub(crate) struct Exchanged {
    /// Is the name of the publish lock gone?
    pub(crate) lock_gone: bool,
    /// The mode of the displaced folder, if it had to be made writable to be moved.
    pub(crate) displaced_mode: Option<u32>,
}

/// Exchanges staging and destination under the publish lock; `None` if the destination has vanished.
pub(super) fn exchange(destination: &Destination, new: InSlot, terms: Terms) -> Result<Option<Exchanged>> {
    let fail = |error| destination.failed("publishing", error);
    let lock = destination.lock_publish()?;
    if terms.base.is_some() || matches!(terms.displaced, Displaced::Backup(_)) {
        let now = destination.stat()?;
        terms.check(destination, now.as_ref())?;
        if now.is_none() {
            return Ok(None);
        }
        if let Displaced::Backup(name) = terms.displaced {
            // The clean-up after the publish tries again to complete these, and names what it cannot complete.
            drop(slot::complete_backups(destination.beside()));
            slot::mark(new.slot, destination.beside(), name).map_err(fail)?;
        }
    }
    // Needed for an undo, which hardly ever comes of anything else than such terms.
    let staged = if terms.base.is_some() { sys::stat(new.slot, new.name).map_err(fail)? } else { None };
    let mut swap = Swap { destination, new, writable: None };
    if !swap.make()? {
        return Ok(None);
    }
    if let Err(refusal) = swap.check(terms) {
        swap.undo(staged).map_err(|error| failed(destination, error).after_publish())?;
        return Err(refusal);
    }
    if let Displaced::Backup(name) = terms.displaced {
        // If completing fails, giving the slot back tries again, says why, and keeps what it cannot rename.
        if slot::complete(new.slot, destination.beside(), name).is_ok() {
            swap.restore_mode().map_err(|error| fail(error).after_publish())?;
        }
    }
    let displaced_mode = swap.writable.map(|(_, mode)| mode);
    Ok(Some(Exchanged { lock_gone: lock.release(), displaced_mode }))
}

/// An exchange that can be undone.
struct Swap<'a> {
    destination: &'a Destination,
    new: InSlot<'a>,
    /// The displaced folder and its mode, if it was made writable.
    writable: Option<(OwnedFd, u32)>,
}

impl Swap<'_> {
    fn swap(&self) -> io::Result<()> {
        let (slot, parent) = (self.new.slot, self.destination.parent());
        sys::renameat2(slot, self.new.name, parent, &self.destination.name, EXCHANGE)
    }

    /// Exchanges; makes the displaced folder writable if it must be to move to another parent. False if the destination
    /// has vanished.
    fn make(&mut self) -> Result<bool> {
        let destination = self.destination;
        let vanished = |error: &io::Error| matches!(errno(error), libc::ENOENT | libc::ESTALE);
        let answer = |swapped: io::Result<()>| match swapped {
            Err(error) if vanished(&error) => Ok(false),
            other => other.map(|()| true).map_err(|error| failed(destination, error)),
        };
        let denied = match self.swap() {
            Err(error) if errno(&error) == libc::EACCES => error,
            other => return answer(other),
        };
        let fail = |error| destination.failed("publishing", error);
        // By one handle: whatever takes the name meanwhile keeps its own mode.
        let old = sys::open_handle(destination.parent(), &destination.name);
        let (old, mode) = match old.and_then(|old| sys::stat_fd(old.as_fd()).map(|stat| (old, stat.permissions()))) {
            Err(error) if vanished(&error) => return Ok(false),
            other => other.map_err(fail)?,
        };
        if mode & 0o200 != 0 || sys::chmod_handle(old.as_fd(), mode | 0o200).is_err() {
            return answer(Err(denied));
        }
        let swapped = self.swap();
        if swapped.is_ok() {
            self.writable = Some((old, mode));
        } else if let Some(error) = sys::chmod_handle(old.as_fd(), mode).err().filter(|error| !vanished(error)) {
            return Err(fail(error));
        }
        answer(swapped)
    }

    /// Refuses a displaced version that should not have been replaced.
    fn check(&self, terms: Terms) -> Result<()> {
        let path = &self.destination.path;
        // What cannot be looked at is what was checked under the lock.
        let Some(displaced) = sys::stat(self.new.slot, self.new.name).unwrap_or_default() else { return Ok(()) };
        match self.new.kind {
            Kind::Folder if displaced.kind() == libc::S_IFREG => {
                Err(Error::errno("publishing", path, libc::ENOTDIR).hint(Hint::FileByFolder))
            }
            Kind::File if displaced.is_folder() => {
                Err(Error::errno("publishing", path, libc::EISDIR).hint(Hint::FolderByFile))
            }
            _ => terms.check(self.destination, Some(&displaced)),
        }
    }

    /// Exchanges once more. A writer of another lock domain does not see this lock, and may have published in between:
    /// then what comes out is not `staged`, and goes back.
    fn undo(&self, staged: Option<Stat>) -> io::Result<()> {
        self.swap()?;
        match (&staged, sys::stat(self.new.slot, self.new.name)) {
            (Some(staged), Ok(Some(now))) if !now.same(staged) => self.swap()?,
            _ => {}
        }
        self.restore_mode()
    }

    /// Gives what was made writable for the move its mode back, where it stays.
    fn restore_mode(&self) -> io::Result<()> {
        self.writable.as_ref().map_or(Ok(()), |(old, mode)| sys::chmod_handle(old.as_fd(), *mode))
    }
}

//! `Draft`: a new version on its way. Files, folders and entries, alone and in a group, all go through this one pipeline.
//!
//! ```text
//!            the body
//!   open ──────────────▶ ready ──▶ sync ──▶ publish ──▶ finish
//!    │                   │   │      │          │
//!    │ an exception      │   └──────┼──────────┼─────▶ hand_over: the group syncs, publishes and finishes
//!    ▼                   ▼          ▼          ▼
//!   discard: nothing of the version is left, and the destination is untouched
//! ```
//!
//! `open` makes staging. `ready` finds out what the body has made and whether it may be published, and settles its metadata.
//! `sync` makes it safe to publish, `publish` is one call, and `finish` syncs the parents and removes what was displaced.

mod finish;
mod ready;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::backup;
use crate::base::Base;
use crate::checkpoint::{self, Checkpoint};
use crate::committed::Committed;
use crate::destination::{Check, Destination, Kind};
use crate::error::{Error, ErrorKind, Hint, Result};
use crate::metadata::Given;
use crate::options::{Durability, Settings};
use crate::process::Process;
use crate::publish::{self, Before, Displaced, InSlot, Published, Terms};
use crate::slot::Slot;
use crate::sync::{self, Care};
use crate::sys::{self, Stat};
use crate::trial;

/// Does a body run between the open and the end?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Runs,
    /// The version is written at once: what was seen at the open still holds.
    None,
}

/// A new version on its way; dropping it discards it.
#[derive(Debug)]
pub struct Draft {
    /// Shared with a thread that cleans up.
    pub(crate) destination: Arc<Destination>,
    pub(crate) settings: Settings,
    /// The kind that was asked for.
    pub(crate) kind: Kind,
    body: Body,
    pub(crate) staging: Staging,
    /// The new version. What a tool makes is not open before the commit.
    opened: Option<Opened>,
    /// The version that was at the destination at the open.
    pub(crate) old: Option<Stat>,
    /// The version that the body starts from.
    pub(crate) base: Option<Base>,
    /// The name that the displaced version will get.
    pub(crate) backup: Option<OsString>,
    /// The path that the body gets; empty if the body gets no path.
    pub(crate) shown: PathBuf,
    process: Process,
}

/// Where a new version is built; its end takes it.
#[derive(Debug)]
pub(crate) enum Staging {
    /// A file without a name: nothing is left of it once it is closed.
    Unnamed,
    /// An entry of a slot, under the destination's name.
    InSlot(Slot),
    /// There is nothing any more.
    Ended,
}

/// A new version that is open.
#[derive(Debug)]
struct Opened {
    /// A file, a folder, or the bare handle of a file: while it is open nothing else gets its inode number.
    file: File,
    /// The metadata that it was given before the body.
    given: Given,
    /// The mode that a file was made with.
    born: Option<u32>,
}

/// A version that is complete, and may be published.
pub(crate) struct Ready {
    pub(crate) kind: Kind,
    /// A symlink cannot be opened.
    opened: Option<Opened>,
    /// What it is like, if that is known.
    stat: Option<Stat>,
    /// Is there something to replace?
    replaces: bool,
    /// The mode that it cannot be moved with.
    pub(crate) later: Option<u32>,
    /// The modification time that its body has set, of a folder.
    pub(crate) time: Option<(i64, u32)>,
}

impl Ready {
    fn new(kind: Kind, opened: Option<Opened>, stat: Option<Stat>) -> Self {
        Self { kind, opened, stat, replaces: false, later: None, time: None }
    }
}

impl Draft {
    /// Opens the destination, and has `stage` make staging. What that has made goes with an error.
    pub(crate) fn open(
        (at, path): (BorrowedFd, &Path),
        kind: Kind,
        settings: Settings,
        body: Body,
        stage: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<Self> {
        let check = if body == Body::Runs { Check::BeforeBody } else { Check::AtCommit };
        let (destination, old) = Destination::open(at, path, kind, &settings, check)?;
        let backup = settings.backup.as_ref().map(|name| backup::name(at, &destination, name, kind)).transpose()?;
        let mut draft = Self {
            destination: Arc::new(destination),
            settings,
            kind,
            body,
            staging: Staging::Unnamed,
            opened: None,
            old,
            base: None,
            backup,
            shown: PathBuf::new(),
            process: Process::current(),
        };
        match stage(&mut draft) {
            Ok(()) => Ok(draft),
            Err(error) => Err(draft.discard_after(error)),
        }
    }

    /// Takes a slot for staging, and tries what the publish from there needs.
    pub(crate) fn stage_in_slot(&mut self) -> Result<()> {
        let slot = Slot::take(self.destination.slots()).map_err(|error| self.destination.unstaged(error))?;
        let tried = trial::try_to_move(&self.destination, &slot);
        self.staging = Staging::InSlot(slot);
        tried
    }

    /// Takes over what was opened as the new version. `born` is the mode that a file was made with.
    pub(crate) fn hold(&mut self, fd: OwnedFd, given: Given, born: Option<u32>) {
        self.opened = Some(Opened { file: fd.into(), given, born });
    }

    /// Takes the new version through the rest of the pipeline. `checkpoint` stops it before the publish, and its cleaning
    /// up afterwards.
    pub(crate) fn commit(mut self, checkpoint: Checkpoint) -> Result<Committed> {
        self.run(checkpoint).map_err(|error| self.discard_after(error))
    }

    fn run(&mut self, checkpoint: Checkpoint) -> Result<Committed> {
        let ready = self.ready()?;
        self.sync(&ready, checkpoint)?;
        let (published, care) = self.publish(&ready).map_err(|error| self.explain_by_name(error, &ready))?;
        self.finish(ready, published, care, checkpoint)
    }

    /// Makes the new version safe to publish.
    fn sync(&self, ready: &Ready, checkpoint: Checkpoint) -> Result<()> {
        let (destination, settings) = (&*self.destination, &self.settings);
        match &ready.opened {
            Some(folder) if ready.kind == Kind::Folder => {
                sync::folder(folder.file.as_fd(), self.slot(), settings, destination, checkpoint)?;
            }
            Some(file) => sync::file(file.file.as_fd(), settings, destination)?,
            // A symlink is durable with its folder.
            None => {}
        }
        checkpoint().map_err(|error| destination.failed("committing", error))?;
        // Without a body and a sync no time has passed.
        if self.body == Body::Runs || settings.durability != Durability::NoSync {
            destination.check_place()?;
        }
        Ok(())
    }

    /// Makes the one call that publishes. Answers what it has left to do, and what is kept until the publish is durable.
    fn publish(&mut self, ready: &Ready) -> Result<(Published, Option<Care>)> {
        let (durability, is_file) = (self.settings.durability, ready.kind == Kind::File);
        let care = ready.replaces.then(|| sync::care(durability, &self.destination, is_file));
        let unnamed = ready.opened.as_ref().filter(|_| matches!(self.staging, Staging::Unnamed));
        let again =
            unnamed.is_some() && durability != Durability::NoSync && self.destination.mount().unnamed_is_not_enough();
        if let (Some(_), Some(new)) = (&self.backup, unnamed) {
            self.name_in_slot(new, again)?;
        }
        let destination = &*self.destination;
        let displaced = self.backup.as_deref().map_or(Displaced::Removed, Displaced::Backup);
        let terms = Terms { overwrite: self.settings.overwrite, base: self.base.as_ref(), displaced };
        let published = if let (Staging::Unnamed, Some(new)) = (&self.staging, unnamed) {
            let before = match ready.replaces {
                _ if again => Before::NameAndSync,
                false if !self.opens_for_writing(new) && !destination.is_append_only() => Before::Name,
                _ => Before::Nothing,
            };
            publish::unnamed(destination, new.file.as_fd(), terms, ready.replaces, before)?
        } else {
            let new = InSlot { slot: self.slot(), name: &destination.name, kind: ready.kind };
            publish::staged(destination, new, terms, ready.replaces)?
        };
        Ok((published, care))
    }

    /// Gives an unnamed file a name in a slot, from where it can be exchanged; syncs it `again` under that.
    fn name_in_slot(&mut self, new: &Opened, again: bool) -> Result<()> {
        let failed = |error| self.destination.failed("publishing", error);
        self.staging = Staging::InSlot(Slot::take(self.destination.slots()).map_err(failed)?);
        sys::link_fd(new.file.as_fd(), self.slot(), &self.destination.name)
            .map_err(|error| self.destination.failed("publishing", error))?;
        if again { sync::again(new.file.as_fd(), &self.destination) } else { Ok(()) }
    }

    /// Will its owner be able to open a new file for writing, as the publish by a link needs ([`Published::Linked`])?
    fn opens_for_writing(&self, new: &Opened) -> bool {
        let known = if self.body == Body::Runs { None } else { self.settings.permissions.or(new.born) };
        // What cannot be looked at is tried.
        let mode = known.or_else(|| Some(sys::stat_fd(new.file.as_fd()).ok()?.mode));
        mode.is_none_or(|mode| mode & 0o200 != 0)
    }

    /// Gives the new version a name in a group's slot instead of publishing it. Answers what could not be cleaned up, too.
    pub(crate) fn hand_over(mut self, slot: BorrowedFd, name: &OsStr) -> Result<(Ready, Option<Error>)> {
        match self.move_to(slot, name) {
            Ok(ready) => Ok((ready, self.give_back("cleaning up", &mut checkpoint::go_on).err())),
            Err(error) => Err(self.discard_after(error)),
        }
    }

    fn move_to(&mut self, slot: BorrowedFd, name: &OsStr) -> Result<Ready> {
        self.owned("committing")?;
        if self.base.is_some() || self.backup.is_some() || self.destination.elsewhere() {
            return Err(Error::errno("adding to a group", &self.destination.path, libc::EINVAL).hint(Hint::NotForGroup));
        }
        let mut ready = self.ready()?;
        let destination = &self.destination;
        // It is closed when it has its name.
        let new = ready.opened.take().filter(|_| self.kind == Kind::File);
        if let (Some(new), Durability::Full | Durability::Ordered) = (&new, self.settings.durability) {
            // The disk works while the next one is staged.
            sys::start_writing(new.file.as_fd())
                .map_err(|error| destination.failed("syncing the new version", error).kind_is(ErrorKind::Durability))?;
        }
        let moved = match (&self.staging, &new) {
            (Staging::Unnamed, Some(new)) => sys::link_fd(new.file.as_fd(), slot, name),
            _ => sys::renameat2(self.slot(), &destination.name, slot, name, 0),
        };
        moved.map(|()| ready).map_err(|error| destination.failed("staging in the group", error))
    }

    /// Moves a sibling of the new version, for a destination beside its own, to a group's slot.
    pub(crate) fn hand_over_sibling(&self, destination: &Destination, to: BorrowedFd, name: &OsStr) -> Result<Ready> {
        // Exact permissions are for the entry.
        let settings = Settings { permissions: None, ..self.settings.clone() };
        let mut ready = self.settle(destination, &settings, self.examine(destination, None)?)?;
        ready.opened = None;
        sys::renameat2(self.slot(), &destination.name, to, name, 0)
            .map_err(|error| destination.failed("staging in the group", error))?;
        Ok(ready)
    }

    /// Ends staging after an error, and names with it what resists.
    pub(crate) fn discard_after(&mut self, error: Error) -> Error {
        if self.is_foreign() {
            return error;
        }
        let error = self.destination.explained(error);
        error.with_leftover(self.discard(&mut checkpoint::go_on).err())
    }

    /// Ends staging, and reports what could not be removed.
    pub(crate) fn discard(&mut self, checkpoint: Checkpoint) -> Result<()> {
        self.owned("rolling back")?;
        self.give_back("rolling back", checkpoint)
    }

    fn give_back(&mut self, operation: &'static str, checkpoint: Checkpoint) -> Result<()> {
        // FUSE keeps the name of what is open, and the slot with it.
        self.opened = None;
        let Staging::InSlot(slot) = mem::replace(&mut self.staging, Staging::Ended) else { return Ok(()) };
        let given_back = slot.give_back(self.destination.slots(), checkpoint).map(drop);
        given_back.map_err(|error| self.destination.failed(operation, error))
    }

    /// Refuses what only the process may do in which the draft was opened.
    fn owned(&self, operation: &'static str) -> Result<()> {
        self.process.check(operation, &self.destination.path)
    }

    /// Does it belong to the parent of this process?
    pub(crate) fn is_foreign(&self) -> bool {
        !self.process.is_current()
    }

    /// The slot of a version that is not unnamed.
    pub(crate) fn slot(&self) -> BorrowedFd<'_> {
        match &self.staging {
            Staging::InSlot(slot) => slot.fd.as_fd(),
            // Only the end gives the slot back.
            Staging::Unnamed | Staging::Ended => panic!("a slot is held until the end"),
        }
    }

    /// The path of a version that has a name; `None` if it is too long for one system call.
    pub(crate) fn staging_path(&self) -> Option<PathBuf> {
        let Staging::InSlot(slot) = &self.staging else { return None };
        Some(self.destination.staging_path()?.join(slot.path()).join(&self.destination.name))
    }

    /// The new version of a guard that keeps it open.
    pub(crate) fn file(&self) -> &File {
        // Only the end closes it, and consumes the draft.
        &self.opened.as_ref().expect("the new version is open until the end").file
    }

    /// Is the new version open?
    pub(crate) fn is_open(&self) -> bool {
        self.opened.is_some()
    }

    /// A descriptor on the mount of staging.
    fn fd<'a>(&'a self, ready: &'a Ready) -> BorrowedFd<'a> {
        ready.opened.as_ref().map_or_else(|| self.slot(), |opened| opened.file.as_fd())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Drop cannot report: what resists stays as an orphan for the next writer.
        drop(self.discard(&mut checkpoint::go_on));
    }
}

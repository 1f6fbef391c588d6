//! `ready`: what a body has made, whether that may be published, and its metadata.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::fcntl::OFlag;

use super::{Body, Draft, Opened, Ready};
use crate::destination::{Check, Destination, Kind};
use crate::error::{Error, ErrorKind, Hint, Result};
use crate::metadata::{self, Given, Shown};
use crate::options::{Durability, Settings, Siblings};
use crate::path::listed;
use crate::slot;
use crate::sys::{self, Stat, errno};

/// How many names are told in an error; of the others the number is told.
const MAX_NAMED: usize = 5;

impl Draft {
    /// Finds out what the body has made and whether it may be published, and settles its metadata.
    pub(super) fn ready(&mut self) -> Result<Ready> {
        self.owned("committing")?;
        let opened = self.opened.take();
        let made = match self.kind {
            Kind::File => Ready::new(Kind::File, opened, None),
            Kind::Folder | Kind::Any => self.examine(&self.destination, opened)?,
        };
        self.settle(&self.destination, &self.settings, made)
    }

    /// Does the second half of it, for any of the versions that staging holds.
    pub(super) fn settle(&self, destination: &Destination, settings: &Settings, made: Ready) -> Result<Ready> {
        let mut ready = made;
        let (kind, stat) = (ready.kind, ready.stat);
        let old = match self.body {
            Body::None => self.old,
            Body::Runs if settings.overwrite => destination.check(kind, true, Check::AtCommit)?,
            Body::Runs => None,
        };
        self.refuse_by_name(old, &ready)?;
        ready.replaces = old.is_some();
        if let Some(Opened { file, given, .. }) = &ready.opened {
            let staged = (file.as_fd(), stat);
            let fresh = || match self.kind {
                Kind::File => Shown::by(destination, file.as_fd()),
                Kind::Folder | Kind::Any => self.fresh(kind),
            };
            ready.later = metadata::settle(destination, settings, staged, old, given, fresh)?;
            ready.time = stat.filter(Stat::is_folder).and_then(|stat| metadata::own_time(&stat, given));
        }
        Ok(ready)
    }

    /// Opens what the body has made for a destination; `started` is what was staged before the body.
    pub(super) fn examine(&self, destination: &Destination, started: Option<Opened>) -> Result<Ready> {
        let stop = |error| destination.failed("committing", error);
        let (slot, name) = (self.slot(), &destination.name);
        if self.is_only_moved() {
            let now = self.made(destination)?;
            match now.kind() {
                // Moving a folder to another parent needs the permission to write to it.
                libc::S_IFDIR if now.mode & 0o700 == 0o700 => return Ok(Ready::new(Kind::Folder, None, Some(now))),
                libc::S_IFREG | libc::S_IFLNK if !destination.folder_only => {
                    return Ok(Ready::new(Kind::File, None, Some(now)));
                }
                _ => {}
            }
        }
        let (mut stat, mut given) = (None, Given::default());
        if let Some(started) = started.filter(|started| started.given.shown.is_some()) {
            let now = self.made(destination)?;
            // The body may have put something else in its place.
            if started.given.shown.as_ref().is_some_and(|shown| shown.stat.same(&now)) {
                if now.is_folder() {
                    return Ok(Ready::new(Kind::Folder, Some(started), Some(now)));
                }
                (stat, given) = (Some(now), started.given);
            }
        }
        // A folder is opened for its sync anyway; what a tool made may be a symlink, or cannot be opened.
        let (kind, opened) = destination.patiently(|| match sys::open_folder(slot, name) {
            Ok(folder) => Ok((Kind::Folder, Some(folder))),
            Err(error) if errno(&error) == libc::ENOENT => Err(self.nothing_made()),
            Err(error) if matches!(errno(&error), libc::ENOTDIR | libc::ELOOP) => {
                let file = self.open_file(name).map_err(|error| stop(error).hint(Hint::Unpublishable))?;
                Ok((Kind::File, file))
            }
            Err(error) => Err(stop(error)),
        })?;
        if let (Kind::Folder, Some(folder), true) = (kind, &opened, self.settings.overwrite) {
            stat = Some(destination.patiently(|| sys::stat_fd(folder.as_fd()).map_err(stop))?);
        }
        if kind == Kind::File && destination.folder_only {
            return Err(stop(io::Error::from_raw_os_error(libc::ENOTDIR)).hint(Hint::SlashButNoFolder));
        }
        let opened = opened.map(|fd| Opened { file: fd.into(), given, born: None });
        Ok(Ready::new(kind, opened, stat))
    }

    /// What the body has made for a destination.
    fn made(&self, destination: &Destination) -> Result<Stat> {
        let failed = |error| destination.failed("committing", error);
        destination
            .patiently(|| sys::stat(self.slot(), &destination.name).map_err(failed)?.ok_or_else(|| self.nothing_made()))
    }

    /// Is nothing done with the new version but to move it? Then it need not be opened.
    fn is_only_moved(&self) -> bool {
        let Settings { overwrite, permissions, durability, .. } = &self.settings;
        !overwrite && permissions.is_none() && *durability == Durability::NoSync
    }

    /// Opens the file that a tool has made; a symlink, which cannot be opened, is durable with its folder.
    fn open_file(&self, name: &OsStr) -> io::Result<Option<OwnedFd>> {
        let slot = self.slot();
        match sys::stat(slot, name)?.map(|stat| stat.kind()) {
            Some(libc::S_IFLNK) => Ok(None),
            Some(libc::S_IFREG) => sys::open_to_sync(slot, name).map(Some),
            None => Err(io::Error::from_raw_os_error(libc::ENOENT)),
            _ => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        }
    }

    /// What a file or folder shows that is made in the slot, and given nothing.
    fn fresh(&self, kind: Kind) -> io::Result<Shown> {
        let (slot, name) = (self.slot(), slot::scratch("fresh", &self.destination.name));
        let look = || {
            let fd = if kind == Kind::Folder {
                sys::mkdir(slot, &name, 0o777)?;
                sys::open_folder(slot, &name)?
            } else {
                let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW;
                sys::openat(slot, &name, flags, 0o666)?
            };
            Shown::by(&self.destination, fd.as_fd())
        };
        let mut patience = slot::Patience::default();
        loop {
            let shown = look();
            let removed = if kind == Kind::Folder { sys::rmdir(slot, &name) } else { sys::unlink(slot, &name) };
            match shown.and_then(|shown| removed.map(|()| shown)) {
                Err(error) if patience.again(self.destination.slots(), &error) => {}
                other => return other,
            }
        }
    }

    /// Lists what a tool has left beside its entry and is to be published; an error if nothing is to be left. In a
    /// folder's slot nothing but the folder is looked for.
    pub(crate) fn siblings(&self) -> Result<Vec<OsString>> {
        let (destination, settings) = (&self.destination, &self.settings);
        if self.kind != Kind::Any || settings.siblings == Siblings::Discard || self.is_foreign() {
            return Ok(Vec::new());
        }
        let name = &destination.name;
        // FUSE and NFS show what is open and has been removed under such a name.
        let hides = destination.slots().domain().is_some();
        let is_hidden = |name: &[u8]| hides && (name.starts_with(b".fuse_hidden") || name.starts_with(b".nfs"));
        let found =
            slot::list(self.slot()).map_err(|error| destination.failed("looking beside the staging path", error))?;
        let mut names: Vec<_> = found.into_iter().map(|entry| entry.name).collect();
        // What is not there is another error.
        let is_there = names.contains(name);
        // Names of ours are there for a moment, while another thread tries what a slot is like.
        names.retain(|other| is_there && other != name && !slot::is_ours(other) && !is_hidden(other.as_bytes()));
        names.sort();
        if names.is_empty() || settings.siblings == Siblings::Publish {
            return Ok(names);
        }
        let error = Error::errno("publishing", &destination.path, libc::ENOTEMPTY).kind_is(ErrorKind::Siblings);
        Err(error.hint(Hint::SiblingsLeft(name.to_string_lossy().into(), listed(&names, MAX_NAMED))))
    }

    /// The error where nothing has the name that should be published: it names what there is instead.
    fn nothing_made(&self) -> Error {
        let found = match slot::list(self.slot()) {
            Ok(found) if !found.is_empty() => {
                let names: Vec<_> = found.into_iter().map(|entry| entry.name).collect();
                format!("; found instead: {}", listed(&names, MAX_NAMED))
            }
            _ => String::new(),
        };
        let name = self.destination.name.to_string_lossy().into();
        Error::errno("publishing", &self.destination.path, libc::ENOENT).hint(Hint::Nothing(name, found))
    }

    /// Refuses to replace what was written during the body, `now`, by an empty file: a tool that was given the
    /// destination's path (Python's `f.name`) has written to the destination.
    fn refuse_by_name(&self, now: Option<Stat>, new: &Ready) -> Result<()> {
        let is_written = |now: &Stat| {
            let same = |old: &Stat| old.same(now) && (old.size, old.times[1]) == (now.size, now.times[1]);
            now.kind() == libc::S_IFREG && now.size > 0 && !self.old.as_ref().is_some_and(same)
        };
        let failed = |error| self.destination.failed("committing", error);
        if !now.as_ref().is_some_and(is_written) || !self.is_left_empty(new).map_err(failed)? {
            return Ok(());
        }
        let conflict = Error::errno("publishing", &self.destination.path, libc::ESTALE).kind_is(ErrorKind::Conflict);
        Err(conflict.hint(Hint::WrittenByName))
    }

    /// Explains the error of an empty file whose destination has appeared during the body.
    pub(super) fn explain_by_name(&self, error: Error, new: &Ready) -> Error {
        let appeared = error.kind() == ErrorKind::AlreadyExists && !error.committed();
        if appeared && self.is_left_empty(new).unwrap_or(false) { error.hint(Hint::WrittenByName) } else { error }
    }

    /// Has the body of a file left it empty?
    fn is_left_empty(&self, new: &Ready) -> io::Result<bool> {
        match &new.opened {
            Some(new) if self.kind == Kind::File && self.body == Body::Runs && self.base.is_none() => {
                Ok(sys::stat_fd(new.file.as_fd())?.size == 0)
            }
            _ => Ok(false),
        }
    }
}

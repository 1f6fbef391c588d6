//! `Folder` and `Entry`: a new version that is built under a name, in a slot, and published in one step.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::fcntl::OFlag;

use crate::backup;
use crate::base::Base;
use crate::checkpoint::{self, Checkpoint};
use crate::clone;
use crate::committed::Committed;
use crate::destination::{Destination, Kind};
use crate::error::{Error, ErrorKind, Hint, Result};
use crate::group::{self, Group, HandedOver};
use crate::metadata::{self, Given, Shown, Work};
use crate::options::{Cleanup, Durability, Options, Settings, Siblings, Start};
use crate::publish::{self, InSlot, Terms};
use crate::slot::{self, Slot};
use crate::snapshot::Pin;
use crate::sync;
use crate::sys::{self, Stat, errno};
use crate::tree;
use crate::trial;

/// What the shown path leaves for names below it, of the 4,096 bytes that a system call takes.
const ROOM_BELOW: usize = 1024;

/// How often the copy of the present version is begun again, since the version was removed under it.
const ROUNDS: u32 = 100;

/// How many siblings are named in an error; of the others the number is told.
const MAX_NAMED: usize = 5;

/// What `Folder` and `Entry` share: a slot whose entry NAME will be the new version.
#[derive(Debug)]
struct Staged {
    /// Shared with a thread that cleans up.
    destination: Arc<Destination>,
    settings: Settings,
    /// What was asked for.
    kind: Kind,
    /// Taken when nothing is left to clean up.
    slot: Option<Slot>,
    /// Where the new version is built.
    path: PathBuf,
    /// What the body started from.
    base: Option<Base>,
    /// What the displaced version will be called.
    backup: Option<OsString>,
    /// What staging was given of the version to be replaced.
    draft: Draft,
    /// The process that it belongs to.
    generation: u32,
}

/// What was staged before the body, if anything was.
#[derive(Debug, Default)]
struct Draft {
    /// A folder open for reading, or the bare handle of a file: while it is open nothing else gets its inode number.
    fd: Option<OwnedFd>,
    given: Given,
}

/// What the body has made.
struct Made {
    kind: Kind,
    opened: Option<OwnedFd>,
    /// What it is like, if that is known.
    stat: Option<Stat>,
    /// What it was given, if it is what was staged before the body.
    given: Given,
}

impl Staged {
    fn open(at: BorrowedFd, path: &Path, kind: Kind, settings: Settings, checkpoint: Checkpoint) -> Result<Self> {
        let (destination, old) = Destination::open(at, path, kind, &settings, true)?;
        let destination = Arc::new(destination);
        let backup = settings.backup.as_ref().map(|name| backup::name(at, &destination, name, kind)).transpose()?;
        let slot = Slot::take(destination.slots()).map_err(|error| destination.unstaged(error))?;
        let generation = sys::fork_generation();
        let path = PathBuf::new();
        let draft = Draft::default();
        let mut staged =
            Self { destination, settings, kind, slot: Some(slot), path, base: None, backup, draft, generation };
        match staged.begin(old, checkpoint) {
            Ok(()) => Ok(staged),
            Err(error) => {
                // Staging that is still empty goes without a descriptor, of which none may be left.
                drop(sys::rmdir(staged.slot(), &staged.destination.name));
                let leftover = staged.rollback(checkpoint).err();
                Err(error.with_leftover(leftover))
            }
        }
    }

    /// Prepares the slot for the body, and fills it for an update.
    fn begin(&mut self, old: Option<Stat>, checkpoint: Checkpoint) -> Result<()> {
        trial::try_to_move(&self.destination, self.slot.as_ref().expect("taken just now"))?;
        metadata::inherit(&self.destination, self.slot())?;
        trial::in_slot(&self.destination, self.slot(), self.kind, old, &self.settings)?;
        if self.settings.start != Start::Empty {
            let (base, draft) = self.start(old, checkpoint)?;
            (self.base, self.draft) = (Some(base), draft);
        } else if self.kind == Kind::Any {
            metadata::hand_on_flags(&self.destination, &self.settings, self.slot(), old)?;
        } else if self.settings.preserve && old.is_some_and(|old| old.is_folder()) {
            self.draft = self.draft(old)?;
        }
        self.path = self.shown_path();
        Ok(())
    }

    /// Opens the staging folder, if it is not open already.
    fn with_staging_open(mut self) -> Result<Self> {
        if self.kind == Kind::Folder && self.draft.fd.is_none() {
            let opened = sys::open_folder(self.slot(), &self.destination.name);
            self.draft.fd = Some(opened.map_err(|error| self.destination.failed("creating staging", error))?);
        }
        Ok(self)
    }

    fn slot(&self) -> BorrowedFd<'_> {
        // Only the end of a commit or rollback takes it, and both consume the guard.
        self.slot.as_ref().expect("a slot until the end").fd.as_fd()
    }

    /// Opens the staging folder, and gives it the metadata of the version that it is to replace.
    fn draft(&self, old: Option<Stat>) -> Result<Draft> {
        let (destination, settings) = (&self.destination, &self.settings);
        let fd = sys::open_folder(self.slot(), &destination.name)
            .map_err(|error| destination.failed("creating staging", error))?;
        let given = metadata::begin(destination, settings, fd.as_fd(), (old, None), None, Work::ByName)?;
        Ok(Draft { fd: Some(fd), given })
    }

    /// Copies the present version into staging.
    fn start(&self, old: Option<Stat>, checkpoint: Checkpoint) -> Result<(Base, Draft)> {
        let destination = &self.destination;
        let Some(mut old) = old else { return Ok((Base::nothing(), Draft::default())) };
        for _ in 0..ROUNDS {
            if !old.is_folder() {
                return self.start_with_file();
            }
            let present = Pin::of(destination)?;
            let version = present.stat();
            let copied = self.copy(&present, checkpoint);
            present.release(|| sys::stat(destination.parent(), &destination.name), checkpoint);
            let failure = match copied {
                Ok(copied) => return Ok(copied),
                Err(failure) => failure,
            };
            // Where a writer does not see the pin (see `LockReach`), it may remove the version under the copy.
            match destination.stat()? {
                Some(now) if slot::is_change(failure.io()) && !now.same(&version) => old = now,
                _ => return Err(failure),
            }
            tree::remove_below(self.slot(), checkpoint)
                .map_err(|error| destination.failed("copying the present version", error))?;
        }
        let error = io::Error::from_raw_os_error(libc::EBUSY);
        Err(destination.failed("copying the present version", error).kind_is(ErrorKind::Busy))
    }

    /// Copies a version that is pinned.
    fn copy(&self, present: &Pin, checkpoint: Checkpoint) -> Result<(Base, Draft)> {
        let (destination, slot) = (&self.destination, self.slot());
        let failed = |error| destination.failed("copying the present version", error);
        if sys::stat(slot, &destination.name).map_err(failed)?.is_none() {
            sys::mkdir(slot, &destination.name, 0o777).map_err(failed)?;
        }
        let into = sys::open_folder(slot, &destination.name).map_err(failed)?;
        let old = (Some(present.stat()), Some(present.as_fd()));
        let given = metadata::begin(destination, &self.settings, into.as_fd(), old, None, Work::ByName)?;
        clone::tree(present.as_fd(), into.as_fd(), checkpoint).map_err(|failure| {
            let error = Error::new("copying the present version", &destination.path.join(failure.place), failure.error);
            match failure.hint {
                Some(Hint::MountInside) => error.kind_is(ErrorKind::CrossDevice).hint(Hint::MountInside),
                Some(hint) => error.hint(hint),
                None => error,
            }
        })?;
        // Open without the pin: a version that is displaced meanwhile can go, its inode number cannot.
        let handle = sys::openat(present.as_fd(), OsStr::new("."), OFlag::O_PATH | OFlag::O_DIRECTORY, 0);
        Ok((Base::version(handle.map_err(failed)?, present.stat()), Draft { fd: Some(into), given }))
    }

    /// The same for a file, at a path for a tool.
    fn start_with_file(&self) -> Result<(Base, Draft)> {
        let (destination, slot) = (&self.destination, self.slot());
        let failed = |error| {
            let link = errno(&error) == libc::ELOOP;
            let error = destination.failed("copying the present version", error);
            if link { error.hint(Hint::IsSymlink) } else { error }
        };
        let open = || {
            let from = sys::open_any(destination.parent(), &destination.name)?;
            let stat = sys::stat_fd(from.as_fd())?;
            if stat.kind() != libc::S_IFREG {
                return Err(io::Error::from_raw_os_error(libc::EINVAL));
            }
            let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
            let to = sys::openat(slot, &destination.name, flags, 0o666)?;
            Ok((from, stat, to))
        };
        let (from, stat, to) = open().map_err(failed)?;
        let old = (Some(stat), Some(from.as_fd()));
        let given = metadata::begin(destination, &self.settings, to.as_fd(), old, None, Work::ByName)?;
        clone::content(from.as_fd(), to.as_fd(), &stat, &mut checkpoint::go_on).map_err(failed)?;
        let fd = sys::open_name(slot, &destination.name).map_err(failed)?;
        Ok((Base::version(from, stat), Draft { fd: Some(fd), given }))
    }

    /// What a file or folder shows that is made in the slot, and given nothing.
    fn fresh(&self, kind: Kind) -> io::Result<Shown> {
        let (slot, name) = (self.slot(), slot::scratch("fresh", &self.destination.name));
        let look = || {
            let fd = if kind == Kind::Folder {
                sys::mkdir(slot, &name, 0o777)?;
                sys::open_folder(slot, &name)?
            } else {
                let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
                sys::openat(slot, &name, flags, 0o666)?
            };
            Shown::by(&self.destination, fd.as_fd())
        };
        let shown = look();
        let removed = if kind == Kind::Folder { sys::rmdir(slot, &name) } else { sys::unlink(slot, &name) };
        let shown = shown?;
        removed.map(|()| shown)
    }

    /// The path that the user and other programs get: absolute, so that `chdir` does not matter; where
    /// that is too long for one system call, or not safe, through `/proc`.
    fn shown_path(&self) -> PathBuf {
        let slot = self.slot.as_ref().map(Slot::path).unwrap_or_default();
        let path = self.destination.staging_path().map(|folder| folder.join(slot).join(&self.destination.name));
        match path {
            // Where anybody can rename, the path would lead through a name that is not ours alone.
            Some(path) if path.as_os_str().len() + ROOM_BELOW < 4096 && !self.destination.anybody_renames() => path,
            _ => {
                let fd = std::os::fd::AsRawFd::as_raw_fd(&self.slot());
                PathBuf::from(format!("/proc/{}/fd/{fd}", std::process::id())).join(&self.destination.name)
            }
        }
    }

    fn finish(&mut self, checkpoint: Checkpoint) -> Result<Committed> {
        self.owned("committing")?;
        let draft = std::mem::take(&mut self.draft);
        let (destination, settings) = (&self.destination, &self.settings);
        let stop = |error| destination.failed("committing", error);
        let (slot, name) = (self.slot(), &destination.name);
        let Made { kind, opened, stat, given } = self.examine(destination, draft)?;
        let old = if settings.overwrite { destination.check(kind, true, false)? } else { None };
        let mut later = None;
        if let Some(fd) = &opened {
            let staged = (fd.as_fd(), stat);
            later = metadata::settle(destination, settings, staged, old, &given, || self.fresh(kind))?;
            if kind == Kind::Folder {
                sync::folder(fd.as_fd(), slot, settings, destination, checkpoint)?;
            } else {
                sync::file(fd.as_fd(), settings, destination)?;
            }
        }
        checkpoint().map_err(stop)?;
        destination.check_place()?;
        let terms = Terms { overwrite: settings.overwrite, base: self.base.as_ref(), backup: self.backup.as_deref() };
        let care = old.map(|_| sync::care(slot, settings.durability, destination, kind == Kind::File));
        let durability = care.as_ref().map_or(settings.durability, |care| care.durability);
        let new = InSlot { slot, name, kind };
        let exchanged = if kind == Kind::Folder || terms.backup.is_some() {
            publish::staged(destination, new, terms, old.is_some())?
        } else {
            publish::named(destination, slot, name, terms).map(|()| None)?
        };
        let locked = exchanged.as_ref().is_some_and(|exchanged| exchanged.lock_gone);
        let time = stat
            .filter(|staged| staged.is_folder() && exchanged.is_some())
            .and_then(|stat| metadata::own_time(&stat, &given));
        let settled = self.after_publish(opened.as_ref(), (later, time), durability);
        drop(care);
        // FUSE keeps the name of what is open, and the slot with it.
        sys::close_together(opened.into_iter().chain(given.held).collect());
        if let Some(slot) = &mut self.slot {
            slot.lock_taken = locked && !self.destination.elsewhere();
        }
        let lock_left = if locked { None } else { self.destination.remove_lock().err() };
        let lock_left = lock_left.map(|error| self.destination.failed("removing the lock", error).after_publish());
        let leftover = self.clean_up(locked, checkpoint).or(lock_left);
        match settled {
            Ok(()) => Ok(Committed::new(leftover)),
            Err(error) => Err(error.with_leftover(leftover)),
        }
    }

    /// Lists what a tool has left beside the path that it was given. In a folder's slot nothing but the folder is looked for.
    fn siblings(&self) -> Result<Vec<OsString>> {
        if self.kind != Kind::Any || self.settings.siblings == Siblings::Discard || self.is_foreign() {
            return Ok(Vec::new());
        }
        let failed = |error| self.destination.failed("looking beside the staging path", error);
        let name = &self.destination.name;
        // FUSE and NFS show what is open and has been removed under such a name.
        let hides = self.destination.slots().domain().is_some();
        let is_hidden = |name: &[u8]| hides && (name.starts_with(b".fuse_hidden") || name.starts_with(b".nfs"));
        let mut names: Vec<_> = slot::list(self.slot()).map_err(failed)?.into_iter().map(|entry| entry.name).collect();
        // What is not there is another error.
        let is_there = names.contains(name);
        // Names of ours are there for a moment, while another thread tries what a slot is like.
        names.retain(|other| is_there && other != name && !slot::is_ours(other) && !is_hidden(other.as_bytes()));
        names.sort();
        if names.is_empty() || self.settings.siblings == Siblings::Publish {
            return Ok(names);
        }
        let error = Error::errno("publishing", &self.destination.path, libc::ENOTEMPTY).kind_is(ErrorKind::Siblings);
        Err(error.hint(Hint::SiblingsLeft(name.to_string_lossy().into(), named(&names))))
    }

    /// Moves a sibling to a group's slot; `destination` is beside this one.
    fn hand_over_sibling(&self, destination: &Destination, slot: BorrowedFd, name: &OsStr) -> Result<HandedOver> {
        let made = self.examine(destination, Draft::default())?;
        // Exact permissions are for the entry.
        let settings = Settings { permissions: None, ..self.settings.clone() };
        self.move_to_group(destination, &settings, made, slot, name)
    }

    fn move_to_group(
        &self,
        destination: &Destination,
        settings: &Settings,
        made: Made,
        slot: BorrowedFd,
        name: &OsStr,
    ) -> Result<HandedOver> {
        let Made { kind, opened, stat, given } = made;
        let old = if settings.overwrite { destination.check(kind, true, false)? } else { None };
        let mut later = None;
        if let Some(fd) = &opened {
            let staged = (fd.as_fd(), stat);
            later = metadata::settle(destination, settings, staged, old, &given, || self.fresh(kind))?;
        }
        let time = stat.filter(Stat::is_folder).and_then(|stat| metadata::own_time(&stat, &given));
        sys::renameat2(self.slot(), &destination.name, slot, name, 0)
            .map_err(|error| destination.failed("staging in the group", error))?;
        Ok(HandedOver { kind, later, time, leftover: None })
    }

    /// Opens what the body has made: a folder, a file, or a symlink, which cannot be opened.
    fn examine(&self, destination: &Destination, draft: Draft) -> Result<Made> {
        let stop = |error| destination.failed("committing", error);
        let (slot, name) = (self.slot(), &destination.name);
        let (mut staged, mut given) = (None, Given::default());
        if let (Some(fd), true) = (draft.fd, draft.given.shown.is_some()) {
            let stat = sys::stat(slot, name).map_err(stop)?.ok_or_else(|| self.nothing())?;
            // The body may have put something else in its place.
            if draft.given.shown.as_ref().is_some_and(|shown| shown.stat.same(&stat)) {
                given = draft.given;
                if stat.is_folder() {
                    return Ok(Made { kind: Kind::Folder, opened: Some(fd), stat: Some(stat), given });
                }
                staged = Some(stat);
            }
        }
        // A folder is opened for its sync anyway; what a tool made may be a symlink, or cannot be opened.
        let folder = match sys::open_folder(slot, name) {
            Ok(fd) => Some(fd),
            Err(error) if errno(&error) == libc::ENOENT => return Err(self.nothing()),
            Err(error) if matches!(errno(&error), libc::ENOTDIR | libc::ELOOP) => None,
            Err(error) => return Err(stop(error)),
        };
        let (kind, opened) = if let Some(folder) = folder {
            if self.settings.overwrite {
                staged = Some(sys::stat_fd(folder.as_fd()).map_err(stop)?);
            }
            (Kind::Folder, Some(folder))
        } else {
            let hint = Hint::Unpublishable;
            (Kind::File, self.open_file(name).map_err(|error| stop(error).hint(hint))?)
        };
        if kind == Kind::File && destination.folder_only {
            return Err(stop(io::Error::from_raw_os_error(libc::ENOTDIR)).hint(Hint::SlashButNoFolder));
        }
        Ok(Made { kind, opened, stat: staged, given })
    }

    /// Moves the new version to a group's slot instead of publishing it.
    fn hand_over(&mut self, slot: BorrowedFd, name: &OsStr) -> Result<HandedOver> {
        self.owned("committing")?;
        let draft = std::mem::take(&mut self.draft);
        let (destination, settings) = (&self.destination, &self.settings);
        if self.base.is_some() || self.backup.is_some() || destination.elsewhere() {
            return Err(group::refused(destination));
        }
        let handed = self.move_to_group(destination, settings, self.examine(destination, draft)?, slot, name)?;
        let own = self.slot.take();
        let given_back = own.map_or(Ok(()), |own| own.give_back(destination.slots(), &mut checkpoint::go_on));
        let leftover = given_back.err().map(|error| destination.failed("cleaning up", error));
        Ok(HandedOver { leftover, ..handed })
    }

    /// Opens the file that a tool made; a symlink, which cannot be opened, is durable with its folder.
    fn open_file(&self, name: &OsStr) -> io::Result<Option<OwnedFd>> {
        let slot = self.slot();
        match sys::stat(slot, name)?.map(|stat| stat.kind()) {
            Some(libc::S_IFLNK) => Ok(None),
            Some(libc::S_IFREG) => sys::open_to_sync(slot, name).map(Some),
            _ => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        }
    }

    /// Sets a mode that could not be moved with, and a time that the move has changed; syncs the folders.
    fn after_publish(
        &self,
        opened: Option<&OwnedFd>,
        (later, time): (Option<u32>, Option<(i64, u32)>),
        durability: Durability,
    ) -> Result<()> {
        let (full, ordered) = (durability == Durability::Full, durability != Durability::NoSync);
        let failed = |error| self.destination.failed("setting the new version's mode", error).after_publish();
        let mut changed = Ok(());
        if let (Some(time), Some(fd)) = (time, opened) {
            changed = metadata::keep_time(fd.as_fd(), time)
                .map_err(|error| self.destination.failed("setting the new version's time", error).after_publish());
        }
        if let (Some(mode), Some(fd)) = (later, opened) {
            changed = changed.and(sys::chmod(fd.as_fd(), mode).map_err(failed));
            if changed.is_ok() && ordered {
                let hint = Hint::ModeMayGo;
                sys::fsync(fd.as_fd()).map_err(|error| failed(error).kind_is(ErrorKind::Durability).hint(hint))?;
            }
        }
        // A mode that could not be set does not keep the publish from being made durable.
        let synced = if full { self.destination.sync_parents(opened.map_or(self.slot(), AsFd::as_fd)) } else { Ok(()) };
        synced.and(changed)
    }

    /// Removes the displaced version and orphans; what resists is named, and stays for the next writer.
    fn clean_up(&mut self, locked: bool, checkpoint: Checkpoint) -> Option<Error> {
        let slot = self.slot.take()?;
        // Only an exchange leaves something that takes long.
        let displaced = self.settings.cleanup == Cleanup::Background && locked;
        let slot = if displaced { give_back_later(slot, &self.destination)? } else { slot };
        let cleaned = slot.give_back(self.destination.slots(), checkpoint);
        cleaned.err().map(|error| self.destination.failed("cleaning up", error).after_publish())
    }

    fn rollback(&mut self, checkpoint: Checkpoint) -> Result<()> {
        self.owned("rolling back")?;
        self.draft = Draft::default();
        let Some(slot) = self.slot.take() else { return Ok(()) };
        slot.give_back(self.destination.slots(), checkpoint)
            .map_err(|error| self.destination.failed("rolling back", error))
    }

    fn is_foreign(&self) -> bool {
        self.generation != sys::fork_generation()
    }

    fn owned(&self, operation: &'static str) -> Result<()> {
        if !self.is_foreign() {
            return Ok(());
        }
        Err(Error::errno(operation, &self.destination.path, libc::ECHILD).kind_is(ErrorKind::OtherProcess))
    }

    /// Nothing has the name that should be published: names what there is instead.
    fn nothing(&self) -> Error {
        let found = match slot::list(self.slot()) {
            Ok(found) if !found.is_empty() => {
                let names: Vec<_> = found.into_iter().map(|entry| entry.name).collect();
                format!("; found instead: {}", named(&names))
            }
            _ => String::new(),
        };
        let name = self.destination.name.to_string_lossy().into();
        Error::errno("publishing", &self.destination.path, libc::ENOENT).hint(Hint::Nothing(name, found))
    }
}

/// Names as in an error.
fn named(names: &[OsString]) -> String {
    let mut told: Vec<_> = names.iter().take(MAX_NAMED).map(|name| name.to_string_lossy().into_owned()).collect();
    if names.len() > MAX_NAMED {
        told.push(format!("{} more", names.len() - MAX_NAMED));
    }
    told.join(", ")
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

impl Drop for Staged {
    fn drop(&mut self) {
        if self.generation == sys::fork_generation() {
            self.draft = Draft::default();
            if let Some(slot) = self.slot.take() {
                // Drop cannot report: what resists stays as an orphan for the next writer.
                drop(slot.give_back(self.destination.slots(), &mut checkpoint::go_on));
            }
        }
    }
}

macro_rules! guard {
    ($(#[$doc:meta])* $guard:ident, $kind:expr) => {
        $(#[$doc])*
        #[derive(Debug)]
        #[must_use = "dropped without `commit`, it discards the new version"]
        pub struct $guard(Staged);

        impl $guard {
            /// Starts the options of a new version; see [`Options`].
            pub fn options() -> Options<$guard> {
                Options::new()
            }

            /// Where the new version is built; its last component is the destination's name.
            #[must_use]
            pub fn path(&self) -> &Path {
                &self.0.path
            }

            /// The path that was asked for.
            #[must_use]
            pub fn destination(&self) -> &Path {
                &self.0.destination.path
            }

            /// Syncs, publishes, syncs the folder and removes what was displaced.
            pub fn commit(self) -> Result<Committed> {
                self.commit_with(&mut checkpoint::go_on)
            }

            /// The same; `checkpoint` stops it before the publish, and its cleaning up afterwards.
            pub(crate) fn commit_with(mut self, checkpoint: Checkpoint) -> Result<Committed> {
                let siblings = self.0.siblings();
                if matches!(&siblings, Ok(names) if !names.is_empty()) {
                    let mut group = Group::new(self.0.settings.durability);
                    group.add(self)?;
                    return group.commit_with(checkpoint);
                }
                siblings.and_then(|_| self.0.finish(checkpoint)).map_err(|error| {
                    let error = self.0.destination.explained(error);
                    let leftover = self.0.rollback(&mut checkpoint::go_on).err().filter(|_| !self.0.is_foreign());
                    error.with_leftover(leftover)
                })
            }

            /// Discards the new version and reports what could not be removed; `Drop` does it silently.
            pub fn rollback(self) -> Result<()> {
                self.rollback_with(&mut checkpoint::go_on)
            }

            pub(crate) fn rollback_with(mut self, checkpoint: Checkpoint) -> Result<()> {
                self.0.rollback(checkpoint)
            }

            /// Where it is to be published.
            pub(crate) fn place(&self) -> &Destination {
                &self.0.destination
            }

            /// Moves the new version to a group's slot instead of publishing it.
            pub(crate) fn hand_over(mut self, slot: BorrowedFd, name: &OsStr) -> Result<HandedOver> {
                self.0.hand_over(slot, name)
            }

            /// Does it replace what is there?
            pub(crate) fn overwrites(&self) -> bool {
                self.0.settings.overwrite
            }
        }

        impl Options<$guard> {
            /// Makes a place for a new version of `path`; nothing is visible there until the commit.
            pub fn create(&self, path: impl AsRef<Path>) -> Result<$guard> {
                self.create_at(sys::CWD, path)
            }

            /// The same with a relative path starting from an open folder.
            pub fn create_at(&self, dir: impl AsFd, path: impl AsRef<Path>) -> Result<$guard> {
                let $guard(staged) = self.create_with(dir.as_fd(), path.as_ref(), &mut checkpoint::go_on)?;
                staged.with_staging_open().map($guard)
            }

            /// The same, for a guard whose folder nobody asks for; `checkpoint` stops the copying of the present version.
            pub(crate) fn create_with(&self, dir: BorrowedFd, path: &Path, checkpoint: Checkpoint) -> Result<$guard> {
                Staged::open(dir, path, $kind, self.decide(path)?, checkpoint).map($guard)
            }
        }
    };
}

guard!(
    /// A new version of a whole folder, invisible until [`commit`](Folder::commit).
    ///
    /// Staging is `.atomik-0.NAME~/NAME` beside the destination, readable by its owner only. It is
    /// published with `renameat2(2)`: `RENAME_NOREPLACE`, or `RENAME_EXCHANGE` when there is a folder
    /// to replace, which is then removed. Dropping it without a commit discards it.
    ///
    /// # Durability
    /// With [`Durability::Full`] every file and folder of the tree is synced before the publish, and
    /// the destination's folder after it.
    ///
    /// # Errors
    /// See [`ErrorKind`]. Until the publish an error leaves the destination untouched; afterwards
    /// [`Error::committed`] is true.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("site");
    /// let site = atomik::Folder::options().overwrite(true).create(&path)?;
    /// std::fs::write(site.path().join("index.html"), "hello")?;
    /// site.commit()?;
    /// # assert!(path.join("index.html").exists());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    Folder,
    Kind::Folder
);

guard!(
    /// A path at which a tool writes a file or makes a folder, published by [`commit`](Entry::commit).
    ///
    /// For tools that only take a name and look at its suffix. What they leave beside it is not lost unasked: see
    /// [`Siblings`].
    /// Durability and errors are those of [`File`](crate::File) and [`Folder`]; nothing at the path is `ENOENT`.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("table.csv");
    /// let table = atomik::Entry::options().create(&path)?;
    /// std::fs::write(table.path(), "a,b\n")?; // or any tool that takes a file name
    /// table.commit()?;
    /// # assert!(path.exists());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    Entry,
    Kind::Any
);

/// The staging folder, open for reading: for `openat(2)` and tools that take a folder's descriptor.
impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // It is open from the start, and only the end of a commit or rollback, which consume the guard, closes it.
        self.0.draft.fd.as_ref().expect("staging is open until the end").as_fd()
    }
}

impl Entry {
    /// Lists what the tool has left beside it and is to be published; an error if nothing is to be left.
    pub(crate) fn siblings(&self) -> Result<Vec<OsString>> {
        self.0.siblings()
    }

    /// Moves a sibling to a group's slot; `destination` is beside this one.
    pub(crate) fn hand_over_sibling(
        &self,
        destination: &Destination,
        slot: BorrowedFd,
        name: &OsStr,
    ) -> Result<HandedOver> {
        self.0.hand_over_sibling(destination, slot, name)
    }
}

impl Options<Folder> {
    /// When the displaced version is removed (default: before the commit returns).
    pub fn cleanup(mut self, cleanup: Cleanup) -> Self {
        self.settings.cleanup = cleanup;
        self
    }
}

impl Options<Entry> {
    /// When the displaced version is removed (default: before the commit returns).
    pub fn cleanup(mut self, cleanup: Cleanup) -> Self {
        self.settings.cleanup = cleanup;
        self
    }

    /// What becomes of what a tool leaves beside the path (default: nothing is published, and the error names it).
    ///
    /// Publishing it does not go with [`update`](Options::update), [`backup`](Options::backup) and
    /// [`tmp_dir`](Options::tmp_dir), as a [`Group`] does not.
    pub fn siblings(mut self, siblings: Siblings) -> Self {
        self.settings.siblings = siblings;
        self
    }
}

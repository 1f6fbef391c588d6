//! `Folder` and `Entry`: a new version that is built under a name, in a slot, and published in one step.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use crate::base::Base;
use crate::checkpoint::{self, Checkpoint};
use crate::clone;
use crate::committed::Committed;
use crate::destination::{Destination, Kind};
use crate::draft::{Body, Draft};
use crate::error::{Error, ErrorKind, Hint, Result};
use crate::file::open_present;
use crate::group::Group;
use crate::guard::guard;
use crate::metadata::{self, Given, Work};
use crate::options::{Cleanup, Options, Settings, Siblings, Start};
use crate::slot;
use crate::snapshot::Pin;
use crate::sys;
use crate::tree;
use crate::trial;

/// What the shown path leaves for names below it, of the 4,096 bytes that a system call takes.
const ROOM_BELOW: usize = 1024;

/// How often the copy of the present version is begun again, since the version was removed under it.
const ROUNDS: u32 = 100;

/// Opens a draft in a slot, for a body that is given a path.
fn open(path: (BorrowedFd, &Path), kind: Kind, settings: Settings, checkpoint: Checkpoint) -> Result<Draft> {
    Draft::open(path, kind, settings, Body::Runs, |draft| {
        draft.stage_in_slot()?;
        stage(draft, checkpoint).inspect_err(|_| remove_empty(draft))
    })
}

/// Removes staging that is still empty: that takes no descriptor, of which none may be left.
fn remove_empty(draft: &Draft) {
    // What resists goes with the slot.
    drop(sys::rmdir(draft.slot(), &draft.destination.name));
}

/// Prepares the slot for the body, and fills it for an update.
fn stage(draft: &mut Draft, checkpoint: Checkpoint) -> Result<()> {
    let (destination, settings, old) = (&draft.destination, &draft.settings, draft.old);
    let slot = draft.slot();
    metadata::inherit(destination, slot)?;
    trial::in_slot(destination, slot, draft.kind, old, settings)?;
    if settings.start != Start::Empty {
        return start(draft, checkpoint);
    }
    if draft.kind == Kind::Any {
        return metadata::hand_on_flags(destination, settings, slot, old);
    }
    if settings.preserve && old.is_some_and(|old| old.is_folder()) {
        let folder = open_staging(destination, slot)?;
        let given = metadata::begin(destination, settings, folder.as_fd(), (old, None), None, Work::ByName)?;
        draft.hold(folder, given, None);
    }
    Ok(())
}

/// Opens the staging folder, if it is not open already.
fn hold_folder(draft: &mut Draft) -> Result<()> {
    if !draft.is_open() {
        let folder = open_staging(&draft.destination, draft.slot())?;
        draft.hold(folder, Given::default(), None);
    }
    Ok(())
}

fn open_staging(destination: &Destination, slot: BorrowedFd) -> Result<OwnedFd> {
    let failed = |error| destination.failed("creating staging", error);
    destination.patiently(|| sys::open_folder(slot, &destination.name).map_err(failed))
}

/// A copy of the present version, and its original.
struct Copied {
    copy: OwnedFd,
    given: Given,
    base: Base,
}

/// Copies the present version into staging.
fn start(draft: &mut Draft, checkpoint: Checkpoint) -> Result<()> {
    draft.base = Some(Base::nothing());
    if let Some(old) = draft.old {
        let copied = if old.is_folder() { copy_folder(draft, checkpoint) } else { copy_file(draft) };
        let Copied { copy, given, base } = copied?;
        draft.base = Some(base);
        draft.hold(copy, given, None);
    }
    Ok(())
}

/// Copies the present version, again if it is removed meanwhile: where a writer does not see the pin (see `LockReach`), it may
/// remove the version under the copy.
fn copy_folder(draft: &Draft, checkpoint: Checkpoint) -> Result<Copied> {
    let destination = &draft.destination;
    let failed = |error| destination.failed("copying the present version", error);
    for _ in 0..ROUNDS {
        let present = Pin::of(destination)?;
        let version = present.stat();
        let copied = copy_pinned(draft, &present, checkpoint);
        present.release(|| sys::stat(destination.parent(), &destination.name), checkpoint);
        let failure = match copied {
            Ok(copied) => return Ok(copied),
            Err(failure) => failure,
        };
        let now = destination.stat()?.filter(|now| slot::is_change(failure.io()) && !now.same(&version));
        let Some(now) = now else { return Err(failure) };
        tree::remove_below(draft.slot(), checkpoint).map_err(failed)?;
        if !now.is_folder() {
            return copy_file(draft);
        }
    }
    Err(failed(io::Error::from_raw_os_error(libc::EBUSY)).kind_is(ErrorKind::Busy))
}

fn copy_pinned(draft: &Draft, present: &Pin, checkpoint: Checkpoint) -> Result<Copied> {
    let (destination, slot) = (&draft.destination, draft.slot());
    let failed = |error| destination.failed("copying the present version", error);
    if sys::stat(slot, &destination.name).map_err(failed)?.is_none() {
        sys::mkdir(slot, &destination.name, 0o777).map_err(failed)?;
    }
    let copy = sys::open_folder(slot, &destination.name).map_err(failed)?;
    let old = (Some(present.stat()), Some(present.as_fd()));
    let given = metadata::begin(destination, &draft.settings, copy.as_fd(), old, None, Work::ByName)?;
    clone::tree(present.as_fd(), copy.as_fd(), checkpoint).map_err(|failure| {
        let error = Error::new("copying the present version", &destination.path.join(failure.place), failure.error);
        match failure.hint {
            Some(Hint::MountInside) => error.kind_is(ErrorKind::CrossDevice).hint(Hint::MountInside),
            Some(hint) => error.hint(hint),
            None => error,
        }
    })?;
    // Open without the pin: a version that is displaced meanwhile can go, its inode number cannot.
    let handle = sys::openat(present.as_fd(), OsStr::new("."), OFlag::O_PATH | OFlag::O_DIRECTORY, 0);
    Ok(Copied { copy, given, base: Base::version(handle.map_err(failed)?, present.stat()) })
}

/// The same for a file, at a path for a tool.
fn copy_file(draft: &Draft) -> Result<Copied> {
    let (destination, slot) = (&draft.destination, draft.slot());
    let failed = |error| destination.failed("copying the present version", error);
    let (from, stat) = open_present(destination)?;
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
    let to = sys::openat(slot, &destination.name, flags, 0o666).map_err(failed)?;
    let old = (Some(stat), Some(from.as_fd()));
    let given = metadata::begin(destination, &draft.settings, to.as_fd(), old, None, Work::ByName)?;
    clone::content(from.as_fd(), to.as_fd(), &stat, &mut checkpoint::go_on).map_err(failed)?;
    let copy = sys::open_name(slot, &destination.name).map_err(failed)?;
    Ok(Copied { copy, given, base: Base::version(from, stat) })
}

/// The path that the user and other programs get: absolute, so that `chdir` does not matter; where
/// that is too long for one system call, or not safe, through `/proc`.
fn shown_path(draft: &Draft) -> PathBuf {
    match draft.staging_path() {
        // Where anybody can rename, the path would lead through a name that is not ours alone.
        Some(path) if path.as_os_str().len() + ROOM_BELOW < 4096 && !draft.destination.anybody_renames() => path,
        _ => {
            let slot = draft.slot().as_raw_fd();
            PathBuf::from(format!("/proc/{}/fd/{slot}", std::process::id())).join(&draft.destination.name)
        }
    }
}

/// Commits a draft; what a tool has left beside it, if that is to be published, in one group with it.
fn commit(mut draft: Draft, checkpoint: Checkpoint) -> Result<Committed> {
    match draft.siblings() {
        Ok(names) if names.is_empty() => draft.commit(checkpoint),
        Ok(names) => {
            let mut group = Group::new(draft.settings.durability);
            group.add_with_siblings(draft, names)?;
            group.commit_with(checkpoint)
        }
        Err(error) => Err(draft.discard_after(error)),
    }
}

/// What folders and entries have beside what all guards have.
macro_rules! shown {
    ($guard:ident, $kind:expr, $create:ident) => {
        guard!($guard, commit, $create);

        impl $guard {
            /// Where the new version is built; its last component is the destination's name.
            #[must_use]
            pub fn path(&self) -> &Path {
                &self.draft.shown
            }
        }

        impl Options<$guard> {
            /// Opens a new version, but no descriptor of its folder; `checkpoint` stops the copying of the present version.
            pub(crate) fn create_with(&self, dir: BorrowedFd, path: &Path, checkpoint: Checkpoint) -> Result<$guard> {
                let mut draft = open((dir, path), $kind, self.decide(path)?, checkpoint)?;
                draft.shown = shown_path(&draft);
                Ok($guard { draft })
            }

            /// When the displaced version is removed (default: before the commit returns).
            pub fn cleanup(mut self, cleanup: Cleanup) -> Self {
                self.settings.cleanup = cleanup;
                self
            }
        }
    };
}

/// A new version of a whole folder, invisible until [`commit`](Folder::commit).
///
/// Staging is `.atomik-0.NAME~/NAME` beside the destination, readable by its owner only. It is
/// published with `renameat2(2)`: `RENAME_NOREPLACE`, or `RENAME_EXCHANGE` when there is a folder
/// to replace, which is then removed. Dropping it without a commit discards it.
///
/// # Durability
/// With [`Durability::Full`](crate::Durability::Full) every file and folder of the tree is synced before the publish, and
/// the destination's folder after it.
///
/// # Errors
/// See [`ErrorKind`]. Until the publish an error leaves the destination untouched; afterwards
/// [`Error::committed`](crate::Error::committed) is true.
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
#[derive(Debug)]
#[must_use = "dropped without `commit`, it discards the new version"]
pub struct Folder {
    draft: Draft,
}

shown!(Folder, Kind::Folder, create_open);

impl Options<Folder> {
    /// Opens a new version, and its folder for [`AsFd`].
    fn create_open(&self, dir: BorrowedFd, path: &Path, checkpoint: Checkpoint) -> Result<Folder> {
        let mut folder = self.create_with(dir, path, checkpoint)?;
        let held = hold_folder(&mut folder.draft).inspect_err(|_| remove_empty(&folder.draft));
        match held {
            Ok(()) => Ok(folder),
            Err(error) => Err(folder.draft.discard_after(error)),
        }
    }
}

/// The staging folder, open for reading: for `openat(2)` and tools that take a folder's descriptor.
impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.draft.file().as_fd()
    }
}

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
#[derive(Debug)]
#[must_use = "dropped without `commit`, it discards the new version"]
pub struct Entry {
    draft: Draft,
}

shown!(Entry, Kind::Any, create_with);

impl Options<Entry> {
    /// What becomes of what a tool leaves beside the path (default: nothing is published, and the error names it).
    ///
    /// Publishing it does not go with [`update`](Options::update), [`backup`](Options::backup) and
    /// [`tmp_dir`](Options::tmp_dir), as a [`Group`] does not.
    pub fn siblings(mut self, siblings: Siblings) -> Self {
        self.settings.siblings = siblings;
        self
    }
}

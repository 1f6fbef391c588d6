//! `group` and the guard `Group`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

use super::convert::{self, CleanupArg, DurabilityArg, PathArg, Permissions, SiblingsArg};
use super::file::File;
use super::folder::{Entry, Folder};
use super::interrupt::detached;
use super::state::{foreign, warn_of_drop};
use super::{file, folder, write};
use crate::checkpoint::Checkpoint;
use crate::options::{Cleanup, Durability};
use crate::sys;

/// The group of the core, shared with the guards of its members.
pub(super) struct Shared {
    group: Mutex<Stage>,
    /// How many members have been entered and not ended.
    open: AtomicUsize,
    /// The numbers of those that have ended without being added, for the group to forget.
    ended: Mutex<Vec<u64>>,
    generation: u32,
}

enum Stage {
    New,
    Open(Box<crate::Group>),
    Ended { committed: bool },
}

const CLOSED: &str = "the group is not open: enter it with 'with' first, and end it once";

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the open group, without the GIL.
    fn work<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut crate::Group, Checkpoint) -> crate::Result<T> + Send,
    ) -> PyResult<crate::Result<T>> {
        // Another thread may have held the lock when a fork made this process.
        if self.generation != sys::fork_generation() {
            return Err(foreign());
        }
        let (outcome, raised) = detached(py, |checkpoint| match &mut *self.lock() {
            Stage::Open(group) => {
                for number in std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner)) {
                    group.forget(number);
                }
                Some(work(group, checkpoint))
            }
            _ => None,
        });
        raised?;
        outcome.ok_or_else(|| PyRuntimeError::new_err(CLOSED))
    }

    fn take(&self, committed: bool) -> Option<crate::Group> {
        let mut stage = self.lock();
        if !matches!(&*stage, Stage::Open(_)) {
            return None;
        }
        match std::mem::replace(&mut *stage, Stage::Ended { committed }) {
            Stage::Open(group) => Some(*group),
            _ => None,
        }
    }
}

impl Drop for Shared {
    /// The group and all guards of its members have gone.
    fn drop(&mut self) {
        let entered = match self.group.get_mut().unwrap_or_else(PoisonError::into_inner) {
            Stage::New => false,
            Stage::Open(_) => true,
            Stage::Ended { .. } => return,
        };
        if self.generation == sys::fork_generation() {
            warn_of_drop("a group", None, entered);
        }
    }
}

/// A guard's part in a group, from its entering to its end.
pub(super) struct Membership {
    group: Arc<Shared>,
    number: u64,
}

impl Membership {
    /// Refuses what the group would refuse after the body.
    pub(super) fn enter(
        py: Python<'_>,
        group: &Arc<Shared>,
        destination: &crate::destination::Destination,
        path: &PathArg,
    ) -> PyResult<Self> {
        let announced = group.work(py, |group, _| group.announce(destination))?;
        let number = announced.map_err(|error| convert::error(py, &error, &[path]))?;
        group.open.fetch_add(1, Ordering::Relaxed);
        Ok(Self { group: Arc::clone(group), number })
    }

    /// Adds what the body has made.
    pub(super) fn add(
        self,
        py: Python<'_>,
        path: &PathArg,
        add: impl FnOnce(&mut crate::Group) -> crate::Result<()> + Send,
    ) -> PyResult<()> {
        let added = self.group.work(py, |group, _| {
            group.forget(self.number);
            add(group)
        })?;
        added.map_err(|error| convert::error(py, &error, &[path]))
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.group.open.fetch_sub(1, Ordering::Relaxed);
        // Not the group's own lock: its holder may wait for the interpreter.
        self.group.ended.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
    }
}

/// Many new versions, published together: what `atomik.group` returns.
///
/// A context manager, also for `async with`. Its methods take what the functions of the same names take, but
/// durability, and what does not go with a group: `update`, `backup`, `cleanup`, `tmp_dir` and the modes
/// "a" and "r+". What their bodies have written waits, invisible, for the end of the group's body.
///
/// Attributes:
///     committed: True once the members have been published; after an error that says so too, all of them, or
///         those that its message names.
///
/// Example:
///     >>> with atomik.group() as g:
///     ...     g.write_text("left", "1")
///     ...     with g.file("right") as f:
///     ...         _ = f.write("2")
#[pyclass(frozen, module = "atomik")]
pub(super) struct Group {
    shared: Arc<Shared>,
    durability: Durability,
}

impl Group {
    fn durability(&self) -> DurabilityArg {
        DurabilityArg(self.durability)
    }

    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        if self.shared.generation != sys::fork_generation() {
            return Err(foreign());
        }
        if self.shared.open.load(Ordering::Relaxed) != 0 {
            // Nothing is published; the members' bodies find the group ended.
            self.discard(py)?;
            return Err(PyRuntimeError::new_err(
                "a member of the group is still open: end its body before the group's",
            ));
        }
        let (outcome, raised) = detached(py, |checkpoint| {
            let group = self.shared.take(false)?;
            let outcome = group.commit_with(checkpoint);
            let committed = outcome.as_ref().map_or_else(crate::Error::committed, |_| true);
            *self.shared.lock() = Stage::Ended { committed };
            Some(outcome)
        });
        raised?;
        convert::finished(py, outcome.ok_or_else(|| PyRuntimeError::new_err(CLOSED))?, &[])
    }

    fn discard(&self, py: Python<'_>) -> PyResult<()> {
        if self.shared.generation != sys::fork_generation() {
            return Ok(());
        }
        let (outcome, raised) =
            detached(py, |checkpoint| self.shared.take(false).map_or(Ok(()), |group| group.rollback_with(checkpoint)));
        raised?;
        outcome.or_else(|leftover| convert::warn(py, &leftover))
    }
}

#[pymethods]
impl Group {
    fn __enter__(slf: Py<Self>) -> PyResult<Py<Self>> {
        let group = slf.get();
        let mut stage = group.shared.lock();
        if !matches!(&*stage, Stage::New) {
            return Err(PyRuntimeError::new_err("a group is entered once: call atomik.group again for another"));
        }
        *stage = Stage::Open(Box::new(crate::Group::new(group.durability)));
        drop(stage);
        Ok(slf)
    }

    #[pyo3(signature = (*exc))]
    fn __exit__(&self, py: Python<'_>, exc: &Bound<'_, PyTuple>) -> PyResult<bool> {
        let failed = exc.iter().next().is_some_and(|class| !class.is_none());
        if failed {
            self.discard(py)?;
        } else if py.detach(|| matches!(&*self.shared.lock(), Stage::Open(_))) {
            self.finish(py)?;
        }
        Ok(false)
    }

    fn __aenter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("atomik._async")?.call_method1("enter", (slf,))
    }

    #[pyo3(signature = (*exc))]
    fn __aexit__<'py>(slf: &Bound<'py, Self>, exc: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("atomik._async")?.call_method1("leave", (slf, exc))
    }

    /// As `atomik.file`, in modes "w" and "x"; the body's end adds the file to the group.
    ///
    /// Raises:
    ///     ValueError: Another mode; nothing was touched.
    ///     RuntimeError: The group is not open.
    ///     OSError: When the body is entered or ends, as for `atomik.file`.
    #[pyo3(signature = (path, mode="w", overwrite=false, *, encoding=None, errors=None, newline=None, buffering=-1, permissions=None, preserve=true, follow_symlinks=false, dir_fd=None),
           text_signature = "($self, path, mode='w', overwrite=False, *, encoding=None, errors=None, newline=None, buffering=-1, permissions=None, preserve=True, follow_symlinks=False, dir_fd=None)")]
    #[expect(clippy::too_many_arguments, reason = "the contract's options")]
    fn file(
        &self,
        py: Python<'_>,
        path: PathArg,
        mode: &str,
        overwrite: bool,
        encoding: Option<&str>,
        errors: Option<&str>,
        newline: Option<&str>,
        buffering: i32,
        permissions: Option<Permissions>,
        preserve: bool,
        follow_symlinks: bool,
        dir_fd: Option<i32>,
    ) -> PyResult<File> {
        if mode.contains(['a', 'r']) {
            return Err(PyValueError::new_err(format!("mode '{mode}' does not go with a group: 'w' or 'x'")));
        }
        let (durability, follow) = (self.durability(), follow_symlinks);
        let guard = file::file(
            py,
            path,
            mode,
            overwrite,
            None,
            durability,
            encoding,
            errors,
            newline,
            buffering,
            permissions,
            preserve,
            follow,
            None,
            dir_fd,
        )?;
        Ok(guard.in_group(&self.shared))
    }

    /// As `atomik.folder`; the body's end adds the folder to the group.
    ///
    /// Raises:
    ///     RuntimeError: The group is not open.
    ///     OSError: When the body is entered or ends, as for `atomik.folder`.
    #[pyo3(signature = (path, overwrite=false, *, permissions=None, preserve=true, follow_symlinks=false, dir_fd=None),
           text_signature = "($self, path, overwrite=False, *, permissions=None, preserve=True, follow_symlinks=False, dir_fd=None)")]
    fn folder(
        &self,
        path: PathArg,
        overwrite: bool,
        permissions: Option<Permissions>,
        preserve: bool,
        follow_symlinks: bool,
        dir_fd: Option<i32>,
    ) -> Folder {
        let (durability, cleanup) = (self.durability(), CleanupArg(Cleanup::Inline));
        folder::folder(
            path,
            overwrite,
            None,
            false,
            durability,
            permissions,
            preserve,
            follow_symlinks,
            None,
            cleanup,
            dir_fd,
        )
        .in_group(&self.shared)
    }

    /// As `atomik.path`; the body's end adds what the tool has made to the group, and its siblings if they are to be published.
    ///
    /// Raises:
    ///     RuntimeError: The group is not open.
    ///     OSError: When the body is entered or ends, as for `atomik.path`.
    #[pyo3(signature = (path, *, overwrite=false, permissions=None, preserve=true, follow_symlinks=false, dir_fd=None, siblings=SiblingsArg(crate::Siblings::Refuse)),
           text_signature = "($self, path, *, overwrite=False, permissions=None, preserve=True, follow_symlinks=False, dir_fd=None, siblings='refuse')")]
    #[expect(clippy::too_many_arguments, reason = "the contract's options")]
    fn path(
        &self,
        path: PathArg,
        overwrite: bool,
        permissions: Option<Permissions>,
        preserve: bool,
        follow_symlinks: bool,
        dir_fd: Option<i32>,
        siblings: SiblingsArg,
    ) -> PyResult<Entry> {
        let (durability, cleanup) = (self.durability(), CleanupArg(Cleanup::Inline));
        let guard = folder::path(
            path,
            overwrite,
            false,
            durability,
            permissions,
            preserve,
            follow_symlinks,
            None,
            cleanup,
            None,
            dir_fd,
            siblings,
        )?;
        Ok(guard.in_group(&self.shared))
    }

    /// As `atomik.write_bytes`; the file is added to the group.
    ///
    /// Raises:
    ///     RuntimeError: The group is not open.
    ///     OSError: As for `atomik.write_bytes`; the other members stay in the group.
    #[pyo3(signature = (path, data, *, overwrite=false, permissions=None, preserve=true, follow_symlinks=false, dir_fd=None),
           text_signature = "($self, path, data, *, overwrite=False, permissions=None, preserve=True, follow_symlinks=False, dir_fd=None)")]
    #[expect(clippy::too_many_arguments, clippy::needless_pass_by_value, reason = "the contract's options")]
    fn write_bytes(
        &self,
        py: Python<'_>,
        path: PathArg,
        data: &Bound<'_, PyAny>,
        overwrite: bool,
        permissions: Option<Permissions>,
        preserve: bool,
        follow_symlinks: bool,
        dir_fd: Option<i32>,
    ) -> PyResult<()> {
        let settings =
            convert::settings(overwrite, self.durability(), permissions, preserve, follow_symlinks, None, None);
        let content = write::Content::of(data)?;
        self.write(py, &path, &content, settings, dir_fd)
    }

    /// As `atomik.write_text`; the file is added to the group.
    ///
    /// Raises:
    ///     UnicodeEncodeError: The encoding has no bytes for a character; nothing was touched.
    ///     RuntimeError: The group is not open.
    ///     OSError: As for `atomik.write_text`; the other members stay in the group.
    #[pyo3(signature = (path, text, *, encoding=None, errors=None, newline=None, overwrite=false, permissions=None, preserve=true, follow_symlinks=false, dir_fd=None),
           text_signature = "($self, path, text, *, encoding=None, errors=None, newline=None, overwrite=False, permissions=None, preserve=True, follow_symlinks=False, dir_fd=None)")]
    #[expect(clippy::too_many_arguments, clippy::needless_pass_by_value, reason = "the contract's options")]
    fn write_text(
        &self,
        py: Python<'_>,
        path: PathArg,
        text: &Bound<'_, PyString>,
        encoding: Option<&str>,
        errors: Option<&str>,
        newline: Option<&str>,
        overwrite: bool,
        permissions: Option<Permissions>,
        preserve: bool,
        follow_symlinks: bool,
        dir_fd: Option<i32>,
    ) -> PyResult<()> {
        let settings =
            convert::settings(overwrite, self.durability(), permissions, preserve, follow_symlinks, None, None);
        let content = write::Content::encoded(text, encoding, errors, newline)?;
        self.write(py, &path, &content, settings, dir_fd)
    }

    /// Publishes all members now; the end of the body then does nothing.
    ///
    /// Raises:
    ///     RuntimeError: The group is not open, a member is, or it belongs to a parent process.
    ///     OSError: The commit failed; the error's `filename` is the member that did, and its `committed` tells
    ///         whether others stay published.
    fn commit(&self, py: Python<'_>) -> PyResult<()> {
        self.finish(py)
    }

    /// Discards all members now; the end of the body then does nothing.
    ///
    /// Raises:
    ///     RuntimeError: The group is not open, or belongs to a parent process.
    fn rollback(&self, py: Python<'_>) -> PyResult<()> {
        if self.shared.generation != sys::fork_generation() {
            return Err(foreign());
        }
        if !py.detach(|| matches!(&*self.shared.lock(), Stage::Open(_))) {
            return Err(PyRuntimeError::new_err(CLOSED));
        }
        self.discard(py)
    }

    fn __repr__(&self) -> String {
        let Ok(stage) = self.shared.group.try_lock() else { return "<Group: busy>".into() };
        match &*stage {
            Stage::New => "<Group: not entered>".into(),
            Stage::Open(group) => format!("<Group of {}: open>", group.len()),
            Stage::Ended { committed: true } => "<Group: committed>".into(),
            Stage::Ended { committed: false } => "<Group: ended>".into(),
        }
    }

    #[getter]
    fn committed(&self, py: Python<'_>) -> bool {
        py.detach(|| matches!(&*self.shared.lock(), Stage::Ended { committed: true }))
    }
}

impl Group {
    fn write(
        &self,
        py: Python<'_>,
        path: &PathArg,
        content: &write::Content<'_>,
        settings: crate::options::Settings,
        dir_fd: Option<i32>,
    ) -> PyResult<()> {
        let at = convert::folder_fd(dir_fd);
        let options = crate::Options::<crate::File>::from_settings(settings);
        let (target, memory) = (&path.path, content.memory());
        let written = self.shared.work(py, |group, checkpoint| {
            group.write_with(&options, at, target, |file, checkpoint| write::fill(file, memory, checkpoint), checkpoint)
        })?;
        written.map_err(|error| convert::error(py, &error, &[path]))
    }
}

/// Publishes many files and folders together, for the price of one sync a filesystem.
///
/// All that is written in the body becomes visible at its end, one destination after the other, or, after an
/// exception, not at all. It is not one instant: a reader, or a power cut, during the publishes may find some
/// destinations new and some old, each complete. If one cannot be published, those before it are taken back.
///
/// Args:
///     durability: "full" (when the body has ended, all survive a power cut), "ordered" (after one each is old or new)
///         or "none" (no sync).
///
/// Returns:
///     A guard whose body gets itself, with the methods `file`, `folder`, `path`, `write_bytes`, `write_text`.
///
/// Raises:
///     ValueError: A wrong durability; nothing was touched.
///     OSError: As for `file` and `folder`; `filename` is the member that failed. `committed` is true if
///         members stay published, which the message names.
///     UnsupportedFilesystemError: A destination exists, and the filesystem lacks RENAME_EXCHANGE.
///     ConflictError: The folder of a destination was replaced or removed meanwhile; nothing was published.
///     DurabilityError: A sync failed; `committed` says on which side of the publishes.
///
/// Warns:
///     CleanupWarning: A displaced version could not be removed; the commit stands.
///
/// Durability: each filesystem synced once, then all published, then each folder synced once.
/// Source: linkat(2), renameat2(2) RENAME_NOREPLACE and RENAME_EXCHANGE, syncfs(2), fsync(2).
///
/// Example:
///     >>> with atomik.group() as g:
///     ...     for number in range(100):
///     ...         g.write_text(f"{number}.txt", "hello")
#[pyfunction]
#[pyo3(signature = (*, durability=DurabilityArg(Durability::Full)), text_signature = "(*, durability='full')")]
#[expect(clippy::needless_pass_by_value, reason = "from Python by value")]
pub(super) fn group(durability: DurabilityArg) -> Group {
    let group = Mutex::new(Stage::New);
    let shared =
        Shared { group, open: AtomicUsize::new(0), ended: Mutex::default(), generation: sys::fork_generation() };
    Group { shared: Arc::new(shared), durability: durability.0 }
}

//! `folder`, `path` and the guards `Folder` and `Entry`.

use std::sync::Arc;

use pyo3::PyTraverseError;
use pyo3::exceptions::PyValueError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::convert::{
    self, CleanupArg, DurabilityArg, PathArg, Permissions, SiblingsArg, folder_fd, pathlib, settings,
};
use super::group::{Membership, Shared};
use super::interrupt::detached;
use super::state::{self, State, foreign};
use crate::options::{Options, Settings};

/// The arguments and the state of a guard.
struct Inner<Guard: Own> {
    path: PathArg,
    dir_fd: Option<i32>,
    settings: Settings,
    /// The group that it is to be published with.
    group: Option<Arc<Shared>>,
    state: State<(Guard, Option<Membership>)>,
}

/// What the two kinds of guard have in common here.
trait Own {
    const NAME: &str;
    fn is_foreign(&self) -> bool;
}

impl<Guard: Own> Inner<Guard> {
    fn new(path: PathArg, dir_fd: Option<i32>, settings: Settings) -> Self {
        Self { path, dir_fd, settings, group: None, state: State::new() }
    }
}

impl<Guard: Own> Inner<Guard> {
    /// Takes what is open for the end of a guard that nobody ended.
    fn take_dropped(&self) -> Option<(Guard, Option<Membership>)> {
        let taken = self.state.take();
        if taken.as_ref().is_some_and(|(guard, _)| !guard.is_foreign()) {
            state::warn_of_drop(Guard::NAME, Some(&self.path), true);
        }
        taken
    }
}

impl<Guard: Own + Send> Inner<Guard> {
    /// The end of a guard that nobody ended. Removing what is staged may take long: not under the GIL.
    fn abandon(&self) {
        if let Some(guard) = self.take_dropped() {
            Python::attach(|py| py.detach(|| drop(guard)));
            self.state.ended(false);
        }
    }
}

impl<Guard: Own> Drop for Inner<Guard> {
    fn drop(&mut self) {
        if self.state.is_forgotten() {
            state::warn_of_drop(Guard::NAME, Some(&self.path), false);
        }
        // Where Python is being finalized, the core's own `Drop` is left to do it.
        drop(self.take_dropped());
    }
}

macro_rules! guard {
    ($(#[$doc:meta])* $guard:ident, $add:ident) => {
        $(#[$doc])*
        #[pyclass(frozen, module = "atomik")]
        pub(super) struct $guard(Inner<crate::$guard>);

        impl Own for crate::$guard {
            const NAME: &str = stringify!($guard);

            fn is_foreign(&self) -> bool {
                crate::$guard::is_foreign(self)
            }
        }

        impl $guard {
            pub(super) fn in_group(mut self, group: &Arc<Shared>) -> Self {
                self.0.group = Some(Arc::clone(group));
                self
            }

            fn finish(
                &self,
                py: Python<'_>,
                (guard, membership): (crate::$guard, Option<Membership>),
            ) -> PyResult<()> {
                if guard.is_foreign() {
                    self.0.state.ended(false);
                    return Err(foreign());
                }
                if let Some(membership) = membership {
                    self.0.state.ended(false);
                    return membership.add(py, &self.0.path, |group| group.$add(guard));
                }
                let (outcome, raised) = detached(py, |checkpoint| guard.commit_with(checkpoint));
                let committed = outcome.as_ref().map_or_else(crate::Error::committed, |_| true);
                self.0.state.ended(committed);
                raised?;
                convert::finished(py, outcome, &[&self.0.path])
            }

            fn discard(
                &self,
                py: Python<'_>,
                (guard, _membership): (crate::$guard, Option<Membership>),
            ) -> PyResult<()> {
                self.0.state.ended(false);
                if guard.is_foreign() {
                    return Ok(());
                }
                let (outcome, raised) = detached(py, |checkpoint| guard.rollback_with(checkpoint));
                raised?;
                outcome.or_else(|leftover| convert::warn(py, &leftover))
            }
        }

        #[pymethods]
        impl $guard {
            fn __enter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
                self.0.state.start()?;
                let options = Options::<crate::$guard>::from_settings(self.0.settings.clone());
                let at = folder_fd(self.0.dir_fd);
                let (guard, raised) = detached(py, |checkpoint| options.create_with(at, &self.0.path.path, checkpoint));
                if let Err(raised) = raised {
                    self.0.state.ended(false);
                    return Err(raised);
                }
                match guard {
                    Ok(guard) => {
                        let enter = |group| Membership::enter(py, group, guard.place(), &self.0.path);
                        match self.0.group.as_ref().map(enter).transpose() {
                            Ok(membership) => {
                                let path = pathlib(py, guard.path());
                                self.0.state.opened((guard, membership));
                                path
                            }
                            Err(refused) => {
                                self.0.state.ended(false);
                                Err(refused)
                            }
                        }
                    }
                    Err(error) => {
                        self.0.state.ended(false);
                        Err(convert::error(py, &error, &[&self.0.path]))
                    }
                }
            }

            #[pyo3(signature = (*exc))]
            fn __exit__(&self, py: Python<'_>, exc: &Bound<'_, PyTuple>) -> PyResult<bool> {
                let failed = exc.iter().next().is_some_and(|class| !class.is_none());
                match self.0.state.take_at_exit()? {
                    Some(guard) if failed => self.discard(py, guard)?,
                    Some(guard) => self.finish(py, guard)?,
                    // commit() or rollback() was called in the body.
                    None => {}
                }
                Ok(false)
            }

            fn __aenter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
                slf.get().0.state.awaited();
                slf.py().import("atomik._async")?.call_method1("enter", (slf,))
            }

            #[pyo3(signature = (*exc))]
            fn __aexit__<'py>(slf: &Bound<'py, Self>, exc: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
                slf.py().import("atomik._async")?.call_method1("leave", (slf, exc))
            }

            /// Publishes the new version now; the end of the body then does nothing.
            ///
            /// Raises:
            ///     RuntimeError: The guard is not open, or belongs to a parent process.
            ///     OSError: The commit failed; nothing was published unless the error's `committed` is true.
            fn commit(&self, py: Python<'_>) -> PyResult<()> {
                self.finish(py, self.0.state.take_open()?)
            }

            /// Discards the new version now; the end of the body then does nothing.
            ///
            /// Raises:
            ///     RuntimeError: The guard is not open, or belongs to a parent process.
            fn rollback(&self, py: Python<'_>) -> PyResult<()> {
                let guard = self.0.state.take_open()?;
                let foreigner = guard.0.is_foreign();
                self.discard(py, guard)?;
                if foreigner { Err(foreign()) } else { Ok(()) }
            }

            #[getter]
            fn destination<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
                pathlib(py, &self.0.path.path)
            }

            #[getter]
            fn staging<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
                let path = self.0.state.look(|(guard, _)| guard.path().to_owned());
                path.map(|path| pathlib(py, &path)).transpose()
            }

            #[getter]
            fn committed(&self) -> bool {
                self.0.state.is_committed()
            }

            fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
                state::repr(py, stringify!($guard), &self.0.path, self.0.state.word())
            }

            fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
                visit.call(&self.0.path.object)
            }

            fn __clear__(&self) {
                self.0.abandon();
            }
        }
    };
}

guard!(
    /// A new version of a folder: what `atomik.folder` returns.
    ///
    /// A context manager, also for `async with` in asyncio and trio (then entering and committing run in a thread), whose
    /// body gets the `pathlib.Path` of the staging folder. The body's normal end commits, an exception
    /// rolls back.
    ///
    /// Attributes:
    ///     destination: The path that was asked for.
    ///     staging: Where the new version is built; None while the guard is not open.
    ///     committed: True once the new version has been published.
    ///
    /// Example:
    ///     >>> guard = atomik.folder("site")
    ///     >>> with guard as site:
    ///     ...     _ = (site / "index.html").write_text("hello")
    ///     >>> guard.committed
    ///     True
    Folder,
    add_folder
);

guard!(
    /// A path for a tool to write to: what `atomik.path` returns.
    ///
    /// A context manager like `Folder`; what its body gets does not exist yet.
    ///
    /// Attributes:
    ///     destination: The path that was asked for.
    ///     staging: Where the tool writes; None while the guard is not open.
    ///     committed: True once the new version has been published.
    ///
    /// Example:
    ///     >>> guard = atomik.path("table.csv")
    ///     >>> with guard as path:
    ///     ...     _ = path.write_text("a,b")
    ///     >>> guard.committed
    ///     True
    Entry,
    add_entry
);

/// Makes a new version of a whole folder, which appears at `path` in one step when the body ends well.
///
/// Args:
///     path: The destination: `str`, `bytes` or `os.PathLike`.
///     overwrite: Replace the folder that is there (default False: it is refused at once).
///     tmp_dir: Folder to stage in, on the destination's mount (default: the destination's folder).
///     update: Start from a complete copy of the present version, if there is one, and replace it.
///     durability: "full" (survives a power cut), "ordered" (old or new after one) or "none" (no sync).
///     permissions: Exact permission bits of the folder (default: the old one's, else the umask's).
///     preserve: Keep the old folder's mode, owner, group, ACL and user xattrs (default True).
///     follow_symlinks: Publish where a symlink leads instead of replacing the link (default False).
///     backup: Name beside the destination for the displaced version; replaces the backup before it.
///     cleanup: "inline" removes the displaced version before the commit returns, "background" in a thread.
///     dir_fd: Open folder that a relative `path` starts from.
///
/// Returns:
///     A guard whose `with` and `async with` body gets the `pathlib.Path` of the staging folder, empty
///     unless `update` is true.
///
/// Raises:
///     FileAlreadyExistsError: The destination exists and `overwrite` is false.
///     NotADirectoryError: It is a file.
///     DestinationBusyError: It is a mount point, a device, a FIFO or a socket, or a symlink that leads to one.
///     InvalidCrossDeviceError: It belongs to an overlay's lower layer, or `tmp_dir` is on another mount.
///     ConflictError: Its folder was replaced or removed since the body began; or `update`, and somebody else has
///         published since: theirs stands.
///     UnsupportedFilesystemError: The filesystem lacks RENAME_NOREPLACE or RENAME_EXCHANGE.
///     DurabilityError: A sync failed; `committed` says on which side of the publish.
///     OSError: Any other refusal of the system; before the body if it can be known there.
///
/// Warns:
///     CleanupWarning: The displaced version could not be removed; the commit stands.
///
/// Durability: every file and folder synced, then published, then the parent folder synced.
/// Source: renameat2(2) RENAME_NOREPLACE and RENAME_EXCHANGE, flock(2), fsync(2).
///
/// Example:
///     >>> with atomik.folder("site", overwrite=True) as site:
///     ...     _ = (site / "index.html").write_text("hello")
#[pyfunction]
#[pyo3(signature = (path, overwrite=false, tmp_dir=None, *, update=false, durability=DurabilityArg(crate::Durability::Full), permissions=None, preserve=true, follow_symlinks=false, backup=None, cleanup=CleanupArg(crate::Cleanup::Inline), dir_fd=None),
       text_signature = "(path, overwrite=False, tmp_dir=None, *, update=False, durability='full', permissions=None, preserve=True, follow_symlinks=False, backup=None, cleanup='inline', dir_fd=None)")]
#[expect(clippy::too_many_arguments, clippy::fn_params_excessive_bools, reason = "the contract's options")]
pub(super) fn folder(
    path: PathArg,
    overwrite: bool,
    tmp_dir: Option<PathArg>,
    update: bool,
    durability: DurabilityArg,
    permissions: Option<Permissions>,
    preserve: bool,
    follow_symlinks: bool,
    backup: Option<PathArg>,
    cleanup: CleanupArg,
    dir_fd: Option<i32>,
) -> Folder {
    let settings = settings(overwrite, durability, permissions, preserve, follow_symlinks, tmp_dir, backup);
    let settings = settings.updating(update, cleanup.0);
    Folder(Inner::new(path, dir_fd, settings))
}

/// Gives a path at which a tool writes a file or makes a folder; it appears at `path` in one step.
///
/// The last component is the destination's own name, for tools that look at the suffix. What else they leave beside it
/// is not lost unasked: see `siblings`.
///
/// Args:
///     path: The destination: `str`, `bytes` or `os.PathLike`; with a slash at its end, a folder.
///     siblings: What becomes of what the tool leaves beside the path (SQLite's "-wal", the parts of a shapefile): "refuse"
///         (default) publishes nothing and names it in the error, "publish" publishes all of it beside the
///         destination, in one group with it, and "discard" removes it.
///     overwrite, update, durability, permissions, preserve, follow_symlinks, backup, cleanup, tmp_dir,
///         dir_fd: As for `folder`.
///
/// Returns:
///     A guard whose `with` and `async with` body gets a `pathlib.Path` that does not exist yet, unless
///     `update` has put a copy of the present version there.
///
/// Raises:
///     AtomikError: The tool has left something beside the path; `errno` is ENOTEMPTY, and nothing was published.
///     FileNotFoundError: Nothing was at the path when the body ended; the message names what was.
///     ValueError: "publish" with `update`, `backup` or `tmp_dir`, which a group does not take.
///     OSError: As for `file` and `folder`, according to what the tool made.
///
/// Durability: as for `file` and `folder`.
/// Source: renameat2(2), flock(2), fsync(2).
///
/// Example:
///     >>> with atomik.path("table.csv") as p:
///     ...     _ = p.write_text("a,b")  # or any tool that takes a file name
#[pyfunction]
#[pyo3(signature = (path, *, overwrite=false, update=false, durability=DurabilityArg(crate::Durability::Full), permissions=None, preserve=true, follow_symlinks=false, backup=None, cleanup=CleanupArg(crate::Cleanup::Inline), tmp_dir=None, dir_fd=None, siblings=SiblingsArg(crate::Siblings::Refuse)),
       text_signature = "(path, *, overwrite=False, update=False, durability='full', permissions=None, preserve=True, follow_symlinks=False, backup=None, cleanup='inline', tmp_dir=None, dir_fd=None, siblings='refuse')")]
#[expect(clippy::too_many_arguments, clippy::fn_params_excessive_bools, reason = "the contract's options")]
pub(super) fn path(
    path: PathArg,
    overwrite: bool,
    update: bool,
    durability: DurabilityArg,
    permissions: Option<Permissions>,
    preserve: bool,
    follow_symlinks: bool,
    backup: Option<PathArg>,
    cleanup: CleanupArg,
    tmp_dir: Option<PathArg>,
    dir_fd: Option<i32>,
    siblings: SiblingsArg,
) -> PyResult<Entry> {
    let settings = settings(overwrite, durability, permissions, preserve, follow_symlinks, tmp_dir, backup);
    let mut settings = settings.updating(update, cleanup.0);
    settings.siblings = siblings.0;
    if settings.is_no_group() {
        return Err(PyValueError::new_err("siblings='publish' does not go with update, backup or tmp_dir"));
    }
    Ok(Entry(Inner::new(path, dir_fd, settings)))
}

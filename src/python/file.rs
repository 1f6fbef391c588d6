//! `file` and the guard `File`.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use pyo3::PyTraverseError;
use pyo3::exceptions::PyValueError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};

use super::convert::{self, DurabilityArg, PathArg, Permissions, folder_fd, pathlib, settings};
use super::group::{Membership, Shared};
use super::imported;
use super::interrupt::detached;
use super::state::{self, State, foreign};
use crate::options::{Options, Settings, Start};
use crate::sys;

/// A new version of a file: what `atomik.file` returns.
///
/// A context manager, also for `async with` in asyncio and trio (then entering and committing run in a thread), whose
/// body gets a standard `io` object. The body's normal end commits, an exception rolls back.
///
/// Attributes:
///     destination: The path that was asked for.
///     staging: Where the new version is built; None while not entered, and for an unnamed file.
///     committed: True once the new version has been published.
///
/// Example:
///     >>> guard = atomik.file("log.txt")
///     >>> with guard as f:
///     ...     _ = f.write("done")
///     >>> guard.committed
///     True
#[pyclass(frozen, module = "atomik")]
pub(super) struct File {
    path: PathArg,
    open: Py<PyDict>,
    mode: String,
    dir_fd: Option<i32>,
    settings: Settings,
    /// The group that it is to be published with.
    group: Option<Arc<Shared>>,
    state: State<Staged>,
}

struct Staged {
    guard: crate::File,
    membership: Option<Membership>,
    /// What the body got. It does not own the descriptor: closing it in the body is fine.
    io: Py<PyAny>,
    /// The innermost layer: once it is closed, nothing reaches the descriptor's number any more.
    raw: Py<PyAny>,
}

impl Staged {
    /// Closes what the body got; an error of the last flush is the body's.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let flushed = self.io.call_method0(py, "close").map(drop);
        self.raw.call_method0(py, "close")?;
        flushed
    }

    /// Closes it with nothing written: what is still buffered goes to `/dev/null`, so that it neither
    /// fails on a full disk nor, in a forked child, reaches the parent's staging.
    fn discard(&self, py: Python<'_>) -> PyResult<()> {
        sys::blind(self.guard.as_fd())?;
        match self.close(py) {
            // The body has detached a layer of it; the descriptor is blind, and raw is closed.
            Err(error) if error.is_instance_of::<PyValueError>(py) => Ok(()),
            other => other,
        }
    }
}

impl File {
    pub(super) fn in_group(mut self, group: &Arc<Shared>) -> Self {
        self.group = Some(Arc::clone(group));
        self
    }

    fn stage(&self, py: Python<'_>) -> PyResult<Staged> {
        static OPEN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let at = folder_fd(self.dir_fd);
        let options = Options::<crate::File>::from_settings(self.settings.clone());
        let (guard, raised) = detached(py, |checkpoint| options.create_with(at, &self.path.path, checkpoint));
        raised?;
        let guard = guard.map_err(|error| convert::error(py, &error, &[&self.path]))?;
        let enter = |group| Membership::enter(py, group, guard.place(), &self.path);
        let membership = self.group.as_ref().map(enter).transpose()?;
        let fd = guard.as_fd().as_raw_fd();
        let io = imported(py, &OPEN, "io", "open")?.call((fd, &self.mode), Some(self.open.bind(py)))?;
        let mut raw = io.clone();
        for layer in ["buffer", "raw"] {
            if let Some(inner) = raw.getattr_opt(layer)? {
                raw = inner;
            }
        }
        raw.setattr("name", self.path.object.bind(py))?;
        Ok(Staged { guard, membership, io: io.unbind(), raw: raw.unbind() })
    }

    fn finish(&self, py: Python<'_>, staged: Staged) -> PyResult<()> {
        if staged.guard.is_foreign() {
            self.state.ended(false);
            staged.discard(py)?;
            return Err(foreign());
        }
        if let Err(error) = staged.close(py) {
            self.state.ended(false);
            // The buffer's last bytes did not fit: the error names no file of its own.
            let value = error.value(py);
            if value.getattr_opt("filename")?.is_some_and(|name| name.is_none()) {
                value.setattr("filename", self.path.object.bind(py))?;
            }
            let (_, raised) = detached(py, |_| staged.guard.rollback());
            return raised.and(Err(error));
        }
        let guard = staged.guard;
        if let Some(membership) = staged.membership {
            self.state.ended(false);
            return membership.add(py, &self.path, |group| group.add_file(guard));
        }
        let (outcome, raised) = detached(py, |checkpoint| guard.commit_with(checkpoint));
        let committed = outcome.as_ref().map_or_else(crate::Error::committed, |_| true);
        self.state.ended(committed);
        raised?;
        convert::finished(py, outcome, &[&self.path])
    }

    fn discard(&self, py: Python<'_>, staged: Staged) -> PyResult<()> {
        self.state.ended(false);
        staged.discard(py)?;
        if staged.guard.is_foreign() {
            return Ok(());
        }
        let (outcome, raised) = detached(py, |_| staged.guard.rollback());
        raised?;
        outcome.or_else(|leftover| convert::warn(py, &leftover))
    }
}

#[pymethods]
impl File {
    fn __enter__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.state.start()?;
        match self.stage(py) {
            Ok(staged) => {
                let io = staged.io.clone_ref(py);
                self.state.opened(staged);
                Ok(io)
            }
            Err(error) => {
                self.state.ended(false);
                Err(error)
            }
        }
    }

    #[pyo3(signature = (*exc))]
    fn __exit__(&self, py: Python<'_>, exc: &Bound<'_, PyTuple>) -> PyResult<bool> {
        let failed = exc.iter().next().is_some_and(|class| !class.is_none());
        match self.state.take_at_exit()? {
            Some(staged) if failed => self.discard(py, staged)?,
            Some(staged) => self.finish(py, staged)?,
            // commit() or rollback() was called in the body.
            None => {}
        }
        Ok(false)
    }

    fn __aenter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.get().state.awaited();
        slf.py().import("atomik._async")?.call_method1("enter", (slf,))
    }

    #[pyo3(signature = (*exc))]
    fn __aexit__<'py>(slf: &Bound<'py, Self>, exc: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("atomik._async")?.call_method1("leave", (slf, exc))
    }

    /// Closes the body's file and publishes the new version now; the end of the body then does nothing.
    ///
    /// Raises:
    ///     RuntimeError: The guard is not open, or belongs to a parent process.
    ///     OSError: The commit failed; nothing was published unless the error's `committed` is true.
    fn commit(&self, py: Python<'_>) -> PyResult<()> {
        self.finish(py, self.state.take_open()?)
    }

    /// Discards the new version now; the end of the body then does nothing.
    ///
    /// Raises:
    ///     RuntimeError: The guard is not open, or belongs to a parent process.
    fn rollback(&self, py: Python<'_>) -> PyResult<()> {
        let staged = self.state.take_open()?;
        let foreigner = staged.guard.is_foreign();
        self.discard(py, staged)?;
        if foreigner { Err(foreign()) } else { Ok(()) }
    }

    #[getter]
    fn destination<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        pathlib(py, &self.path.path)
    }

    #[getter]
    fn staging<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let path = self.state.look(|staged| staged.guard.staging()).flatten();
        path.map(|path| pathlib(py, &path)).transpose()
    }

    #[getter]
    fn committed(&self) -> bool {
        self.state.is_committed()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        state::repr(py, "File", &self.path, self.state.word())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.path.object)?;
        let visited = self.state.try_look(|staged| visit.call(&staged.io).and_then(|()| visit.call(&staged.raw)));
        visited.unwrap_or(Ok(()))
    }

    fn __clear__(&self) {
        self.abandon();
    }

    #[classmethod]
    fn __class_getitem__<'py>(cls: &Bound<'py, PyType>, item: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        cls.py().import("types")?.getattr("GenericAlias")?.call1((cls, item))
    }
}

impl File {
    /// The end of a guard that nobody ended: a generator never finished, a reference cycle.
    fn abandon(&self) {
        if let Some(staged) = self.state.take() {
            if !staged.guard.is_foreign() {
                state::warn_of_drop("File", Some(&self.path), true);
            }
            Python::attach(|py| {
                state::aside(py, || {
                    if let Err(error) = staged.discard(py) {
                        error.write_unraisable(py, None);
                    }
                });
            });
            self.state.ended(false);
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if self.state.is_forgotten() {
            state::warn_of_drop("File", Some(&self.path), false);
        }
        self.abandon();
    }
}

/// `open`'s modes that write.
fn mode(mode: &str, overwrite: bool) -> PyResult<()> {
    let count = |wanted: &str| mode.chars().filter(|c| wanted.contains(*c)).count();
    if mode.chars().any(|c| !"rwaxbt+".contains(c)) || count("bt") > 1 || count("+") > 1 || count("rwax") != 1 {
        return Err(PyValueError::new_err(format!("invalid mode: '{mode}'")));
    }
    if count("r") > 0 && count("+") == 0 {
        return Err(PyValueError::new_err(format!("mode '{mode}' only reads: use open, or 'r+' for a new version")));
    }
    if count("x") > 0 && overwrite {
        return Err(PyValueError::new_err("mode 'x' creates a new file: it does not go with overwrite=True"));
    }
    Ok(())
}

/// Opens a new version of a file, which appears at `path` in one step when the body ends well.
///
/// Args:
///     path: The destination: `str`, `bytes` or `os.PathLike`.
///     mode: As for `open`, with "b" for bytes (default "w"): "w" and "x" start from an empty file, "a"
///         and "r+" from a copy of the present version, which they replace.
///     overwrite: Replace what is there (default False: an existing destination is refused at once).
///     tmp_dir: Folder to stage in, on the destination's mount (default: the destination's folder).
///     durability: "full" (survives a power cut), "ordered" (old or new after one) or "none" (no sync).
///     encoding, errors, newline, buffering: As for `open`; buffering in bytes.
///     permissions: Exact permission bits (default: the old version's, else the umask's).
///     preserve: Keep the old version's mode, owner, group, ACL and user xattrs (default True).
///     follow_symlinks: Publish where a symlink leads instead of replacing the link (default False).
///     backup: Name beside the destination for the displaced version; replaces the backup before it.
///     dir_fd: Open folder that a relative `path` starts from.
///
/// Returns:
///     A guard whose `with` and `async with` body gets a standard `io` object.
///
/// Raises:
///     FileAlreadyExistsError: The destination exists and `overwrite` is false.
///     DestinationBusyError: It is a mount point, a device, a FIFO or a socket, or a symlink that leads to one.
///     IsADirectoryError: It is a folder.
///     FileNotFoundError: Mode "r+", and there is nothing.
///     ConflictError: Its folder was replaced or removed since the body began; or mode "a" or "r+", and somebody else
///         has published since; or the body has
///         written nothing, and the destination has got content meanwhile, from a tool that was given `f.name`.
///     InvalidCrossDeviceError: `tmp_dir` is on another mount.
///     UnsupportedFilesystemError: `backup`, and the filesystem lacks RENAME_EXCHANGE.
///     DurabilityError: A sync failed; `committed` says on which side of the publish.
///     ValueError: A wrong mode, durability or permissions, or a NUL in a path; nothing was touched.
///     OSError: Any other refusal of the system; before the body if it can be known there.
///
/// Durability: content synced, then published, then the folder synced.
/// Source: open(2) O_TMPFILE, linkat(2), rename(2), fsync(2).
///
/// Example:
///     >>> with atomik.file("result.json", overwrite=True) as f:
///     ...     _ = f.write("{}")
#[pyfunction]
#[pyo3(signature = (path, mode="w", overwrite=false, tmp_dir=None, *, durability=DurabilityArg(crate::Durability::Full), encoding=None, errors=None, newline=None, buffering=-1, permissions=None, preserve=true, follow_symlinks=false, backup=None, dir_fd=None),
       text_signature = "(path, mode='w', overwrite=False, tmp_dir=None, *, durability='full', encoding=None, errors=None, newline=None, buffering=-1, permissions=None, preserve=True, follow_symlinks=False, backup=None, dir_fd=None)")]
#[expect(clippy::too_many_arguments, reason = "the contract's options")]
pub(super) fn file(
    py: Python<'_>,
    path: PathArg,
    mode: &str,
    overwrite: bool,
    tmp_dir: Option<PathArg>,
    durability: DurabilityArg,
    encoding: Option<&str>,
    errors: Option<&str>,
    newline: Option<&str>,
    buffering: i32,
    permissions: Option<Permissions>,
    preserve: bool,
    follow_symlinks: bool,
    backup: Option<PathArg>,
    dir_fd: Option<i32>,
) -> PyResult<File> {
    self::mode(mode, overwrite)?;
    for (name, given) in [("encoding", encoding), ("errors", errors), ("newline", newline)] {
        if mode.contains('b') && given.is_some() {
            return Err(PyValueError::new_err(format!("binary mode doesn't take the argument '{name}'")));
        }
    }
    let open = PyDict::new(py);
    // A new file is no terminal: with open's own default it is not asked for that.
    open.set_item("buffering", if buffering == -1 { 8192 } else { buffering })?;
    open.set_item("encoding", encoding)?;
    open.set_item("errors", errors)?;
    open.set_item("newline", newline)?;
    open.set_item("closefd", false)?;
    let mut settings = settings(overwrite, durability, permissions, preserve, follow_symlinks, tmp_dir, backup);
    settings.start = match mode {
        _ if mode.contains('a') => Start::Present,
        _ if mode.contains('r') => Start::Existing,
        _ => Start::Empty,
    };
    settings.overwrite |= settings.start != Start::Empty;
    settings.append = mode.contains('a');
    let state = State::new();
    Ok(File { path, open: open.unbind(), mode: mode.into(), dir_fd, settings, group: None, state })
}

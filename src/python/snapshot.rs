//! `snapshot` and the guard `Snapshot`.

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::convert::{self, PathArg, pathlib};
use super::interrupt::detached;
use super::state::{self, State};

/// One version of a folder, pinned while it is open: what `atomik.snapshot` returns.
///
/// A context manager, also for `async with`, whose body gets the `pathlib.Path` of the version.
///
/// Attributes:
///     destination: The path that was asked for.
///     path: Where the version is read; None while the snapshot is not open.
///
/// Example:
///     >>> with atomik.folder("site") as site:
///     ...     _ = (site / "index.html").write_text("hello")
///     >>> with atomik.snapshot("site") as site:
///     ...     (site / "index.html").read_text()
///     'hello'
#[pyclass(frozen, module = "atomik")]
pub(super) struct Snapshot {
    destination: PathArg,
    state: State<crate::Snapshot>,
}

#[pymethods]
impl Snapshot {
    fn __enter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.state.start()?;
        match py.detach(|| crate::Snapshot::open(&self.destination.path)) {
            Ok(snapshot) => {
                let path = pathlib(py, snapshot.path());
                self.state.opened(snapshot);
                path
            }
            Err(error) => {
                self.state.ended(false);
                Err(convert::error(py, &error, &[&self.destination]))
            }
        }
    }

    #[pyo3(signature = (*_exc))]
    fn __exit__(&self, py: Python<'_>, _exc: &Bound<'_, PyTuple>) -> PyResult<bool> {
        self.close(py)?;
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

    /// Lets go of the version now; the end of the body then does nothing.
    ///
    /// Removes the version if it was displaced meanwhile, nobody else reads it, and this user may.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let Some(snapshot) = self.state.take() else { return Ok(()) };
        let ((), raised) = detached(py, |checkpoint| snapshot.close_with(checkpoint));
        self.state.ended(false);
        raised
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        state::repr(py, "Snapshot", &self.destination, self.state.word())
    }

    #[getter]
    fn destination<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        pathlib(py, &self.destination.path)
    }

    #[getter]
    fn path<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let path = self.state.look(|snapshot| snapshot.path().to_owned());
        path.map(|path| pathlib(py, &path)).transpose()
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let dropped = self.state.take();
        let is_own = dropped.as_ref().is_some_and(|snapshot| !snapshot.is_foreign());
        if is_own || self.state.is_forgotten() {
            state::warn_of_drop("Snapshot", Some(&self.destination), is_own);
        }
        drop(dropped);
    }
}

/// Holds one version of a folder still while it is read, however many are published meanwhile.
///
/// Writers never wait for readers. A version that a writer has displaced meanwhile is removed by its
/// last reader that may, or by the next writer. A reader that is killed holds nothing.
///
/// Args:
///     path: The folder: `str`, `bytes` or `os.PathLike`; a symlink is followed.
///
/// Returns:
///     A guard whose `with` and `async with` body gets a `pathlib.Path` below `/proc`. It is good for this
///     process, its threads, and other processes of this user, as long as the snapshot is open. It is a symlink:
///     tools that copy symlinks as such enter it as `f"{path}/."`.
///
/// Raises:
///     FileNotFoundError: There is no such folder.
///     NotADirectoryError: It is a file: an open file stays as it is.
///     DestinationBusyError: Another program holds an exclusive lock on the folder.
///     UnsupportedFilesystemError: The filesystem cannot lock folders.
///
/// Durability: nothing is written.
/// Source: flock(2) LOCK_SH on the folder itself, proc_pid_fd(5).
///
/// Example:
///     >>> with atomik.folder("site", overwrite=True) as site:
///     ...     _ = (site / "index.html").write_text("hello")
///     >>> with atomik.snapshot("site") as site:
///     ...     len(list(site.iterdir()))
///     1
#[pyfunction]
pub(super) fn snapshot(path: PathArg) -> Snapshot {
    Snapshot { destination: path, state: State::new() }
}

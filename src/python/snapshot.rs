//! `snapshot` and the guard `Snapshot`.

use std::path::{Path, PathBuf};

use pyo3::prelude::*;

use super::convert::{self, PathArg};
use super::guard::{Ending, Guard, Kind, context_manager};
use super::interrupt::detached;

context_manager! {
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
    Snapshot(Guard<Pinned>) {
        /// Lets go of the version now; the end of the body then does nothing.
        ///
        /// Removes the version if it was displaced meanwhile, nobody else reads it, and this user may.
        fn close(&self, py: Python<'_>) -> PyResult<()> {
            self.0.leave(py, Ending::Rollback)
        }

        fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
            self.0.repr(py)
        }

        #[getter]
        fn destination(&self) -> &Path {
            &self.0.kind.0.path
        }

        #[getter]
        fn path(&self, py: Python<'_>) -> Option<PathBuf> {
            self.0.look(py, |snapshot| snapshot.path().to_owned())
        }
    }
}

/// Guards of the versions that a path leads to.
pub(super) struct Pinned(PathArg);

impl Kind for Pinned {
    const PUBLISHES: bool = false;

    type Open = crate::Snapshot;

    fn title(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("Snapshot of {}", self.0.object.bind(py).repr()?))
    }

    fn open(&self, guard: &Bound<'_, PyAny>) -> PyResult<(Self::Open, Py<PyAny>)> {
        let py = guard.py();
        let snapshot = py.detach(|| crate::Snapshot::open(&self.0.path));
        let snapshot = snapshot.map_err(|error| convert::error(py, &error, &[&self.0]))?;
        let given = snapshot.path().into_pyobject(py)?.unbind();
        Ok((snapshot, given))
    }

    fn end(&self, py: Python<'_>, snapshot: Self::Open, _: Ending) -> (bool, PyResult<()>) {
        let ((), raised) = detached(py, |checkpoint| snapshot.close_with(checkpoint));
        (false, raised)
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
    Snapshot(Guard::new(Pinned(path)))
}

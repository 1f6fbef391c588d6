//! Arguments from Python, errors to Python.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyString};

use super::hints::PYTHON;
use super::interrupt::Detached;
use crate::error::{Error, ErrorKind};
use crate::{Committed, sys};

/// A path: `str`, `bytes` or `os.PathLike`, and the object for errors to name.
pub(super) struct PathArg {
    pub(super) object: Py<PyAny>,
    pub(super) path: PathBuf,
}

impl<'a, 'py> FromPyObject<'a, 'py> for PathArg {
    type Error = PyErr;

    fn extract(value: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        static FSPATH: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let object = if value.is_instance_of::<PyString>() || value.is_instance_of::<PyBytes>() {
            value.to_owned()
        } else {
            FSPATH.import(value.py(), "os", "fspath")?.call1((value,))?
        };
        let path = match object.cast::<PyBytes>() {
            Ok(bytes) => OsString::from_vec(bytes.as_bytes().to_vec()),
            Err(_) => object.extract::<OsString>()?,
        };
        if path.as_bytes().contains(&0) {
            return Err(PyValueError::new_err("embedded null byte in a path"));
        }
        Ok(Self { object: object.unbind(), path: path.into() })
    }
}

/// The folder that a relative path starts from; `None`: the current folder.
pub(super) struct StartFolder(Option<OwnedFd>);

impl StartFolder {
    /// Duplicates the descriptor that is given as `dir_fd=`, so that another thread can close that meanwhile. For an absolute
    /// path it need not be open.
    pub(super) fn of(dir_fd: Option<i32>, path: &PathArg) -> std::io::Result<Self> {
        match dir_fd.filter(|number| *number != libc::AT_FDCWD).map(sys::duplicate_number).transpose() {
            Err(error) if !path.path.is_absolute() => Err(error),
            copy => Ok(Self(copy.unwrap_or_default())),
        }
    }

    /// The same, with an error for Python.
    pub(super) fn of_destination(py: Python<'_>, dir_fd: Option<i32>, path: &PathArg) -> PyResult<Self> {
        Self::of(dir_fd, path)
            .map_err(|failure| error(py, &Error::new("duplicating dir_fd", &path.path, failure), &[path]))
    }
}

impl AsFd for StartFolder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_ref().map_or(sys::CWD, AsFd::as_fd)
    }
}

/// Calls `atomik.errors.NAME`.
fn error_class<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import("atomik.errors")?.getattr(name)
}

/// Turns an error of the core into Python's, with errno, message and the path objects that were given. Warns of what is left.
pub(super) fn error(py: Python<'_>, error: &Error, given: &[&PathArg]) -> PyErr {
    build(py, error, given).unwrap_or_else(|failure| failure)
}

fn build(py: Python<'_>, error: &Error, given: &[&PathArg]) -> PyResult<PyErr> {
    if let Some(leftover) = error.leftover() {
        warn(py, leftover)?;
    }
    let errno = error.raw_os_error();
    let class = match error.kind() {
        ErrorKind::OtherProcess => {
            let message = "a guard belongs to the process that entered it: a forked child cannot use its parent's";
            return Ok(PyRuntimeError::new_err(message));
        }
        ErrorKind::AlreadyExists if errno == Some(libc::EEXIST) => "FileAlreadyExistsError",
        ErrorKind::CrossDevice => "InvalidCrossDeviceError",
        ErrorKind::Unsupported => "UnsupportedFilesystemError",
        ErrorKind::Busy => "DestinationBusyError",
        ErrorKind::Conflict => "ConflictError",
        ErrorKind::Durability => "DurabilityError",
        ErrorKind::Siblings => "AtomikError",
        _ if error.committed() => "AtomikError",
        _ => "",
    };
    // A NUL in a path; what else has no number of the system is none of the caller's arguments.
    if errno.is_none() && error.io().kind() == std::io::ErrorKind::InvalidInput {
        return Ok(PyValueError::new_err(error.message_in(&PYTHON)));
    }
    let errno = errno.unwrap_or(libc::EIO);
    let object = |path: &Path| -> PyResult<Py<PyAny>> {
        match given.iter().find(|arg| arg.path == path) {
            Some(arg) => Ok(arg.object.clone_ref(py)),
            None => Ok(path.as_os_str().into_pyobject(py)?.into_any().unbind()),
        }
    };
    let path2 = error.path2().map(object).transpose()?;
    let arguments = (errno, error.reason_in(&PYTHON), object(error.path())?, py.None(), path2);
    if class.is_empty() {
        // OSError itself picks FileNotFoundError, PermissionError and so on by the errno.
        return Ok(PyOSError::new_err(arguments));
    }
    let exception = error_class(py, class)?.call1(arguments)?;
    exception.setattr("committed", error.committed())?;
    Ok(PyErr::from_value(exception))
}

/// Warns of what a commit or rollback could not remove.
pub(super) fn warn(py: Python<'_>, leftover: &Error) -> PyResult<()> {
    let category = error_class(py, "CleanupWarning")?;
    let message =
        std::ffi::CString::new(leftover.message_in(&PYTHON)).map_err(|_| PyTypeError::new_err("NUL in a message"))?;
    PyErr::warn(py, &category, &message, 1)
}

/// What a commit without the GIL answers to Python, and whether it has published. A leftover is only warned of.
pub(super) fn committed(
    py: Python<'_>,
    (outcome, raised): Detached<crate::Result<Committed>>,
    given: &[&PathArg],
) -> (bool, PyResult<()>) {
    let published = outcome.as_ref().map_or_else(Error::committed, |_| true);
    let answer = raised.and_then(|()| match outcome {
        Ok(committed) => committed.leftover().map_or(Ok(()), |leftover| warn(py, leftover)),
        Err(failure) => Err(error(py, &failure, given)),
    });
    (published, answer)
}

/// What a rollback without the GIL answers to Python.
pub(super) fn rolled_back(py: Python<'_>, (outcome, raised): Detached<crate::Result<()>>) -> PyResult<()> {
    raised?;
    outcome.or_else(|leftover| warn(py, &leftover))
}

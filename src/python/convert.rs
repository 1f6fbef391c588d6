//! Arguments from Python, errors to Python.

use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyString};

use super::imported;
use crate::error::{Error, ErrorKind};
use crate::options::{Cleanup, Durability, Settings, Siblings, Start};
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
            imported(value.py(), &FSPATH, "os", "fspath")?.call1((value,))?
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

/// `durability=` as the words of the contract.
pub(super) struct DurabilityArg(pub(super) Durability);

impl<'a, 'py> FromPyObject<'a, 'py> for DurabilityArg {
    type Error = PyErr;

    fn extract(value: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        match value.cast::<PyString>()?.to_str()? {
            "full" => Ok(Self(Durability::Full)),
            "ordered" => Ok(Self(Durability::Ordered)),
            "none" => Ok(Self(Durability::None)),
            other => {
                Err(PyValueError::new_err(format!("durability must be 'full', 'ordered' or 'none', not '{other}'")))
            }
        }
    }
}

/// `permissions=`: permission bits, 0 to 0o7777.
pub(super) struct Permissions(u32);

impl<'a, 'py> FromPyObject<'a, 'py> for Permissions {
    type Error = PyErr;

    fn extract(value: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        match value.extract::<i64>()? {
            bits @ 0..=0o7777 => Ok(Self(u32::try_from(bits).unwrap_or_default())),
            other => Err(PyValueError::new_err(format!("permissions must be 0 to 0o7777, not {other:#o}"))),
        }
    }
}

/// `dir_fd=` and the folder arguments of `renameat2`: an open folder's descriptor.
pub(super) fn folder_fd(fd: Option<i32>) -> BorrowedFd<'static> {
    match fd {
        None | Some(libc::AT_FDCWD) => sys::CWD,
        Some(fd) => sys::borrow(fd),
    }
}

/// `cleanup=` as the words of the contract.
#[derive(Clone, Copy)]
pub(super) struct CleanupArg(pub(super) Cleanup);

impl<'a, 'py> FromPyObject<'a, 'py> for CleanupArg {
    type Error = PyErr;

    fn extract(value: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        match value.cast::<PyString>()?.to_str()? {
            "inline" => Ok(Self(Cleanup::Inline)),
            "background" => Ok(Self(Cleanup::Background)),
            other => Err(PyValueError::new_err(format!("cleanup must be 'inline' or 'background', not '{other}'"))),
        }
    }
}

/// `siblings=` as the words of the contract.
#[derive(Clone, Copy)]
pub(super) struct SiblingsArg(pub(super) Siblings);

impl<'a, 'py> FromPyObject<'a, 'py> for SiblingsArg {
    type Error = PyErr;

    fn extract(value: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        match value.cast::<PyString>()?.to_str()? {
            "refuse" => Ok(Self(Siblings::Refuse)),
            "publish" => Ok(Self(Siblings::Publish)),
            "discard" => Ok(Self(Siblings::Discard)),
            other => {
                Err(PyValueError::new_err(format!("siblings must be 'refuse', 'publish' or 'discard', not '{other}'")))
            }
        }
    }
}

/// The options that `file`, `folder`, `path` and `write_*` share.
pub(super) fn settings(
    overwrite: bool,
    DurabilityArg(durability): DurabilityArg,
    permissions: Option<Permissions>,
    preserve: bool,
    follow_symlinks: bool,
    tmp_dir: Option<PathArg>,
    backup: Option<PathArg>,
) -> Settings {
    Settings {
        overwrite,
        durability,
        single_flush: true,
        permissions: permissions.map(|bits| bits.0),
        preserve,
        follow_symlinks,
        tmp_dir: tmp_dir.map(|folder| folder.path),
        start: Start::Empty,
        append: false,
        backup: backup.map(|name| name.path),
        cleanup: Cleanup::Inline,
        siblings: Siblings::Refuse,
    }
}

/// A path as Python's `pathlib.Path`.
pub(super) fn pathlib<'py>(py: Python<'py>, path: &Path) -> PyResult<Bound<'py, PyAny>> {
    static PATH: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    imported(py, &PATH, "pathlib", "Path")?.call1((path.as_os_str(),))
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
        return Ok(PyValueError::new_err(error.to_string()));
    }
    let errno = errno.unwrap_or(libc::EIO);
    let object = |path: &Path| -> PyResult<Py<PyAny>> {
        match given.iter().find(|arg| arg.path == path) {
            Some(arg) => Ok(arg.object.clone_ref(py)),
            None => Ok(path.as_os_str().into_pyobject(py)?.into_any().unbind()),
        }
    };
    let path2 = error.path2().map(object).transpose()?;
    let arguments = (errno, error.reason(), object(error.path())?, py.None(), path2);
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
    let message = std::ffi::CString::new(leftover.to_string()).map_err(|_| PyTypeError::new_err("NUL in a message"))?;
    PyErr::warn(py, &category, &message, 1)
}

/// What a commit answers to Python: nothing, or a warning.
pub(super) fn finished(py: Python<'_>, outcome: crate::Result<Committed>, given: &[&PathArg]) -> PyResult<()> {
    match outcome {
        Ok(committed) => committed.leftover().map_or(Ok(()), |leftover| warn(py, leftover)),
        Err(failure) => Err(error(py, &failure, given)),
    }
}

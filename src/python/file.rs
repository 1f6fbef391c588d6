//! `file` and the guard `File`.

use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};

use super::convert::PathArg;
use super::draft::{Request, draft};
use super::guard::Guard;
use super::members::Members;
use super::options::{ALONE, Given, MEMBER, TEXT};
use super::streams::Layers;
use crate::options::Start;

draft! {
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
    File;
    /// Closes the body's file and publishes the new version now; the end of the body then does nothing.
    commit;

    #[classmethod]
    fn __class_getitem__<'py>(cls: &Bound<'py, PyType>, item: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        cls.py().import("types")?.getattr("GenericAlias")?.call1((cls, item))
    }
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
#[pyo3(signature = (path, mode="w", overwrite=false, tmp_dir=None, **options),
       text_signature = "(path, mode='w', overwrite=False, tmp_dir=None, *, durability='full', encoding=None, errors=None, newline=None, buffering=-1, permissions=None, preserve=True, follow_symlinks=False, backup=None, dir_fd=None)")]
pub(super) fn file(
    py: Python<'_>,
    path: PathArg,
    mode: &str,
    overwrite: bool,
    tmp_dir: Option<PathArg>,
    options: Option<&Bound<'_, PyDict>>,
) -> PyResult<File> {
    let given = Given::read("file", options, &[MEMBER, ALONE, TEXT, &["buffering"]])?;
    guard(py, path, mode, Given { overwrite, tmp_dir, ..given }, None)
}

/// The guard of a file, alone or in a group.
pub(super) fn guard(
    py: Python<'_>,
    path: PathArg,
    mode: &str,
    given: Given,
    group: Option<&Arc<Guard<Members>>>,
) -> PyResult<File> {
    check_mode(mode, given.overwrite)?;
    let layers = layers(py, mode, &given)?;
    let mut request = Request::new(path, given, group)?;
    request.layers = Some(layers);
    let settings = &mut request.options.settings;
    settings.start = match mode {
        _ if mode.contains('a') => Start::Present,
        _ if mode.contains('r') => Start::Existing,
        _ => Start::Empty,
    };
    settings.append = mode.contains('a');
    Ok(File(Guard::new(request)))
}

/// `open`'s modes that write.
fn check_mode(mode: &str, overwrite: bool) -> PyResult<()> {
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

/// The arguments of `io.open`.
fn layers(py: Python<'_>, mode: &str, given: &Given) -> PyResult<Layers> {
    let options = PyDict::new(py);
    // A new file is no terminal: with open's own default it is not asked for that.
    options.set_item("buffering", if given.buffering == -1 { 8192 } else { given.buffering })?;
    options.set_item("closefd", false)?;
    for (name, value) in [("encoding", &given.encoding), ("errors", &given.errors), ("newline", &given.newline)] {
        if mode.contains('b') && value.is_some() {
            return Err(PyValueError::new_err(format!("binary mode doesn't take the argument '{name}'")));
        }
        options.set_item(name, value)?;
    }
    Ok(Layers { mode: mode.into(), options: options.unbind() })
}

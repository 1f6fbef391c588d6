//! `rename`, `exchange`, `renameat2`.

use std::io;
use std::os::fd::AsFd;

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::convert::{self, PathArg, StartFolder};
use super::options::Given;
use crate::error::{Error, answer};
use crate::{rename as core, sys};

/// Renames a file or folder in one step; refuses to replace what is there unless asked.
///
/// Args:
///     src: What to rename; a symlink itself is renamed.
///     dst: The new name, on the same mount.
///     overwrite: Replace `dst` as `rename(2)` does: a file, or an empty folder by a folder.
///     whiteout: Leave a whiteout in the old place (`RENAME_WHITEOUT`; for union filesystems).
///     src_dir_fd: Open folder that a relative `src` starts from.
///     dst_dir_fd: Open folder that a relative `dst` starts from.
///
/// Raises:
///     FileAlreadyExistsError: `dst` exists and `overwrite` is false.
///     InvalidCrossDeviceError: They are on two mounts, or in a lower layer of an overlay.
///     DestinationBusyError: One of them is a mount point.
///     UnsupportedFilesystemError: The filesystem cannot rename a folder without replacing.
///     OSError: Whatever else `rename(2)` answers, with `filename` and `filename2`.
///
/// Durability: none by itself; a power cut may bring the old names back.
/// Source: renameat2(2), RENAME_NOREPLACE; `link` and `unlink` where a filesystem lacks it.
///
/// Example:
///     >>> atomik.rename("draft.txt", "final.txt")
#[pyfunction]
#[pyo3(signature = (src, dst, **options),
       text_signature = "(src, dst, *, overwrite=False, whiteout=False, src_dir_fd=None, dst_dir_fd=None)")]
pub(super) fn rename(py: Python<'_>, src: PathArg, dst: PathArg, options: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
    let given = Given::read("rename", options, &[&["overwrite", "whiteout", "src_dir_fd", "dst_dir_fd"]])?;
    let replace = if given.overwrite { core::RenameFlags::default() } else { core::RenameFlags::NOREPLACE };
    let flags = replace | if given.whiteout { core::RenameFlags::WHITEOUT } else { core::RenameFlags::default() };
    let failed = |error: Error| convert::error(py, &error, &[&src, &dst]);
    let refused = |error| failed(Error::new("duplicating dir_fd", &src.path, error).to(&dst.path));
    let (from, to) = both(given.src_dir_fd, &src, given.dst_dir_fd, &dst).map_err(refused)?;
    py.detach(|| core::rename_at(from.as_fd(), &src.path, to.as_fd(), &dst.path, flags)).map_err(failed)
}

/// Exchanges two paths of any types in one step; `swap` is an alias.
///
/// Args:
///     a: One path; a symlink itself is exchanged.
///     b: The other, on the same mount.
///     a_dir_fd: Open folder that a relative `a` starts from.
///     b_dir_fd: Open folder that a relative `b` starts from.
///
/// Raises:
///     FileNotFoundError: One of them does not exist.
///     InvalidCrossDeviceError: They are on two mounts, or in a lower layer of an overlay.
///     DestinationBusyError: One of them is a mount point.
///     UnsupportedFilesystemError: The filesystem lacks RENAME_EXCHANGE.
///
/// Durability: none by itself; a power cut may bring the old state back.
/// Source: renameat2(2), RENAME_EXCHANGE.
///
/// Example:
///     >>> atomik.exchange("live", "next")
#[pyfunction]
#[pyo3(signature = (a, b, *, a_dir_fd=None, b_dir_fd=None))]
pub(super) fn exchange(
    py: Python<'_>,
    a: PathArg,
    b: PathArg,
    a_dir_fd: Option<i32>,
    b_dir_fd: Option<i32>,
) -> PyResult<()> {
    let failed = |error: Error| convert::error(py, &error, &[&a, &b]);
    let refused = |error| failed(Error::new("duplicating dir_fd", &a.path, error).to(&b.path));
    let (one, other) = both(a_dir_fd, &a, b_dir_fd, &b).map_err(refused)?;
    py.detach(|| core::exchange_at(one.as_fd(), &a.path, other.as_fd(), &b.path)).map_err(failed)
}

/// Calls `renameat2(2)`, with duplicates of the folders' descriptors, and nothing else.
///
/// Args:
///     olddirfd: Open folder that a relative `oldpath` starts from, or `atomik.AT_FDCWD`.
///     oldpath: The old path.
///     newdirfd: Open folder that a relative `newpath` starts from, or `atomik.AT_FDCWD`.
///     newpath: The new path.
///     flags: `atomik.RenameFlags`, or any number for the kernel to judge.
///
/// Raises:
///     OSError: The kernel's answer, as `os.rename` raises it, with `filename` and `filename2`.
///
/// Durability: none by itself.
/// Source: renameat2(2).
///
/// Example:
///     >>> atomik.renameat2(atomik.AT_FDCWD, "a", atomik.AT_FDCWD, "b", atomik.RenameFlags.EXCHANGE)
#[pyfunction]
pub(super) fn renameat2(
    py: Python<'_>,
    olddirfd: i32,
    oldpath: PathArg,
    newdirfd: i32,
    newpath: PathArg,
    flags: u32,
) -> PyResult<()> {
    let renamed = both(Some(olddirfd), &oldpath, Some(newdirfd), &newpath).and_then(|(old, new)| {
        let (from, to) = (oldpath.path.as_os_str(), newpath.path.as_os_str());
        py.detach(|| sys::renameat2(old.as_fd(), from, new.as_fd(), to, flags))
    });
    renamed.map_err(|error| {
        let errno = sys::errno(&error);
        let message = answer(&error);
        PyOSError::new_err((errno, message, oldpath.object, py.None(), newpath.object))
    })
}

/// The folders that two relative paths start from.
fn both(
    a_dir_fd: Option<i32>,
    a: &PathArg,
    b_dir_fd: Option<i32>,
    b: &PathArg,
) -> io::Result<(StartFolder, StartFolder)> {
    Ok((StartFolder::of(a_dir_fd, a)?, StartFolder::of(b_dir_fd, b)?))
}

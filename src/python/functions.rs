//! `rename`, `exchange`, `renameat2`.

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::convert::{self, PathArg, folder_fd};
use super::options::Given;
use crate::error::answer;
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
    let (from, to) = (folder_fd(given.src_dir_fd), folder_fd(given.dst_dir_fd));
    let replace = if given.overwrite { core::RenameFlags::default() } else { core::RenameFlags::NOREPLACE };
    let flags = replace | if given.whiteout { core::RenameFlags::WHITEOUT } else { core::RenameFlags::default() };
    py.detach(|| core::rename_at(from, &src.path, to, &dst.path, flags))
        .map_err(|error| convert::error(py, &error, &[&src, &dst]))
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
    let (one, other) = (folder_fd(a_dir_fd), folder_fd(b_dir_fd));
    py.detach(|| core::exchange_at(one, &a.path, other, &b.path)).map_err(|error| convert::error(py, &error, &[&a, &b]))
}

/// Calls `renameat2(2)` and nothing else.
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
    let (old, new) = (folder_fd(Some(olddirfd)), folder_fd(Some(newdirfd)));
    py.detach(|| sys::renameat2(old, oldpath.path.as_os_str(), new, newpath.path.as_os_str(), flags)).map_err(|error| {
        let errno = sys::errno(&error);
        let message = answer(&error);
        PyOSError::new_err((errno, message, oldpath.object, py.None(), newpath.object))
    })
}

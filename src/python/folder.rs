//! `folder`, `path` and the guards `Folder` and `Entry`.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::convert::PathArg;
use super::draft::{Request, draft};
use super::guard::Guard;
use super::options::{ALONE, Given, MEMBER};

draft! {
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
    Folder;
    /// Publishes the new version now; the end of the body then does nothing.
    commit;
}

draft! {
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
    Entry;
    /// Publishes the new version now; the end of the body then does nothing.
    commit;
}

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
#[pyo3(signature = (path, overwrite=false, tmp_dir=None, **options),
       text_signature = "(path, overwrite=False, tmp_dir=None, *, update=False, durability='full', permissions=None, preserve=True, follow_symlinks=False, backup=None, cleanup='inline', dir_fd=None)")]
pub(super) fn folder(
    path: PathArg,
    overwrite: bool,
    tmp_dir: Option<PathArg>,
    options: Option<&Bound<'_, PyDict>>,
) -> PyResult<Folder> {
    let given = Given::read("folder", options, &[MEMBER, ALONE, &["update", "cleanup"]])?;
    Ok(Folder(Guard::new(Request::new(path, Given { overwrite, tmp_dir, ..given }, None)?)))
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
#[pyo3(signature = (path, **options),
       text_signature = "(path, *, overwrite=False, update=False, durability='full', permissions=None, preserve=True, follow_symlinks=False, backup=None, cleanup='inline', tmp_dir=None, dir_fd=None, siblings='refuse')")]
pub(super) fn path(path: PathArg, options: Option<&Bound<'_, PyDict>>) -> PyResult<Entry> {
    let own = ["overwrite", "update", "cleanup", "tmp_dir", "siblings"];
    let given = Given::read("path", options, &[MEMBER, ALONE, &own])?;
    Ok(Entry(Guard::new(Request::new(path, given, None)?)))
}

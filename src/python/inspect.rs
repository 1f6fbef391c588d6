//! `sweep` and `probe`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::convert::{self, PathArg};
use super::interrupt::detached;
use super::options::Given;
use crate::{Durability, LockReach, Sweep};

/// What a killed process has left, as `atomik.sweep` found it.
///
/// Attributes:
///     path: Where it is, or was: a `pathlib.Path`.
///     bytes: What it takes on the disk, in bytes.
///     files: How many files are in it; folders are not counted.
///     age: Seconds since something was last made or removed directly in it.
///     removed: Whether it has been removed: not by a dry run, and not if something in it resists.
///
/// Example:
///     >>> sum(orphan.bytes for orphan in atomik.sweep(".") if orphan.removed)
///     0
#[pyclass(frozen, eq, module = "atomik")]
#[derive(PartialEq)]
pub(super) struct Orphan(crate::Orphan);

#[pymethods]
impl Orphan {
    #[getter]
    fn path(&self) -> &Path {
        self.0.path()
    }

    #[getter]
    fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    #[getter]
    fn files(&self) -> u64 {
        self.0.files()
    }

    #[getter]
    fn age(&self) -> f64 {
        self.0.age().as_secs_f64()
    }

    #[getter]
    fn removed(&self) -> bool {
        self.0.removed()
    }

    /// For `pickle` and `copy`.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let Self(orphan) = self;
        let age = (orphan.age().as_secs(), orphan.age().subsec_nanos());
        let arguments = (orphan.path().as_os_str(), orphan.bytes(), orphan.files(), age, orphan.removed());
        Ok((restore(py, "_orphan")?, arguments.into_pyobject(py)?))
    }

    fn __repr__(&self) -> String {
        let Self(orphan) = self;
        let age = orphan.age().as_secs_f64();
        let removed = if orphan.removed() { "True" } else { "False" };
        format!(
            "Orphan(path={:?}, bytes={}, files={}, age={age:.1}, removed={removed})",
            orphan.path().to_string_lossy(),
            orphan.bytes(),
            orphan.files()
        )
    }
}

/// The function by which `pickle` makes an object again.
fn restore<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import("atomik._atomik")?.getattr(name)
}

/// Makes an `Orphan` again that was pickled.
#[pyfunction]
#[pyo3(name = "_orphan")]
pub(super) fn restore_orphan(path: PathBuf, bytes: u64, files: u64, age: (u64, u32), removed: bool) -> Orphan {
    Orphan(crate::Orphan::restored(path, bytes, files, Duration::new(age.0, age.1), removed))
}

/// Removes what killed processes have left in a folder.
///
/// The next writer to a destination does so by itself for that destination; this is for folders to
/// which nobody writes any more. What is alive, pinned by a snapshot or another user's is not touched.
///
/// Args:
///     directory: The folder in which destinations are, or a `tmp_dir`.
///     recursive: Sweep the folders below as well; symlinks are not followed, mounts not crossed.
///     dry_run: Report what would be removed, and remove nothing.
///     older_than: Age in seconds from which slots of another lock domain (made by another machine or through
///         another mount, see the page on slots), and slots where folders cannot be locked, are removed
///         (default None: they are left). It must be longer than the longest body.
///
/// Returns:
///     A list of `Orphan`, one for each that was found.
///
/// Raises:
///     ValueError: `older_than` is negative or not a number of seconds.
///     OSError: The folder cannot be opened or read.
///
/// Durability: none; after a power cut an orphan may be back.
/// Source: flock(2), unlinkat(2).
///
/// Example:
///     >>> for orphan in atomik.sweep(".", dry_run=True):
///     ...     print(orphan.path, orphan.bytes)
#[pyfunction]
#[pyo3(signature = (directory, **options),
       text_signature = "(directory, *, recursive=False, dry_run=False, older_than=None)")]
pub(super) fn sweep(py: Python<'_>, directory: PathArg, options: Option<&Bound<'_, PyDict>>) -> PyResult<Vec<Orphan>> {
    let given = Given::read("sweep", options, &[&["recursive", "dry_run", "older_than"]])?;
    let mut sweep = Sweep::new().recursive(given.recursive).dry_run(given.dry_run);
    if let Some(seconds) = given.older_than {
        let age = std::time::Duration::try_from_secs_f64(seconds)
            .map_err(|_| PyValueError::new_err(format!("older_than must be a number of seconds, not {seconds}")))?;
        sweep = sweep.older_than(age);
    }
    let (found, raised) = detached(py, |checkpoint| sweep.run_with(&directory.path, checkpoint));
    raised?;
    let found = found.map_err(|error| convert::error(py, &error, &[&directory]))?;
    Ok(found.into_iter().map(Orphan).collect())
}

/// What the filesystem of a folder can do: what `atomik.probe` returns. `str()` of it is a table.
///
/// Attributes:
///     filesystem: The type, as the mount table names it: "ext4", "fuse.bindfs".
///     mount_id: The mount's number (statx(2)), 0 before Linux 5.8.
///     unnamed_files: O_TMPFILE, with names by linkat(2).
///     noreplace: RENAME_NOREPLACE.
///     exchange: RENAME_EXCHANGE.
///     reflink: Copies that share their blocks (FICLONE).
///     directory_locks: flock(2) on folders: for snapshots, updates, and to know orphans.
///     lock_reach: Who sees such a lock: "everybody"; "this machine and mount", so that writers elsewhere are
///         unknown here, and their orphans too; "nobody" where folders cannot be locked.
///     hard_links: Hard links (link(2)), by which a new file is published where there is no RENAME_NOREPLACE.
///     modes_kept: A new folder shows the mode that was asked for; if not, the filesystem makes modes up.
///     owners_kept: A new file shows the user that made it; if not, the filesystem makes owners up.
///     xattrs: Extended attributes of users.
///     syncfs: A syncfs(2) that syncs and reports errors.
///     single_flush: A durable commit waits for one flush of the disk instead of two, since the filesystem's
///         journal makes that enough; ATOMIK_SINGLE_FLUSH=0 in the environment switches it off. On ext4
///         only once something has been synced since it was mounted.
///     durability: The strongest that can be promised: "full"; "none" in memory; "unknown" where a
///         server, a user-space program or the layer below an overlay would have to keep the promise.
///
/// Example:
///     >>> if atomik.probe(".").exchange:
///     ...     with atomik.folder("site", overwrite=True) as site:
///     ...         _ = (site / "index.html").write_text("hello")
#[pyclass(frozen, eq, module = "atomik")]
#[derive(PartialEq)]
pub(super) struct Probe(crate::Probe);

/// Declares the methods of `Probe`, whose answers of yes and no are these.
macro_rules! answers {
    ($($can:ident)*) => {
        #[pymethods]
        impl Probe {
            $(
                #[getter]
                fn $can(&self) -> bool {
                    self.0.$can
                }
            )*

            #[getter]
            fn filesystem(&self) -> &str {
                &self.0.filesystem
            }

            #[getter]
            fn mount_id(&self) -> u64 {
                self.0.mount_id
            }

            #[getter]
            fn lock_reach(&self) -> &'static str {
                self.0.lock_reach_words()
            }

            #[getter]
            fn durability(&self) -> &'static str {
                self.0.durability_word()
            }

            fn __str__(&self) -> String {
                self.0.to_string()
            }

            /// For `pickle` and `copy`.
            fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
                let can = [$(self.0.$can),*];
                let arguments = (&self.0.filesystem, self.0.mount_id, can, self.lock_reach(), self.durability());
                Ok((restore(py, "_probe")?, arguments.into_pyobject(py)?))
            }

            fn __repr__(&self) -> String {
                format!("<Probe of {}: durability {}>", self.0.filesystem, self.0.durability_word())
            }
        }

        /// Makes a `Probe` again that was pickled.
        #[pyfunction]
        #[pyo3(name = "_probe")]
        pub(super) fn restore_probe(
            filesystem: String,
            mount_id: u64,
            can: [bool; 11],
            lock_reach: &str,
            durability: &str,
        ) -> PyResult<Probe> {
            let [$($can),*] = can;
            let unknown = |word: &str| PyValueError::new_err(format!("no such word: '{word}'"));
            let lock_reach = LockReach::from_words(lock_reach).ok_or_else(|| unknown(lock_reach))?;
            let durability = match durability {
                "full" => Some(Durability::Full),
                "ordered" => Some(Durability::Ordered),
                "none" => Some(Durability::NoSync),
                "unknown" => None,
                other => return Err(unknown(other)),
            };
            Ok(Probe(crate::Probe { filesystem, mount_id, $($can,)* lock_reach, durability }))
        }
    };
}

answers! {
    unnamed_files noreplace exchange reflink directory_locks hard_links modes_kept owners_kept xattrs syncfs single_flush
}

/// Tries what the filesystem of a folder can do, in a scratch slot there; nothing is left.
///
/// Args:
///     directory: A folder in which something can be made.
///
/// Returns:
///     A `Probe`; `print` shows it as a table.
///
/// Raises:
///     OSError: The folder cannot be opened, or nothing can be made in it.
///
/// Durability: nothing is to be kept.
/// Source: open(2) O_TMPFILE, renameat2(2), ioctl_ficlone(2), flock(2), link(2), fsetxattr(2), statfs(2).
///
/// Example:
///     >>> atomik.probe(".").durability in ("full", "none", "unknown")
///     True
#[pyfunction]
pub(super) fn probe(py: Python<'_>, directory: PathArg) -> PyResult<Probe> {
    py.detach(|| crate::probe(&directory.path)).map(Probe).map_err(|error| convert::error(py, &error, &[&directory]))
}

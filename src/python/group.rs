//! `group` and the guard `Group`.

use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::convert::PathArg;
use super::draft::Request;
use super::file::{self, File};
use super::folder::{Entry, Folder};
use super::guard::{Ending, Guard, context_manager};
use super::members::Members;
use super::options::{Given, MEMBER, TEXT};
use super::write::{Content, write};
use crate::options::Durability;

context_manager! {
    /// Many new versions, published together: what `atomik.group` returns.
    ///
    /// A context manager, also for `async with`. Its methods take what the functions of the same names take, but
    /// durability, and what does not go with a group: `update`, `backup`, `cleanup`, `tmp_dir` and the modes
    /// "a" and "r+". What their bodies have written waits, invisible, for the end of the group's body.
    ///
    /// Attributes:
    ///     committed: True once the members have been published; after an error that says so too, all of them, or
    ///         those that its message names.
    ///
    /// Example:
    ///     >>> with atomik.group() as g:
    ///     ...     g.write_text("left", "1")
    ///     ...     with g.file("right") as f:
    ///     ...         _ = f.write("2")
    Group(Arc<Guard<Members>>) {
        /// As `atomik.file`, in modes "w" and "x"; the body's end adds the file to the group.
        ///
        /// Raises:
        ///     ValueError: Another mode; nothing was touched.
        ///     RuntimeError: The group is not open.
        ///     OSError: When the body is entered or ends, as for `atomik.file`.
        #[pyo3(signature = (path, mode="w", overwrite=false, **options),
               text_signature = "($self, path, mode='w', overwrite=False, *, encoding=None, errors=None, newline=None, buffering=-1, permissions=None, preserve=True, follow_symlinks=False, dir_fd=None)")]
        fn file(
            &self,
            py: Python<'_>,
            path: PathArg,
            mode: &str,
            overwrite: bool,
            options: Option<&Bound<'_, PyDict>>,
        ) -> PyResult<File> {
            if mode.contains(['a', 'r']) {
                return Err(PyValueError::new_err(format!("mode '{mode}' does not go with a group: 'w' or 'x'")));
            }
            let given = self.options("file", options, &[TEXT, &["buffering"]])?;
            file::guard(py, path, mode, Given { overwrite, ..given }, Some(&self.0))
        }

        /// As `atomik.folder`; the body's end adds the folder to the group.
        ///
        /// Raises:
        ///     RuntimeError: The group is not open.
        ///     OSError: When the body is entered or ends, as for `atomik.folder`.
        #[pyo3(signature = (path, overwrite=false, **options),
               text_signature = "($self, path, overwrite=False, *, permissions=None, preserve=True, follow_symlinks=False, dir_fd=None)")]
        fn folder(&self, path: PathArg, overwrite: bool, options: Option<&Bound<'_, PyDict>>) -> PyResult<Folder> {
            let given = self.options("folder", options, &[])?;
            Ok(Folder(Guard::new(Request::new(path, Given { overwrite, ..given }, Some(&self.0))?)))
        }

        /// As `atomik.path`; the body's end adds what the tool has made to the group, and its siblings if they are to be published.
        ///
        /// Raises:
        ///     RuntimeError: The group is not open.
        ///     OSError: When the body is entered or ends, as for `atomik.path`.
        #[pyo3(signature = (path, **options),
               text_signature = "($self, path, *, overwrite=False, permissions=None, preserve=True, follow_symlinks=False, dir_fd=None, siblings='refuse')")]
        fn path(&self, path: PathArg, options: Option<&Bound<'_, PyDict>>) -> PyResult<Entry> {
            let given = self.options("path", options, &[&["overwrite", "siblings"]])?;
            Ok(Entry(Guard::new(Request::new(path, given, Some(&self.0))?)))
        }

        /// As `atomik.write_bytes`; the file is added to the group.
        ///
        /// Raises:
        ///     RuntimeError: The group is not open.
        ///     OSError: As for `atomik.write_bytes`; the other members stay in the group.
        #[pyo3(signature = (path, data, **options),
               text_signature = "($self, path, data, *, overwrite=False, permissions=None, preserve=True, follow_symlinks=False, dir_fd=None)")]
        fn write_bytes(
            &self,
            py: Python<'_>,
            path: PathArg,
            data: &Bound<'_, PyAny>,
            options: Option<&Bound<'_, PyDict>>,
        ) -> PyResult<()> {
            let given = self.options("write_bytes", options, &[&["overwrite"]])?;
            write(py, &path, &Content::of(data)?, given, Some(&self.0))
        }

        /// As `atomik.write_text`; the file is added to the group.
        ///
        /// Raises:
        ///     UnicodeEncodeError: The encoding has no bytes for a character; nothing was touched.
        ///     RuntimeError: The group is not open.
        ///     OSError: As for `atomik.write_text`; the other members stay in the group.
        #[pyo3(signature = (path, text, **options),
               text_signature = "($self, path, text, *, encoding=None, errors=None, newline=None, overwrite=False, permissions=None, preserve=True, follow_symlinks=False, dir_fd=None)")]
        fn write_text(
            &self,
            py: Python<'_>,
            path: PathArg,
            text: &Bound<'_, PyString>,
            options: Option<&Bound<'_, PyDict>>,
        ) -> PyResult<()> {
            let given = self.options("write_text", options, &[TEXT, &["overwrite"]])?;
            write(py, &path, &Content::encoded(text, &given)?, given, Some(&self.0))
        }

        /// Publishes all members now; the end of the body then does nothing.
        ///
        /// Raises:
        ///     RuntimeError: The group is not open, a member is, or it belongs to a parent process.
        ///     OSError: The commit failed; the error's `filename` is the member that did, and its `committed` tells
        ///         whether others stay published.
        fn commit(&self, py: Python<'_>) -> PyResult<()> {
            self.0.end_now(py, Ending::Commit)
        }

        /// Discards all members now; the end of the body then does nothing.
        ///
        /// Raises:
        ///     RuntimeError: The group is not open, or belongs to a parent process.
        fn rollback(&self, py: Python<'_>) -> PyResult<()> {
            self.0.end_now(py, Ending::Rollback)
        }

        #[getter]
        fn committed(&self, py: Python<'_>) -> bool {
            self.0.is_committed(py)
        }

        fn __repr__(&self) -> String {
            match self.0.try_look(|group| group.len()) {
                Some(members) => format!("<Group of {members}: open>"),
                None => format!("<Group: {}>", self.0.word()),
            }
        }
    }
}

impl Group {
    /// Reads the options of a member, which takes those in `own` besides the ones of all members.
    fn options(&self, method: &str, given: Option<&Bound<'_, PyDict>>, own: &[&[&str]]) -> PyResult<Given> {
        let given = Given::read(&format!("Group.{method}"), given, &[&[MEMBER], own].concat())?;
        Ok(Given { durability: self.0.kind.durability, ..given })
    }
}

/// Publishes many files and folders together, for the price of one sync a filesystem.
///
/// All that is written in the body becomes visible at its end, one destination after the other, or, after an
/// exception, not at all. It is not one instant: a reader, or a power cut, during the publishes may find some
/// destinations new and some old, each complete. If one cannot be published, those before it are taken back.
///
/// Args:
///     durability: "full" (when the body has ended, all survive a power cut), "ordered" (after one each is old or new)
///         or "none" (no sync).
///
/// Returns:
///     A guard whose body gets itself, with the methods `file`, `folder`, `path`, `write_bytes`, `write_text`.
///
/// Raises:
///     ValueError: A wrong durability; nothing was touched.
///     OSError: As for `file` and `folder`; `filename` is the member that failed. `committed` is true if
///         members stay published, which the message names.
///     UnsupportedFilesystemError: A destination exists, and the filesystem lacks RENAME_EXCHANGE.
///     ConflictError: The folder of a destination was replaced or removed meanwhile; nothing was published.
///     DurabilityError: A sync failed; `committed` says on which side of the publishes.
///
/// Warns:
///     CleanupWarning: A displaced version could not be removed; the commit stands.
///
/// Durability: each filesystem synced once, then all published, then each folder synced once.
/// Source: linkat(2), renameat2(2) RENAME_NOREPLACE and RENAME_EXCHANGE, syncfs(2), fsync(2).
///
/// Example:
///     >>> with atomik.group() as g:
///     ...     for number in range(100):
///     ...         g.write_text(f"{number}.txt", "hello")
#[pyfunction]
#[pyo3(signature = (*, durability=Durability::Full), text_signature = "(*, durability='full')")]
pub(super) fn group(durability: Durability) -> Group {
    Group(Arc::new(Guard::new(Members::new(durability))))
}

//! Options: keyword arguments of Python, read here for every function that takes them.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::convert::PathArg;
use crate::options::{Cleanup, Durability, Settings, Siblings, Start};

macro_rules! options {
    ($($name:ident: $kind:ty = $default:expr,)*) => {
        /// The options of one call. A function reads those that it takes; the others have their defaults.
        pub(super) struct Given {
            $(pub(super) $name: $kind,)*
        }

        impl Default for Given {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        impl Given {
            fn set(&mut self, name: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
                match name {
                    $(stringify!($name) => self.$name = value.extract()?,)*
                    _ => unreachable!("an option without a field: {name}"),
                }
                Ok(())
            }
        }
    };
}

options! {
    overwrite: bool = false,
    update: bool = false,
    durability: Durability = Durability::Full,
    encoding: Option<String> = None,
    errors: Option<String> = None,
    newline: Option<String> = None,
    buffering: i32 = -1,
    permissions: Option<Permissions> = None,
    preserve: bool = true,
    follow_symlinks: bool = false,
    backup: Option<PathArg> = None,
    cleanup: Cleanup = Cleanup::Inline,
    tmp_dir: Option<PathArg> = None,
    dir_fd: Option<i32> = None,
    siblings: Siblings = Siblings::Refuse,
    whiteout: bool = false,
    src_dir_fd: Option<i32> = None,
    dst_dir_fd: Option<i32> = None,
    recursive: bool = false,
    dry_run: bool = false,
    older_than: Option<f64> = None,
}

/// What every member of a group takes.
pub(super) const MEMBER: &[&str] = &["permissions", "preserve", "follow_symlinks", "dir_fd"];
/// What every new version takes besides.
pub(super) const ALONE: &[&str] = &["durability", "backup"];
/// What text takes.
pub(super) const TEXT: &[&str] = &["encoding", "errors", "newline"];

impl Given {
    /// Reads the keyword arguments of `function`, which takes the options `taken`.
    pub(super) fn read(function: &str, given: Option<&Bound<'_, PyDict>>, taken: &[&[&str]]) -> PyResult<Self> {
        let mut options = Self::default();
        for (name, value) in given.into_iter().flatten() {
            let name = name.cast::<PyString>()?.to_str()?;
            if !taken.iter().any(|names| names.contains(&name)) {
                return Err(PyTypeError::new_err(format!("{function}() got an unexpected keyword argument '{name}'")));
            }
            if let Err(error) = options.set(name, &value) {
                error.add_note(value.py(), format!("while processing '{name}'"))?;
                return Err(error);
            }
        }
        Ok(options)
    }

    /// The settings of the core.
    pub(super) fn settings(self) -> PyResult<Settings> {
        let settings = Settings {
            overwrite: self.overwrite,
            durability: self.durability,
            permissions: self.permissions.map(|Permissions(bits)| bits),
            preserve: self.preserve,
            follow_symlinks: self.follow_symlinks,
            tmp_dir: self.tmp_dir.map(|folder| folder.path),
            start: if self.update { Start::Present } else { Start::Empty },
            backup: self.backup.map(|name| name.path),
            cleanup: self.cleanup,
            siblings: self.siblings,
            ..Settings::default()
        };
        if settings.is_no_group() {
            return Err(PyValueError::new_err("siblings='publish' does not go with update, backup or tmp_dir"));
        }
        Ok(settings)
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

/// Options that are words of the contract.
macro_rules! words {
    ($($option:literal: $kind:ident { $($word:literal => $variant:ident),* } $listed:literal)*) => {$(
        impl<'a, 'py> FromPyObject<'a, 'py> for $kind {
            type Error = PyErr;

            fn extract(value: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
                match value.cast::<PyString>()?.to_str()? {
                    $($word => Ok(Self::$variant),)*
                    other => Err(PyValueError::new_err(format!(concat!($option, " must be ", $listed, ", not '{}'"), other))),
                }
            }
        }
    )*};
}

words! {
    "durability": Durability { "full" => Full, "ordered" => Ordered, "none" => NoSync } "'full', 'ordered' or 'none'"
    "cleanup": Cleanup { "inline" => Inline, "background" => Background } "'inline' or 'background'"
    "siblings": Siblings { "refuse" => Refuse, "publish" => Publish, "discard" => Discard } "'refuse', 'publish' or 'discard'"
}

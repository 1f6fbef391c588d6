//! Writes files and whole folders atomically: a reader, or the next boot, sees the complete old
//! version or the complete new one, never a mix, never nothing.
//!
//! # How it works
//! A [`File`] is written unnamed (`O_TMPFILE`) and named by `linkat`, or by `linkat` and `rename` when
//! it replaces; a [`Folder`] is built in a slot and published by `renameat2` with `RENAME_NOREPLACE` or
//! `RENAME_EXCHANGE`. An [`Entry`] is a path for tools that only take a name. Dropping a guard
//! discards what was staged; `commit` consumes it.
//!
//! # Limits
//! Linux only; staging and destination on one mount; where a filesystem lacks the call that is
//! needed, [`ErrorKind::Unsupported`], never a weaker promise.
//!
//! # Features
//! `python`: the extension module for Python, built by maturin. Off by default.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(target_os = "linux"))]
compile_error!("atomik rests on Linux system calls (renameat2, O_TMPFILE): it is for Linux only");

mod backup;
mod base;
mod checkpoint;
mod clone;
mod committed;
mod destination;
mod draft;
mod error;
#[cfg(test)]
mod explore;
#[cfg(test)]
mod faults;
mod file;
mod folder;
mod group;
mod metadata;
mod mount;
mod options;
mod path;
mod probe;
mod process;
mod publish;
#[cfg(feature = "python")]
mod python;
mod rename;
mod slot;
mod snapshot;
mod sweep;
mod sync;
mod sys;
mod tree;
mod trial;

pub use committed::Committed;
pub use error::{Error, ErrorKind, Result};
pub use file::{File, write};
pub use folder::{Entry, Folder};
pub use group::Group;
pub use options::{Cleanup, Durability, Options, Siblings};
pub use probe::{Probe, probe};
pub use rename::{RenameFlags, exchange, rename, renameat2};
pub use slot::LockReach;
pub use snapshot::Snapshot;
pub use sweep::{Orphan, Sweep};

//! Writes files and whole folders atomically: a reader, or the next boot, sees the complete old
//! version or the complete new one, never a mix, never nothing.
//!
//! ```
//! use std::io::Write;
//!
//! # let dir = tempfile::tempdir()?;
//! # std::env::set_current_dir(&dir)?;
//! // A whole file in one call. It must not exist: nothing is overwritten unasked.
//! atomik::write("notes.txt", "hello")?;
//!
//! // A file, piece by piece. Nobody sees it until the commit, and without one it is discarded.
//! let mut file = atomik::File::options().overwrite(true).create("notes.txt")?;
//! writeln!(file, "hello again")?;
//! file.commit()?;
//!
//! // A whole folder, which replaces the old one in one step.
//! let site = atomik::Folder::options().overwrite(true).create("site")?;
//! std::fs::write(site.path().join("index.html"), "<h1>hello</h1>")?;
//! site.commit()?;
//!
//! // What goes wrong has a kind, an errno, a path and a way out.
//! let error = atomik::write("notes.txt", "once more").unwrap_err();
//! assert_eq!(error.kind(), atomik::ErrorKind::AlreadyExists);
//! println!("{error}");
//!
//! # assert_eq!(std::fs::read("notes.txt")?, b"hello again\n");
//! # assert!(std::path::Path::new("site/index.html").exists());
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! [`File`] and [`Folder`] are guards: [`commit`](File::commit) consumes and publishes them, dropping discards what was
//! staged. An [`Entry`] is a path for tools that only take a name, a [`Group`] publishes many guards together, and a
//! [`Snapshot`] reads one version of a folder. [`Options`] tell how.
//!
//! # How it works
//! A [`File`] is written unnamed (`O_TMPFILE`) and named by `linkat`, or by `linkat` and `rename` when
//! it replaces. A [`Folder`] is built in a slot and published by `renameat2` with `RENAME_NOREPLACE` or
//! `RENAME_EXCHANGE`.
//!
//! # Durability
//! When a commit has returned, the new version survives a power cut. [`Durability`] names the weaker promises that take less
//! time.
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
mod guard;
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
pub use guard::Guard;
pub use options::{Cleanup, Durability, Options, Siblings};
pub use probe::{Probe, probe};
pub use rename::{RenameFlags, exchange, rename, renameat2};
pub use slot::LockReach;
pub use snapshot::Snapshot;
pub use sweep::{Orphan, Sweep};

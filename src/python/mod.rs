//! The binding: adapters between Python's objects and the core, no logic.

#![allow(clippy::doc_markdown, reason = "these docs are Python's docstrings")]
#![allow(clippy::needless_pass_by_value, reason = "arguments come from Python by value")]

mod convert;
mod draft;
mod file;
mod folder;
mod functions;
mod group;
mod guard;
mod hints;
mod inspect;
mod interrupt;
mod members;
mod options;
mod snapshot;
mod streams;
mod write;

use pyo3::prelude::*;

/// The Rust core of atomik.
#[pymodule(name = "_atomik")]
mod atomik {
    #[pymodule_export]
    use super::{
        file::{File, file},
        folder::{Entry, Folder, folder, path},
        functions::{exchange, rename, renameat2},
        group::{Group, group},
        inspect::{Orphan, Probe, probe, restore_orphan, restore_probe, sweep},
        snapshot::{Snapshot, snapshot},
        write::{write_bytes, write_text},
    };

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}

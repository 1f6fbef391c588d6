//! The binding: adapters between Python's objects and the core, no logic.

#![allow(clippy::doc_markdown, reason = "these docs are Python's docstrings")]

mod convert;
mod file;
mod folder;
mod functions;
mod group;
mod inspect;
mod interrupt;
mod snapshot;
mod state;
mod write;

use pyo3::prelude::*;

/// The Rust core of atomik.
#[pymodule(name = "_atomik")]
mod atomik {
    #[pymodule_export]
    use super::file::{File, file};
    #[pymodule_export]
    use super::folder::{Entry, Folder, folder, path};
    #[pymodule_export]
    use super::functions::{exchange, rename, renameat2};
    #[pymodule_export]
    use super::group::{Group, group};
    #[pymodule_export]
    use super::inspect::{Orphan, Probe, probe, restore_orphan, restore_probe, sweep};
    #[pymodule_export]
    use super::snapshot::{Snapshot, snapshot};
    #[pymodule_export]
    use super::write::{write_bytes, write_text};
    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}

/// Imports a name once and keeps it.
pub(super) fn imported<'py>(
    py: Python<'py>,
    cell: &'static pyo3::sync::PyOnceLock<Py<PyAny>>,
    module: &str,
    name: &str,
) -> PyResult<&'py Bound<'py, PyAny>> {
    Ok(cell.get_or_try_init(py, || py.import(module)?.getattr(name).map(Bound::unbind))?.bind(py))
}

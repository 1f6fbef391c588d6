//! Python's `io` object over a staged file.

use std::os::fd::{AsRawFd, BorrowedFd};

use pyo3::PyTraverseError;
use pyo3::exceptions::PyValueError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

use super::convert::PathArg;
use crate::sys;

/// The arguments of `io.open` but the file.
pub(super) struct Layers {
    pub(super) mode: String,
    pub(super) options: Py<PyDict>,
}

/// What the body of a file writes to. It does not own the descriptor: closing it in the body is fine.
pub(super) struct Streams {
    outermost: Py<PyAny>,
    /// Once the innermost layer is closed, nothing reaches the descriptor's number any more.
    raw: Py<PyAny>,
}

impl Streams {
    /// Opens them; answers what the body gets as well.
    pub(super) fn open(
        py: Python<'_>,
        fd: BorrowedFd<'_>,
        layers: &Layers,
        path: &PathArg,
    ) -> PyResult<(Self, Py<PyAny>)> {
        static OPEN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let arguments = (fd.as_raw_fd(), &layers.mode);
        let outermost = OPEN.import(py, "io", "open")?.call(arguments, Some(layers.options.bind(py)))?;
        let mut raw = outermost.clone();
        for layer in ["buffer", "raw"] {
            if let Some(inner) = raw.getattr_opt(layer)? {
                raw = inner;
            }
        }
        raw.setattr("name", path.object.bind(py))?;
        let given = outermost.clone().unbind();
        Ok((Self { outermost: outermost.unbind(), raw: raw.unbind() }, given))
    }

    /// Closes them; an error of the last flush is the body's.
    pub(super) fn close(&self, py: Python<'_>) -> PyResult<()> {
        let flushed = self.outermost.call_method0(py, "close").map(drop);
        self.raw.call_method0(py, "close")?;
        flushed
    }

    /// Closes them with nothing written: what is still buffered goes to `/dev/null`, so that it neither fails on a full
    /// disk nor, in a forked child, reaches the parent's staging.
    pub(super) fn discard(&self, py: Python<'_>, fd: BorrowedFd<'_>) -> PyResult<()> {
        sys::blind(fd)?;
        match self.close(py) {
            // The body has detached a layer; the descriptor is blind, and the innermost layer is closed.
            Err(error) if error.is_instance_of::<PyValueError>(py) => Ok(()),
            other => other,
        }
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.outermost)?;
        visit.call(&self.raw)
    }
}

//! The state of a guard, shared by the threads that have it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{PyResourceWarning, PyRuntimeError};
use pyo3::prelude::*;

use super::convert::PathArg;

/// New, open once, ended; `Open` is what is staged meanwhile.
pub(super) struct State<Open>(Mutex<Stage<Open>>);

enum Stage<Open> {
    New {
        /// Has `async with` begun? A task that is cancelled before its guard is entered has forgotten nothing.
        awaited: bool,
    },
    /// A thread is entering or ending it.
    Busy,
    Open(Open),
    Ended {
        committed: bool,
    },
}

impl<Open> State<Open> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Stage::New { awaited: false }))
    }

    fn lock(&self) -> MutexGuard<'_, Stage<Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts to enter. No lock is held from here on, while Python or the kernel works.
    pub(super) fn start(&self) -> PyResult<()> {
        let mut stage = self.lock();
        if !matches!(&*stage, Stage::New { .. }) {
            return Err(PyRuntimeError::new_err("a guard is entered once: call atomik again for another version"));
        }
        *stage = Stage::Busy;
        Ok(())
    }

    /// The same for the end of the body: another thread that is ending the guard just now has not
    /// published yet, and the body must not go on as if it had.
    pub(super) fn take_at_exit(&self) -> PyResult<Option<Open>> {
        if matches!(&*self.lock(), Stage::Busy) {
            return Err(PyRuntimeError::new_err("another thread is ending this guard: join it before the body ends"));
        }
        Ok(self.take())
    }

    /// Takes what is staged, to end it; `None` if it is not open.
    pub(super) fn take(&self) -> Option<Open> {
        let mut stage = self.lock();
        if !matches!(&*stage, Stage::Open(_)) {
            return None;
        }
        match std::mem::replace(&mut *stage, Stage::Busy) {
            Stage::Open(open) => Some(open),
            _ => None,
        }
    }

    /// The same for an explicit `commit` or `rollback`.
    pub(super) fn take_open(&self) -> PyResult<Open> {
        let message = "the guard is not open: enter it with 'with' first, and end it once";
        self.take().ok_or_else(|| PyRuntimeError::new_err(message))
    }

    pub(super) fn opened(&self, open: Open) {
        *self.lock() = Stage::Open(open);
    }

    pub(super) fn ended(&self, committed: bool) {
        *self.lock() = Stage::Ended { committed };
    }

    /// The state in a word or two. A lock that is held is held by a thread that works.
    pub(super) fn word(&self) -> &'static str {
        let Ok(stage) = self.0.try_lock() else { return "busy" };
        match &*stage {
            Stage::New { .. } => "not entered",
            Stage::Busy => "busy",
            Stage::Open(_) => "open",
            Stage::Ended { committed: true } => "committed",
            Stage::Ended { committed: false } => "ended",
        }
    }

    /// Notes that `async with` is about to enter it.
    pub(super) fn awaited(&self) {
        if let Stage::New { awaited } = &mut *self.lock() {
            *awaited = true;
        }
    }

    /// Has nobody entered it, or tried to?
    pub(super) fn is_forgotten(&self) -> bool {
        matches!(&*self.lock(), Stage::New { awaited: false })
    }

    pub(super) fn is_committed(&self) -> bool {
        matches!(&*self.lock(), Stage::Ended { committed: true })
    }

    /// Looks at what is staged; `None` if it is not open.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Open) -> T) -> Option<T> {
        match &*self.lock() {
            Stage::Open(open) => Some(look(open)),
            _ => None,
        }
    }

    /// The same for the garbage collector, which must not wait: a lock that is held is held by a
    /// thread that works, and so by no cycle.
    pub(super) fn try_look<T>(&self, look: impl FnOnce(&Open) -> T) -> Option<T> {
        match &*self.0.try_lock().ok()? {
            Stage::Open(open) => Some(look(open)),
            _ => None,
        }
    }
}

/// What a guard is and in which state.
pub(super) fn repr(py: Python<'_>, kind: &str, path: &PathArg, state: &str) -> PyResult<String> {
    Ok(format!("<{kind} of {}: {state}>", path.object.bind(py).repr()?))
}

/// Does something in Python while a guard is dropped, which may happen with an exception on its way.
pub(super) fn aside<T>(py: Python<'_>, work: impl FnOnce() -> T) -> T {
    let on_its_way = PyErr::take(py);
    let done = work();
    if let Some(exception) = on_its_way {
        exception.restore(py);
    }
    done
}

/// Warns of a guard that is dropped before its end, as an open file does.
pub(super) fn warn_of_drop(kind: &str, path: Option<&PathArg>, entered: bool) {
    let what = if entered { "was entered and not ended" } else { "was made and not entered" };
    let warn = |py: Python<'_>| -> PyResult<()> {
        let of = path.map(|path| path.object.bind(py).repr()).transpose()?;
        let of = of.map_or(String::new(), |path| format!(" of {path}"));
        let message = std::ffi::CString::new(format!("{kind}{of} {what}; use 'with'"))?;
        PyErr::warn(py, &py.get_type::<PyResourceWarning>(), &message, 1)
    };
    // Nobody is there to hear of it where Python has gone.
    Python::try_attach(|py| {
        aside(py, || {
            if let Err(error) = warn(py) {
                error.write_unraisable(py, None);
            }
        });
    });
}

/// The error of a forked child that wants to end its parent's guard.
pub(super) fn foreign() -> PyErr {
    PyRuntimeError::new_err("this guard belongs to the parent process: a forked child neither commits nor rolls back")
}

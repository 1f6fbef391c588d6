//! The guard behind each class: entered once, and ended once, by the process that has entered it.
//!
//! ```text
//! New ─ enter ─> Busy ─> Open ─ commit, rollback, the body's end ─> Busy ─> Ended
//! ```

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use pyo3::exceptions::{PyResourceWarning, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::interrupt::detached;
use crate::checkpoint::Checkpoint;
use crate::sys;

/// A kind of guard: how a guard of this kind is opened and ended.
pub(super) trait Kind: Send + Sync {
    /// Whether the body's normal end publishes something. It raises then if another thread or process ends the guard.
    const PUBLISHES: bool = true;

    /// What is open between entering and ending.
    type Open: Send;

    /// The guard's name in messages.
    fn title(&self, py: Python<'_>) -> PyResult<String>;

    /// Opens the guard; answers also what its body gets. `guard` is the Python object.
    fn open(&self, guard: &Bound<'_, PyAny>) -> PyResult<(Self::Open, Py<PyAny>)>;

    /// Commits or rolls back; answers also whether the new version has been published.
    fn end(&self, py: Python<'_>, open: Self::Open, ending: Ending) -> (bool, PyResult<()>);

    /// Lets go of what is open where nobody has ended the guard, or where it is the parent process's. That may remove
    /// many files: not under the GIL.
    fn abandon(&self, py: Python<'_>, open: Self::Open) {
        py.detach(|| drop(open));
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Commit,
    Rollback,
}

impl Ending {
    /// The ending that the arguments of `__exit__` stand for.
    pub(super) fn of_body(exc: &Bound<'_, PyTuple>) -> Self {
        if exc.iter().next().is_some_and(|class| !class.is_none()) { Self::Rollback } else { Self::Commit }
    }
}

enum Stage<Open> {
    New {
        /// Whether `async with` has begun: a task that is cancelled before its guard is entered has forgotten nothing.
        awaited: bool,
    },
    /// A thread is entering or ending it.
    Busy,
    Open(Open),
    Ended {
        committed: bool,
    },
}

impl<Open> Stage<Open> {
    fn open(&mut self) -> Option<&mut Open> {
        if let Self::Open(open) = self { Some(open) } else { None }
    }
}

/// Why a guard cannot be ended.
enum NotOpen {
    Foreign,
    Busy,
    Closed,
}

impl From<NotOpen> for PyErr {
    fn from(why: NotOpen) -> Self {
        PyRuntimeError::new_err(match why {
            NotOpen::Foreign => {
                "this guard belongs to the parent process: a forked child neither commits nor rolls back"
            }
            NotOpen::Busy => "another thread is ending this guard: join it before the body ends",
            NotOpen::Closed => "the guard is not open: enter it with 'with' first, and end it once",
        })
    }
}

/// The state of a guard, shared by the threads that have it.
pub(super) struct Guard<K: Kind> {
    pub(super) kind: K,
    stage: Mutex<Stage<K::Open>>,
    /// The process that has made the guard, then the one that has entered it.
    owner: AtomicU32,
}

impl<K: Kind> Guard<K> {
    pub(super) fn new(kind: K) -> Self {
        let stage = Mutex::new(Stage::New { awaited: false });
        Self { kind, stage, owner: AtomicU32::new(sys::fork_generation()) }
    }

    /// Whether this process is a forked child of the one that the guard belongs to: the only place that asks.
    fn is_foreign(&self) -> bool {
        self.owner.load(Ordering::Relaxed) != sys::fork_generation()
    }

    fn lock(&self) -> MutexGuard<'_, Stage<K::Open>> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the stage under its lock, where nothing may call Python. A thread that has the lock may need the GIL to let
    /// go of it. `None` in a forked child that has inherited a held lock.
    fn with_stage<T: Send>(&self, py: Python<'_>, change: impl FnOnce(&mut Stage<K::Open>) -> T + Send) -> Option<T> {
        match self.stage.try_lock() {
            Ok(mut stage) => Some(change(&mut stage)),
            Err(TryLockError::WouldBlock) if self.is_foreign() => None,
            Err(_) => Some(py.detach(|| change(&mut self.lock()))),
        }
    }

    fn set(&self, py: Python<'_>, new: Stage<K::Open>) {
        self.with_stage(py, |stage| *stage = new);
    }

    /// `__enter__`: opens the guard, and answers what the body gets.
    pub(super) fn enter(&self, guard: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let py = guard.py();
        let is_new = self.with_stage(py, |stage| match stage {
            Stage::New { .. } => {
                *stage = Stage::Busy;
                true
            }
            _ => false,
        });
        if is_new != Some(true) {
            return Err(PyRuntimeError::new_err("a guard is entered once: call atomik again for another version"));
        }
        self.owner.store(sys::fork_generation(), Ordering::Relaxed);
        let (stage, given) = match self.kind.open(guard) {
            Ok((open, given)) => (Stage::Open(open), Ok(given)),
            Err(error) => (Stage::Ended { committed: false }, Err(error)),
        };
        self.set(py, stage);
        given
    }

    /// Notes that `async with` is about to enter it.
    pub(super) fn awaited(&self, py: Python<'_>) {
        self.with_stage(py, |stage| {
            if let Stage::New { awaited } = stage {
                *awaited = true;
            }
        });
    }

    /// Takes what is open, to end it. A forked child lets go of what its parent has open.
    fn take(&self, py: Python<'_>) -> Result<K::Open, NotOpen> {
        let taken = self.with_stage(py, |stage| match std::mem::replace(stage, Stage::Busy) {
            Stage::Open(open) => Ok(open),
            Stage::Busy => Err(NotOpen::Busy),
            other => {
                *stage = other;
                Err(NotOpen::Closed)
            }
        });
        match taken {
            Some(Ok(open)) if self.is_foreign() => {
                self.set(py, Stage::Ended { committed: false });
                self.kind.abandon(py, open);
                Err(NotOpen::Foreign)
            }
            Some(taken) => taken,
            None => Err(NotOpen::Foreign),
        }
    }

    fn end(&self, py: Python<'_>, open: K::Open, ending: Ending) -> PyResult<()> {
        let (committed, answer) = self.kind.end(py, open, ending);
        self.set(py, Stage::Ended { committed });
        answer
    }

    /// `commit()` and `rollback()`: the guard must be open.
    pub(super) fn end_now(&self, py: Python<'_>, ending: Ending) -> PyResult<()> {
        let open = self.take(py)?;
        self.end(py, open, ending)
    }

    /// `__exit__`: the guard may have been ended in the body.
    pub(super) fn leave(&self, py: Python<'_>, ending: Ending) -> PyResult<()> {
        match self.take(py) {
            Ok(open) => self.end(py, open, ending),
            Err(NotOpen::Closed) => Ok(()),
            Err(NotOpen::Foreign) if ending == Ending::Rollback => Ok(()),
            // The body must not go on as if the thread that is ending the guard just now had published.
            Err(why) if K::PUBLISHES => Err(why.into()),
            Err(_) => Ok(()),
        }
    }

    /// Works on what is open, without the GIL; other threads wait for that.
    pub(super) fn work<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut K::Open, Checkpoint) -> T + Send,
    ) -> PyResult<T> {
        if self.is_foreign() {
            return Err(NotOpen::Foreign.into());
        }
        let (answer, raised) = detached(py, |checkpoint| self.lock().open().map(|open| work(open, checkpoint)));
        raised?;
        answer.ok_or_else(|| NotOpen::Closed.into())
    }

    /// Looks at what is open; `None` if nothing is.
    pub(super) fn look<T: Send>(&self, py: Python<'_>, look: impl FnOnce(&K::Open) -> T + Send) -> Option<T> {
        self.with_stage(py, |stage| stage.open().map(|open| look(open))).flatten()
    }

    /// Looks without waiting, as the garbage collector must: a thread that has the lock works with the guard, which is in
    /// no cycle of garbage then.
    pub(super) fn try_look<T>(&self, look: impl FnOnce(&K::Open) -> T) -> Option<T> {
        self.stage.try_lock().ok()?.open().map(|open| look(open))
    }

    pub(super) fn is_committed(&self, py: Python<'_>) -> bool {
        self.with_stage(py, |stage| matches!(stage, Stage::Ended { committed: true })) == Some(true)
    }

    /// The state in a word or two. A lock that is held is held by a thread that works.
    pub(super) fn word(&self) -> &'static str {
        let Ok(stage) = self.stage.try_lock() else { return "busy" };
        match &*stage {
            Stage::New { .. } => "not entered",
            Stage::Busy => "busy",
            Stage::Open(_) => "open",
            Stage::Ended { committed: true } => "committed",
            Stage::Ended { committed: false } => "ended",
        }
    }

    pub(super) fn repr(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("<{}: {}>", self.kind.title(py)?, self.word()))
    }

    /// The end of a guard that nobody has ended: a generator never finished, a reference cycle. It may come with an
    /// exception on its way.
    pub(super) fn abandon(&self, py: Python<'_>) {
        let left = self.with_stage(py, |stage| match stage {
            Stage::New { .. } | Stage::Open(_) => Some(std::mem::replace(stage, Stage::Ended { committed: false })),
            Stage::Busy | Stage::Ended { .. } => None,
        });
        let Some(left) = left.flatten() else { return };
        let on_its_way = PyErr::take(py);
        let what = match left {
            Stage::Open(_) => Some("was entered and not ended"),
            Stage::New { awaited: false } => Some("was made and not entered"),
            _ => None,
        };
        if let Some(what) = what.filter(|_| !self.is_foreign()) {
            self.warn_of_drop(py, what).unwrap_or_else(|error| error.write_unraisable(py, None));
        }
        if let Stage::Open(open) = left {
            self.kind.abandon(py, open);
        }
        if let Some(exception) = on_its_way {
            exception.restore(py);
        }
    }

    /// Warns as a file does that is dropped open.
    fn warn_of_drop(&self, py: Python<'_>, what: &str) -> PyResult<()> {
        let message = std::ffi::CString::new(format!("{} {what}; use 'with'", self.kind.title(py)?))?;
        PyErr::warn(py, &py.get_type::<PyResourceWarning>(), &message, 1)
    }
}

impl<K: Kind> Drop for Guard<K> {
    /// Where Python has gone, nobody is there to hear of it, and the core's own `Drop` cleans up.
    fn drop(&mut self) {
        Python::try_attach(|py| self.abandon(py));
    }
}

/// Declares the Python class of a guard: the protocol of `with` and `async with`, and the methods of its own.
macro_rules! context_manager {
    ($(#[$doc:meta])* $class:ident($guard:ty) { $($own:tt)* }) => {
        $(#[$doc])*
        #[pyclass(frozen, module = "atomik")]
        pub(super) struct $class(pub(super) $guard);

        #[pymethods]
        impl $class {
            fn __enter__(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
                slf.get().0.enter(slf.as_any())
            }

            #[pyo3(signature = (*exc))]
            fn __exit__(&self, py: Python<'_>, exc: &Bound<'_, pyo3::types::PyTuple>) -> PyResult<bool> {
                self.0.leave(py, $crate::python::guard::Ending::of_body(exc))?;
                Ok(false)
            }

            fn __aenter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
                slf.get().0.awaited(slf.py());
                slf.py().import("atomik._async")?.call_method1("enter", (slf,))
            }

            #[pyo3(signature = (*exc))]
            fn __aexit__<'py>(
                slf: &Bound<'py, Self>,
                exc: &Bound<'py, pyo3::types::PyTuple>,
            ) -> PyResult<Bound<'py, PyAny>> {
                slf.py().import("atomik._async")?.call_method1("leave", (slf, exc))
            }

            $($own)*
        }
    };
}

pub(super) use context_manager;

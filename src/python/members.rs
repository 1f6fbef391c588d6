//! The state of a group, shared with the guards of its members.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::convert::{self, PathArg};
use super::guard::{Ending, Guard, Kind};
use super::interrupt::detached;
use crate::checkpoint::Checkpoint;
use crate::options::Durability;

/// Guards of groups.
pub(super) struct Members {
    pub(super) durability: Durability,
    /// How many members have been entered and not ended.
    open: AtomicUsize,
    /// The numbers of those that have ended without being added, for the group to forget.
    ended: Mutex<Vec<u64>>,
}

impl Members {
    pub(super) fn new(durability: Durability) -> Self {
        Self { durability, open: AtomicUsize::new(0), ended: Mutex::default() }
    }
}

impl Kind for Members {
    type Open = Box<crate::Group>;

    fn title(&self, _: Python<'_>) -> PyResult<String> {
        Ok("a group".into())
    }

    fn open(&self, guard: &Bound<'_, PyAny>) -> PyResult<(Self::Open, Py<PyAny>)> {
        Ok((Box::new(crate::Group::new(self.durability)), guard.clone().unbind()))
    }

    fn end(&self, py: Python<'_>, group: Self::Open, ending: Ending) -> (bool, PyResult<()>) {
        let in_body = self.open.load(Ordering::Relaxed) != 0;
        if ending == Ending::Commit && !in_body {
            return convert::committed(py, detached(py, |checkpoint| group.commit_with(checkpoint)), &[]);
        }
        let answer = convert::rolled_back(py, detached(py, |checkpoint| group.rollback_with(checkpoint)));
        if ending == Ending::Rollback {
            return (false, answer);
        }
        // The members' bodies find the group ended.
        let message = "a member of the group is still open: end its body before the group's";
        (false, answer.and(Err(PyRuntimeError::new_err(message))))
    }
}

/// Works on an open group.
pub(super) fn work<T: Send>(
    py: Python<'_>,
    group: &Guard<Members>,
    path: &PathArg,
    work: impl FnOnce(&mut crate::Group, Checkpoint) -> crate::Result<T> + Send,
) -> PyResult<T> {
    let worked = group.work(py, |open, checkpoint| {
        for number in std::mem::take(&mut *group.kind.ended.lock().unwrap_or_else(PoisonError::into_inner)) {
            open.forget(number);
        }
        work(open, checkpoint)
    })?;
    worked.map_err(|error| convert::error(py, &error, &[path]))
}

/// A guard's part in a group, from its entering to its end.
pub(super) struct Membership {
    group: Arc<Guard<Members>>,
    number: u64,
}

impl Membership {
    /// Refuses what the group would refuse after the body.
    pub(super) fn enter(
        py: Python<'_>,
        group: &Arc<Guard<Members>>,
        destination: &crate::destination::Destination,
        path: &PathArg,
    ) -> PyResult<Self> {
        let number = work(py, group, path, |group, _| group.announce(destination))?;
        group.kind.open.fetch_add(1, Ordering::Relaxed);
        Ok(Self { group: Arc::clone(group), number })
    }

    /// Adds what the body has made.
    pub(super) fn add(
        self,
        py: Python<'_>,
        path: &PathArg,
        add: impl FnOnce(&mut crate::Group) -> crate::Result<()> + Send,
    ) -> PyResult<()> {
        work(py, &self.group, path, |group, _| {
            group.forget(self.number);
            add(group)
        })
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let Members { open, ended, .. } = &self.group.kind;
        open.fetch_sub(1, Ordering::Relaxed);
        // Not the group's own lock: its holder may wait for the interpreter.
        ended.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
    }
}

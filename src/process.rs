//! `Process`: the process that a guard belongs to. In a child of `fork(2)` a guard is its parent's.

use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::sys;

/// The process in which a guard was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process(u32);

impl Process {
    /// This process.
    pub(crate) fn current() -> Self {
        Self(sys::fork_generation())
    }

    /// Is it still the one that runs, and no child of it?
    pub(crate) fn is_current(self) -> bool {
        self.0 == sys::fork_generation()
    }

    /// Refuses an operation on `path` in a child of it.
    pub(crate) fn check(self, operation: &'static str, path: &Path) -> Result<()> {
        if self.is_current() {
            return Ok(());
        }
        Err(Error::errno(operation, path, libc::ECHILD).kind_is(ErrorKind::OtherProcess))
    }
}

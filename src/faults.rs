//! Makes kernel calls fail on purpose: in unit tests, every call of [`crate::sys`] is made through
//! [`intercept`], which follows the plan that [`inject`] set for this thread, and keeps a trace.
//!
//! The tests are in `faults/tests.rs`, those of groups in `faults/groups.rs`, those of syncs in `faults/syncing.rs`. They
//! publish what `faults/scene.rs` has, `faults/judge.rs` judges each run, and `faults/sample.rs` says which faults are tried.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;

use crate::mount::Mount;

mod groups;
mod judge;
mod sample;
mod scene;
mod syncing;
mod tests;

/// A call that is to fail, without being made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The call with this number, counted from 0 through the whole operation, whatever its name.
    At(usize, Errno),
    /// Every call of this name, from the call with this number on.
    Every(&'static str, usize, Errno),
}

impl Fault {
    pub(crate) fn errno(&self) -> Errno {
        match *self {
            Fault::At(_, errno) | Fault::Every(_, _, errno) => errno,
        }
    }

    /// The call that it hits, or the first of them.
    pub(crate) fn number(&self) -> usize {
        match *self {
            Fault::At(number, _) | Fault::Every(_, number, _) => number,
        }
    }

    fn hits(&self, number: usize, name: &str) -> Option<Errno> {
        match *self {
            Fault::At(at, errno) => (at == number).then_some(errno),
            Fault::Every(every, from, errno) => (every == name && number >= from).then_some(errno),
        }
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::At(number, errno) => write!(f, "{errno:?} at call {number}"),
            Fault::Every(name, from, errno) => write!(f, "{errno:?} of every {name} from call {from}"),
        }
    }
}

/// A call that was made, or failed in its place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    pub(crate) error: Option<Errno>,
    /// Failed by the plan.
    pub(crate) injected: bool,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.error {
            Some(errno) if self.injected => write!(f, "{}!{errno:?}", self.name),
            Some(errno) => write!(f, "{}={errno:?}", self.name),
            None => f.write_str(self.name),
        }
    }
}

/// An operation that makes more calls than this is endless. (All numbers of slots are tried in fewer.)
const ENDLESS: usize = 200_000;

struct Plan {
    faults: Vec<Fault>,
    trace: Vec<Call>,
}

thread_local! {
    /// Of this thread only: tests run side by side.
    static PLAN: RefCell<Option<Plan>> = const { RefCell::new(None) };
    static PRETENDED: Cell<Pretended> = const { Cell::new(Pretended::NOTHING) };
}

/// What a test pretends of the machine.
#[derive(Clone, Copy)]
pub(crate) struct Pretended {
    /// What every mount is like.
    pub(crate) mount: Option<Mount>,
    /// How many MiB are to be written to disks.
    pub(crate) dirty: Option<u64>,
    /// Is it remembered what mounts can do? In tests every trial is made each time, unless a test says otherwise: so a run
    /// makes the same calls whatever ran before it.
    pub(crate) remembers: bool,
    /// The lock domain of every folder, as on a FUSE or network filesystem.
    pub(crate) domain: Option<u64>,
}

impl Pretended {
    pub(crate) const NOTHING: Self = Self { mount: None, dirty: None, remembers: false, domain: None };

    pub(crate) fn mount(mount: Mount) -> Self {
        Self { mount: Some(mount), ..Self::NOTHING }
    }

    /// What the test that runs pretends.
    pub(crate) fn now() -> Self {
        PRETENDED.get()
    }

    /// Runs a test on such a machine.
    pub(crate) fn run<T>(self, test: impl FnOnce() -> T) -> T {
        PRETENDED.set(self);
        let result = test();
        PRETENDED.set(Self::NOTHING);
        result
    }
}

/// Does a test run in this thread whose calls fail? What it waits for never comes, so no pause is needed.
pub(crate) fn is_running() -> bool {
    PLAN.with_borrow(Option::is_some)
}

/// Makes a call, unless the plan of this thread says that it fails.
pub(crate) fn intercept<T>(name: &'static str, call: impl FnOnce() -> nix::Result<T>) -> nix::Result<T> {
    let planned = PLAN.with_borrow(|plan| {
        let Plan { faults, trace } = plan.as_ref()?;
        faults.iter().find_map(|fault| fault.hits(trace.len(), name))
    });
    let result = match planned {
        Some(errno) => Err(errno),
        None => call(),
    };
    let error = result.as_ref().err().copied();
    let endless = PLAN.with_borrow_mut(|plan| {
        let Some(plan) = plan else { return false };
        plan.trace.push(Call { name, error, injected: planned.is_some() });
        let endless = plan.trace.len() == ENDLESS;
        if endless {
            // What is dropped by the panic must come to an end.
            plan.faults.clear();
        }
        endless
    });
    assert!(!endless, "{name} was the {ENDLESS}th call of one operation");
    result
}

/// Runs an operation with these faults; answers its result (or its panic) and all its calls.
pub(crate) fn inject<T>(faults: &[Fault], operation: impl FnOnce() -> T) -> (std::thread::Result<T>, Vec<Call>) {
    PLAN.set(Some(Plan { faults: faults.into(), trace: Vec::new() }));
    let result = catch_unwind(AssertUnwindSafe(operation));
    let trace = PLAN.take().map(|plan| plan.trace).unwrap_or_default();
    (result, trace)
}

/// What a call may well answer in a state in which it would succeed: worn-out disks, full ones, quotas,
/// limits, and what old kernels, sandboxes and poorer filesystems lack. Not the answers that are
/// facts about names (`ENOENT` for what exists): a kernel that lies about those can be believed in nothing.
pub(crate) fn plausible(call: &str) -> &'static [Errno] {
    match call {
        "openat" => &[Errno::EIO, Errno::EMFILE, Errno::EACCES, Errno::EINTR],
        "openat2" => &[Errno::EIO, Errno::EMFILE, Errno::EACCES, Errno::ENOSYS, Errno::EPERM],
        "O_TMPFILE" => &[Errno::EIO, Errno::ENOSPC, Errno::EACCES, Errno::EOPNOTSUPP, Errno::EISDIR],
        "linkat" => &[Errno::EIO, Errno::ENOSPC, Errno::EPERM, Errno::ENOENT],
        "renameat" => &[Errno::EIO, Errno::ENOSPC, Errno::EACCES, Errno::EINTR],
        "renameat2" => &[Errno::EIO, Errno::EACCES, Errno::EINVAL, Errno::ENOSYS, Errno::EPERM],
        "mkdirat" => &[Errno::EIO, Errno::ENOSPC, Errno::EROFS],
        "unlinkat" => &[Errno::EIO, Errno::EACCES, Errno::EPERM],
        "rmdir" => &[Errno::EIO, Errno::EACCES, Errno::EBUSY],
        "statx" => &[Errno::EIO, Errno::ENOMEM, Errno::EPERM],
        "fsync" => &[Errno::EIO, Errno::ENOSPC, Errno::EDQUOT, Errno::EINTR],
        "syncfs" | "sync_file_range" => &[Errno::EIO, Errno::ENOSPC, Errno::EINTR, Errno::ENOSYS, Errno::EPERM],
        "flock" => &[Errno::EIO, Errno::ENOLCK, Errno::EINTR],
        "write" => &[Errno::EIO, Errno::ENOSPC, Errno::EFBIG],
        "fsetxattr" => &[Errno::EIO, Errno::ENOSPC],
        "fchmod" | "fchmodat" | "fchown" => &[Errno::EIO, Errno::EROFS],
        _ => &[Errno::EIO, Errno::ENOMEM],
    }
}

//! Makes the calls: one function for each way to repeat a call, and the hooks of the tests.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;

/// Makes a call. Each goes through here or through `retry`, so that a unit test can make any one of
/// them fail (`faults.rs`, which also looks that none goes another way).
#[inline]
pub(super) fn once<T>(name: &'static str, call: impl FnOnce() -> nix::Result<T>) -> io::Result<T> {
    #[cfg(test)]
    let call = || crate::faults::intercept(name, || crate::explore::call(name, call));
    #[cfg(not(test))]
    let _ = name;
    call().map_err(io::Error::from)
}

/// Pauses in a loop that waits for another process. Under the explorer of interleavings another process takes a step.
pub(crate) fn sleep(time: std::time::Duration) {
    #[cfg(test)]
    if crate::explore::sleeping() || crate::faults::is_running() {
        return;
    }
    std::thread::sleep(time);
}

/// Repeats a call that a signal interrupted. Never used around a publish: over FUSE an
/// interrupted rename may have happened all the same.
#[inline]
pub(super) fn retry<T>(name: &'static str, mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    loop {
        match once(name, &mut call) {
            Err(error) if errno(&error) == libc::EINTR => {}
            other => return other,
        }
    }
}

/// How often a look-up is repeated, a millisecond apart.
const MAX_LOOKUPS: u32 = 5;

/// Repeats a look-up of a name that a network or user-space filesystem calls stale, since another client has replaced what
/// the kernel remembers of the name. The kernel itself looks twice.
pub(super) fn lookup<T>(name: &'static str, mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    for _ in 0..MAX_LOOKUPS {
        match retry(name, &mut call) {
            Err(error) if errno(&error) == libc::ESTALE => sleep(std::time::Duration::from_millis(1)),
            other => return other,
        }
    }
    retry(name, call)
}

pub(super) fn check(result: libc::c_long) -> nix::Result<libc::c_long> {
    nix::errno::Errno::result(result)
}

/// The errno of an error that came from the kernel, 0 for any other.
pub(crate) fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}

/// A name for the kernel; a NUL byte in it is `InvalidInput`.
pub(crate) fn cstring(name: &OsStr) -> io::Result<CString> {
    CString::new(name.as_bytes()).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "embedded null byte"))
}

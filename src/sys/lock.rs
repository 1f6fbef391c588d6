//! Locks files and folders (`flock(2)`).

#[cfg(test)]
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::call::{errno, retry};
#[cfg(test)]
use crate::explore::place;

/// What came of asking for a lock without waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lock {
    /// It is ours until the last copy of the descriptor is closed.
    Held,
    /// Somebody else holds it.
    Taken,
    /// This filesystem cannot lock this kind of file (`EBADF`, `ENOLCK`), or a sandbox refuses to.
    Unsupported,
}

/// `flock(2)`, exclusive; waits only if told to.
pub(crate) fn lock(fd: BorrowedFd, wait: bool) -> io::Result<Lock> {
    flock(fd, libc::LOCK_EX | if wait { 0 } else { libc::LOCK_NB })
}

/// `flock(2)`, shared, without waiting: a reader's pin.
pub(crate) fn lock_shared(fd: BorrowedFd) -> io::Result<Lock> {
    flock(fd, libc::LOCK_SH | libc::LOCK_NB)
}

/// `flock(2)`: lets a lock go, for every copy of the descriptor.
pub(crate) fn unlock(fd: BorrowedFd) -> io::Result<()> {
    flock(fd, libc::LOCK_UN).map(drop)
}

fn flock(fd: BorrowedFd, how: i32) -> io::Result<Lock> {
    note!(place(fd, OsStr::new("")) + if how & libc::LOCK_SH == 0 { " EX" } else { " SH" });
    // SAFETY: a plain call on a borrowed descriptor.
    let call = |how| nix::errno::Errno::result(unsafe { libc::flock(fd.as_raw_fd(), how) });
    #[cfg(test)]
    let call = |how| crate::explore::flock(fd, how, call);
    match retry("flock", || call(how)) {
        Ok(_) => Ok(Lock::Held),
        Err(error) => match errno(&error) {
            // CIFS says EACCES of a file that another client has locked.
            libc::EWOULDBLOCK | libc::EACCES => Ok(Lock::Taken),
            libc::EBADF | libc::ENOLCK | libc::ENOSYS | libc::EOPNOTSUPP | libc::EINVAL | libc::EPERM => {
                Ok(Lock::Unsupported)
            }
            _ => Err(error),
        },
    }
}

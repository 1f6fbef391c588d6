//! Makes, moves and removes names.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::fcntl::{self, AtFlags};
use nix::sys::stat::Mode;
use nix::unistd;

use super::call::{check, cstring, errno, once};
use super::open::{CWD, proc_path};
#[cfg(test)]
use crate::explore::place;

/// Gives an unnamed file its name (`linkat(2)`). `AT_EMPTY_PATH` needs `CAP_DAC_READ_SEARCH`
/// before Linux 6.10 and answers `ENOENT` without it, and a sandbox may refuse it; `/proc/self/fd`
/// needs `/proc`.
pub(crate) fn link_fd(fd: BorrowedFd, dir: BorrowedFd, name: &OsStr) -> io::Result<()> {
    note!(place(dir, name));
    match once("linkat", || unistd::linkat(fd, "", dir, name, AtFlags::AT_EMPTY_PATH)) {
        Err(error)
            if matches!(errno(&error), libc::ENOENT | libc::EINVAL | libc::EPERM | libc::ENOSYS | libc::EOPNOTSUPP) => {
        }
        other => return other,
    }
    let path = proc_path(fd);
    once("linkat", || unistd::linkat(CWD, path.as_os_str(), dir, name, AtFlags::AT_SYMLINK_FOLLOW))
}

/// `linkat(2)` between two names; a symlink is linked itself.
pub(crate) fn link(from: BorrowedFd, old: &OsStr, to: BorrowedFd, new: &OsStr) -> io::Result<()> {
    note!(place(from, old) + " -> " + &place(to, new));
    once("linkat", || unistd::linkat(from, old, to, new, AtFlags::empty()))
}

/// `RENAME_NOREPLACE`, `RENAME_EXCHANGE` and `RENAME_WHITEOUT` of `renameat2(2)`.
pub(crate) const NOREPLACE: u32 = libc::RENAME_NOREPLACE;
pub(crate) const EXCHANGE: u32 = libc::RENAME_EXCHANGE;
pub(crate) const WHITEOUT: u32 = libc::RENAME_WHITEOUT;

/// `renameat2(2)` with these flags; without flags plain `renameat(2)`, which every kernel has.
pub(crate) fn renameat2(from: BorrowedFd, old: &OsStr, to: BorrowedFd, new: &OsStr, flags: u32) -> io::Result<()> {
    note!(place(from, old) + if flags == libc::RENAME_EXCHANGE { " <-> " } else { " -> " } + &place(to, new));
    if flags == 0 {
        return once("renameat", || fcntl::renameat(from, old, to, new));
    }
    let (old, new) = (cstring(old)?, cstring(new)?);
    // SAFETY: both names are NUL-terminated and live through the call; the descriptors are borrowed.
    let call = || unsafe {
        libc::syscall(libc::SYS_renameat2, from.as_raw_fd(), old.as_ptr(), to.as_raw_fd(), new.as_ptr(), flags)
    };
    once("renameat2", || check(call())).map(drop)
}

/// `mkdirat(2)`; `false` if the name is taken.
pub(crate) fn mkdir(at: BorrowedFd, name: &OsStr, mode: u32) -> io::Result<bool> {
    note!(place(at, name));
    let call = || nix::sys::stat::mkdirat(at, name, Mode::from_bits_truncate(mode));
    #[cfg(test)]
    let call = || crate::explore::creating(at, name, call);
    match once("mkdirat", call) {
        Ok(()) => Ok(true),
        Err(error) if errno(&error) == libc::EEXIST => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the name of anything but a folder.
pub(crate) fn unlink(at: BorrowedFd, name: &OsStr) -> io::Result<()> {
    note!(place(at, name));
    once("unlinkat", || unistd::unlinkat(at, name, unistd::UnlinkatFlags::NoRemoveDir))
}

/// Removes an empty folder.
pub(crate) fn rmdir(at: BorrowedFd, name: &OsStr) -> io::Result<()> {
    note!(place(at, name));
    once("rmdir", || unistd::unlinkat(at, name, unistd::UnlinkatFlags::RemoveDir))
}

/// May this process write here (`faccessat(2)`, effective ids)? The error says why not.
pub(crate) fn may_write(at: BorrowedFd, name: &OsStr) -> io::Result<()> {
    note!(place(at, name));
    once("faccessat", || unistd::faccessat(at, name, unistd::AccessFlags::W_OK, AtFlags::AT_EACCESS))
}

/// Where a symlink leads.
pub(crate) fn readlink(at: BorrowedFd, name: &OsStr) -> io::Result<OsString> {
    note!(place(at, name));
    once("readlinkat", || fcntl::readlinkat(at, name))
}

//! Questions about a name of ours that another process may remove, or use again, at any moment.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::sys::{self, Stat, errno};

/// What a call says of a name that another process has removed or used again meanwhile.
pub(crate) fn is_change(error: &io::Error) -> bool {
    matches!(errno(error), libc::ENOENT | libc::ENOTDIR | libc::ESTALE)
}

/// What opening, or only asking, says of a symlink, a socket, a lease, a file of another user, a mount of another user's
/// FUSE program (`EACCES`) or of one that has ended (`ENOTCONN`): none of our slots.
pub(super) fn is_no_slot(error: &io::Error) -> bool {
    let strange = [
        libc::ELOOP,
        libc::ENXIO,
        libc::ENODEV,
        libc::EACCES,
        libc::EPERM,
        libc::EAGAIN,
        libc::ETXTBSY,
        libc::ENOTCONN,
    ];
    strange.contains(&errno(error))
}

pub(super) fn is_named(dir: BorrowedFd, name: &OsStr, stat: &Stat) -> io::Result<bool> {
    Ok(sys::stat(dir, name)?.is_some_and(|named| named.same(stat)))
}

/// Describes what is open; `None` if it was removed meanwhile, which FUSE says so.
pub(super) fn stat_opened(fd: BorrowedFd) -> io::Result<Option<Stat>> {
    match sys::stat_fd(fd) {
        Err(error) if is_change(&error) => Ok(None),
        other => other.map(Some),
    }
}

/// Is nothing in a folder? One call tells: what is in it fills any buffer first.
pub(super) fn is_empty(slot: BorrowedFd) -> io::Result<bool> {
    let mut entries = Vec::new();
    sys::read_folder(slot, &mut [0_u8; 1024], &mut entries)?;
    Ok(entries.is_empty())
}

/// What is in a slot or a room; nothing, if that is removed meanwhile.
pub(crate) fn list(folder: BorrowedFd) -> io::Result<Vec<sys::Entry>> {
    let mut entries = Vec::new();
    let mut read = || -> io::Result<()> {
        let reader = sys::open_folder(folder, OsStr::new("."))?;
        let mut buffer = vec![0_u8; 4096];
        while sys::read_folder(reader.as_fd(), &mut buffer, &mut entries)? {}
        Ok(())
    };
    match read() {
        Err(error) if is_change(&error) => Ok(Vec::new()),
        other => other.map(|()| entries),
    }
}

//! Writes and syncs content.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::unistd;

use super::call::{errno, retry};

/// Writes all of a memory range: a short write is continued, an interrupted one repeated. Only the
/// kernel reads the memory, so that its owner (a Python buffer) may write to it meanwhile.
#[cfg(feature = "python")]
pub(crate) fn write_memory(fd: BorrowedFd, address: usize, len: usize) -> io::Result<()> {
    let mut done = 0;
    while done < len {
        // SAFETY: the caller keeps the memory's owner (a buffer export, a str) alive through the call; nothing
        // in this process is read through the address, and a bad one is `EFAULT`.
        let written = retry("write", || {
            nix::errno::Errno::result(unsafe {
                libc::write(fd.as_raw_fd(), (address + done) as *const libc::c_void, len - done)
            })
        })?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        done += usize::try_from(written).unwrap_or(0);
    }
    Ok(())
}

/// `fsync(2)`. An error is final: the kernel may have dropped the pages that it could not write.
pub(crate) fn fsync(fd: BorrowedFd) -> io::Result<()> {
    retry("fsync", || unistd::fsync(fd))
}

/// `syncfs(2)`: only for filesystems known to implement it (FUSE answers success and does nothing).
pub(crate) fn syncfs(fd: BorrowedFd) -> io::Result<()> {
    retry("syncfs", || unistd::syncfs(fd))
}

/// `sync_file_range(2)`: starts to write a file's content. Only a beginning: where the call is missing, the
/// sync that follows begins by itself.
pub(crate) fn start_writing(fd: BorrowedFd) -> io::Result<()> {
    sync_file_range(fd, libc::SYNC_FILE_RANGE_WRITE).map(drop)
}

/// `sync_file_range(2)`: writes a file's content and waits until the disk has it, perhaps in its cache only; `false`
/// where a sandbox or a kernel refuses the call. As with `fsync`, any other error is final.
pub(crate) fn write_and_wait(fd: BorrowedFd) -> io::Result<bool> {
    let all = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    sync_file_range(fd, all)
}

fn sync_file_range(fd: BorrowedFd, flags: libc::c_uint) -> io::Result<bool> {
    // SAFETY: a plain call on a borrowed descriptor.
    let call = || unsafe { libc::sync_file_range(fd.as_raw_fd(), 0, 0, flags) };
    match retry("sync_file_range", || nix::errno::Errno::result(call())) {
        Ok(_) => Ok(true),
        Err(error) if matches!(errno(&error), libc::ENOSYS | libc::EINVAL | libc::ESPIPE | libc::EPERM) => Ok(false),
        Err(error) => Err(error),
    }
}

//! Writes and syncs content.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::unistd;

use super::call::{errno, retry};

/// Memory that is only ever read by the kernel, so that its owner (a Python buffer) may write to it meanwhile.
#[derive(Clone, Copy)]
pub(crate) struct Memory<'a> {
    start: *const u8,
    len: usize,
    owner: std::marker::PhantomData<&'a [u8]>,
}

// SAFETY: no thread of this process reads or writes through it.
unsafe impl Send for Memory<'_> {}

// SAFETY: as above.
unsafe impl Sync for Memory<'_> {}

impl<'a> From<&'a [u8]> for Memory<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self { start: bytes.as_ptr(), len: bytes.len(), owner: std::marker::PhantomData }
    }
}

impl Memory<'_> {
    /// # Safety
    /// `len` bytes from `start` on are in one allocation, which is not freed for as long as `'a` lasts.
    #[cfg(feature = "python")]
    pub(crate) unsafe fn new(start: *const u8, len: usize) -> Self {
        Self { start, len, owner: std::marker::PhantomData }
    }

    /// Its first bytes, at most `most` of them, and the rest.
    pub(crate) fn split(self, most: usize) -> (Self, Self) {
        let first = most.min(self.len);
        (Self { len: first, ..self }, Self { start: self.start.wrapping_add(first), len: self.len - first, ..self })
    }

    pub(crate) fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// `read(2)` at the file's position.
pub(crate) fn read(fd: BorrowedFd, buffer: &mut [u8]) -> io::Result<usize> {
    retry("read", || unistd::read(fd, buffer))
}

/// Writes all of a memory range: a short write is continued, an interrupted one repeated.
pub(crate) fn write_all(fd: BorrowedFd, mut rest: Memory) -> io::Result<()> {
    while !rest.is_empty() {
        // SAFETY: the borrow in `Memory` keeps these bytes from being freed, and the kernel only reads them.
        let call = || unsafe { libc::write(fd.as_raw_fd(), rest.start.cast(), rest.len) };
        let written = retry("write", || nix::errno::Errno::result(call()))?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        rest = rest.split(usize::try_from(written).unwrap_or(0)).1;
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

//! Reads folders.

#[cfg(test)]
use std::ffi::OsStr;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;

use nix::unistd;

use super::call::{check, once, retry};
#[cfg(test)]
use crate::explore::place;

/// One entry of a folder.
pub(crate) struct Entry {
    pub(crate) name: OsString,
    /// Its `DT_` type; `DT_UNKNOWN` on some filesystems.
    pub(crate) kind: u8,
    pub(crate) inode: u64,
}

/// Reads the next batch of entries (`getdents64(2)`), without `.` and `..`; `false` at the end.
pub(crate) fn read_folder(fd: BorrowedFd, buffer: &mut [u8], entries: &mut Vec<Entry>) -> io::Result<bool> {
    note!(place(fd, OsStr::new("")));
    let length = retry("getdents64", || {
        // SAFETY: the kernel writes at most `buffer.len()` bytes.
        check(unsafe { libc::syscall(libc::SYS_getdents64, fd.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) })
    })?;
    let mut rest = &buffer[..usize::try_from(length).unwrap_or(0)];
    // struct linux_dirent64: u64 inode, i64 offset, u16 record length, u8 type, name with NUL.
    while rest.len() > 19 {
        // The kernel writes whole records only, each longer than its head.
        let record = usize::from(u16::from_ne_bytes([rest[16], rest[17]])).clamp(20, rest.len());
        let name = rest[19..record].split(|byte| *byte == 0).next().unwrap_or_default();
        if name != b"." && name != b".." {
            let inode = u64::from_ne_bytes(rest[..8].try_into().unwrap_or_default());
            entries.push(Entry { name: OsString::from_vec(name.to_vec()), kind: rest[18], inode });
        }
        rest = &rest[record..];
    }
    Ok(length > 0)
}

/// How far a folder was read: holds for the folder opened again, whatever was removed meanwhile.
pub(crate) fn position(folder: BorrowedFd) -> io::Result<i64> {
    once("lseek", || unistd::lseek(folder, 0, unistd::Whence::SeekCur))
}

/// Reads on from a [`position`].
pub(crate) fn set_position(folder: BorrowedFd, position: i64) -> io::Result<()> {
    once("lseek", || unistd::lseek(folder, position, unistd::Whence::SeekSet)).map(drop)
}

//! The calls that copy files and what belongs to them.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::fcntl::{self, AtFlags, OFlag};
use nix::sys::stat::{self, Mode, SFlag};
use nix::sys::time::TimeSpec;
use nix::unistd::{self, Whence};

use super::attributes::filled;
use super::call::{check, errno, once, retry};
use super::stat::Times;

/// What a filesystem, or a pair of them, answers to a copy that it does not do.
fn cannot(error: &io::Error) -> bool {
    let known = [libc::EOPNOTSUPP, libc::EXDEV, libc::EINVAL, libc::ENOTTY, libc::ENOSYS, libc::EPERM, libc::ETXTBSY];
    known.contains(&errno(error))
}

/// Shares all of a file's blocks with another (`ioctl_ficlone(2)`); `false` where that is not possible.
pub(crate) fn reflink(from: BorrowedFd, to: BorrowedFd) -> io::Result<bool> {
    // SAFETY: FICLONE takes a descriptor number as its argument and touches no memory.
    match retry("FICLONE", || check(unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONE, from.as_raw_fd()) }.into())) {
        Ok(_) => Ok(true),
        Err(error) if cannot(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Copies up to `len` bytes at the same place (`copy_file_range(2)`); `None` where that is not possible.
pub(crate) fn copy_range(from: BorrowedFd, to: BorrowedFd, at: u64, len: u64) -> io::Result<Option<u64>> {
    let place = i64::try_from(at).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    let len = usize::try_from(len.min(1 << 30)).unwrap_or(1 << 30);
    let call = || {
        let (mut input, mut output) = (place, place);
        // SAFETY: both offsets live through the call.
        let copied = unsafe {
            libc::syscall(
                libc::SYS_copy_file_range,
                from.as_raw_fd(),
                &raw mut input,
                to.as_raw_fd(),
                &raw mut output,
                len,
                0,
            )
        };
        check(copied)
    };
    match retry("copy_file_range", call) {
        Ok(copied) => Ok(Some(u64::try_from(copied).unwrap_or(0))),
        Err(error) if cannot(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where the next data begins and ends (`lseek(2)`, `SEEK_DATA`, `SEEK_HOLE`); `None`: only a hole is left.
pub(crate) fn next_data(fd: BorrowedFd, from: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    let seek = |at: u64, whence| {
        let at = i64::try_from(at).unwrap_or(i64::MAX);
        once("lseek", || unistd::lseek(fd, at, whence)).map(|place| u64::try_from(place).unwrap_or(0))
    };
    match seek(from, Whence::SeekData) {
        Ok(start) => Ok(Some((start, seek(start, Whence::SeekHole)?))),
        Err(error) if errno(&error) == libc::ENXIO => Ok(None),
        // A filesystem that knows no holes.
        Err(error) if errno(&error) == libc::EINVAL => Ok((from < size).then_some((from, size))),
        Err(error) => Err(error),
    }
}

/// `ftruncate(2)`.
pub(crate) fn resize(fd: BorrowedFd, size: u64) -> io::Result<()> {
    let size = i64::try_from(size).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    retry("ftruncate", || unistd::ftruncate(fd, size))
}

/// Makes all writes through this open file go to its end, as `O_APPEND` does.
pub(crate) fn append_only(fd: BorrowedFd) -> io::Result<()> {
    once("fcntl", || fcntl::fcntl(fd, fcntl::FcntlArg::F_SETFL(OFlag::O_APPEND))).map(drop)
}

/// `symlinkat(2)`.
pub(crate) fn symlink(target: &OsStr, at: BorrowedFd, name: &OsStr) -> io::Result<()> {
    let call = || unistd::symlinkat(target, at, name);
    #[cfg(test)]
    let call = || crate::explore::creating(at, name, call);
    once("symlinkat", call)
}

/// Makes a FIFO with this mode (`mknodat(2)`) in a folder that is nobody else's.
pub(crate) fn make_fifo(at: BorrowedFd, name: &OsStr, mode: u32) -> io::Result<()> {
    let mode = Mode::from_bits_truncate(mode);
    once("mknodat", || stat::mknodat(at, name, SFlag::S_IFIFO, mode, 0))?;
    // The umask does not apply to a copy.
    once("fchmodat", || stat::fchmodat(at, name, mode, stat::FchmodatFlags::FollowSymlink))
}

/// Changes the owner of a name, not following it (`fchownat(2)`).
pub(crate) fn chown_name(at: BorrowedFd, name: &OsStr, uid: u32, gid: u32) -> io::Result<()> {
    once("fchownat", || unistd::fchownat(at, name, Some(uid.into()), Some(gid.into()), AtFlags::AT_SYMLINK_NOFOLLOW))
}

fn timespec((seconds, nanoseconds): (i64, u32)) -> TimeSpec {
    TimeSpec::new(seconds, nanoseconds.into())
}

/// Sets the times of an open file (`futimens(3)`).
pub(crate) fn set_times(fd: BorrowedFd, [accessed, modified]: Times) -> io::Result<()> {
    once("futimens", || stat::futimens(fd, &timespec(accessed), &timespec(modified)))
}

/// Sets the times of a name, not following it (`utimensat(2)`).
pub(crate) fn set_times_of_name(at: BorrowedFd, name: &OsStr, [accessed, modified]: Times) -> io::Result<()> {
    let how = stat::UtimensatFlags::NoFollowSymlink;
    once("utimensat", || stat::utimensat(at, name, &timespec(accessed), &timespec(modified), how))
}

/// One extended attribute of an open file (`fgetxattr(2)`); `None` if it has gone.
pub(crate) fn get_xattr_of(fd: BorrowedFd, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    // SAFETY: `filled` passes a buffer and its length; the name is NUL-terminated.
    filled("fgetxattr", |buffer, size| unsafe { libc::fgetxattr(fd.as_raw_fd(), name.as_ptr(), buffer, size) })
}

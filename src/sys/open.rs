//! Opens, closes and duplicates descriptors.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use nix::fcntl::{self, OFlag};
use nix::sys::stat::Mode;

use super::call::{check, errno, lookup, once, retry};
use super::stat::mount_id;
#[cfg(test)]
use crate::explore::place;

/// Stands for the current folder where a descriptor of a folder is expected (`AT_FDCWD`).
pub(crate) const CWD: BorrowedFd<'static> = nix::fcntl::AT_FDCWD;

/// The `/proc` name of an open file: works on `O_PATH` handles too, for every call that follows links.
pub(crate) fn proc_path(fd: BorrowedFd) -> OsString {
    OsString::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Opens a folder to work below: for reading (it can be synced) or, if that is not asked or not
/// permitted, as a bare handle (`O_PATH`). The flag says whether it can be synced.
pub(crate) fn open_parent(at: BorrowedFd, path: &OsStr, readable: bool) -> io::Result<(OwnedFd, bool)> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    if readable {
        match openat(at, path, flags | OFlag::O_RDONLY, 0) {
            Err(error) if errno(&error) == libc::EACCES => {}
            other => return other.map(|fd| (fd, true)),
        }
    }
    openat(at, path, flags | OFlag::O_PATH, 0).map(|fd| (fd, false))
}

/// `openat(2)`; interrupted calls are repeated.
pub(crate) fn openat(at: BorrowedFd, name: &OsStr, flags: OFlag, mode: u32) -> io::Result<OwnedFd> {
    note!(place(at, name) + if flags.contains(OFlag::O_CREAT) { " O_CREAT" } else { "" });
    let call = || fcntl::openat(at, name, flags | OFlag::O_CLOEXEC, Mode::from_bits_truncate(mode));
    #[cfg(test)]
    let call = || crate::explore::opening(at, name, call);
    lookup("openat", call)
}

/// Opens a folder below `at` without following a symlink.
pub(crate) fn open_folder(at: BorrowedFd, name: &OsStr) -> io::Result<OwnedFd> {
    openat(at, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW, 0)
}

/// Opens whatever has this name for reading: follows no symlink, waits for no FIFO.
pub(crate) fn open_any(at: BorrowedFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    openat(at, name, flags | OFlag::O_RDONLY, 0)
}

/// As `open_any`, and where only writing is permitted, for writing: enough for `fsync` and `fchmod`.
pub(crate) fn open_to_sync(at: BorrowedFd, name: &OsStr) -> io::Result<OwnedFd> {
    match open_any(at, name) {
        Err(error) if errno(&error) == libc::EACCES => {
            let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
            openat(at, name, flags | OFlag::O_WRONLY, 0).map_err(|_| error)
        }
        other => other,
    }
}

/// Opens a folder of the same mount below `at` (`openat2(2)`, `RESOLVE_NO_XDEV`); a mount point is
/// `EXDEV`. Before Linux 5.6 and where a sandbox refuses the call, mount ids are compared.
pub(crate) fn open_folder_same_mount(at: BorrowedFd, name: &OsStr) -> io::Result<OwnedFd> {
    let how = fcntl::OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(fcntl::ResolveFlag::RESOLVE_NO_XDEV | fcntl::ResolveFlag::RESOLVE_NO_SYMLINKS);
    note!(place(at, name));
    let call = || fcntl::openat2(at, name, how);
    #[cfg(test)]
    let call = || crate::explore::opening(at, name, call);
    match retry("openat2", call) {
        Err(error) if matches!(errno(&error), libc::ENOSYS | libc::EPERM | libc::EINVAL) => {
            let fd = open_folder(at, name)?;
            // Without an answer it is taken for another mount: what is below might not be ours to remove.
            match (mount_id(fd.as_fd())?, mount_id(at)?) {
                (Some(inner), Some(outer)) if inner == outer => Ok(fd),
                _ => Err(io::Error::from_raw_os_error(libc::EXDEV)),
            }
        }
        other => other,
    }
}

/// Opens the name of what was just published for writing, and changes nothing: closing it tells watchers that the file is
/// complete. Whatever has taken the name meanwhile: follows no symlink, waits for no FIFO.
pub(crate) fn open_published(at: BorrowedFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    openat(at, name, flags | OFlag::O_WRONLY, 0)
}

/// An unnamed file in a folder (`O_TMPFILE`); `None` where the filesystem, the kernel or a sandbox
/// has none. What is a real refusal comes back from the named staging that follows.
pub(crate) fn tmpfile(dir: BorrowedFd) -> io::Result<Option<OwnedFd>> {
    let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let call = || fcntl::openat(dir, ".", flags, Mode::from_bits_truncate(0o666));
    #[cfg(test)]
    let call = || call().inspect(crate::explore::created);
    match retry("O_TMPFILE", call) {
        Err(error)
            if matches!(errno(&error), libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL | libc::ENOSYS | libc::EPERM) =>
        {
            Ok(None)
        }
        other => other.map(Some),
    }
}

/// `fcntl(2)`, `F_DUPFD_CLOEXEC`: gets the lowest free number from `least` on.
pub(crate) fn duplicate(fd: BorrowedFd, least: RawFd) -> io::Result<OwnedFd> {
    let copy = once("fcntl", || fcntl::fcntl(fd, fcntl::FcntlArg::F_DUPFD_CLOEXEC(least)))?;
    // SAFETY: the kernel has just made it for this call.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// The same for a descriptor that is given by its number (Python's `dir_fd`): `EBADF` if it is not open.
#[cfg(feature = "python")]
pub(crate) fn duplicate_number(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the call reads no memory, and changes nothing of what the number leads to.
    let copy = once("fcntl", || check(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) }.into()))?;
    let copy = RawFd::try_from(copy).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it for this call.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Fails if there is no descriptor left for this process. `openat(2)` takes one before it looks at its arguments, and then
/// says `EBADF` of the number of the folder.
pub(crate) fn has_descriptor_left() -> io::Result<()> {
    // SAFETY: the name is NUL-terminated. Nothing has the number -1, so nothing is opened.
    let call = || check(unsafe { libc::openat(-1, c".".as_ptr(), libc::O_PATH | libc::O_CLOEXEC) }.into());
    match retry("openat", call) {
        Err(error) if errno(&error) == libc::EBADF => Ok(()),
        other => other.map(drop),
    }
}

/// How many descriptors this process may have (`getrlimit(2)`); the kernel's default if that cannot be asked.
pub(crate) fn descriptor_limit() -> libc::rlim_t {
    let mut limit = libc::rlimit { rlim_cur: 1024, rlim_max: 1024 };
    // SAFETY: the kernel fills the one structure given. An error leaves it as it is.
    drop(once("getrlimit", || check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }.into())));
    limit.rlim_cur
}

/// Closes descriptors: by one call if their numbers follow each other (`close_range(2)`, Linux 5.9).
pub(crate) fn close_together(mut fds: Vec<OwnedFd>) {
    fds.sort_by_key(AsRawFd::as_raw_fd);
    let follow = fds.windows(2).all(|pair| pair[1].as_raw_fd() - pair[0].as_raw_fd() == 1);
    // The explorer of interleavings looks at each close of a descriptor that holds a lock.
    if cfg!(test) || fds.len() < 2 || !follow {
        return;
    }
    let numbers: Vec<_> = fds.into_iter().map(IntoRawFd::into_raw_fd).collect();
    let (low, high) = (numbers[0], numbers[numbers.len() - 1]);
    // SAFETY: all these numbers were owned here, and nothing is between them.
    if once("close_range", || check(unsafe { libc::syscall(libc::SYS_close_range, low, high, 0) })).is_err() {
        for number in numbers {
            // SAFETY: a call that has failed has closed none; each is owned again.
            drop(unsafe { OwnedFd::from_raw_fd(number) });
        }
    }
}

/// Makes a descriptor number of this process lead to `/dev/null`: what a forked child still has
/// buffered for its parent's staging then goes nowhere.
#[cfg(feature = "python")]
pub(crate) fn blind(fd: BorrowedFd) -> io::Result<()> {
    let null = openat(CWD, OsStr::new("/dev/null"), OFlag::O_RDWR, 0)?;
    // SAFETY: a plain call on two open descriptors; the target stays open, only what it leads to changes.
    once("dup3", || check(unsafe { libc::dup3(null.as_raw_fd(), fd.as_raw_fd(), libc::O_CLOEXEC) }.into())).map(drop)
}

//! Calls the kernel: the only room that does, and the only one with `unsafe`.
//!
//! One thin function a call. What a filesystem or kernel does not have comes back as `Ok(None)` or
//! `false`, so that callers never match on an errno twice. `renameat2`, `statx`, `openat2` and
//! `getdents64` go by their system call number: glibc 2.17 and musl have no wrappers for them.
#![allow(unsafe_code)]

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::fcntl::{self, AtFlags, OFlag};
use nix::sys::stat::Mode;
use nix::unistd;

#[cfg(test)]
use crate::explore::place;

/// Tells the explorer of interleavings, for its traces, what the next call is about.
macro_rules! note {
    ($text:expr) => {
        #[cfg(test)]
        crate::explore::note(|| $text)
    };
}

mod attributes;
mod copy;
mod stat;
pub(crate) use attributes::*;
pub(crate) use copy::*;
pub(crate) use stat::*;

/// Makes a call. Each goes through here or through `retry`, so that a unit test can make any one of
/// them fail (`faults.rs`, which also looks that none goes another way).
#[inline]
fn once<T>(name: &'static str, call: impl FnOnce() -> nix::Result<T>) -> io::Result<T> {
    #[cfg(test)]
    let call = || crate::faults::intercept(name, || crate::explore::call(name, call));
    #[cfg(not(test))]
    let _ = name;
    call().map_err(io::Error::from)
}

/// Pauses in a loop that waits for another process. Under the explorer of interleavings another process takes a step.
pub(crate) fn sleep(time: std::time::Duration) {
    #[cfg(test)]
    if crate::explore::sleeping() {
        return;
    }
    std::thread::sleep(time);
}

/// Repeats a call that a signal interrupted. Never used around a publish: over FUSE an
/// interrupted rename may have happened all the same.
#[inline]
fn retry<T>(name: &'static str, mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
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
fn lookup<T>(name: &'static str, mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    for _ in 0..MAX_LOOKUPS {
        match retry(name, &mut call) {
            Err(error) if errno(&error) == libc::ESTALE => sleep(std::time::Duration::from_millis(1)),
            other => return other,
        }
    }
    retry(name, call)
}

fn check(result: libc::c_long) -> nix::Result<libc::c_long> {
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

/// Stands for the current folder where a descriptor of a folder is expected (`AT_FDCWD`).
pub(crate) const CWD: BorrowedFd<'static> = nix::fcntl::AT_FDCWD;

// ---------------------------------------------------------------- opening

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

// ---------------------------------------------------------------- names

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

/// `fcntl(2)`, `F_DUPFD_CLOEXEC`: gets the lowest free number from `least` on.
pub(crate) fn duplicate(fd: BorrowedFd, least: RawFd) -> io::Result<OwnedFd> {
    let copy = once("fcntl", || fcntl::fcntl(fd, fcntl::FcntlArg::F_DUPFD_CLOEXEC(least)))?;
    // SAFETY: the kernel has just made it for this call.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
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

/// `linkat(2)` between two names; a symlink is linked itself.
pub(crate) fn link(from: BorrowedFd, old: &OsStr, to: BorrowedFd, new: &OsStr) -> io::Result<()> {
    note!(place(from, old) + " -> " + &place(to, new));
    once("linkat", || unistd::linkat(from, old, to, new, AtFlags::empty()))
}

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

/// The `/proc` name of an open file: works on `O_PATH` handles too, for every call that follows links.
pub(crate) fn proc_path(fd: BorrowedFd) -> OsString {
    OsString::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

// ---------------------------------------------------------------- content, sync, locks

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

// ---------------------------------------------------------------- reading folders

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
    // SAFETY: the kernel writes at most `buffer.len()` bytes.
    let length = retry("getdents64", || {
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

// ---------------------------------------------------------------- processes

static FORKS: AtomicU32 = AtomicU32::new(0);
/// How often this process, or one that it was forked from, has forked.
static FORKED: AtomicU32 = AtomicU32::new(0);

/// Changes in every child of `fork(2)`: a guard that remembers another value belongs to another
/// process. A `pthread_atfork` handler counts, since `getpid` would cost a system call each time.
pub(crate) fn fork_generation() -> u32 {
    extern "C" fn count() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    extern "C" fn count_here() {
        FORKED.fetch_add(1, Ordering::Relaxed);
    }
    static HANDLER: Once = Once::new();
    HANDLER.call_once(|| {
        // SAFETY: the handler is async-signal-safe (one atomic add) and lives as long as the program:
        // CPython never unloads an extension module, and glibc would unregister it with the library.
        let registered = unsafe { libc::pthread_atfork(None, Some(count_here), Some(count)) };
        assert_eq!(registered, 0, "no memory for a handler of forks: a child could end its parent's guards");
    });
    FORKS.load(Ordering::Relaxed)
}

/// Changes whenever this process forks: a child may hold copies of the descriptors that were open before.
pub(crate) fn forks() -> u32 {
    fork_generation();
    FORKED.load(Ordering::Relaxed)
}

/// This process's number, asked once in each process.
pub(crate) fn process_id() -> u32 {
    static KNOWN: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let generation = u64::from(fork_generation()) << 32;
    let known = KNOWN.load(Ordering::Relaxed);
    if known & !0xffff_ffff == generation && known & 0xffff_ffff != 0 {
        return u32::try_from(known & 0xffff_ffff).unwrap_or(0);
    }
    let id = std::process::id();
    KNOWN.store(generation | u64::from(id), Ordering::Relaxed);
    id
}

/// Makes a descriptor number of this process lead to `/dev/null`: what a forked child still has
/// buffered for its parent's staging then goes nowhere.
#[cfg(feature = "python")]
pub(crate) fn blind(fd: BorrowedFd) -> io::Result<()> {
    let null = openat(CWD, OsStr::new("/dev/null"), OFlag::O_RDWR, 0)?;
    // SAFETY: a plain call on two open descriptors; the target stays open, only what it leads to changes.
    once("dup3", || check(unsafe { libc::dup3(null.as_raw_fd(), fd.as_raw_fd(), libc::O_CLOEXEC) }.into())).map(drop)
}

/// Borrows a descriptor number that the caller vouches for (Python's `dir_fd`, checked by the kernel).
#[cfg(feature = "python")]
pub(crate) fn borrow(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: `BorrowedFd` asks that the number stay open, which nobody can promise for Python's. It goes
    // into system calls only (`EBADF` if it is closed), and no `OwnedFd` is made of it: at worst it names
    // another folder that the caller's process has opened. -1 is the one value that is forbidden, and
    // becomes another that is never open.
    unsafe { BorrowedFd::borrow_raw(if fd == -1 { RawFd::MAX } else { fd }) }
}

/// Random bytes for a name that nobody else chooses (`getrandom(2)`).
pub(crate) fn random() -> io::Result<u64> {
    #[cfg(test)]
    if let Some(number) = crate::explore::random() {
        return Ok(number);
    }
    let mut bytes = [0_u8; 8];
    // SAFETY: the kernel fills at most the eight bytes given.
    retry("getrandom", || check(unsafe { libc::syscall(libc::SYS_getrandom, bytes.as_mut_ptr(), bytes.len(), 0) }))?;
    Ok(u64::from_ne_bytes(bytes))
}

//! Calls the kernel: the only room that does, and the only one with `unsafe`.
//!
//! One thin function a call. What a filesystem or kernel does not have comes back as `Ok(None)` or
//! `false`, so that callers never match on an errno twice. `renameat2`, `statx`, `openat2` and
//! `getdents64` go by their system call number: glibc 2.17 and musl have no wrappers for them.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
#[cfg(feature = "python")]
use std::os::fd::RawFd;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Once, OnceLock};

use nix::fcntl::{self, AtFlags, OFlag};
use nix::sys::stat::Mode;
use nix::unistd;

/// Repeats a call that a signal interrupted. Never used around a publish: over FUSE an
/// interrupted rename may have happened all the same.
fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(nix::Error::EINTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
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
    retry(|| fcntl::openat(at, name, flags | OFlag::O_CLOEXEC, Mode::from_bits_truncate(mode)))
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
    match retry(|| fcntl::openat2(at, name, how)) {
        Err(error) if matches!(errno(&error), libc::ENOSYS | libc::EPERM | libc::EINVAL) => {
            let fd = open_folder(at, name)?;
            let (inner, outer) = (stat_fd(fd.as_fd())?, stat_fd(at)?);
            if inner.mount_root || inner.mount != outer.mount || inner.dev != outer.dev {
                return Err(io::Error::from_raw_os_error(libc::EXDEV));
            }
            Ok(fd)
        }
        other => other,
    }
}

/// An unnamed file in a folder (`O_TMPFILE`); `None` where the filesystem, the kernel or a sandbox
/// has none. What is a real refusal comes back from the named staging that follows.
pub(crate) fn tmpfile(dir: BorrowedFd) -> io::Result<Option<OwnedFd>> {
    match openat(dir, OsStr::new("."), OFlag::O_TMPFILE | OFlag::O_RDWR, 0o666) {
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
/// before Linux 6.10 and answers `ENOENT` without it; `/proc/self/fd` needs `/proc`.
pub(crate) fn link_fd(fd: BorrowedFd, dir: BorrowedFd, name: &OsStr) -> io::Result<()> {
    match unistd::linkat(fd, "", dir, name, AtFlags::AT_EMPTY_PATH) {
        Err(nix::Error::ENOENT) => {}
        other => return other.map_err(io::Error::from),
    }
    let path = proc_path(fd);
    unistd::linkat(CWD, path.as_os_str(), dir, name, AtFlags::AT_SYMLINK_FOLLOW).map_err(io::Error::from)
}

/// `linkat(2)` between two names; a symlink is linked itself.
pub(crate) fn link(from: BorrowedFd, old: &OsStr, to: BorrowedFd, new: &OsStr) -> io::Result<()> {
    unistd::linkat(from, old, to, new, AtFlags::empty()).map_err(io::Error::from)
}

/// `renameat2(2)` with these flags; without flags plain `renameat(2)`, which every kernel has.
pub(crate) fn renameat2(from: BorrowedFd, old: &OsStr, to: BorrowedFd, new: &OsStr, flags: u32) -> io::Result<()> {
    if flags == 0 {
        return fcntl::renameat(from, old, to, new).map_err(io::Error::from);
    }
    let (old, new) = (cstring(old)?, cstring(new)?);
    // SAFETY: both names are NUL-terminated and live through the call; the descriptors are borrowed.
    let result = unsafe {
        libc::syscall(libc::SYS_renameat2, from.as_raw_fd(), old.as_ptr(), to.as_raw_fd(), new.as_ptr(), flags)
    };
    check(result)?;
    Ok(())
}

/// `mkdirat(2)`; `false` if the name is taken.
pub(crate) fn mkdir(at: BorrowedFd, name: &OsStr, mode: u32) -> io::Result<bool> {
    match nix::sys::stat::mkdirat(at, name, Mode::from_bits_truncate(mode)) {
        Ok(()) => Ok(true),
        Err(nix::Error::EEXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Removes the name of anything but a folder.
pub(crate) fn unlink(at: BorrowedFd, name: &OsStr) -> io::Result<()> {
    unistd::unlinkat(at, name, unistd::UnlinkatFlags::NoRemoveDir).map_err(io::Error::from)
}

/// Removes an empty folder.
pub(crate) fn rmdir(at: BorrowedFd, name: &OsStr) -> io::Result<()> {
    unistd::unlinkat(at, name, unistd::UnlinkatFlags::RemoveDir).map_err(io::Error::from)
}

/// May this process write here (`faccessat(2)`, effective ids)? The error says why not.
pub(crate) fn may_write(at: BorrowedFd, name: &OsStr) -> io::Result<()> {
    unistd::faccessat(at, name, unistd::AccessFlags::W_OK, AtFlags::AT_EACCESS).map_err(io::Error::from)
}

/// Where a symlink leads.
pub(crate) fn readlink(at: BorrowedFd, name: &OsStr) -> io::Result<OsString> {
    fcntl::readlinkat(at, name).map_err(io::Error::from)
}

/// The `/proc` name of an open file: works on `O_PATH` handles too, for every call that follows links.
pub(crate) fn proc_path(fd: BorrowedFd) -> OsString {
    OsString::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

// ---------------------------------------------------------------- stat

/// What the code asks of `statx(2)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    /// Type and permission bits.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Device, as one number.
    pub(crate) dev: u64,
    /// Inode number.
    pub(crate) ino: u64,
    /// Mount id, 0 before Linux 5.8.
    pub(crate) mount: u64,
    /// The root of a mount: a mount point, seen from above.
    pub(crate) mount_root: bool,
    /// Immutable or append-only (`chattr +i`, `+a`).
    pub(crate) immutable: bool,
}

impl Stat {
    /// The type bits, `S_IFREG` and so on.
    pub(crate) fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }
    /// Is it a folder?
    pub(crate) fn is_folder(&self) -> bool {
        self.kind() == libc::S_IFDIR
    }
    /// The permission bits with set-id and sticky bits.
    pub(crate) fn permissions(&self) -> u32 {
        self.mode & 0o7777
    }
    /// Do both describe the same inode?
    pub(crate) fn same(&self, other: &Stat) -> bool {
        (self.dev, self.ino) == (other.dev, other.ino)
    }
}

/// Describes an open file.
pub(crate) fn stat_fd(fd: BorrowedFd) -> io::Result<Stat> {
    statx(fd, c"", libc::AT_EMPTY_PATH)
}

/// Describes a name without following it; `None` if nothing has it.
pub(crate) fn stat(at: BorrowedFd, name: &OsStr) -> io::Result<Option<Stat>> {
    match statx(at, &cstring(name)?, libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT) {
        Err(error) if errno(&error) == libc::ENOENT => Ok(None),
        other => other.map(Some),
    }
}

fn statx(at: BorrowedFd, name: &CStr, flags: i32) -> io::Result<Stat> {
    static MISSING: OnceLock<()> = OnceLock::new();
    if MISSING.get().is_none() {
        let mask = libc::STATX_BASIC_STATS | libc::STATX_MNT_ID;
        let mut buffer = std::mem::MaybeUninit::<libc::statx>::zeroed();
        // SAFETY: the name is NUL-terminated; the kernel writes at most one `struct statx`.
        let result =
            unsafe { libc::syscall(libc::SYS_statx, at.as_raw_fd(), name.as_ptr(), flags, mask, buffer.as_mut_ptr()) };
        match check(result) {
            Ok(_) => {
                // SAFETY: zeroed before, and every bit pattern is a valid `struct statx`.
                let raw = unsafe { buffer.assume_init() };
                let attribute = |bit: i32| raw.stx_attributes & u64::try_from(bit).unwrap_or(0) != 0;
                return Ok(Stat {
                    mode: raw.stx_mode.into(),
                    uid: raw.stx_uid,
                    gid: raw.stx_gid,
                    dev: u64::from(raw.stx_dev_major) << 32 | u64::from(raw.stx_dev_minor),
                    ino: raw.stx_ino,
                    mount: if raw.stx_mask & libc::STATX_MNT_ID == 0 { 0 } else { raw.stx_mnt_id },
                    mount_root: attribute(libc::STATX_ATTR_MOUNT_ROOT),
                    immutable: attribute(libc::STATX_ATTR_IMMUTABLE) || attribute(libc::STATX_ATTR_APPEND),
                });
            }
            // Before Linux 4.11, and sandboxes older than the call.
            Err(nix::Error::ENOSYS) => drop(MISSING.set(())),
            Err(nix::Error::EPERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let old = nix::sys::stat::fstatat(at, name, AtFlags::from_bits_truncate(flags))?;
    Ok(Stat {
        mode: old.st_mode,
        uid: old.st_uid,
        gid: old.st_gid,
        dev: old.st_dev,
        ino: old.st_ino,
        mount: 0,
        mount_root: false,
        immutable: false,
    })
}

/// The type of a filesystem, as `statfs(2)` numbers them.
#[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)]
pub(crate) fn filesystem(fd: BorrowedFd) -> io::Result<u64> {
    let answer = nix::sys::statfs::fstatfs(fd)?;
    Ok(answer.filesystem_type().0 as u64 & 0xffff_ffff)
}

/// Is the running kernel at least this release? Unknown releases count as old.
pub(crate) fn kernel_at_least(major: u32, minor: u32) -> bool {
    static RELEASE: OnceLock<(u32, u32)> = OnceLock::new();
    let running = *RELEASE.get_or_init(|| {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    });
    running >= (major, minor)
}

// ---------------------------------------------------------------- content, sync, locks

/// Writes all of a memory range: a short write is continued, an interrupted one repeated. Only the
/// kernel reads the memory, so that its owner (a Python buffer) may write to it meanwhile.
#[cfg(feature = "python")]
pub(crate) fn write_memory(fd: BorrowedFd, address: usize, len: usize) -> io::Result<()> {
    let mut done = 0;
    while done < len {
        // SAFETY: nothing in this process is read through the address; the kernel checks it (EFAULT).
        let written = retry(|| {
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
    retry(|| unistd::fsync(fd))
}

/// `syncfs(2)`: only for filesystems known to implement it (FUSE answers success and does nothing).
pub(crate) fn syncfs(fd: BorrowedFd) -> io::Result<()> {
    retry(|| unistd::syncfs(fd))
}

/// What came of asking for a lock without waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lock {
    /// It is ours until the last copy of the descriptor is closed.
    Held,
    /// Somebody else holds it.
    Taken,
    /// This filesystem cannot lock this kind of file (folders on NFS: `EBADF`, `ENOLCK`).
    Unsupported,
}

/// `flock(2)`, exclusive; waits only if told to.
pub(crate) fn lock(fd: BorrowedFd, wait: bool) -> io::Result<Lock> {
    let how = libc::LOCK_EX | if wait { 0 } else { libc::LOCK_NB };
    // SAFETY: a plain call on a borrowed descriptor.
    match retry(|| nix::errno::Errno::result(unsafe { libc::flock(fd.as_raw_fd(), how) })) {
        Ok(_) => Ok(Lock::Held),
        Err(error) => match errno(&error) {
            libc::EWOULDBLOCK => Ok(Lock::Taken),
            libc::EBADF | libc::ENOLCK | libc::ENOSYS | libc::EOPNOTSUPP | libc::EINVAL => Ok(Lock::Unsupported),
            _ => Err(error),
        },
    }
}

// ---------------------------------------------------------------- metadata

/// `fchmod(2)`.
pub(crate) fn chmod(fd: BorrowedFd, mode: u32) -> io::Result<()> {
    nix::sys::stat::fchmod(fd, Mode::from_bits_truncate(mode)).map_err(io::Error::from)
}

/// Changes the mode of a name that cannot be opened, without following it: through an `O_PATH` handle.
pub(crate) fn chmod_unopened(at: BorrowedFd, name: &OsStr, mode: u32) -> io::Result<()> {
    let handle = openat(at, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY, 0)?;
    let path = proc_path(handle.as_fd());
    let (mode, flags) = (Mode::from_bits_truncate(mode), nix::sys::stat::FchmodatFlags::FollowSymlink);
    nix::sys::stat::fchmodat(CWD, path.as_os_str(), mode, flags).map_err(io::Error::from)
}

/// `fchown(2)`; `None` leaves it.
pub(crate) fn chown(fd: BorrowedFd, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    unistd::fchown(fd, uid.map(Into::into), gid.map(Into::into)).map_err(io::Error::from)
}

/// The effective user, asked at the first use: most commits never need it.
#[derive(Debug, Default)]
pub(crate) struct User(OnceLock<u32>);

impl User {
    /// The user that this process acts for.
    pub(crate) fn id(&self) -> u32 {
        *self.0.get_or_init(|| unistd::geteuid().as_raw())
    }
}

/// The effective group.
pub(crate) fn egid() -> u32 {
    unistd::getegid().as_raw()
}

/// The effective user that the program started with: costs no system call, may be out of date.
pub(crate) fn started_as() -> u32 {
    // SAFETY: reads a value that the kernel left in this process at its start.
    u32::try_from(unsafe { libc::getauxval(libc::AT_EUID) }).unwrap_or(u32::MAX)
}

/// Calls a function that fills a buffer until the buffer is large enough; `None`: no such thing here.
fn filled(mut call: impl FnMut(*mut libc::c_void, usize) -> isize) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = vec![0_u8; 256];
    loop {
        match nix::errno::Errno::result(call(buffer.as_mut_ptr().cast(), buffer.len())) {
            Ok(length) => {
                buffer.truncate(usize::try_from(length).unwrap_or(0));
                return Ok(Some(buffer));
            }
            Err(nix::Error::ERANGE) => buffer.resize(buffer.len() * 4, 0),
            Err(nix::Error::ENODATA | nix::Error::EOPNOTSUPP | nix::Error::ENOSYS) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The names of the extended attributes of a path, not following it (`llistxattr(2)`).
pub(crate) fn list_xattrs(path: &CStr) -> io::Result<Vec<CString>> {
    // SAFETY: `filled` passes a buffer and its length; the path is NUL-terminated.
    let names = filled(|buffer, size| unsafe { libc::llistxattr(path.as_ptr(), buffer.cast(), size) })?;
    Ok(split_names(&names.unwrap_or_default()))
}

/// The names of the extended attributes of an open file (`flistxattr(2)`).
pub(crate) fn list_xattrs_of(fd: BorrowedFd) -> io::Result<Vec<CString>> {
    // SAFETY: `filled` passes a buffer and its length.
    let names = filled(|buffer, size| unsafe { libc::flistxattr(fd.as_raw_fd(), buffer.cast(), size) })?;
    Ok(split_names(&names.unwrap_or_default()))
}

fn split_names(names: &[u8]) -> Vec<CString> {
    names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).filter_map(|name| CString::new(name).ok()).collect()
}

/// One extended attribute of a path, not following it (`lgetxattr(2)`); `None` if it has gone.
pub(crate) fn get_xattr(path: &CStr, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    // SAFETY: as above, with two NUL-terminated strings.
    filled(|buffer, size| unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), buffer, size) })
}

/// Sets an extended attribute (`fsetxattr(2)`).
pub(crate) fn set_xattr(fd: BorrowedFd, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: the value's pointer and length belong together; the name is NUL-terminated.
    let result = unsafe { libc::fsetxattr(fd.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    check(result.into())?;
    Ok(())
}

/// Removes an extended attribute (`fremovexattr(2)`).
pub(crate) fn remove_xattr(fd: BorrowedFd, name: &CStr) -> io::Result<()> {
    // SAFETY: the name is NUL-terminated.
    check(unsafe { libc::fremovexattr(fd.as_raw_fd(), name.as_ptr()) }.into())?;
    Ok(())
}

// ---------------------------------------------------------------- reading folders

/// One entry of a folder: its name and its `DT_` type (`DT_UNKNOWN` on some filesystems).
pub(crate) type Entry = (OsString, u8);

/// Reads the next batch of entries (`getdents64(2)`), without `.` and `..`; `false` at the end.
pub(crate) fn read_folder(fd: BorrowedFd, buffer: &mut [u8], entries: &mut Vec<Entry>) -> io::Result<bool> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes.
    let length = retry(|| {
        check(unsafe { libc::syscall(libc::SYS_getdents64, fd.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) })
    })?;
    let mut rest = &buffer[..usize::try_from(length).unwrap_or(0)];
    // struct linux_dirent64: u64 inode, i64 offset, u16 record length, u8 type, name with NUL.
    while rest.len() > 19 {
        let record = usize::from(u16::from_ne_bytes([rest[16], rest[17]]));
        let name = rest[19..record].split(|byte| *byte == 0).next().unwrap_or_default();
        if name != b"." && name != b".." {
            entries.push((OsString::from_vec(name.to_vec()), rest[18]));
        }
        rest = &rest[record..];
    }
    Ok(length > 0)
}

// ---------------------------------------------------------------- processes

static FORKS: AtomicU32 = AtomicU32::new(0);

/// Changes in every child of `fork(2)`: a guard that remembers another value belongs to another
/// process. A `pthread_atfork` handler counts, since `getpid` would cost a system call each time.
pub(crate) fn fork_generation() -> u32 {
    extern "C" fn count() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    static HANDLER: Once = Once::new();
    HANDLER.call_once(|| {
        // SAFETY: the handler is async-signal-safe (one atomic add) and lives as long as the program.
        unsafe { libc::pthread_atfork(None, None, Some(count)) };
    });
    FORKS.load(Ordering::Relaxed)
}

/// Makes a descriptor number of this process lead to `/dev/null`: what a forked child still has
/// buffered for its parent's staging then goes nowhere.
#[cfg(feature = "python")]
pub(crate) fn blind(fd: BorrowedFd) -> io::Result<()> {
    let null = openat(CWD, OsStr::new("/dev/null"), OFlag::O_RDWR, 0)?;
    // SAFETY: a plain call on two open descriptors; the target stays open, only what it leads to changes.
    check(unsafe { libc::dup3(null.as_raw_fd(), fd.as_raw_fd(), libc::O_CLOEXEC) }.into())?;
    Ok(())
}

/// Borrows a descriptor number that the caller vouches for (Python's `dir_fd`, checked by the kernel).
#[cfg(feature = "python")]
pub(crate) fn borrow(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: only the number is used, in system calls that answer `EBADF` if it is not open; -1 is
    // the one value that `BorrowedFd` forbids, and becomes another that is never open.
    unsafe { BorrowedFd::borrow_raw(if fd == -1 { RawFd::MAX } else { fd }) }
}

/// Random bytes for a name that nobody else chooses (`getrandom(2)`).
pub(crate) fn random() -> io::Result<u64> {
    let mut bytes = [0_u8; 8];
    // SAFETY: the kernel fills at most the eight bytes given.
    retry(|| check(unsafe { libc::syscall(libc::SYS_getrandom, bytes.as_mut_ptr(), bytes.len(), 0) }))?;
    Ok(u64::from_ne_bytes(bytes))
}

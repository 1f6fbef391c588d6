//! Modes, owners and extended attributes.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd;

use super::call::{check, errno, once};
use super::open::{CWD, openat, proc_path};

/// `fchmod(2)`.
pub(crate) fn chmod(fd: BorrowedFd, mode: u32) -> io::Result<()> {
    once("fchmod", || nix::sys::stat::fchmod(fd, Mode::from_bits_truncate(mode)))
}

/// Changes the mode of a folder that cannot be opened, without following its name.
pub(crate) fn chmod_unopened(at: BorrowedFd, name: &OsStr, mode: u32) -> io::Result<()> {
    chmod_handle(open_handle(at, name)?.as_fd(), mode)
}

/// Opens a folder as a bare handle (`O_PATH`): no permission on it is needed.
pub(crate) fn open_handle(at: BorrowedFd, name: &OsStr) -> io::Result<OwnedFd> {
    openat(at, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY, 0)
}

/// Opens whatever has this name as a bare handle.
pub(crate) fn open_name(at: BorrowedFd, name: &OsStr) -> io::Result<OwnedFd> {
    openat(at, name, OFlag::O_PATH | OFlag::O_NOFOLLOW, 0)
}

/// Changes the mode of what a bare handle leads to.
pub(crate) fn chmod_handle(handle: BorrowedFd, mode: u32) -> io::Result<()> {
    let path = proc_path(handle);
    let (mode, flags) = (Mode::from_bits_truncate(mode), nix::sys::stat::FchmodatFlags::FollowSymlink);
    once("fchmodat", || nix::sys::stat::fchmodat(CWD, path.as_os_str(), mode, flags))
}

/// `fchown(2)`; `None` leaves it.
pub(crate) fn chown(fd: BorrowedFd, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    #[cfg(test)]
    if crate::explore::user_id().is_some() {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    once("fchown", || unistd::fchown(fd, uid.map(Into::into), gid.map(Into::into)))
}

/// The effective user, asked at the first use: most commits never need it.
#[derive(Clone, Debug, Default)]
pub(crate) struct User(OnceLock<u32>);

impl User {
    /// Notes the owner of a file that this process has just made, where the filesystem keeps owners.
    pub(crate) fn know(&self, owner: u32) {
        self.0.get_or_init(|| owner);
    }

    /// The user that this process acts for.
    pub(crate) fn id(&self) -> u32 {
        #[cfg(test)]
        if let Some(other) = crate::explore::user_id() {
            return other;
        }
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
pub(super) fn filled(
    name: &'static str,
    mut call: impl FnMut(*mut libc::c_void, usize) -> isize,
) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = vec![0_u8; 256];
    loop {
        match once(name, || nix::errno::Errno::result(call(buffer.as_mut_ptr().cast(), buffer.len()))) {
            Ok(length) => {
                buffer.truncate(usize::try_from(length).unwrap_or(0));
                return Ok(Some(buffer));
            }
            Err(error) => match errno(&error) {
                // Linux has none longer than 64 KiB (XATTR_SIZE_MAX); a FUSE server may insist for ever.
                libc::ERANGE if buffer.len() <= 1 << 16 => buffer.resize(buffer.len() * 4, 0),
                libc::ENODATA | libc::EOPNOTSUPP | libc::ENOSYS => return Ok(None),
                _ => return Err(error),
            },
        }
    }
}

/// The names of the extended attributes of a path, not following it (`llistxattr(2)`).
pub(crate) fn list_xattrs(path: &CStr) -> io::Result<Vec<CString>> {
    // SAFETY: `filled` passes a buffer and its length; the path is NUL-terminated.
    let names = filled("llistxattr", |buffer, size| unsafe { libc::llistxattr(path.as_ptr(), buffer.cast(), size) })?;
    Ok(split_names(&names.unwrap_or_default()))
}

/// The names of the extended attributes of an open file (`flistxattr(2)`).
pub(crate) fn list_xattrs_of(fd: BorrowedFd) -> io::Result<Vec<CString>> {
    // SAFETY: `filled` passes a buffer and its length.
    let names = filled("flistxattr", |buffer, size| unsafe { libc::flistxattr(fd.as_raw_fd(), buffer.cast(), size) })?;
    Ok(split_names(&names.unwrap_or_default()))
}

fn split_names(names: &[u8]) -> Vec<CString> {
    names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).filter_map(|name| CString::new(name).ok()).collect()
}

/// One extended attribute of a path, not following it (`lgetxattr(2)`); `None` if it has gone.
pub(crate) fn get_xattr(path: &CStr, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    // SAFETY: as above, with two NUL-terminated strings.
    filled("lgetxattr", |buffer, size| unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), buffer, size) })
}

/// Sets an extended attribute (`fsetxattr(2)`).
pub(crate) fn set_xattr(fd: BorrowedFd, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: the value's pointer and length belong together; the name is NUL-terminated.
    let call = || unsafe { libc::fsetxattr(fd.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    once("fsetxattr", || check(call().into())).map(drop)
}

/// Removes an extended attribute (`fremovexattr(2)`).
pub(crate) fn remove_xattr(fd: BorrowedFd, name: &CStr) -> io::Result<()> {
    // SAFETY: the name is NUL-terminated.
    once("fremovexattr", || check(unsafe { libc::fremovexattr(fd.as_raw_fd(), name.as_ptr()) }.into())).map(drop)
}

/// The inode flags of an open file (`ioctl_iflags(2)`); `None` where there are none, or where a sandbox refuses the call.
pub(crate) fn inode_flags(fd: BorrowedFd) -> io::Result<Option<u32>> {
    let mut flags: u32 = 0;
    // SAFETY: the kernel writes four bytes, whatever the request's number says of a `long`.
    let mut call = || unsafe { libc::ioctl(fd.as_raw_fd(), libc::FS_IOC_GETFLAGS as _, &raw mut flags) };
    match once("FS_IOC_GETFLAGS", || check(call().into())) {
        Ok(_) => Ok(Some(flags)),
        Err(error) if has_no_flags(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sets the inode flags of an open file (`ioctl_iflags(2)`); `false` where they are not permitted.
pub(crate) fn set_inode_flags(fd: BorrowedFd, flags: u32) -> io::Result<bool> {
    // SAFETY: the kernel reads four bytes, whatever the request's number says of a `long`.
    let call = || unsafe { libc::ioctl(fd.as_raw_fd(), libc::FS_IOC_SETFLAGS as _, &raw const flags) };
    match once("FS_IOC_SETFLAGS", || check(call().into())) {
        Ok(_) => Ok(true),
        Err(error) if has_no_flags(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// `ENOTTY` and `ENOSYS`: no such call here. `EINVAL` and `EOPNOTSUPP`: no such flag. The others: not for this user.
fn has_no_flags(error: &io::Error) -> bool {
    let known = [libc::ENOTTY, libc::ENOSYS, libc::EOPNOTSUPP, libc::EINVAL, libc::EPERM, libc::EACCES];
    known.contains(&errno(error))
}

/// What the kernel shows for a user or group that has no number in this user namespace (`/proc/sys/kernel/overflowuid`).
pub(crate) const OVERFLOW_ID: u32 = 65534;

/// Has every user and group a number in the user namespace of this process (`user_namespaces(7)`)? What cannot be found out
/// is not so.
pub(crate) fn all_ids_have_numbers() -> bool {
    let all = |map: &str| {
        let map = std::fs::read_to_string(map).unwrap_or_default();
        map.split_whitespace().eq(["0", "0", "4294967295"])
    };
    all("/proc/self/uid_map") && all("/proc/self/gid_map")
}

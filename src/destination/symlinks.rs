//! Symlinks as the last component of a path: how they are followed, and which of them are never replaced.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::error::{Error, Hint, Result};
use crate::path::split;
use crate::sys::{self, errno};

/// How many symlinks are followed; `open(2)` has the same limit.
const MAX_SYMLINKS: u32 = 40;

/// The name that a path leads to, and the open folder that holds it.
pub(super) struct Located {
    pub(super) parent: OwnedFd,
    /// False if `parent` was opened without the permission to read it, and so cannot be synced by itself.
    pub(super) parent_syncs: bool,
    pub(super) name: OsString,
}

/// Opens the folder that holds the last component of a path; for reading if it is to be synced.
pub(super) fn open_parent(at: BorrowedFd, folder: &OsStr, path: &Path, readable: bool) -> Result<(OwnedFd, bool)> {
    sys::open_parent(at, folder, readable)
        .map_err(|error| Error::new("opening the parent folder", path, error).hint(Hint::NoParent))
}

/// Follows symlinks as `open(2)` does: a dangling symlink leads to the name that is to be created.
pub(super) fn follow(mut located: Located, path: &Path, readable: bool) -> Result<Located> {
    // Below /proc stand symlinks to open files. The caller does not mean the names that those files had.
    if leads_below_proc(located.parent.as_fd(), &located.name) {
        return Err(Error::errno("following symlinks", path, libc::EBUSY).kind_by_errno().hint(Hint::SymlinkBelowProc));
    }
    for hop in 0.. {
        let denied = |error| Error::new("following a symlink", path, error);
        let target = match sys::readlink(located.parent.as_fd(), &located.name) {
            Ok(target) => target,
            Err(error) if matches!(errno(&error), libc::EINVAL | libc::ENOENT) => break,
            Err(error) => return Err(denied(error)),
        };
        // readlink(2) does not apply the kernel's rule `fs.protected_symlinks`; stat(2) does.
        match sys::stat_followed(located.parent.as_fd(), &located.name) {
            Err(error) if errno(&error) == libc::EACCES => {
                return Err(denied(error).hint(Hint::StrangersSymlink));
            }
            _ => {}
        }
        if hop == MAX_SYMLINKS {
            return Err(Error::errno("following symlinks", path, libc::ELOOP));
        }
        let (folder, last, _) = split(Path::new(&target))?;
        (located.parent, located.parent_syncs) = open_parent(located.parent.as_fd(), folder, path, readable)?;
        last.clone_into(&mut located.name);
    }
    Ok(located)
}

/// Why a symlink is never replaced; `None` if it may be replaced. A program that writes to `/dev/stdout` means the
/// stream, so a symlink to a device, a mount point or something below `/proc` stays.
pub(super) fn never_replaced(dir: BorrowedFd, name: &OsStr) -> Option<Hint> {
    match sys::stat_followed(dir, name) {
        Ok(Some(there)) if there.mount_root => return Some(Hint::SymlinkToMount),
        Ok(Some(there)) if !matches!(there.kind(), libc::S_IFDIR | libc::S_IFREG) => {
            return Some(Hint::SymlinkToSpecial);
        }
        // A target that this user cannot look at counts as none of these.
        _ => {}
    }
    leads_below_proc(dir, name).then_some(Hint::SymlinkBelowProc)
}

/// Is the name a symlink that leads below `/proc`? An open file there is itself a symlink, to the name that the file
/// had. So each folder on the way is asked for its filesystem, not only the last one.
fn leads_below_proc(dir: BorrowedFd, name: &OsStr) -> bool {
    let mut at: Option<OwnedFd> = None;
    let mut name = name.to_owned();
    for _ in 0..MAX_SYMLINKS {
        let folder = at.as_ref().map_or(dir, AsFd::as_fd);
        let Ok(target) = sys::readlink(folder, &name) else { return false };
        if Path::new(&target).starts_with("/proc") || is_proc(folder) {
            return true;
        }
        let Ok((parent, last, _)) = split(Path::new(&target)) else { return false };
        let Ok((parent, _)) = sys::open_parent(folder, parent, false) else { return false };
        if is_proc(parent.as_fd()) {
            return true;
        }
        last.clone_into(&mut name);
        at = Some(parent);
    }
    false
}

fn is_proc(folder: BorrowedFd) -> bool {
    sys::filesystem(folder).is_ok_and(|kind| kind == sys::filesystems::PROC)
}

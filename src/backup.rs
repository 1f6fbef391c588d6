//! Backups: the displaced version gets a name of its own.
//!
//! New and old are exchanged, then the displaced version, which is in the slot now, is exchanged with
//! the backup before it. So that a process killed between the two calls loses nothing, the slot holds
//! a mark that says which inode is to get which name: whoever finds the slot finishes the work.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::destination::{Destination, Kind, split};
use crate::error::{Error, Result};
use crate::publish::{EXCHANGE, NOREPLACE};
use crate::slot;
use crate::sys::{self, Stat, errno};

/// In a slot: a symlink that nobody follows, whose target is `INODE:NAME`.
pub(crate) const MARK: &str = ".atomik-backup";

/// How often a backup may appear and vanish while one takes its name.
const ROUNDS: u32 = 100;

/// Checks before the body that `backup` is a name beside the destination which a `kind` may take.
pub(crate) fn name(at: BorrowedFd, destination: &Destination, backup: &Path, kind: Kind) -> Result<OsString> {
    let (folder, name, _) = split(backup)?;
    let refuse = |errno, hint: &str| Err(Error::errno("checking the backup's name", backup, errno).hint(hint));
    if backup.as_os_str().as_bytes().contains(&b'/') {
        let failed = |error| Error::new("checking the backup's name", backup, error);
        let (folder, _) = sys::open_parent(at, folder, false).map_err(failed)?;
        let (here, there) = (sys::stat_fd(destination.parent()), sys::stat_fd(std::os::fd::AsFd::as_fd(&folder)));
        if !here.map_err(failed)?.same(&there.map_err(failed)?) {
            return refuse(libc::EINVAL, "a backup stands beside the destination: give a name in the same folder");
        }
    }
    if name == destination.name {
        return refuse(libc::EINVAL, "the backup cannot have the destination's own name");
    }
    if slot::destination_of(name).is_some() {
        return refuse(libc::EINVAL, "the backup cannot have the name of a slot, which the next writer removes");
    }
    if destination.elsewhere() {
        return refuse(libc::EINVAL, "backup does not go with tmp_dir");
    }
    let there =
        sys::stat(destination.parent(), name).map_err(|error| Error::new("looking at the backup", backup, error))?;
    match there {
        Some(there) if there.mount_root => refuse(libc::EBUSY, "the backup is a mount point"),
        Some(there) if there.immutable => refuse(libc::EPERM, "the backup is immutable or append-only (see chattr(1))"),
        Some(there) => match (there.kind(), kind) {
            (libc::S_IFDIR, Kind::File) => refuse(libc::EISDIR, "a folder is never replaced by a file"),
            (libc::S_IFREG, Kind::Folder) => refuse(libc::ENOTDIR, "a file is never replaced by a folder"),
            (libc::S_IFDIR | libc::S_IFREG | libc::S_IFLNK, _) => Ok(name.to_owned()),
            _ => refuse(libc::EBUSY, "a device, FIFO or socket is never replaced"),
        },
        None => Ok(name.to_owned()),
    }
}

/// Notes in a slot, before the publish, that the version that it displaces is to be called `backup`.
pub(crate) fn mark(slot: BorrowedFd, displaced: &Stat, backup: &OsStr) -> io::Result<()> {
    let mut target = format!("{}:", displaced.ino).into_bytes();
    target.extend_from_slice(backup.as_bytes());
    let target = OsString::from_vec(target);
    match sys::symlink(&target, slot, OsStr::new(MARK)) {
        Err(error) if errno(&error) == libc::EEXIST => {
            sys::unlink(slot, OsStr::new(MARK))?;
            sys::symlink(&target, slot, OsStr::new(MARK))
        }
        other => other,
    }
}

/// If a slot holds a displaced version that is to be a backup, gives it its name in `dir`; what had
/// that name before is in the slot then. Anybody who owns the slot may call it, any number of times.
/// `names` are those in the slot.
pub(crate) fn complete(slot: BorrowedFd, dir: BorrowedFd, names: &[&OsStr]) -> io::Result<()> {
    let mark = match sys::readlink(slot, OsStr::new(MARK)) {
        Err(error) if matches!(errno(&error), libc::ENOENT | libc::EINVAL) => return Ok(()),
        other => other?.into_vec(),
    };
    let parts = mark.iter().position(|byte| *byte == b':').map(|colon| (&mark[..colon], &mark[colon + 1..]));
    let Some((inode, backup)) = parts else { return Ok(()) };
    let inode: Option<u64> = std::str::from_utf8(inode).ok().and_then(|inode| inode.parse().ok());
    let backup = OsStr::from_bytes(backup);
    for name in names.iter().filter(|name| **name != MARK) {
        if sys::stat(slot, name)?.is_some_and(|displaced| Some(displaced.ino) == inode) {
            take_name(slot, name, dir, backup)?;
        }
    }
    sys::unlink(slot, OsStr::new(MARK))
}

fn take_name(slot: BorrowedFd, name: &OsStr, dir: BorrowedFd, backup: &OsStr) -> io::Result<()> {
    for _ in 0..ROUNDS {
        match sys::renameat2(slot, name, dir, backup, EXCHANGE) {
            Err(error) if errno(&error) == libc::ENOENT => {}
            other => return other,
        }
        match sys::renameat2(slot, name, dir, backup, NOREPLACE) {
            Err(error) if errno(&error) == libc::EEXIST => {}
            other => return other,
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}

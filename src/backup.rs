//! Backups: the displaced version gets a name of its own.
//!
//! New and old are exchanged, then the displaced version, which is in the slot now, is exchanged with
//! the backup before it. So that a process killed between the two calls loses nothing, the slot holds a mark, made before
//! the exchange: which inode is the new version (whatever else is in its place was displaced), and which inode has the
//! backup's name. Whoever finds the slot finishes the work under the publish lock, unless the name has gone to another
//! inode: that backup is newer.

use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::destination::{Destination, Kind, never_replaced};
use crate::error::{Error, Result};
use crate::path::split;
use crate::slot;
use crate::sys;

/// Checks before the body that `backup` is a name beside the destination which a `kind` may take.
pub(crate) fn name(at: BorrowedFd, destination: &Destination, backup: &Path, kind: Kind) -> Result<OsString> {
    let (folder, name, _) = split(backup)?;
    let refuse =
        |errno, hint: &str| Err(Error::errno("checking the backup's name", backup, errno).kind_by_errno().hint(hint));
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
    if slot::is_reserved(name) {
        return refuse(libc::EINVAL, slot::RESERVED);
    }
    if destination.elsewhere() {
        return refuse(libc::EINVAL, "backup does not go with tmp_dir");
    }
    let there =
        sys::stat(destination.parent(), name).map_err(|error| Error::new("looking at the backup", backup, error))?;
    match there {
        Some(there) if there.mount_root => refuse(libc::EBUSY, "the backup is a mount point"),
        Some(there) if there.fixed().is_some() => {
            refuse(libc::EPERM, &format!("the backup is {} (see chattr(1))", there.fixed().unwrap_or_default()))
        }
        Some(there) => match (there.kind(), kind) {
            (libc::S_IFLNK, _) => match never_replaced(destination.parent(), name) {
                Some(hint) => refuse(libc::EBUSY, hint),
                None => Ok(name.to_owned()),
            },
            (libc::S_IFDIR, Kind::File) => refuse(libc::EISDIR, "a folder is never replaced by a file"),
            (libc::S_IFREG, Kind::Folder) => refuse(libc::ENOTDIR, "a file is never replaced by a folder"),
            (libc::S_IFDIR | libc::S_IFREG, _) => Ok(name.to_owned()),
            _ => refuse(libc::EBUSY, "a device, FIFO or socket is never replaced"),
        },
        None => Ok(name.to_owned()),
    }
}

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
use crate::error::{Error, Hint, Result};
use crate::path::split;
use crate::slot;
use crate::sys;

/// Checks before the body that `backup` is a name beside the destination which a `kind` may take.
pub(crate) fn name(at: BorrowedFd, destination: &Destination, backup: &Path, kind: Kind) -> Result<OsString> {
    let (folder, name, _) = split(backup)?;
    let refuse =
        |errno, hint| Err(Error::errno("checking the backup's name", backup, errno).kind_by_errno().hint(hint));
    if backup.as_os_str().as_bytes().contains(&b'/') {
        let failed = |error| Error::new("checking the backup's name", backup, error);
        let (folder, _) = sys::open_parent(at, folder, false).map_err(failed)?;
        let (here, there) = (sys::stat_fd(destination.parent()), sys::stat_fd(std::os::fd::AsFd::as_fd(&folder)));
        if !here.map_err(failed)?.same(&there.map_err(failed)?) {
            return refuse(libc::EINVAL, Hint::BackupElsewhere);
        }
    }
    if name == destination.name {
        return refuse(libc::EINVAL, Hint::BackupIsDestination);
    }
    if slot::is_reserved(name) {
        return refuse(libc::EINVAL, Hint::ReservedName);
    }
    if destination.elsewhere() {
        return refuse(libc::EINVAL, Hint::BackupAndTmpDir);
    }
    let there =
        sys::stat(destination.parent(), name).map_err(|error| Error::new("looking at the backup", backup, error))?;
    match there {
        Some(there) if there.mount_root => refuse(libc::EBUSY, Hint::BackupIsMount),
        Some(there) if there.fixed().is_some() => {
            refuse(libc::EPERM, Hint::BackupFixed(there.fixed().unwrap_or_default().into()))
        }
        Some(there) => match (there.kind(), kind) {
            (libc::S_IFLNK, _) => match never_replaced(destination.parent(), name) {
                Some(hint) => refuse(libc::EBUSY, hint),
                None => Ok(name.to_owned()),
            },
            (libc::S_IFDIR, Kind::File) => refuse(libc::EISDIR, Hint::FolderByFile),
            (libc::S_IFREG, Kind::Folder) => refuse(libc::ENOTDIR, Hint::FileByFolder),
            (libc::S_IFDIR | libc::S_IFREG, _) => Ok(name.to_owned()),
            _ => refuse(libc::EBUSY, Hint::Special),
        },
        None => Ok(name.to_owned()),
    }
}

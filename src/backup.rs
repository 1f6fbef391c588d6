//! Backups: the displaced version gets a name of its own.
//!
//! The publish exchanges the new version and the old one, which is then in the slot. A second exchange gives the old
//! version the backup's name. Before the first exchange the slot gets a mark. It names the inode of the new version and
//! the inode that has the backup's name so far. If the process is killed between the two exchanges, another process
//! finds the slot and makes the second one, under the publish lock. If a third inode has the backup's name by then,
//! that is a newer backup and stays.

use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::destination::{Destination, Kind, refusal};
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
        Some(there) => match refusal(destination.parent(), name, &there, kind) {
            Some((errno, hint)) => refuse(errno, hint),
            None => Ok(name.to_owned()),
        },
        None => Ok(name.to_owned()),
    }
}

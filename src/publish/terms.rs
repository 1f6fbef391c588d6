//! On what conditions a version is published, and what is said of one that the system refuses to publish.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;

use crate::base::{self, Base};
use crate::destination::{Destination, Kind};
use crate::error::{Error, ErrorKind, Hint, Result};
use crate::sys::filesystems::CIFS;
use crate::sys::{Stat, errno};

/// On what conditions a version is published, beside its durability.
#[derive(Clone, Copy)]
pub(crate) struct Terms<'a> {
    pub(crate) overwrite: bool,
    /// What must still be there.
    pub(crate) base: Option<&'a Base>,
    pub(crate) displaced: Displaced<'a>,
}

/// What becomes of the displaced version at the publish.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Displaced<'a> {
    /// A file is gone with its name; a folder is in the slot, to be removed.
    Removed,
    /// It is in the slot, from where it can be taken back.
    Kept,
    /// It gets this name beside the destination.
    Backup(&'a OsStr),
}

impl Terms<'_> {
    /// Refuses if the present version is not the one that the body started from.
    pub(super) fn check(&self, destination: &Destination, now: Option<&Stat>) -> Result<()> {
        match self.base {
            Some(base) if !base.is(now, destination.slots().domain().is_none()) => {
                Err(base::conflict(&destination.path))
            }
            _ => Ok(()),
        }
    }
}

/// What has a name in a slot, and is to be published.
#[derive(Clone, Copy)]
pub(crate) struct InSlot<'a> {
    pub(crate) slot: BorrowedFd<'a>,
    pub(crate) name: &'a OsStr,
    pub(crate) kind: Kind,
}

/// What an old kernel, a sandbox or a filesystem without flags answers to `renameat2` with flags.
/// It is a fact about one call on one filesystem, and is never remembered.
pub(crate) fn is_unsupported(error: &io::Error) -> bool {
    matches!(errno(error), libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP | libc::EPERM)
}

/// The error of the call that gives a version the destination's name, or another name on the way there.
pub(super) fn failed(destination: &Destination, error: io::Error) -> Error {
    let errno = errno(&error);
    let error = destination.failed("publishing", error).kind_by_errno();
    match errno {
        libc::EEXIST | libc::ENOTEMPTY => error.hint(Hint::Appeared),
        libc::EXDEV if !destination.mount().is_overlay() => error.kind_is(ErrorKind::Unsupported).hint(Hint::NoMoves),
        libc::EXDEV => error.hint(Hint::LowerLayer),
        libc::EBUSY => error.hint(Hint::InUse),
        libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP => error.kind_is(ErrorKind::Unsupported).hint(Hint::NoPublish),
        libc::EACCES if CIFS.contains(&destination.slots().filesystem()) => {
            error.kind_is(ErrorKind::Busy).hint(Hint::OpenOnServer)
        }
        libc::EPERM | libc::EACCES => error.hint(Hint::NotReplaceable),
        libc::ENOENT => error.hint(Hint::ParentGone),
        _ => error,
    }
}

/// The error of a folder that plain `rename` cannot publish, since another has appeared at the destination meanwhile.
/// sshfs says `EPERM` of that.
pub(super) fn unreplaced(destination: &Destination, error: io::Error) -> Error {
    // NFS may say that nothing is there for some seconds more.
    let full = matches!(errno(&error), libc::ENOTEMPTY | libc::EEXIST);
    if full || matches!(destination.stat(), Ok(Some(now)) if now.is_folder()) {
        return destination.failed("publishing", error).kind_is(ErrorKind::Unsupported).hint(Hint::FolderAppeared);
    }
    failed(destination, error)
}

//! Checks of a destination that need nothing but its name: may a version of some kind replace it?

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;

use super::symlinks::never_replaced;
use crate::error::Hint;
use crate::sys::Stat;

/// The kind of version that is to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
    /// A file or a folder, as the tool that writes a [`crate::Entry`] decides.
    Any,
}

/// When a destination is checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// A body follows: the check also refuses what the kernel would refuse at the publish.
    BeforeBody,
    /// The publish follows, with no body before it.
    AtCommit,
}

/// Why a version of this kind never replaces `there`, which is called `name`; `None` if it may.
pub(crate) fn refusal(dir: BorrowedFd, name: &OsStr, there: &Stat, kind: Kind) -> Option<(i32, Hint)> {
    match (there.kind(), kind) {
        (libc::S_IFDIR, Kind::File) => Some((libc::EISDIR, Hint::FolderByFile)),
        (libc::S_IFREG, Kind::Folder) => Some((libc::ENOTDIR, Hint::FileByFolder)),
        (libc::S_IFLNK, _) => never_replaced(dir, name).map(|hint| (libc::EBUSY, hint)),
        (libc::S_IFDIR | libc::S_IFREG, _) => None,
        _ => Some((libc::EBUSY, Hint::Special)),
    }
}

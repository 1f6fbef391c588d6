//! Questions about a slot's name, which another process may remove, or use again, at any moment.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::beside::Beside;
use crate::sys::filesystems::{BTRFS, EXT4, OVERLAY, TMPFS, XFS};
use crate::sys::{self, Stat, errno};

/// Is this the error of a call on a name that another process has removed or used again meanwhile?
pub(crate) fn is_change(error: &io::Error) -> bool {
    matches!(errno(error), libc::ENOENT | libc::ENOTDIR | libc::ESTALE)
}

/// Is this the error of a call on something that is no slot? It may be a symlink, a socket, a file with a lease, a file
/// of another user, or the mount of a FUSE program of another user (`EACCES`) or of one that has ended (`ENOTCONN`).
pub(super) fn is_no_slot(error: &io::Error) -> bool {
    let strange = [
        libc::ELOOP,
        libc::ENXIO,
        libc::ENODEV,
        libc::EACCES,
        libc::EPERM,
        libc::EAGAIN,
        libc::ETXTBSY,
        libc::ENOTCONN,
    ];
    strange.contains(&errno(error))
}

/// Does the name still lead to what `stat` describes? A new folder may have the inode number of a removed one, to which the
/// kernel gives no link any more.
pub(super) fn is_named(dir: BorrowedFd, name: &OsStr, stat: &Stat) -> io::Result<bool> {
    let is_there = |stat: &Stat| stat.links > 0;
    Ok(sys::stat(dir, name)?.is_some_and(|named| named.same(stat) && is_there(&named) == is_there(stat)))
}

/// Filesystems that are known to count the links of what is removed down to 0, a folder's too.
const COUNTS_LINKS: [u64; 5] = [EXT4, XFS, BTRFS, TMPFS, OVERLAY];

impl Beside<'_> {
    /// Does the name of an orphan still lead to what was opened by it, described, and then locked? Since it is locked, nobody
    /// removes it any more. A FUSE server holds nothing open for an open folder: somebody may have removed it before the lock,
    /// and what has its name now may have its inode number, too (bindfs on ext4, mergerfs by its hash of the path). So it is
    /// described once more.
    pub(super) fn is_locked_by_name(
        &self,
        dir: BorrowedFd,
        name: &OsStr,
        fd: BorrowedFd,
        stat: &Stat,
    ) -> io::Result<bool> {
        let now = if self.domain().is_some() { stat_opened(fd)? } else { Some(*stat) };
        now.map_or(Ok(false), |now| is_named(dir, name, &now))
    }

    /// Does the name of a slot or a lock still lead to what was opened by it, and was then locked and described? Nothing
    /// gives a slot or a lock another name, so it has its name until it is removed.
    pub(super) fn still_names(&self, dir: BorrowedFd, name: &OsStr, stat: &Stat) -> io::Result<bool> {
        let tells = (stat.links <= 1 || stat.is_folder()) && COUNTS_LINKS.contains(&self.filesystem());
        if tells { Ok(stat.links > 0) } else { is_named(dir, name, stat) }
    }
}

/// Describes an open file or folder; `None` if it was removed meanwhile, for which FUSE has errors of its own.
pub(super) fn stat_opened(fd: BorrowedFd) -> io::Result<Option<Stat>> {
    match sys::stat_fd(fd) {
        Err(error) if is_change(&error) => Ok(None),
        other => other.map(Some),
    }
}

/// Is a folder empty? One call tells: it returns entries if there are any.
pub(super) fn is_empty(slot: BorrowedFd) -> io::Result<bool> {
    let mut entries = Vec::new();
    sys::read_folder(slot, &mut [0_u8; 1024], &mut entries)?;
    Ok(entries.is_empty())
}

/// The entries of a slot or a room; none, if it is removed meanwhile.
pub(crate) fn list(folder: BorrowedFd) -> io::Result<Vec<sys::Entry>> {
    let mut entries = Vec::new();
    let mut read = || -> io::Result<()> {
        let reader = sys::open_folder(folder, OsStr::new("."))?;
        let mut buffer = vec![0_u8; 4096];
        while sys::read_folder(reader.as_fd(), &mut buffer, &mut entries)? {}
        Ok(())
    };
    match read() {
        Err(error) if is_change(&error) => Ok(Vec::new()),
        other => other.map(|()| entries),
    }
}

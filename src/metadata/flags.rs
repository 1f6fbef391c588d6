//! Inode flags, as `chattr(1)` sets them.

use std::io;
use std::os::fd::BorrowedFd;

use crate::destination::Destination;
use crate::sys;

/// The inode flags that are kept. Left out are the flags that keep a file from being replaced (`i`, `a`), those that
/// tell how its content is stored (`e`, `E`, `V`), and `j` and `x`, which change what a sync means.
const KEPT: u32 = flag::SECURE_DELETION
    | flag::UNDELETABLE
    | flag::COMPRESSED
    | flag::SYNCHRONOUS
    | flag::NO_DUMP
    | flag::NO_ACCESS_TIME
    | flag::NOT_COMPRESSED
    | flag::NO_TAIL_MERGING
    | flag::SYNCHRONOUS_FOLDER
    | flag::TOP_OF_HIERARCHY
    | flag::NO_COPY_ON_WRITE
    | flag::PROJECT_INHERITED
    | flag::CASE_FOLDED;

/// `FS_*_FL` of `<linux/fs.h>`.
mod flag {
    pub(super) const SECURE_DELETION: u32 = 0x1;
    pub(super) const UNDELETABLE: u32 = 0x2;
    pub(super) const COMPRESSED: u32 = 0x4;
    pub(super) const SYNCHRONOUS: u32 = 0x8;
    pub(super) const NO_DUMP: u32 = 0x40;
    pub(super) const NO_ACCESS_TIME: u32 = 0x80;
    pub(super) const NOT_COMPRESSED: u32 = 0x400;
    pub(super) const NO_TAIL_MERGING: u32 = 0x8000;
    pub(super) const SYNCHRONOUS_FOLDER: u32 = 0x1_0000;
    pub(super) const TOP_OF_HIERARCHY: u32 = 0x2_0000;
    pub(super) const NO_COPY_ON_WRITE: u32 = 0x80_0000;
    pub(super) const PROJECT_INHERITED: u32 = 0x2000_0000;
    pub(super) const CASE_FOLDED: u32 = 0x4000_0000;
}

/// The flags that files and folders inherit from a slot: they must be set before there is content.
pub(super) const HANDED_ON: u32 = flag::NO_COPY_ON_WRITE | flag::COMPRESSED | flag::NOT_COMPRESSED;

/// The inode flags of an open file that a new version of it keeps. Network and FUSE filesystems are not asked.
pub(super) fn of_old(destination: &Destination, fd: BorrowedFd) -> io::Result<u32> {
    if destination.slots().domain().is_some() {
        return Ok(0);
    }
    of(fd).map(Option::unwrap_or_default)
}

/// The inode flags of an open file that a copy of it keeps; `None` where there are none.
pub(crate) fn of(fd: BorrowedFd) -> io::Result<Option<u32>> {
    Ok(sys::inode_flags(fd)?.map(|flags| flags & KEPT))
}

/// Gives an empty file or folder exactly these flags of [`KEPT`], where permitted.
pub(crate) fn give(fd: BorrowedFd, flags: u32) -> io::Result<()> {
    let now = sys::inode_flags(fd)?.unwrap_or_default();
    if now & KEPT == flags {
        return Ok(());
    }
    set(fd, now & !KEPT | flags)
}

/// Sets flags: together, or one by one if one of them is refused.
fn set(fd: BorrowedFd, flags: u32) -> io::Result<()> {
    if sys::set_inode_flags(fd, flags)? {
        return Ok(());
    }
    let mut now = sys::inode_flags(fd)?.unwrap_or_default();
    for bit in (0..u32::BITS).map(|bit| 1 << bit).filter(|bit| KEPT & bit != 0) {
        let wanted = now & !bit | flags & bit;
        if wanted != now && sys::set_inode_flags(fd, wanted)? {
            now = wanted;
        }
    }
    Ok(())
}

/// Adds these flags to those of a file that is not empty any more, where permitted.
pub(super) fn add(fd: BorrowedFd, flags: u32) -> io::Result<()> {
    let now = if flags == 0 { 0 } else { sys::inode_flags(fd)?.unwrap_or_default() };
    if now | flags == now { Ok(()) } else { set(fd, now | flags) }
}

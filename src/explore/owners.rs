//! The owners of inodes in mixes of several users. For the kernel, the user of the tests owns all of them.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::fcntl::AtFlags;
use nix::sys::stat::fstatat;

/// The number of a device, in the form of `sys::Stat`, and an inode number.
pub(super) type Inode = (u64, u64);

#[derive(Clone, Default)]
pub(super) struct Owners(HashMap<Inode, u32>);

fn ask(at: BorrowedFd, name: &[u8]) -> Option<(Inode, u32)> {
    let (flags, name) = (AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_EMPTY_PATH, OsStr::from_bytes(name));
    let found = fstatat(at, name, flags).ok()?;
    let (major, minor) = (nix::sys::stat::major(found.st_dev), nix::sys::stat::minor(found.st_dev));
    Some(((major << 32 | minor, found.st_ino), found.st_mode))
}

/// The inode that has a name; `None` if there is none.
pub(super) fn identify(at: BorrowedFd, name: &[u8]) -> Option<Inode> {
    ask(at, name).map(|(inode, _)| inode)
}

/// The inode of an open file.
pub(super) fn identify_open(file: &OwnedFd) -> Option<Inode> {
    let found = nix::sys::stat::fstat(file).ok()?;
    Some((nix::sys::stat::major(found.st_dev) << 32 | nix::sys::stat::minor(found.st_dev), found.st_ino))
}

/// The file behind a descriptor, for the table of locks.
pub(super) fn identify_locked(fd: BorrowedFd) -> Inode {
    nix::sys::stat::fstat(fd).map_or((0, 0), |found| (found.st_dev, found.st_ino))
}

impl Owners {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn of(&self, device: u64, inode: u64) -> Option<u32> {
        self.0.get(&(device, inode)).copied()
    }

    pub(super) fn add(&mut self, inode: Option<Inode>, user: u32) {
        self.0.extend(inode.map(|inode| (inode, user)));
    }

    /// Would the kernel refuse to open this name for `user`, who is not root? Only the mode's bits for others count
    /// here.
    pub(super) fn refuses(&self, user: u32, at: BorrowedFd, name: &OsStr) -> bool {
        ask(at, name.as_bytes())
            .is_some_and(|(inode, mode)| self.0.get(&inode) != Some(&user) && mode & libc::S_IRWXO == 0)
    }
}

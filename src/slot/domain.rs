//! Lock domains: processes that see each other's `flock` are one domain.
//!
//! On the filesystems of [`SEEN_BY_ALL`] each process that can see a folder also sees its locks, and names carry no
//! domain. On all others a lock may be known to one mount only (FUSE: `flock` on a folder never reaches the server) or
//! to one machine only (NFS 3 and 4.2: the client answers for folders by itself; measured with two clients on Linux
//! 6.1). There each name carries the number of its domain, so that writers of two domains never meet in one slot.

use std::ffi::OsString;
use std::path::Path;
use std::sync::OnceLock;

use super::beside::Beside;
use super::name::{self, Kind, fnv1a};
use crate::mount::MountId;
use crate::sys::filesystems::{BCACHEFS, BTRFS, EXFAT, EXT4, F2FS, JFS, NILFS, OVERLAY, RAMFS, TMPFS, VFAT, XFS, ZFS};
use crate::sys::{self, Stat};

/// Local filesystems: one kernel mounts each of them, and keeps its locks by inode. Cluster filesystems (GFS2, OCFS2,
/// Ceph, Lustre) are left out: whether their locks reach the other machines depends on how each is mounted.
const SEEN_BY_ALL: [u64; 13] = [EXT4, XFS, BTRFS, BCACHEFS, F2FS, JFS, NILFS, TMPFS, RAMFS, OVERLAY, VFAT, EXFAT, ZFS];

/// How far a lock on a folder is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LockReach {
    /// By everybody who can see the folder.
    Everybody,
    /// By the processes of this machine that use the same mounted filesystem.
    ThisMachineAndMount,
    /// Folders cannot be locked here.
    Nobody,
}

impl LockReach {
    /// The text that stands for it in a table.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Everybody => "everybody",
            Self::ThisMachineAndMount => "this machine and mount",
            Self::Nobody => "nobody",
        }
    }

    /// The reach that a text stands for.
    #[cfg(feature = "python")]
    pub(crate) fn from_words(words: &str) -> Option<Self> {
        [Self::Everybody, Self::ThisMachineAndMount, Self::Nobody].into_iter().find(|reach| reach.words() == words)
    }
}

impl Beside<'_> {
    /// The lock domain of the folder; `None` where locks are seen by all.
    pub(crate) fn domain(&self) -> Option<u64> {
        *self.known.domain.get_or_init(|| of(*self))
    }

    /// The name of this kind, in the lock domain of the folder.
    pub(crate) fn name(&self, kind: Kind) -> OsString {
        name::name(kind, self.domain(), self.destination)
    }

    pub(super) fn porch(&self) -> OsString {
        self.name(Kind::Porch)
    }
}

/// Notes the mount and the user that a file shows which this process has just made in the folder.
pub(crate) fn learn(beside: Beside, file: &Stat) {
    beside.known.mount_id.get_or_init(|| MountId::of(file));
    // A server may make owners up.
    if beside.domain().is_none() {
        beside.known.user.know(file.uid);
    }
}

/// The domain of a folder; `None` where locks are seen by all.
fn of(beside: Beside) -> Option<u64> {
    #[cfg(test)]
    if let Some(pretended) = crate::explore::lock_domain().or(crate::faults::Pretended::now().domain) {
        return Some(pretended);
    }
    // On a filesystem that does not tell its type, locks are not known to be seen by all.
    if SEEN_BY_ALL.contains(&beside.filesystem()) { None } else { Some(number(beside.folder().ok().as_ref())) }
}

/// The number of a lock domain: a hash of the kernel's boot id and of the mounted filesystem's device number. FUSE and
/// network filesystems keep their device number for as long as they are mounted.
fn number(folder: Option<&Stat>) -> u64 {
    static BOOT: OnceLock<u64> = OnceLock::new();
    // Without /proc every process is a domain of its own.
    let boot = *BOOT.get_or_init(|| match sys::read_file(Path::new("/proc/sys/kernel/random/boot_id")) {
        Ok(id) if !id.is_empty() => fnv1a(&id),
        _ => sys::random().unwrap_or_else(|_| u64::from(std::process::id())),
    });
    let device = folder.map_or(0, |folder| folder.dev);
    fnv1a(&[boot.to_ne_bytes(), device.to_ne_bytes()].concat())
}

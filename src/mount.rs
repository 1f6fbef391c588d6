//! What is known of a mounted filesystem: its type, what its journal promises, and what it has been seen to do.

mod journal;
mod table;

use std::os::fd::BorrowedFd;

pub(crate) use table::{MountId, can, has_done};

pub(crate) use journal::Journal;

use crate::options::Durability;
use crate::sys;
use crate::sys::filesystems::{BTRFS, EXT4, F2FS, OVERLAY, RAMFS, TMPFS, XFS};

/// What matters to a sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The type, as `statfs(2)` numbers them; 0 if it is not known.
    kind: u64,
    pub(crate) journal: Journal,
}

impl Mount {
    /// What is known of a mount with a filesystem of this type. What cannot be found out is not promised.
    pub(crate) fn of(kind: u64, id: MountId) -> Self {
        #[cfg(test)]
        if let Some(pretended) = crate::faults::Pretended::now().mount {
            return pretended;
        }
        if kind != EXT4 && kind != XFS {
            return Self { kind, ..Self::default() };
        }
        if let Some(journal) = table::recall(id) {
            return Self { kind, journal };
        }
        let since = table::changes(id);
        let (journal, settled) = Journal::look(kind, id.device);
        if settled {
            table::remember(id, journal, since);
        }
        Self { kind, journal }
    }

    /// The same of the mount that an open file is on.
    pub(crate) fn at(fd: BorrowedFd) -> Self {
        let id = sys::stat_fd(fd).ok().map(|stat| MountId::of(&stat));
        Self::of(kind(fd, id), id.unwrap_or_default())
    }

    /// Is this a filesystem known to implement `syncfs(2)`, on a kernel whose `syncfs` reports errors
    /// (5.8)? FUSE answers success and does nothing.
    pub(crate) fn syncfs_works(self) -> bool {
        let known = [EXT4, XFS, BTRFS, TMPFS, F2FS, OVERLAY];
        known.contains(&self.kind) && sys::kernel_at_least(5, 8)
    }

    /// The strongest durability that can be promised; `None` if that is for others to say.
    pub(crate) fn durability(self) -> Option<Durability> {
        match self.kind {
            EXT4 | XFS | BTRFS | F2FS => Some(Durability::Full),
            TMPFS | RAMFS => Some(Durability::NoSync),
            _ => None,
        }
    }

    /// Is there no disk to wait for?
    pub(crate) fn is_memory(self) -> bool {
        self.kind == TMPFS
    }

    /// Do syncs of several threads stand in each other's way? On btrfs eight threads took four times as long as one.
    pub(crate) fn syncs_in_turn(self) -> bool {
        self.kind == BTRFS
    }

    /// Is this an overlay, whose lower folders cannot be moved?
    pub(crate) fn is_overlay(self) -> bool {
        self.kind == OVERLAY
    }

    /// Must a file be synced again once it has its name? Before Linux 6.16 btrfs wrote no log for an
    /// inode without links ("btrfs: fix fsync of files with no hard links not persisting deletion"
    /// changed it), so that its fsync did not carry the content over a power cut.
    pub(crate) fn unnamed_is_not_enough(self) -> bool {
        needs_name(self.kind, sys::kernel_at_least(6, 16))
    }
}

fn needs_name(kind: u64, recent: bool) -> bool {
    // One whose type cannot be asked may be btrfs.
    matches!(kind, BTRFS | 0) && !recent
}

/// The type of the filesystem that an open file is on, as `statfs(2)` numbers it; 0 if that cannot be asked.
pub(crate) fn kind(fd: BorrowedFd, id: Option<MountId>) -> u64 {
    let Some(id) = id.filter(|id| id.unique) else { return sys::filesystem(fd).unwrap_or(0) };
    table::kind(id).unwrap_or_else(|| {
        let kind = sys::filesystem(fd).unwrap_or(0);
        if kind != 0 {
            table::remember_kind(id, kind);
        }
        kind
    })
}

#[cfg(test)]
impl Mount {
    /// One whose journal makes one flush enough.
    pub(crate) const ONE_FLUSH: Self = Self { kind: EXT4, journal: Journal { one_flush: true, frees_early: false } };
    /// One that is known, and whose journal does not.
    pub(crate) const TWO_FLUSHES: Self =
        Self { kind: BTRFS, journal: Journal { one_flush: false, frees_early: false } };
    /// One that nobody knows.
    pub(crate) const UNKNOWN: Self = Self { kind: 1, journal: Journal { one_flush: false, frees_early: false } };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_older_btrfs_is_synced_again_under_its_name() {
        assert!(needs_name(BTRFS, false));
        assert!(needs_name(0, false));
        assert!(!needs_name(BTRFS, true));
        assert!(!needs_name(EXT4, false) && !needs_name(XFS, false));
    }

    #[test]
    fn what_has_no_journal_needs_two_flushes() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let proc = std::fs::File::open("/proc/self/mountinfo").unwrap();
        for fd in [&null, &proc] {
            assert!(!Mount::at(std::os::fd::AsFd::as_fd(fd)).journal.one_flush);
        }
    }
}

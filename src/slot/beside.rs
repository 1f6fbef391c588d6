//! `Beside`: the folder that holds the slots of a destination, and the facts that are known of that folder.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::OnceLock;

use crate::mount::{self, Mount, MountId};
use crate::sys::{self, Stat, User};

/// The folder that holds the slots of a destination, and the destination's name.
#[derive(Clone, Copy)]
pub(crate) struct Beside<'a> {
    pub(crate) dir: BorrowedFd<'a>,
    pub(crate) destination: &'a OsStr,
    pub(crate) known: &'a Known,
}

/// The facts that are known of a folder. Each is found out when it is needed, and kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// The user whose slots this process may remove.
    pub(crate) user: User,
    pub(crate) folder: OnceLock<Stat>,
    pub(super) domain: OnceLock<Option<u64>>,
    /// Its mount, read from a file in the folder, where `folder` is not known.
    pub(super) mount_id: OnceLock<MountId>,
    /// The type of its filesystem.
    kind: OnceLock<u64>,
    mount: OnceLock<Mount>,
    /// The owner and mode of new files, where the filesystem makes them up.
    pub(super) fresh: OnceLock<Fresh>,
}

impl Known {
    /// The facts that also hold for another folder of the same mount.
    pub(crate) fn on_the_same_mount(&self) -> Self {
        let known = Self { folder: OnceLock::new(), ..self.clone() };
        if let Some(folder) = self.folder.get() {
            known.mount_id.get_or_init(|| MountId::of(folder));
        }
        known
    }
}

impl Beside<'_> {
    /// The description of the folder. The kernel is asked once.
    pub(crate) fn folder(&self) -> io::Result<Stat> {
        if let Some(folder) = self.known.folder.get() {
            return Ok(*folder);
        }
        let folder = sys::stat_fd(self.dir)?;
        Ok(*self.known.folder.get_or_init(|| folder))
    }

    fn mount_id(&self) -> Option<MountId> {
        self.known.folder.get().map(MountId::of).or(self.known.mount_id.get().copied())
    }

    /// The type of the filesystem, as `statfs(2)` numbers it; 0 if that cannot be asked.
    pub(crate) fn filesystem(&self) -> u64 {
        *self.known.kind.get_or_init(|| mount::kind(self.dir, self.mount_id()))
    }

    /// The facts that are known of the mount.
    pub(crate) fn mount(&self) -> Mount {
        let look = || self.mount_id().or_else(|| self.folder().ok().as_ref().map(MountId::of)).unwrap_or_default();
        *self.known.mount.get_or_init(|| Mount::of(self.filesystem(), look()))
    }

    /// Has the filesystem been seen to take these flags of `renameat2(2)`? Where locks do not reach everybody, a mount may
    /// stand for several filesystems, and this is not remembered.
    pub(crate) fn can(&self, flags: u32) -> bool {
        self.domain().is_none() && self.mount_id().is_some_and(|id| mount::can(id, flags))
    }

    /// Remembers that the filesystem has taken these flags.
    pub(crate) fn has_done(&self, flags: u32) {
        if let (None, Some(id)) = (self.domain(), self.mount_id()) {
            mount::has_done(id, flags);
        }
    }
}

/// The owner and mode that a new file of this process shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fresh {
    pub(super) uid: u32,
    /// Does it have the mode that was asked for?
    pub(super) modes_kept: bool,
}

//! `Beside`: the folder that holds the slots of a destination, and the facts that are known of that folder.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::OnceLock;

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
    /// The number of its mount, which no later mount gets. It is read from a file in the folder, where `folder` is not
    /// known.
    pub(super) mount: OnceLock<u64>,
    /// The owner and mode of new files, where the filesystem makes them up.
    pub(super) fresh: OnceLock<Fresh>,
}

impl Known {
    /// The facts that also hold for another folder of the same mount.
    pub(crate) fn on_the_same_mount(&self) -> Self {
        Self { folder: OnceLock::new(), ..self.clone() }
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
}

/// The owner and mode that a new file of this process shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fresh {
    pub(super) uid: u32,
    /// Does it have the mode that was asked for?
    pub(super) modes_kept: bool,
}

//! `Beside`: the folder in which the slots of a destination are, and what is known of that folder.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::OnceLock;

use crate::sys::{self, Stat, User};

/// Where the slots of a destination are, and whose.
#[derive(Clone, Copy)]
pub(crate) struct Beside<'a> {
    pub(crate) dir: BorrowedFd<'a>,
    pub(crate) destination: &'a OsStr,
    pub(crate) known: &'a Known,
}

/// What is known of a folder, once it has been asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// Whose slots are ours.
    pub(crate) user: User,
    /// What the folder is like.
    pub(crate) folder: OnceLock<Stat>,
    pub(super) domain: OnceLock<Option<u64>>,
    /// Its mount, by the number that no later mount gets, where nobody has looked at the folder.
    pub(super) mount: OnceLock<u64>,
    /// What is made here by this process shows, where that is not what was asked for.
    pub(super) fresh: OnceLock<Fresh>,
}

impl Known {
    /// The same for another folder of the same mount.
    pub(crate) fn on_the_same_mount(&self) -> Self {
        Self { folder: OnceLock::new(), ..self.clone() }
    }
}

impl Beside<'_> {
    /// What the folder is like.
    pub(crate) fn look(&self) -> io::Result<Stat> {
        if let Some(folder) = self.known.folder.get() {
            return Ok(*folder);
        }
        let folder = sys::stat_fd(self.dir)?;
        Ok(*self.known.folder.get_or_init(|| folder))
    }
}

/// What is made here by this process shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fresh {
    pub(super) uid: u32,
    /// Does it have the mode that was asked for?
    pub(super) modes_kept: bool,
}

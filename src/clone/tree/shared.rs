//! The state that the threads of one clone share, and the folders that they fill.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::clone::content::Means;
use crate::error::Hint;
use crate::metadata::Metadata;
use crate::sys::Stat;

/// Why a tree cannot be cloned: the path below its root, and the error.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) place: PathBuf,
    pub(crate) error: io::Error,
    pub(crate) hint: Option<Hint>,
}

/// The place of a folder in the tree. It holds no descriptor.
pub(super) struct Place {
    pub(super) above: Option<Arc<Place>>,
    pub(super) name: OsString,
}

impl Place {
    /// The names from the root to here.
    pub(super) fn names(&self) -> Vec<&OsStr> {
        let mut names = Vec::new();
        let mut place = Some(self);
        while let Some(Place { above: Some(above), name }) = place {
            names.push(name.as_os_str());
            place = Some(above);
        }
        names.reverse();
        names
    }

    pub(super) fn path(&self, name: &OsStr) -> PathBuf {
        self.names().into_iter().chain([name]).collect()
    }
}

/// A new file as it is made in a folder, before it gets its metadata.
pub(super) struct Born {
    pub(super) stat: Stat,
    /// Has it inherited an ACL?
    pub(super) acl: bool,
}

/// A folder of the clone that is being filled. When the last thread that fills it drops it, it gets its metadata: times
/// must be set last.
pub(super) struct Filling<'a> {
    pub(super) place: Arc<Place>,
    pub(super) fd: OwnedFd,
    pub(super) born: OnceLock<Born>,
    /// The metadata that it gets in the end; `None` for the root, which keeps its own.
    pub(super) metadata: Option<Metadata>,
    pub(super) shared: &'a Shared<'a>,
}

impl Drop for Filling<'_> {
    fn drop(&mut self) {
        if let Some(metadata) = self.metadata.take() {
            if let Err(error) = metadata.give_all(self.fd.as_fd(), None) {
                self.shared.fail(Failure { place: self.place.path(OsStr::new("")), error, hint: None });
            }
        }
    }
}

/// Files of one folder that are cloned together.
pub(super) struct Batch<'a> {
    pub(super) from: OwnedFd,
    pub(super) into: Arc<Filling<'a>>,
    pub(super) files: Vec<(OsString, u8)>,
}

/// Device and number.
type Inode = (u64, u64);
/// The folder and the name of the first of several links, and how many links are still to be made.
pub(super) type Linked = (Arc<Place>, OsString, u32);

/// The state that all threads share.
pub(super) struct Shared<'a> {
    /// The root of the clone.
    pub(super) root: BorrowedFd<'a>,
    pub(super) means: Means,
    /// Files with several links, until all of their links are made.
    pub(super) links: Mutex<HashMap<Inode, Linked>>,
    pub(super) failure: Mutex<Option<Failure>>,
    pub(super) stop: AtomicBool,
}

impl Shared<'_> {
    pub(super) fn fail(&self, failure: Failure) {
        self.stop.store(true, Ordering::Relaxed);
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
    }

    /// Fails once a thread has failed, so that the others stop.
    pub(super) fn go_on(&self) -> io::Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }
}

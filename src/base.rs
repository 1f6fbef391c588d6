//! `Base`: the present version that a body starts from, and the conflict if it was replaced meanwhile.

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::error::{Error, ErrorKind, Hint};
use crate::sys::Stat;

/// The present version that a body starts from. It is kept open, so that its inode number is nobody
/// else's until the publish has been decided.
#[derive(Debug)]
pub(crate) struct Base(Option<(OwnedFd, Stat)>);

impl Base {
    /// There was nothing.
    pub(crate) fn nothing() -> Self {
        Self(None)
    }

    pub(crate) fn version(fd: OwnedFd, stat: Stat) -> Self {
        Self(Some((fd, stat)))
    }

    /// Is what is there now still the version that the body started from? A file that was written in place meanwhile is not.
    /// With `exact_times`, times tell that as well: network filesystems may correct them later.
    pub(crate) fn is(&self, now: Option<&Stat>, exact_times: bool) -> bool {
        match (&self.0, now) {
            (None, None) => true,
            (Some((_, base)), Some(now)) => {
                let written = base.size != now.size || exact_times && base.times[1] != now.times[1];
                base.same(now) && (base.is_folder() || !written)
            }
            _ => false,
        }
    }

    /// Was there nothing?
    pub(crate) fn is_nothing(&self) -> bool {
        self.0.is_none()
    }
}

/// The error of a body whose base has been replaced meanwhile.
pub(crate) fn conflict(path: &Path) -> Error {
    Error::errno("publishing", path, libc::ESTALE).kind_is(ErrorKind::Conflict).hint(Hint::Conflict)
}

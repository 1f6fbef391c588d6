//! `Base`: the present version that a body starts from, and the conflict if it was replaced meanwhile.

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::error::{Error, ErrorKind, Hint};
use crate::sys::Stat;

/// The present version that a body starts from. It is kept open, so that no other file gets its inode number before the
/// publish is decided.
#[derive(Debug)]
pub(crate) struct Base(Option<(OwnedFd, Stat)>);

impl Base {
    /// The base of a body that starts from nothing, since there was no version.
    pub(crate) fn nothing() -> Self {
        Self(None)
    }

    pub(crate) fn version(fd: OwnedFd, stat: Stat) -> Self {
        Self(Some((fd, stat)))
    }

    /// Is the version that is there now the one that the body started from? A file that was written in place meanwhile
    /// is not. With `exact_times`, the modification time tells that as well; network filesystems may correct it later.
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

    /// Did the body start from nothing?
    pub(crate) fn is_nothing(&self) -> bool {
        self.0.is_none()
    }
}

/// The error of a body whose base has been replaced meanwhile.
pub(crate) fn conflict(path: &Path) -> Error {
    Error::errno("publishing", path, libc::ESTALE).kind_is(ErrorKind::Conflict).hint(Hint::Conflict)
}

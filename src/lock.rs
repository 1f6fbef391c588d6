//! The publish lock `.atomik-lock.NAME`: held for the microseconds of a folder's replacing publish,
//! so that one that depends on the present version can check and exchange as one step.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::fcntl::OFlag;

use crate::destination::Destination;
use crate::error::{Error, Result};
use crate::slot;
use crate::sys::{self, Lock, errno};

/// How often, a millisecond apart, a lock of another user is tried before the publish gives up.
const TRIES: u32 = 2_000;

/// Holds the lock; `Drop` removes its name and lets go.
pub(crate) struct PublishLock<'a> {
    destination: &'a Destination,
    name: OsString,
    /// `None` where the filesystem has no locks: then nothing can depend on the present version either.
    fd: Option<OwnedFd>,
}

impl<'a> PublishLock<'a> {
    /// Waits for the lock of this destination.
    pub(crate) fn take(destination: &'a Destination) -> Result<Self> {
        let name = slot::name("lock", &destination.name);
        let parent = destination.parent();
        let mut tries = 0;
        while tries < TRIES {
            match Self::attempt(destination, &name) {
                Ok(Some(fd)) => return Ok(Self { destination, name, fd: Some(fd) }),
                // Another writer has published meanwhile.
                Ok(None) => {}
                Err(error) if errno(&error) == libc::EOPNOTSUPP => return Ok(Self { destination, name, fd: None }),
                // Another user's: it stands for microseconds only.
                Err(error)
                    if errno(&error) == libc::EACCES && sys::stat(parent, &name).is_ok_and(|stat| stat.is_some()) =>
                {
                    tries += 1;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(destination.failed("taking the publish lock", error)),
            }
        }
        Err(Error::errno("taking the publish lock", &destination.path, libc::EBUSY).hint(format!(
            "another user's lock {} stays; if no writer of theirs is running, remove it",
            name.to_string_lossy()
        )))
    }

    /// `None`: it was removed while we waited; `EACCES`: it is another user's.
    fn attempt(destination: &Destination, name: &OsString) -> io::Result<Option<OwnedFd>> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let fd = sys::openat(destination.parent(), name, flags, 0o600)?;
        let stat = sys::stat_fd(fd.as_fd())?;
        if stat.uid != destination.user.id() {
            // Root can open it, but a user must not make root wait.
            return Err(io::Error::from_raw_os_error(libc::EACCES));
        }
        if sys::lock(fd.as_fd(), true)? == Lock::Unsupported {
            sys::unlink(destination.parent(), name)?;
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
        let named = sys::stat(destination.parent(), name)?;
        Ok(named.is_some_and(|named| named.same(&stat)).then_some(fd))
    }
}

impl Drop for PublishLock<'_> {
    fn drop(&mut self) {
        if self.fd.is_some() {
            // If the name stays, the next writer finds it unlocked and takes it: nothing is lost.
            drop(sys::unlink(self.destination.parent(), &self.name));
        }
    }
}

//! The publish lock of a destination, `.atomik-lock.NAME~`: made on demand, removed after each use.
//!
//! Each publish that replaces a folder holds it for microseconds. So a publish that depends on the present version can
//! check that version and exchange it in one step. A process that completes a killed writer's backup holds it, too. A
//! writer that is killed while it holds the lock leaves the name, whose lock is free; the next writer removes it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::fcntl::OFlag;

use super::beside::Beside;
use super::name::Kind;
use super::observe::{is_change, is_no_slot, stat_opened};
use super::patience::Patience;
use crate::sys::{self, Lock, errno};

/// How often a lock of another user is tried: for two seconds, with pauses that grow to [`MAX_PAUSE`].
const MAX_TRIES: u32 = 48;
const MAX_PAUSE: Duration = Duration::from_millis(50);
/// How often making a lock may be refused although no lock is there.
const MAX_REFUSALS: u32 = 100;
/// How often a lock may have been removed by its last holder when this process gets it.
const MAX_TIMES_REMOVED: u32 = 10_000;

/// Holds a lock; `Drop` removes its name and lets go.
pub(crate) struct PublishLock<'a> {
    dir: BorrowedFd<'a>,
    name: OsString,
    /// `None` where the filesystem has no locks: then nothing can depend on the present version either.
    fd: Option<OwnedFd>,
}

impl<'a> PublishLock<'a> {
    /// Waits for the lock; `None` if another user's stays in its place.
    pub(crate) fn take(beside: Beside<'a>) -> io::Result<Option<Self>> {
        let (dir, name) = (beside.dir, beside.name(Kind::Lock));
        let (mut tries, mut gone, mut refused, mut patience) = (0, 0, 0, Patience::default());
        while tries < MAX_TRIES && gone < MAX_TIMES_REMOVED {
            match lock_once(beside, &name) {
                Ok(Some(fd)) => return Ok(Some(Self { dir, name, fd: Some(fd) })),
                // Its last holder removed it while this process waited: the next lock is made.
                Ok(None) => gone += 1,
                Err(error) if errno(&error) == libc::EOPNOTSUPP => return Ok(Some(Self { dir, name, fd: None })),
                // The lock is another user's, and stands for microseconds only. If there is none, it has just been
                // removed, or this folder refuses new files.
                Err(error) if errno(&error) == libc::EACCES => {
                    if sys::stat(dir, &name)?.is_none() {
                        refused += 1;
                        if refused == MAX_REFUSALS {
                            return Err(error);
                        }
                        continue;
                    }
                    tries += 1;
                    sys::sleep(MAX_PAUSE.min(Duration::from_millis(1 << tries.min(6))));
                }
                Err(error) if patience.again(beside, &error) => {}
                Err(error) => {
                    // The lock may have been made before the error, and the clean-up of this writer does not look for
                    // it.
                    drop(remove_orphan_lock(beside));
                    return Err(error);
                }
            }
        }
        Ok(None)
    }
}

/// Makes, locks and checks the lock once. `None` if it was removed meanwhile, `EACCES` if it is another user's.
fn lock_once(beside: Beside, name: &OsString) -> io::Result<Option<OwnedFd>> {
    let dir = beside.dir;
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let fd = match sys::openat(dir, name, flags, 0o600) {
        // It is a symlink, a folder or a file with a lease, which this library has not made.
        Err(error) if matches!(errno(&error), libc::ELOOP | libc::EISDIR | libc::EAGAIN | libc::ENXIO) => {
            return Err(io::Error::from_raw_os_error(libc::EACCES));
        }
        other => other?,
    };
    let foreign = || io::Error::from_raw_os_error(libc::EACCES);
    let describe = || stat_opened(fd.as_fd());
    let lock = sys::lock(fd.as_fd(), false)?;
    let Some(mut stat) = describe()? else { return Ok(None) };
    if !beside.owns(&stat) {
        // Root can open another user's lock. It is not waited for: a user must not make root wait.
        return Err(foreign());
    }
    match lock {
        Lock::Held => {}
        Lock::Taken => {
            // Nor is a lock waited for that other users can open, by another name or by its permissions.
            let ours_alone = stat.links <= 1 && (stat.permissions() | 0o700 == 0o700 || beside.makes_up_modes());
            if !ours_alone || sys::lock(fd.as_fd(), true)? != Lock::Held {
                return Err(foreign());
            }
            let Some(now) = describe()? else { return Ok(None) };
            stat = now;
        }
        Lock::Unsupported => {
            sys::unlink(dir, name)?;
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
    }
    Ok(beside.still_names(dir, name, &stat)?.then_some(fd))
}

impl PublishLock<'_> {
    /// Removes the name and lets go; false if the name stays, for the clean-up to remove.
    pub(crate) fn release(mut self) -> bool {
        self.fd.take().is_none_or(|_held| sys::unlink(self.dir, &self.name).is_ok())
    }
}

impl Drop for PublishLock<'_> {
    fn drop(&mut self) {
        if self.fd.is_some() {
            // If the name stays, the next writer finds it unlocked and removes it: nothing is lost.
            drop(sys::unlink(self.dir, &self.name));
        }
    }
}

/// Removes the publish lock that a killed writer has left.
pub(crate) fn remove_orphan_lock(beside: Beside) -> io::Result<()> {
    remove_orphan_lock_named(beside, &beside.name(Kind::Lock))
}

/// Removes a publish lock of this name, which may be of another lock domain, if a killed writer has left it.
pub(super) fn remove_orphan_lock_named(beside: Beside, lock: &OsStr) -> io::Result<()> {
    let dir = beside.dir;
    if sys::stat(dir, lock)?.is_none() {
        return Ok(());
    }
    let fd = match sys::open_any(dir, lock) {
        Err(error) if is_change(&error) || is_no_slot(&error) => return Ok(()),
        other => other?,
    };
    let Some(stat) = stat_opened(fd.as_fd())? else { return Ok(()) };
    let ours = beside.owns(&stat) && stat.kind() == libc::S_IFREG;
    let locked = ours && sys::lock(fd.as_fd(), false)? == Lock::Held;
    if locked && beside.is_locked_by_name(dir, lock, fd.as_fd(), &stat)? {
        sys::unlink(dir, lock)?;
    }
    Ok(())
}

//! The publish: the one system call after which the destination is the new version.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;

use crate::destination::{Destination, Kind};
use crate::error::{Error, ErrorKind, Result};
use crate::lock;
use crate::slot;
use crate::sync;
use crate::sys::{self, errno};

/// `RENAME_NOREPLACE`, `RENAME_EXCHANGE` and `RENAME_WHITEOUT` of `renameat2(2)`.
pub(crate) const NOREPLACE: u32 = libc::RENAME_NOREPLACE;
pub(crate) const EXCHANGE: u32 = libc::RENAME_EXCHANGE;
pub(crate) const WHITEOUT: u32 = libc::RENAME_WHITEOUT;

/// How often a destination may appear and vanish under a publish before it gives up.
const ROUNDS: u32 = 100;

/// What an old kernel, a sandbox or a filesystem without flags answers to `renameat2` with flags.
/// It is a fact about one call on one filesystem, and is never remembered.
pub(crate) fn is_unsupported(error: &std::io::Error) -> bool {
    matches!(errno(error), libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP | libc::EPERM)
}

fn failed(destination: &Destination, error: std::io::Error) -> Error {
    let errno = errno(&error);
    let error = destination.failed("publishing", error);
    match errno {
        libc::EEXIST | libc::ENOTEMPTY => error.hint("the destination appeared meanwhile; pass overwrite=True to replace it"),
        libc::EXDEV => error.hint("the destination belongs to a lower layer of an overlay (a container image), or to another mount: publish to a folder that was made in this container, or to a volume"),
        libc::EBUSY => error.hint("the destination is a mount point or in use: publish a folder above it, or mount its parent folder"),
        libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP => error.kind_is(ErrorKind::Unsupported).hint("this filesystem (or sandbox) cannot publish without a moment in which the destination is missing or could be lost"),
        libc::EPERM | libc::EACCES => error.hint("the destination may not be replaced: look at its attributes, at the sticky bit and the permissions of its folder"),
        libc::ENOENT => error.hint("the destination's folder has been removed, or there is nothing to publish"),
        _ => error,
    }
}

/// Publishes an unnamed file; answers the slot number from which to sweep, if a slot was used.
pub(crate) fn unnamed(
    destination: &Destination,
    file: BorrowedFd,
    overwrite: bool,
    exists: bool,
    sync_named: bool,
) -> Result<Option<u32>> {
    let fail = |error| failed(destination, error);
    if !exists && !sync_named {
        match sys::link_fd(file, destination.parent(), &destination.name) {
            Err(error) if errno(&error) == libc::EEXIST && overwrite => {}
            other => return other.map(|()| None).map_err(fail),
        }
    }
    let dir = destination.staging();
    // Locked before it has a name: nobody ever takes it for an orphan.
    sys::lock(file, false).map_err(fail)?;
    let slot = slot::link(file, destination.slots()).map_err(fail)?;
    let publish = || {
        if sync_named {
            sync::file(file, crate::Durability::Full, destination)?;
        }
        named(destination, dir, &slot.name, overwrite)
    };
    match publish() {
        Ok(()) => Ok(Some(slot.next)),
        Err(error) => {
            // If this fails too, the slot is an orphan, which the next writer removes.
            drop(sys::unlink(dir, &slot.name));
            Err(error)
        }
    }
}

/// Publishes a file or symlink that has a name in `dir`.
pub(crate) fn named(destination: &Destination, dir: BorrowedFd, name: &OsStr, overwrite: bool) -> Result<()> {
    let (parent, target) = (destination.parent(), &destination.name);
    let published =
        if overwrite { sys::renameat2(dir, name, parent, target, 0) } else { move_file(dir, name, parent, target) };
    published.map_err(|error| failed(destination, error))
}

/// Renames a file without replacing: where `NOREPLACE` is missing, `link` and `unlink` promise the same.
pub(crate) fn move_file(dir: BorrowedFd, name: &OsStr, to: BorrowedFd, target: &OsStr) -> std::io::Result<()> {
    match sys::renameat2(dir, name, to, target, NOREPLACE) {
        Err(error) if is_unsupported(&error) => {
            sys::link(dir, name, to, target).map_err(|linked| if is_unsupported(&linked) { error } else { linked })?;
            sys::unlink(dir, name)
        }
        other => other,
    }
}

/// Publishes the folder that has the destination's name in a slot; `exists` is what was seen just
/// before. Where `NOREPLACE` is missing and
/// replacing was asked for, plain `rename` promises the same: it replaces nothing but an empty folder.
pub(crate) fn folder(destination: &Destination, slot: BorrowedFd, overwrite: bool, mut exists: bool) -> Result<()> {
    let (parent, name) = (destination.parent(), &destination.name);
    for _ in 0..ROUNDS {
        if exists && exchange(destination, slot)? {
            return Ok(());
        }
        match sys::renameat2(slot, name, parent, name, NOREPLACE) {
            Err(error) if overwrite && is_unsupported(&error) => {
                return sys::renameat2(slot, name, parent, name, 0).map_err(|error| failed(destination, error));
            }
            Err(error) if overwrite && matches!(errno(&error), libc::EEXIST | libc::ENOTEMPTY) => {
                exists = destination.check(Kind::Folder, true, false)?.is_some();
            }
            other => return other.map_err(|error| failed(destination, error)),
        }
    }
    Err(Error::errno("publishing", &destination.path, libc::EBUSY)
        .hint("the destination keeps appearing and vanishing"))
}

/// Exchanges staging and destination under the publish lock; false if the destination has vanished.
fn exchange(destination: &Destination, slot: BorrowedFd) -> Result<bool> {
    let (parent, name) = (destination.parent(), &destination.name);
    let _lock = lock::publish(destination)?;
    let swap = || sys::renameat2(slot, name, parent, name, EXCHANGE);
    let mut exchanged = swap();
    if matches!(&exchanged, Err(error) if errno(error) == libc::EACCES) {
        // The displaced folder moves to another parent too, and may not be writable by its owner.
        let mode = sys::stat(parent, name).map_err(|error| failed(destination, error))?.map(|old| old.permissions());
        if let Some(mode) = mode.filter(|mode| mode & 0o200 == 0) {
            if sys::chmod_unopened(parent, name, mode | 0o200).is_ok() {
                exchanged = swap();
                if exchanged.is_err() {
                    sys::chmod_unopened(parent, name, mode).map_err(|error| failed(destination, error))?;
                }
            }
        }
    }
    match exchanged {
        Ok(()) => {}
        Err(error) if errno(&error) == libc::ENOENT => return Ok(false),
        Err(error) => return Err(failed(destination, error)),
    }
    // Something else than a folder or symlink may have taken the name since it was checked. Under
    // the lock nobody has built on our version yet: it is taken back.
    match sys::stat(slot, name) {
        Ok(Some(displaced)) if !matches!(displaced.kind(), libc::S_IFDIR | libc::S_IFLNK) => {
            swap().map_err(|error| failed(destination, error).after_publish())?;
            Err(Error::errno("publishing", &destination.path, libc::ENOTDIR)
                .hint("a file is never replaced by a folder"))
        }
        _ => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::path::Path;

    use super::*;
    use crate::options::{Durability, Options};

    /// What an old btrfs needs, on whatever filesystem the tests run.
    fn publish_with_a_second_sync(path: &Path, overwrite: bool, exists: bool) -> Result<Option<u32>> {
        let settings = Options::<crate::File>::new().overwrite(true).durability(Durability::Full).settings;
        let (destination, _) = Destination::open(sys::CWD, path, Kind::File, &settings, false)?;
        let mut file = std::fs::File::from(sys::tmpfile(destination.staging()).unwrap().unwrap());
        file.write_all(b"new").unwrap();
        unnamed(&destination, file.as_fd(), overwrite, exists, true)
    }

    #[test]
    fn a_file_that_is_synced_under_its_slot_name_does_not_replace_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        publish_with_a_second_sync(&path, false, false).unwrap();
        let refused = publish_with_a_second_sync(&path, false, false).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
        publish_with_a_second_sync(&path, true, true).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

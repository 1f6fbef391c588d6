//! Backups: the displaced version gets a name of its own.
//!
//! New and old are exchanged, then the displaced version, which is in the slot now, is exchanged with
//! the backup before it. So that a process killed between the two calls loses nothing, the slot holds a mark, made before
//! the exchange: which inode is the new version (whatever else is in its place was displaced), and which inode has the
//! backup's name. Whoever finds the slot finishes the work under the publish lock, unless the name has gone to another
//! inode: that backup is newer.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::destination::{Destination, Kind, never_replaced, split};
use crate::error::{Error, ErrorKind, Result};
use crate::lock::NamedLock;
use crate::publish::{EXCHANGE, NOREPLACE};
use crate::slot::{self, Beside};
use crate::sys::{self, errno};

/// In a slot: a symlink that nobody follows, whose target is `STAGED:REPLACED:DESTINATION/BACKUP`: two inodes, the second 0
/// if there is no backup yet, and two names.
pub(crate) const MARK: &str = ".atomik-backup";

/// How often a backup may appear and vanish while one takes its name.
const ROUNDS: u32 = 100;

/// Checks before the body that `backup` is a name beside the destination which a `kind` may take.
pub(crate) fn name(at: BorrowedFd, destination: &Destination, backup: &Path, kind: Kind) -> Result<OsString> {
    let (folder, name, _) = split(backup)?;
    let refuse = |errno, hint: &str| Err(Error::errno("checking the backup's name", backup, errno).hint(hint));
    if backup.as_os_str().as_bytes().contains(&b'/') {
        let failed = |error| Error::new("checking the backup's name", backup, error);
        let (folder, _) = sys::open_parent(at, folder, false).map_err(failed)?;
        let (here, there) = (sys::stat_fd(destination.parent()), sys::stat_fd(std::os::fd::AsFd::as_fd(&folder)));
        if !here.map_err(failed)?.same(&there.map_err(failed)?) {
            return refuse(libc::EINVAL, "a backup stands beside the destination: give a name in the same folder");
        }
    }
    if name == destination.name {
        return refuse(libc::EINVAL, "the backup cannot have the destination's own name");
    }
    if slot::is_reserved(name) {
        return refuse(libc::EINVAL, slot::RESERVED);
    }
    if destination.elsewhere() {
        return refuse(libc::EINVAL, "backup does not go with tmp_dir");
    }
    let there =
        sys::stat(destination.parent(), name).map_err(|error| Error::new("looking at the backup", backup, error))?;
    match there {
        Some(there) if there.mount_root => refuse(libc::EBUSY, "the backup is a mount point"),
        Some(there) if there.fixed().is_some() => {
            refuse(libc::EPERM, &format!("the backup is {} (see chattr(1))", there.fixed().unwrap_or_default()))
        }
        Some(there) => match (there.kind(), kind) {
            (libc::S_IFLNK, _) => match never_replaced(destination.parent(), name) {
                Some(hint) => refuse(libc::EBUSY, hint),
                None => Ok(name.to_owned()),
            },
            (libc::S_IFDIR, Kind::File) => refuse(libc::EISDIR, "a folder is never replaced by a file"),
            (libc::S_IFREG, Kind::Folder) => refuse(libc::ENOTDIR, "a file is never replaced by a folder"),
            (libc::S_IFDIR | libc::S_IFREG, _) => Ok(name.to_owned()),
            _ => refuse(libc::EBUSY, "a device, FIFO or socket is never replaced"),
        },
        None => Ok(name.to_owned()),
    }
}

/// Tries, before the body, whether a mark can be made in a slot: vfat, exFAT and rclone have no symlinks.
pub(crate) fn try_to_mark(destination: &Destination, slot: BorrowedFd) -> Result<()> {
    let name = slot::scratch("mark", &destination.name);
    let tried = sys::symlink(OsStr::new("tried"), slot, &name).and_then(|()| sys::unlink(slot, &name));
    tried.map_err(|error| {
        destination
            .failed("creating staging", error)
            .kind_is(ErrorKind::Unsupported)
            .hint("this filesystem has no symlinks, which a backup needs")
    })
}

/// Notes in a slot, before the publish, that the version that it displaces is to be called `backup`.
pub(crate) fn mark(slot: BorrowedFd, destination: &Destination, backup: &OsStr) -> io::Result<()> {
    let name = &destination.name;
    let staged = sys::stat(slot, name)?.map_or(0, |staged| staged.ino);
    let replaced = sys::stat(destination.parent(), backup)?.map_or(0, |replaced| replaced.ino);
    let mut target = format!("{staged}:{replaced}:").into_bytes();
    target.extend_from_slice(&[name.as_bytes(), b"/", backup.as_bytes()].concat());
    let target = OsString::from_vec(target);
    match sys::symlink(&target, slot, OsStr::new(MARK)) {
        Err(error) if errno(&error) == libc::EEXIST => {
            sys::unlink(slot, OsStr::new(MARK))?;
            sys::symlink(&target, slot, OsStr::new(MARK))
        }
        other => other,
    }
}

/// Gives the displaced version in a slot the name of its backup: after the publish, under the same lock. What had that
/// name before is in the slot then.
pub(crate) fn complete(slot: BorrowedFd, destination: &Destination, backup: &OsStr) -> io::Result<()> {
    take_name(slot, &destination.name, destination.parent(), backup)?;
    sys::unlink(slot, OsStr::new(MARK))
}

/// Does the same for a writer that was killed before it, or failed to. Anybody who holds the slot may call it, any number
/// of times.
pub(crate) fn resume(beside: Beside, slot: BorrowedFd) -> io::Result<()> {
    let target = match sys::readlink(slot, OsStr::new(MARK)) {
        Err(error) if matches!(errno(&error), libc::ENOENT | libc::EINVAL) => return Ok(()),
        other => other?.into_vec(),
    };
    if let Some(Mark { staged, replaced, name, backup }) = read(&target) {
        // While the slot is held nobody else changes what is in it.
        if sys::stat(slot, name)?.is_some_and(|there| there.ino != staged) {
            let _lock = NamedLock::take(beside)?;
            let present = sys::stat(beside.dir, backup)?.map(|present| present.ino);
            if present.is_none_or(|present| present == replaced) {
                take_name(slot, name, beside.dir, backup)?;
            }
        }
    }
    sys::unlink(slot, OsStr::new(MARK))
}

/// What a mark says.
struct Mark<'a> {
    staged: u64,
    replaced: u64,
    name: &'a OsStr,
    backup: &'a OsStr,
}

/// `None`: not one that we have made.
fn read(target: &[u8]) -> Option<Mark<'_>> {
    let mut parts = target.splitn(3, |byte| *byte == b':');
    let mut inode = || std::str::from_utf8(parts.next()?).ok()?.parse().ok();
    let (staged, replaced) = (inode()?, inode()?);
    let names = parts.next()?;
    let slash = names.iter().position(|byte| *byte == b'/')?;
    let (name, backup) = (OsStr::from_bytes(&names[..slash]), OsStr::from_bytes(&names[slash + 1..]));
    Some(Mark { staged, replaced, name, backup })
}

fn take_name(slot: BorrowedFd, name: &OsStr, dir: BorrowedFd, backup: &OsStr) -> io::Result<()> {
    for _ in 0..ROUNDS {
        match sys::renameat2(slot, name, dir, backup, EXCHANGE) {
            Err(error) if errno(&error) == libc::ENOENT => {}
            other => return other,
        }
        match sys::renameat2(slot, name, dir, backup, NOREPLACE) {
            Err(error) if errno(&error) == libc::EEXIST => {}
            other => return other,
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}

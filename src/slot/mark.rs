//! The mark of a backup: what a slot holds so that a backup is completed although its writer was killed.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::beside::Beside;
use super::lock::PublishLock;
use crate::sys::{self, EXCHANGE, NOREPLACE, errno};

/// In a slot: a symlink that nobody follows, whose target is `STAGED:REPLACED:DESTINATION/BACKUP`: two inodes, the second 0
/// if there is no backup yet, and two names.
pub(super) const MARK: &str = ".atomik-backup";

/// How often a backup may appear and vanish while one takes its name.
const ROUNDS: u32 = 100;

/// Notes in a slot, before the publish, that the version that it displaces is to be called `backup`.
pub(crate) fn mark(slot: BorrowedFd, beside: Beside, backup: &OsStr) -> io::Result<()> {
    let name = beside.destination;
    let staged = sys::stat(slot, name)?.map_or(0, |staged| staged.ino);
    let replaced = sys::stat(beside.dir, backup)?.map_or(0, |replaced| replaced.ino);
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
pub(crate) fn complete(slot: BorrowedFd, beside: Beside, backup: &OsStr) -> io::Result<()> {
    take_name(slot, beside.destination, beside.dir, backup)?;
    sys::unlink(slot, OsStr::new(MARK))
}

/// Does the same for a writer that was killed before it, or failed to. Anybody who holds the slot may call it, any number
/// of times.
pub(super) fn resume(beside: Beside, slot: BorrowedFd) -> io::Result<()> {
    let target = match sys::readlink(slot, OsStr::new(MARK)) {
        Err(error) if matches!(errno(&error), libc::ENOENT | libc::EINVAL) => return Ok(()),
        other => other?.into_vec(),
    };
    if let Some(Mark { staged, replaced, name, backup }) = read(&target) {
        // While the slot is held nobody else changes what is in it.
        if sys::stat(slot, name)?.is_some_and(|there| there.ino != staged) {
            let busy = || io::Error::from_raw_os_error(libc::EBUSY);
            let _lock = PublishLock::take(beside)?.ok_or_else(busy)?;
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

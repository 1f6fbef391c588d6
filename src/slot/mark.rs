//! The backup mark: with it in a slot, another process completes the backup if the writer is killed.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::beside::Beside;
use super::lock::PublishLock;
use super::observe::is_change;
use crate::sys::{self, EXCHANGE, NOREPLACE, errno};

/// The name of the mark in a slot: a symlink that is never followed. Its target is
/// `STAGED:REPLACED:DESTINATION/BACKUP`: two inodes, of which the second is 0 if there is no backup yet, and two names.
pub(super) const MARK: &str = ".atomik-backup";

/// How often a backup may appear or vanish while the displaced version gets its name.
const MAX_ROUNDS: u32 = 100;

/// Marks a slot before the publish: the version that the publish displaces is to be called `backup`.
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

/// Gives the displaced version in a slot the name of the backup: after the publish, and under the same publish lock.
/// The backup before it is in the slot then.
pub(crate) fn complete(slot: BorrowedFd, beside: Beside, backup: &OsStr) -> io::Result<()> {
    give_name(slot, beside.destination, beside.dir, backup)?;
    sys::unlink(slot, OsStr::new(MARK))
}

/// Completes the backup of a writer that was killed, or failed, before it did so. The process that holds the slot may
/// call this any number of times.
pub(super) fn complete_for_killed(beside: Beside, slot: BorrowedFd) -> io::Result<()> {
    if read(slot, OsStr::new(MARK))?.is_none() {
        return Ok(());
    }
    let busy = || io::Error::from_raw_os_error(libc::EBUSY);
    let _lock = PublishLock::take(beside)?.ok_or_else(busy)?;
    complete_under_lock(beside, slot)
}

/// Does the same for a process that holds the publish lock. Whoever holds the slot does not change its contents meanwhile:
/// a slot with a mark is changed under the publish lock only.
pub(super) fn complete_under_lock(beside: Beside, slot: BorrowedFd) -> io::Result<()> {
    let Some(target) = read(slot, OsStr::new(MARK))? else { return Ok(()) };
    if let Some(Mark { staged, replaced, name, backup }) = parse(&target) {
        if sys::stat(slot, name)?.is_some_and(|there| there.ino != staged) {
            let present = sys::stat(beside.dir, backup)?.map(|present| present.ino);
            if present.is_none_or(|present| present == replaced) {
                match give_name(slot, name, beside.dir, backup) {
                    // A filesystem that cannot exchange has displaced nothing: its inode numbers change (sshfs).
                    Err(error) if errno(&error) == libc::EINVAL && beside.domain().is_some() => {}
                    other => other?,
                }
            }
        }
    }
    sys::unlink(slot, OsStr::new(MARK))
}

/// Does the folder `slot` hold a mark?
pub(super) fn is_in(dir: BorrowedFd, slot: &OsStr) -> bool {
    matches!(read(dir, Path::new(slot).join(MARK).as_os_str()), Ok(Some(_)))
}

/// Reads a mark; `None` if there is none.
fn read(at: BorrowedFd, name: &OsStr) -> io::Result<Option<Vec<u8>>> {
    match sys::readlink(at, name) {
        Err(error) if is_change(&error) || errno(&error) == libc::EINVAL => Ok(None),
        other => other.map(|target| Some(target.into_vec())),
    }
}

/// A mark, taken apart.
struct Mark<'a> {
    staged: u64,
    replaced: u64,
    name: &'a OsStr,
    backup: &'a OsStr,
}

/// Takes the target of a mark apart; `None` if this library has not made it.
fn parse(target: &[u8]) -> Option<Mark<'_>> {
    let mut parts = target.splitn(3, |byte| *byte == b':');
    let mut inode = || std::str::from_utf8(parts.next()?).ok()?.parse().ok();
    let (staged, replaced) = (inode()?, inode()?);
    let names = parts.next()?;
    let slash = names.iter().position(|byte| *byte == b'/')?;
    let (name, backup) = (OsStr::from_bytes(&names[..slash]), OsStr::from_bytes(&names[slash + 1..]));
    Some(Mark { staged, replaced, name, backup })
}

/// Gives the version `name` in a slot the name of the backup. A backup that has this name gets into the slot.
fn give_name(slot: BorrowedFd, name: &OsStr, dir: BorrowedFd, backup: &OsStr) -> io::Result<()> {
    for _ in 0..MAX_ROUNDS {
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

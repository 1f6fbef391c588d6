//! Copies the content of one file.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::checkpoint::Checkpoint;
use crate::metadata;
use crate::sys::{self, Stat};

/// Files up to this size are copied without a search for holes: there is little to save.
const MAX_SIZE_WITHOUT_HOLES: u64 = 64 << 10;
/// How many bytes are copied between two looks at the checkpoint.
const MAX_BYTES_AT_ONCE: u64 = 64 << 20;

/// The calls that work between the filesystems of original and clone. An answer counts for this clone only.
pub(super) struct Means {
    reflink: AtomicBool,
    copy_range: AtomicBool,
    /// Has the filesystem inode flags?
    flags: AtomicBool,
    /// Has an original had a flag, which copies may inherit from their folder?
    inherited_flags: AtomicBool,
}

impl Means {
    pub(super) fn new() -> Self {
        let (yes, no) = (|| AtomicBool::new(true), AtomicBool::new(false));
        Self { reflink: yes(), copy_range: yes(), flags: yes(), inherited_flags: no }
    }
}

/// Gives an empty copy the original's inode flags. The flag against copy-on-write takes effect on empty files only, and
/// two files share blocks only if both have it or neither has.
pub(super) fn give_flags(from: BorrowedFd, to: BorrowedFd, means: &Means) -> io::Result<()> {
    if !means.flags.load(Ordering::Relaxed) {
        return Ok(());
    }
    match metadata::flags::of(from)? {
        None => means.flags.store(false, Ordering::Relaxed),
        Some(0) if !means.inherited_flags.load(Ordering::Relaxed) => {}
        Some(flags) => {
            means.inherited_flags.store(true, Ordering::Relaxed);
            metadata::flags::give(to, flags)?;
        }
    }
    Ok(())
}

/// Copies a file's content into an empty file.
pub(crate) fn content(from: BorrowedFd, to: BorrowedFd, stat: &Stat, checkpoint: Checkpoint) -> io::Result<()> {
    copy(from, to, stat, &Means::new(), checkpoint)
}

pub(super) fn copy(
    from: BorrowedFd,
    to: BorrowedFd,
    stat: &Stat,
    means: &Means,
    checkpoint: Checkpoint,
) -> io::Result<()> {
    if stat.size == 0 {
        return Ok(());
    }
    if means.reflink.load(Ordering::Relaxed) {
        if sys::reflink(from, to)? {
            return Ok(());
        }
        means.reflink.store(false, Ordering::Relaxed);
    }
    if stat.size <= MAX_SIZE_WITHOUT_HOLES && stat.allocated >= stat.size {
        return copy_data(from, to, 0, stat.size, means, checkpoint).map(drop);
    }
    let mut at = 0;
    while let Some((start, end)) = sys::next_data(from, at, stat.size)? {
        at = copy_data(from, to, start, end.min(stat.size), means, checkpoint)?;
        if at < end || at >= stat.size {
            break;
        }
    }
    // A hole at the end has no data to copy.
    sys::resize(to, stat.size)
}

/// Copies a range; answers with the position behind the last byte copied, which is `end` unless the file ends before.
fn copy_data(
    from: BorrowedFd,
    to: BorrowedFd,
    start: u64,
    end: u64,
    means: &Means,
    checkpoint: Checkpoint,
) -> io::Result<u64> {
    let mut at = start;
    while at < end {
        checkpoint()?;
        let wanted = MAX_BYTES_AT_ONCE.min(end - at);
        let copied =
            if means.copy_range.load(Ordering::Relaxed) { sys::copy_range(from, to, at, wanted)? } else { None };
        let copied = if let Some(copied) = copied {
            copied
        } else {
            means.copy_range.store(false, Ordering::Relaxed);
            read_and_write(from, to, at, wanted)?
        };
        if copied == 0 {
            break;
        }
        at += copied;
    }
    Ok(at)
}

fn read_and_write(from: BorrowedFd, to: BorrowedFd, at: u64, wanted: u64) -> io::Result<u64> {
    let place = i64::try_from(at).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    let mut buffer = vec![0; usize::try_from(wanted.min(1 << 20)).unwrap_or(1 << 20)];
    sys::set_position(from, place)?;
    let length = sys::read(from, &mut buffer)?;
    sys::set_position(to, place)?;
    sys::write_all(to, buffer[..length].into())?;
    Ok(length as u64)
}

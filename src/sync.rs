//! Makes content durable before it is published. A failed sync is final: it is never repeated, and
//! nothing is published after one.
//!
//! Where the journal makes it enough ([`Journal::one_flush`](crate::mount::Journal)), a commit waits for one flush of the disk, that of the
//! journal's commit, instead of two. Its steps are `sync_file_range` with both waits, the publish, and
//! the `fsync` of the parent; on journaled ext4 and on xfs they end in the same:
//!
//! - When `sync_file_range` has returned, the content is on the disk or in its cache, and the metadata that leads to
//!   it (extents, size) is in the journal's memory: both filesystems end write-back only then.
//! - So are mode, owner and attributes, which were set before, and folders and names, which were made before.
//! - The publish is in the same transaction or in a later one, and transactions become durable in their order.
//! - The journal flushes the disk's cache before each commit record: whoever finds the publish after a power cut
//!   finds the content. That holds whoever asks for the commit, so "ordered" asks for none.
//!
//! The `fsync` of the parent commits the transaction of the publish, and returns after it. A parent that cannot be read
//! is made durable by `syncfs`, which commits the same journal.

mod memory;
mod tree;

use std::ffi::OsStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use crate::checkpoint::Checkpoint;
use crate::destination::Destination;
use crate::error::{Error, ErrorKind, Hint, Result};
use crate::mount::Mount;
use crate::options::{Durability, Settings};
use crate::sys;
use tree::{Size, Way, range};

/// Does the environment allow to wait for one flush only? `ATOMIK_SINGLE_FLUSH=0` does not.
fn allowed() -> bool {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    *ALLOWED.get_or_init(|| std::env::var_os("ATOMIK_SINGLE_FLUSH").is_none_or(|value| value != OsStr::new("0")))
}

/// Do commits on this mount wait for one flush of the disk, and not for two?
pub(crate) fn single_flush(mount: Mount) -> bool {
    allowed() && mount.journal.one_flush
}

/// What is synced and kept so that a displaced version outlives a power cut.
pub(crate) struct Care {
    pub(crate) durability: Durability,
    /// Keeps the blocks of a file that is replaced from being used again.
    _replaced: Option<OwnedFd>,
}

/// Finds out what the durability that was asked for takes here; `file`: what is replaced is a file.
pub(crate) fn care(durability: Durability, destination: &Destination, file: bool) -> Care {
    if durability == Durability::NoSync || !destination.mount().journal.frees_early {
        return Care { durability, _replaced: None };
    }
    // What cannot be opened has gone.
    let replaced = if file { sys::open_name(destination.parent(), &destination.name).ok() } else { None };
    Care { durability: Durability::Full, _replaced: replaced }
}

/// Makes one file's content and metadata safe to publish.
pub(crate) fn file(fd: BorrowedFd, settings: &Settings, destination: &Destination) -> Result<()> {
    if settings.durability == Durability::NoSync {
        return Ok(());
    }
    let synced = if settings.single_flush && single_flush(destination.mount()) { range(fd) } else { sys::fsync(fd) };
    synced.map_err(|error| not_published(destination, error))
}

/// Syncs one file by itself, under the name that it has by now.
pub(crate) fn again(fd: BorrowedFd, destination: &Destination) -> Result<()> {
    sys::fsync(fd).map_err(|error| not_published(destination, error))
}

/// Makes a folder with everything in it safe to publish, in the cheapest way that is sure. `since` was opened before
/// anything was written: `syncfs` reports the errors since then.
pub(crate) fn folder(
    fd: BorrowedFd,
    since: BorrowedFd,
    settings: &Settings,
    destination: &Destination,
    checkpoint: Checkpoint,
) -> Result<()> {
    if settings.durability == Durability::NoSync {
        return Ok(());
    }
    let mount = destination.mount();
    let one_flush = settings.single_flush && single_flush(mount);
    everything(fd, since, mount, one_flush, checkpoint).map_err(|error| not_published(destination, error))
}

fn everything(
    fd: BorrowedFd,
    since: BorrowedFd,
    mount: Mount,
    one_flush: bool,
    checkpoint: Checkpoint,
) -> io::Result<()> {
    let whole = mount.syncfs_works();
    if !one_flush && whole {
        let size = if mount.is_memory() { Size::Many } else { tree::size(fd, checkpoint)? };
        match size {
            Size::Few(few) => return few.sync(fd, checkpoint),
            Size::Some => {}
            Size::Many => match sys::syncfs(since) {
                // In a sandbox without it.
                Err(error) if matches!(sys::errno(&error), libc::ENOSYS | libc::EPERM) => {}
                other => return other,
            },
        }
    }
    let way = match (one_flush, mount.syncs_in_turn()) {
        (true, _) => Way::Ranges,
        (false, true) => Way::Fsync,
        (false, false) => Way::Together,
    };
    match tree::sync(fd, way, checkpoint)? {
        Some(_) if whole => sys::syncfs(since),
        Some(unreachable) => Err(unreachable),
        None => Ok(()),
    }
}

fn not_published(destination: &Destination, error: io::Error) -> Error {
    destination.failed("syncing the new version", error).kind_is(ErrorKind::Durability).hint(Hint::NotPublished)
}

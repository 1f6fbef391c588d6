//! Clones the files of one folder.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, PoisonError};

use nix::fcntl::OFlag;

use super::shared::{Batch, Born, Failure, Place, Shared};
use crate::checkpoint::Checkpoint;
use crate::clone::content::{copy, give_flags};
use crate::error::Hint;
use crate::metadata::{self, Metadata};
use crate::sys;

/// Clones the files of a batch. The first failure is noted in `shared`, and stops all threads.
pub(super) fn clone_batch(shared: &Shared, batch: &Batch, checkpoint: Checkpoint) {
    for (name, kind) in &batch.files {
        if shared.go_on().is_err() {
            return;
        }
        if let Err((error, hint)) = clone_entry(shared, batch, name, *kind, checkpoint) {
            shared.fail(Failure { place: batch.into.place.path(name), error, hint });
            return;
        }
    }
}

type Refusal = (io::Error, Option<Hint>);

fn clone_entry(shared: &Shared, batch: &Batch, name: &OsStr, kind: u8, checkpoint: Checkpoint) -> Result<(), Refusal> {
    let plain = |error: io::Error| (error, None);
    let (from, to) = (batch.from.as_fd(), batch.into.fd.as_fd());
    match kind {
        libc::DT_REG => clone_file(shared, batch, name, checkpoint),
        libc::DT_LNK => {
            let Some(stat) = sys::stat(from, name).map_err(plain)? else { return Ok(()) };
            let target = sys::readlink(from, name).map_err(plain)?;
            sys::symlink(&target, to, name).and_then(|()| metadata::give_name(to, name, &stat)).map_err(plain)
        }
        libc::DT_FIFO => {
            let Some(stat) = sys::stat(from, name).map_err(plain)? else { return Ok(()) };
            sys::make_fifo(to, name, stat.permissions())
                .and_then(|()| metadata::give_name(to, name, &stat))
                .map_err(plain)
        }
        _ => Err((io::Error::from_raw_os_error(libc::EINVAL), Some(Hint::NotCopied))),
    }
}

fn clone_file(shared: &Shared, batch: &Batch, name: &OsStr, checkpoint: Checkpoint) -> Result<(), Refusal> {
    let plain = |error: io::Error| (error, None);
    let from = sys::open_any(batch.from.as_fd(), name).map_err(plain)?;
    let stat = sys::stat_fd(from.as_fd()).map_err(plain)?;
    if stat.mount_root {
        return Err((io::Error::from_raw_os_error(libc::EXDEV), Some(Hint::MountInside)));
    }
    if stat.kind() != libc::S_IFREG {
        return Err((io::Error::from_raw_os_error(libc::EINVAL), Some(Hint::NotCopied)));
    }
    let new = || {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        sys::openat(batch.into.fd.as_fd(), name, flags, 0o600)
    };
    let to = if stat.links > 1 {
        let mut links = shared.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((place, first, left)) = links.get_mut(&(stat.dev, stat.ino)) {
            link(batch, place, first, name).map_err(plain)?;
            *left -= 1;
            if *left == 0 {
                links.remove(&(stat.dev, stat.ino));
            }
            return Ok(());
        }
        let to = new().map_err(plain)?;
        links.insert((stat.dev, stat.ino), (Arc::clone(&batch.into.place), name.to_owned(), stat.links - 1));
        to
    } else {
        new().map_err(plain)?
    };
    give_flags(from.as_fd(), to.as_fd(), &shared.means).map_err(plain)?;
    copy(from.as_fd(), to.as_fd(), &stat, &shared.means, checkpoint).map_err(plain)?;
    let born = if let Some(born) = batch.into.born.get() {
        born
    } else {
        let stat = sys::stat_fd(to.as_fd()).map_err(plain)?;
        let acl = metadata::has_acl(to.as_fd()).map_err(plain)?;
        batch.into.born.get_or_init(|| Born { stat, acl })
    };
    let metadata = Metadata::all(from.as_fd(), stat).map_err(plain)?;
    metadata.give_all(to.as_fd(), Some((&born.stat, born.acl))).map_err(plain)
}

/// Links a file whose first name has been cloned before. The path of a call is never longer than one name.
fn link(batch: &Batch, place: &Place, first: &OsStr, name: &OsStr) -> io::Result<()> {
    let to = batch.into.fd.as_fd();
    if std::ptr::eq(place, &raw const *batch.into.place) {
        return sys::link(to, first, to, name);
    }
    let mut dir = batch.into.shared.root.try_clone_to_owned()?;
    for name in place.names() {
        dir = sys::open_folder(dir.as_fd(), name)?;
    }
    sys::link(dir.as_fd(), first, to, name)
}

//! Trials before the body: can the calls that the publish will need be made here? An hour of work must not end in
//! "not supported".

use std::ffi::OsStr;
use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::fcntl::OFlag;

use crate::checkpoint;
use crate::destination::{Destination, Kind};
use crate::error::{Error, ErrorKind, Hint, Result};
use crate::options::{Settings, Siblings, Start};
use crate::publish::{is_unsupported, move_file};
use crate::slot::{self, Slot};
use crate::sys::{self, EXCHANGE, NOREPLACE, Stat, errno};
use crate::tree;

/// Tries in an empty slot all that publishing from it will need. A folder's staging is there afterwards: the trial makes it.
pub(crate) fn in_slot(
    destination: &Destination,
    slot: BorrowedFd,
    kind: Kind,
    old: Option<Stat>,
    settings: &Settings,
) -> Result<()> {
    let mut again = false;
    destination.patiently(|| {
        if mem::replace(&mut again, true) {
            // What cannot be removed makes the trial fail again.
            drop(tree::remove_below(slot, &mut checkpoint::go_on));
        }
        try_in_slot(destination, slot, kind, old, settings)
    })
}

fn try_in_slot(
    destination: &Destination,
    slot: BorrowedFd,
    kind: Kind,
    old: Option<Stat>,
    settings: &Settings,
) -> Result<()> {
    let (exists, replaces_folder) = (old.is_some(), old.is_some_and(|old| old.is_folder()));
    let backup = settings.backup.is_some();
    if backup && (exists || destination.slots().domain().is_some()) {
        try_to_mark(destination, slot)?;
    }
    if settings.siblings == Siblings::Publish {
        // What a group needs.
        try_to_move_a_file(destination, slot)?;
        if exists {
            try_to_exchange(destination, slot)?;
        }
    }
    if kind == Kind::Folder || replaces_folder || exists && backup {
        try_with_folders(destination, slot, old, settings.overwrite)?;
        if kind == Kind::Any {
            // The tool makes it.
            sys::rmdir(slot, &destination.name).map_err(|error| destination.failed("creating staging", error))?;
        }
        return try_to_move_the_old(destination, slot, old);
    }
    let starts = settings.start != Start::Empty || backup;
    if !settings.overwrite || !exists && starts { try_to_move_a_file(destination, slot) } else { Ok(()) }
}

/// Tries with two folders the call that publishes a folder, and leaves one of them under the name of staging.
fn try_with_folders(destination: &Destination, slot: BorrowedFd, old: Option<Stat>, overwrite: bool) -> Result<()> {
    let (name, probe) = (&destination.name, slot::scratch("probe", &destination.name));
    let failed = |error| destination.failed("creating staging", error);
    let flags = if old.is_some() { EXCHANGE } else { NOREPLACE };
    if is_known_to_take(destination, slot, flags) {
        return sys::mkdir(slot, name, 0o777).map(drop).map_err(failed);
    }
    sys::mkdir(slot, &probe, 0o777).map_err(failed)?;
    let tried = if old.is_some() {
        sys::mkdir(slot, name, 0o777).map_err(failed)?;
        let tried = sys::renameat2(slot, &probe, slot, name, EXCHANGE);
        sys::rmdir(slot, &probe).map_err(failed)?;
        tried
    } else {
        sys::renameat2(slot, &probe, slot, name, NOREPLACE)
    };
    match tried {
        Ok(()) => {
            destination.slots().has_done(flags);
            Ok(())
        }
        // rename(2) is enough to replace what is missing or empty: see `publish::staged`.
        Err(error) if is_unsupported(&error) && old.is_none() && overwrite => {
            sys::renameat2(slot, &probe, slot, name, 0).map_err(failed)
        }
        Err(error) if is_unsupported(&error) => Err(failed(error)
            .kind_is(ErrorKind::Unsupported)
            .hint(if old.is_some() { Hint::NoExchangeOfFolders } else { Hint::NoNoreplace })),
        Err(error) => Err(destination.unstaged(error)),
    }
}

/// Has this mount been seen to take these flags for folders? A sandbox may refuse them since then: for names that nothing has
/// the call changes nothing, and answers `ENOENT` where it is made at all.
fn is_known_to_take(destination: &Destination, slot: BorrowedFd, flags: u32) -> bool {
    destination.slots().can(flags) && is_let_through(destination, slot, flags)
}

fn is_let_through(destination: &Destination, slot: BorrowedFd, flags: u32) -> bool {
    let (one, other) = (slot::scratch("one", &destination.name), slot::scratch("other", &destination.name));
    sys::renameat2(slot, &one, slot, &other, flags).is_err_and(|error| errno(&error) == libc::ENOENT)
}

/// On an overlay a folder of a lower layer cannot be moved (`EXDEV`). Renaming it onto a folder
/// that is not empty never moves it, and answers `EXDEV` there and `ENOTEMPTY` elsewhere.
fn try_to_move_the_old(destination: &Destination, slot: BorrowedFd, old: Option<Stat>) -> Result<()> {
    // An overlay has no block device: where the old folder has one, there is nothing to ask.
    let may_be_lower = old.is_some_and(|old| old.is_folder() && old.dev >> 32 == 0);
    if !may_be_lower || !destination.mount().is_overlay() {
        return Ok(());
    }
    let full = slot::scratch("full", &destination.name);
    let inner = Path::new(&full).join("inner");
    let failed = |error| destination.failed("creating staging", error);
    sys::mkdir(slot, &full, 0o700).and_then(|_| sys::mkdir(slot, inner.as_os_str(), 0o700)).map_err(failed)?;
    let tried = sys::renameat2(destination.parent(), &destination.name, slot, &full, 0);
    for name in [inner.as_os_str(), &full] {
        sys::rmdir(slot, name).map_err(failed)?;
    }
    match tried {
        Err(error) if errno(&error) == libc::EXDEV => Err(failed(error).kind_by_errno().hint(Hint::LowerFolder)),
        _ => Ok(()),
    }
}

/// Tries, before the body, whether a file that has a name in a slot can be given another one without replacing what has it.
pub(crate) fn try_to_move_a_file(destination: &Destination, slot: BorrowedFd) -> Result<()> {
    let (one, other) = (slot::scratch("one", &destination.name), slot::scratch("other", &destination.name));
    // Local filesystems can.
    if destination.slots().domain().is_none() && is_let_through(destination, slot, NOREPLACE) {
        return Ok(());
    }
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
    let tried = sys::openat(slot, &one, flags, 0o600).and_then(|_| move_file(slot, &one, slot, &other));
    for name in [one, other] {
        // What resists goes with the slot.
        drop(sys::unlink(slot, &name));
    }
    tried.map(drop).map_err(|error| {
        // A full disk, say, and no missing call.
        if matches!(
            errno(&error),
            libc::ENOSPC | libc::EDQUOT | libc::EROFS | libc::EACCES | libc::EMFILE | libc::ENFILE
        ) {
            return destination.unstaged(error);
        }
        destination.failed("creating staging", error).kind_is(ErrorKind::Unsupported).hint(Hint::NoNoreplaceNorLinks)
    })
}

/// May something be moved from one folder to another? `name` is a folder in the first. A sandbox is asked before the filesystem,
/// and no filesystem links a folder (`EPERM`), so that nothing is changed by asking. Landlock answers `EXDEV`, as it will to
/// the rename; a rename within one folder it does not mind.
pub(crate) fn may_move(from: BorrowedFd, name: &OsStr, to: BorrowedFd, target: &OsStr) -> io::Result<()> {
    match sys::link(from, name, to, target) {
        Err(error) if errno(&error) == libc::EXDEV => Err(error),
        _ => Ok(()),
    }
}

/// The same, before the body, between a slot and the folder of the destination.
pub(crate) fn try_to_move(destination: &Destination, slot: &Slot) -> Result<()> {
    // What is moved from `tmp_dir` crosses that boundary, too.
    let to = if destination.elsewhere() { destination.parent() } else { slot.fd.as_fd() };
    let target = slot::scratch("link", &destination.name);
    may_move(destination.staging(), slot.path().as_os_str(), to, &target).map_err(|error| unmoved(destination, error))
}

/// The same between the slot of a group, which stands beside `home`, and the folder of a member.
pub(crate) fn try_to_move_from(home: &Destination, slot: &Slot, destination: &Destination) -> Result<()> {
    let parents = sys::stat_fd(home.parent()).and_then(|one| Ok((one, sys::stat_fd(destination.parent())?)));
    let (here, there) = parents.map_err(|error| destination.unstaged(error))?;
    let to = if here.same(&there) { slot.fd.as_fd() } else { destination.parent() };
    let target = slot::scratch("link", &destination.name);
    may_move(home.parent(), slot.path().as_os_str(), to, &target).map_err(|error| unmoved(destination, error))
}

fn unmoved(destination: &Destination, error: io::Error) -> Error {
    destination.failed("creating staging", error).kind_is(ErrorKind::Unsupported).hint(Hint::NoMoves)
}

/// May this thread give an unnamed file its name? A sandbox may refuse `linkat(2)`. `.` is a name that is always taken:
/// where the call is made at all it answers `EEXIST`. That is asked once in a thread, since a sandbox may be its alone.
pub(crate) fn may_link(file: BorrowedFd, dir: BorrowedFd) -> bool {
    thread_local! {
        /// The generation of the process in which it could.
        static COULD: std::cell::Cell<Option<u32>> = const { std::cell::Cell::new(None) };
    }
    let generation = sys::fork_generation();
    if COULD.get() == Some(generation) {
        return true;
    }
    let can = sys::link_fd(file, dir, OsStr::new(".")).is_err_and(|error| errno(&error) == libc::EEXIST);
    if can {
        COULD.set(Some(generation));
    }
    can
}

/// Tries, before the body, whether two names can be exchanged beside the destination, and a backup be marked.
pub(crate) fn try_exchange(destination: &Destination) -> Result<()> {
    let slots = destination.slots();
    let slot = Slot::take(slots).map_err(|error| destination.failed("creating staging", error))?;
    let tried = try_to_move(destination, &slot)
        .and_then(|()| try_to_exchange(destination, slot.fd.as_fd()))
        .and_then(|()| try_to_mark(destination, slot.fd.as_fd()));
    // What resists is removed with the slot that the commit takes.
    drop(slot.give_back(slots, &mut checkpoint::go_on));
    tried
}

/// The same in a slot; both names are gone afterwards.
pub(crate) fn try_to_exchange(destination: &Destination, slot: BorrowedFd) -> Result<()> {
    if is_known_to_take(destination, slot, EXCHANGE) {
        return Ok(());
    }
    let (one, other) = (slot::scratch("one", &destination.name), slot::scratch("other", &destination.name));
    let tried = sys::mkdir(slot, &one, 0o700)
        .and_then(|_| sys::mkdir(slot, &other, 0o700))
        .and_then(|_| sys::renameat2(slot, &one, slot, &other, EXCHANGE));
    for name in [one, other] {
        // What resists goes with the slot.
        drop(sys::rmdir(slot, &name));
    }
    tried.map(|()| destination.slots().has_done(EXCHANGE)).map_err(|error| {
        let unsupported = is_unsupported(&error);
        let error = destination.failed("creating staging", error);
        if unsupported { error.kind_is(ErrorKind::Unsupported).hint(Hint::NoExchange) } else { error }
    })
}

/// Tries, before the body, whether a mark can be made in a slot: vfat, exFAT and rclone have no symlinks.
pub(crate) fn try_to_mark(destination: &Destination, slot: BorrowedFd) -> Result<()> {
    let name = slot::scratch("mark", &destination.name);
    let tried = sys::symlink(OsStr::new("tried"), slot, &name).and_then(|()| sys::unlink(slot, &name));
    tried.map_err(|error| {
        destination.failed("creating staging", error).kind_is(ErrorKind::Unsupported).hint(Hint::NoSymlinks)
    })
}

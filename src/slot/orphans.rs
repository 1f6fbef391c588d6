//! What others have left: looking at it, and removing it if it is an orphan.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime};

use super::name::{is_name, number_of};
use super::{Beside, MOST, Slot};
use crate::backup;
use crate::sys::{self, Lock, Stat, User, errno};
use crate::tree::{self, Checkpoint};

/// Removes the name that a writer left which was killed while it held the lock.
pub(crate) fn remove_orphan_lock(dir: BorrowedFd, lock: &OsStr, user: &User) -> io::Result<()> {
    if sys::stat(dir, lock)?.is_none() {
        return Ok(());
    }
    let fd = match sys::open_any(dir, lock) {
        Err(error) if errno(&error) == libc::ENOENT || is_no_slot(&error) => return Ok(()),
        other => other?,
    };
    let Some(stat) = stat_opened(fd.as_fd())? else { return Ok(()) };
    let ours = stat.uid == user.id() && stat.kind() == libc::S_IFREG;
    if ours && sys::lock(fd.as_fd(), false)? == Lock::Held && is_named(dir, lock, &stat)? {
        sys::unlink(dir, lock)?;
    }
    Ok(())
}

/// What removing says of an orphan that somebody has put something in: immutable, mounted, just written.
const RESISTANCE: [i32; 6] = [libc::EPERM, libc::EACCES, libc::EBUSY, libc::EXDEV, libc::ENOTEMPTY, libc::EEXIST];

/// What opening says of a symlink, a socket, a lease, a file of somebody else's: nothing that we have made.
pub(super) fn is_no_slot(error: &io::Error) -> bool {
    let strange = [libc::ELOOP, libc::ENXIO, libc::ENODEV, libc::EACCES, libc::EPERM, libc::EAGAIN, libc::ETXTBSY];
    strange.contains(&errno(error))
}

pub(super) fn is_named(dir: BorrowedFd, name: &OsStr, stat: &Stat) -> io::Result<bool> {
    Ok(sys::stat(dir, name)?.is_some_and(|named| named.same(stat)))
}

/// What was found under the name of a slot.
pub(super) enum Found {
    /// Nothing.
    Missing,
    /// An orphan, which was removed or, if that was asked, emptied.
    Orphan,
    /// Somebody holds its lock.
    Alive,
    /// A file that is on its way to the destination: gone in a moment.
    Passing,
    /// Pinned, another user's, holding something that resists, or no slot at all: it is left.
    Kept,
    /// Kept by a failing disk or a read-only filesystem, or without locks to tell whether it is an orphan.
    Failed(io::Error),
}

impl Found {
    /// Is somebody alive there?
    pub(super) fn is_in_use(&self) -> bool {
        matches!(self, Found::Alive | Found::Passing)
    }

    /// Is there something that stays?
    pub(super) fn is_taken(&self) -> bool {
        self.is_in_use() || matches!(self, Found::Kept | Found::Failed(_))
    }
}

/// What to do with an orphan.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Orphans {
    Remove,
    Empty,
}

/// What an inspection has found.
pub(crate) enum Inspected {
    Alive,
    /// Pinned, another user's, too young, a way to one that is alive, or no slot at all.
    Kept,
    Orphan {
        bytes: u64,
        files: u64,
        changed: SystemTime,
        removed: bool,
    },
}

/// Looks at a name of ours for a sweep, and removes it if it is an orphan and that is asked. What
/// leads to a slot `alive_above` is emptied only.
pub(crate) fn inspect(
    beside: Beside,
    name: &OsStr,
    dry_run: bool,
    alive_above: bool,
    older_than: Option<Duration>,
    checkpoint: Checkpoint,
) -> io::Result<Inspected> {
    let Ok(fd) = sys::open_any(beside.dir, name) else { return Ok(Inspected::Kept) };
    let Some(stat) = stat_opened(fd.as_fd())? else { return Ok(Inspected::Kept) };
    let random = !is_name(name) && stat.is_folder();
    let age = SystemTime::now().duration_since(stat.modified()).unwrap_or_default();
    // Root sweeps its own, too: what a user's next writer removes is that user's.
    if stat.uid != beside.user.id() || !is_ours(beside, &stat)? {
        return Ok(Inspected::Kept);
    }
    match sys::lock(fd.as_fd(), false)? {
        Lock::Taken => return Ok(Inspected::Alive),
        Lock::Unsupported if older_than.is_none_or(|limit| age < limit) => return Ok(Inspected::Kept),
        Lock::Held if random && older_than.is_none_or(|limit| age < limit) => return Ok(Inspected::Kept),
        _ => {}
    }
    if !is_named(beside.dir, name, &stat)? {
        return Ok(Inspected::Kept);
    }
    let (bytes, files) = match stat.kind() {
        libc::S_IFREG => (stat.allocated, 1),
        libc::S_IFDIR if is_pinned(fd.as_fd())? => return Ok(Inspected::Kept),
        libc::S_IFDIR => tree::measure(fd.as_fd(), checkpoint)?,
        _ => return Ok(Inspected::Kept),
    };
    if alive_above && files == 0 {
        return Ok(Inspected::Kept);
    }
    let removed = !dry_run && {
        // Its own lock goes with the descriptor; `look` takes it again, in turn with the writers.
        drop(fd);
        let _turn = beside.turn()?;
        let orphans = if alive_above { Orphans::Empty } else { Orphans::Remove };
        if random || name.as_bytes().starts_with(b".atomik-lock.") {
            remove_lockless(beside, name, checkpoint)
        } else {
            matches!(look(beside, name, orphans, checkpoint)?, Found::Orphan)
        }
    };
    Ok(Inspected::Orphan { bytes, files, changed: stat.modified(), removed })
}

/// Removes what no lock protects, or the lock itself, which has been taken for the turn.
fn remove_lockless(beside: Beside, name: &OsStr, checkpoint: Checkpoint) -> bool {
    let mut remove = || -> io::Result<()> {
        if name.as_bytes().starts_with(b".atomik-lock.") {
            return Ok(());
        }
        let fd = sys::open_folder(beside.dir, name)?;
        clear(beside, fd.as_fd(), checkpoint)?;
        sys::rmdir(beside.dir, name)
    };
    remove().is_ok()
}

/// Does a reader hold a version in this slot?
fn is_pinned(slot: BorrowedFd) -> io::Result<bool> {
    for sys::Entry { name, .. } in list(slot)? {
        if let Ok(version) = sys::open_folder(slot, &name) {
            if sys::lock(version.as_fd(), false)? == Lock::Taken {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Removes a displaced version that its reader has let go of, unless somebody else has the slot.
pub(crate) fn remove_displaced(beside: Beside, slot: &OsStr, version: &Stat, checkpoint: Checkpoint) -> io::Result<()> {
    let Some(number) = number_of(slot) else { return Ok(()) };
    let fd = sys::open_folder(beside.dir, slot)?;
    let stat = sys::stat_fd(fd.as_fd())?;
    let free =
        is_ours(beside, &stat)? && sys::lock(fd.as_fd(), false)? == Lock::Held && is_named(beside.dir, slot, &stat)?;
    if !free || !sys::stat(fd.as_fd(), beside.destination)?.is_some_and(|there| there.same(version)) {
        return Ok(());
    }
    Slot { name: slot.to_owned(), fd, number: Some(number), lock_taken: false }.give_back(beside, checkpoint)
}

/// What is above a slot.
pub(crate) enum Above {
    Nothing,
    /// Orphans, now removed or emptied, or what is no slot.
    Orphans,
    Alive,
}

/// Removes the orphans from slot `number` on, and the lock of one that was killed: what a file's
/// publish does after it. The lock's name is the fourth of the names in a row that must be missing.
pub(crate) fn sweep_from(beside: Beside, number: u32, checkpoint: Checkpoint) -> io::Result<()> {
    sweep(beside, number, 3, Orphans::Remove, checkpoint)?;
    remove_orphan_lock(beside.dir, &beside.lock(), beside.user)
}

/// The same after a publish that needed no slot: one look tells that there is nothing.
pub(crate) fn sweep_all(beside: Beside, checkpoint: Checkpoint) -> io::Result<()> {
    match look(beside, &beside.name(0), Orphans::Empty, checkpoint)? {
        Found::Missing => Ok(()),
        _ => sweep_from(beside, 0, checkpoint),
    }
}

/// Empties orphans from slot `number` on, until so many names in a row are missing, the slot before
/// `number`, just given back, being the first: litter stays bounded without ever listing a folder.
/// If asked, removes those that are not below one that is alive: the others lead to it.
pub(super) fn sweep(
    beside: Beside,
    number: u32,
    names: u32,
    orphans: Orphans,
    checkpoint: Checkpoint,
) -> io::Result<Above> {
    let (mut missing, mut found, mut alive) = (1, Vec::new(), None);
    let mut above = Above::Nothing;
    for number in number..number.saturating_add(MOST) {
        if missing == names {
            break;
        }
        match look(beside, &beside.name(number), Orphans::Empty, checkpoint)? {
            Found::Missing => {
                missing += 1;
                continue;
            }
            Found::Orphan => found.push(number),
            Found::Alive | Found::Passing => alive = Some(number),
            Found::Kept | Found::Failed(_) => {}
        }
        above = Above::Orphans;
        missing = 0;
    }
    if orphans == Orphans::Remove {
        for number in found.into_iter().rev().take_while(|number| alive.is_none_or(|alive| *number > alive)) {
            // Somebody looks at it just now, and still has a turn to come: leave that one the way up.
            if look(beside, &beside.name(number), Orphans::Remove, checkpoint)?.is_in_use() {
                return Ok(Above::Alive);
            }
        }
    }
    Ok(if alive.is_some() { Above::Alive } else { above })
}

/// Describes what is open; `None` if it was removed meanwhile, which FUSE says so.
pub(super) fn stat_opened(fd: BorrowedFd) -> io::Result<Option<Stat>> {
    match sys::stat_fd(fd) {
        Err(error) if matches!(errno(&error), libc::ENOENT | libc::ESTALE) => Ok(None),
        other => other.map(Some),
    }
}

/// Is what is open a slot of this user?
pub(super) fn is_ours(beside: Beside, open: &Stat) -> io::Result<bool> {
    let user = beside.user.id();
    Ok(match open.kind() {
        // A file that root replaces gets its owner back before it has a name, unless everybody can put
        // files here: it cannot be told from that owner's own slot, and only the name is removed.
        libc::S_IFREG => open.uid == user || user == 0 && beside.look()?.mode & 0o002 == 0,
        libc::S_IFDIR => {
            let marked = open.mode & 0o1077 == 0o1000;
            open.uid == user && !open.mount_root && (marked || beside.mode()? == 0o700)
        }
        _ => false,
    })
}

/// Looks at what has the name of a slot, and removes or empties it if it is an orphan of this user: a
/// folder or a file whose lock is free. There is no other test.
pub(super) fn look(beside: Beside, name: &OsStr, orphans: Orphans, checkpoint: Checkpoint) -> io::Result<Found> {
    let dir = beside.dir;
    // Nearly always nothing is there, and looking a name up costs half of failing to open it.
    if sys::stat(dir, name)?.is_none() {
        return Ok(Found::Missing);
    }
    let fd = match sys::open_any(dir, name) {
        Err(error) if errno(&error) == libc::ENOENT => return Ok(Found::Missing),
        Err(error) if is_no_slot(&error) => return Ok(Found::Kept),
        other => other?,
    };
    let Some(stat) = stat_opened(fd.as_fd())? else { return Ok(Found::Missing) };
    // Before its lock: what a stranger holds is none of ours, and nobody waits for it.
    if !is_ours(beside, &stat)? {
        return Ok(Found::Kept);
    }
    match sys::lock(fd.as_fd(), false)? {
        Lock::Taken if stat.is_folder() => return Ok(Found::Alive),
        Lock::Taken => return Ok(Found::Passing),
        Lock::Unsupported => return Ok(Found::Failed(io::Error::from_raw_os_error(libc::ENOLCK))),
        Lock::Held if is_named(dir, name, &stat)? => {}
        Lock::Held => return Ok(if sys::stat(dir, name)?.is_none() { Found::Missing } else { Found::Kept }),
    }
    let removed = match stat.kind() {
        libc::S_IFDIR => match clear(beside, fd.as_fd(), checkpoint) {
            Ok(true) if orphans == Orphans::Remove => sys::rmdir(dir, name),
            Ok(true) => Ok(()),
            Ok(false) => return Ok(Found::Kept),
            Err(error) => Err(error),
        },
        _ => sys::unlink(dir, name),
    };
    match removed {
        Ok(()) => Ok(Found::Orphan),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
        // It is this process that cannot: the next slot would only be one more to remove.
        Err(error) if matches!(errno(&error), libc::EMFILE | libc::ENFILE | libc::ENOMEM) => Err(error),
        // Either way it stays, and nobody's commit fails for it.
        Err(error) if RESISTANCE.contains(&errno(&error)) => Ok(Found::Kept),
        Err(error) => Ok(Found::Failed(error)),
    }
}

/// Is nothing in a folder? One call tells: what is in it fills any buffer first.
pub(super) fn is_empty(slot: BorrowedFd) -> io::Result<bool> {
    let mut entries = Vec::new();
    sys::read_folder(slot, &mut [0_u8; 1024], &mut entries)?;
    Ok(entries.is_empty())
}

pub(super) fn list(slot: BorrowedFd) -> io::Result<Vec<sys::Entry>> {
    let mut entries = Vec::new();
    let reader = sys::open_folder(slot, OsStr::new("."))?;
    let mut buffer = vec![0_u8; 4096];
    while sys::read_folder(reader.as_fd(), &mut buffer, &mut entries)? {}
    Ok(entries)
}

/// Removes everything in a locked slot, but for what is to be a backup; `false` if a version in it is pinned.
pub(super) fn clear(beside: Beside, slot: BorrowedFd, checkpoint: Checkpoint) -> io::Result<bool> {
    let mut entries = list(slot)?;
    if entries.iter().any(|entry| entry.name == backup::MARK) {
        let names: Vec<_> = entries.iter().map(|entry| entry.name.as_os_str()).collect();
        backup::complete(slot, beside.dir, &names)?;
        entries = list(slot)?;
    }
    for sys::Entry { name, kind, .. } in &entries {
        if !matches!(*kind, libc::DT_DIR | libc::DT_UNKNOWN) {
            sys::unlink(slot, name)?;
            continue;
        }
        match sys::open_folder_same_mount(slot, name) {
            Ok(version) if sys::lock(version.as_fd(), false)? == Lock::Taken => return Ok(false),
            // The lock is kept until the version has gone: no reader pins what is being removed.
            Ok(version) => {
                match tree::remove_below(version.as_fd(), checkpoint) {
                    // Its owner may read but not search or change it.
                    Err(error) if errno(&error) == libc::EACCES => {
                        sys::chmod(version.as_fd(), 0o700)?;
                        tree::remove_below(version.as_fd(), checkpoint)?;
                    }
                    other => other?,
                }
                sys::rmdir(slot, name)?;
            }
            Err(error) if matches!(errno(&error), libc::ENOTDIR | libc::ELOOP) => sys::unlink(slot, name)?,
            // Something is mounted there.
            Err(error) if errno(&error) == libc::EXDEV => return Err(error),
            // Not readable by its owner: the removal below knows how.
            Err(_) => tree::remove_below(slot, checkpoint)?,
        }
    }
    Ok(true)
}

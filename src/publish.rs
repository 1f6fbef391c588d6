//! The publish: the one system call after which the destination is the new version.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::base::{self, Base};
use crate::checkpoint;
use crate::destination::{Destination, Kind};
use crate::error::{Error, ErrorKind, Hint, Result};
use crate::mount::Mount;
use crate::slot::{self, Linked};
use crate::sync;
use crate::sys::filesystems::CIFS;
use crate::sys::{self, NOREPLACE, Stat, errno};

/// How often a destination may appear and vanish under a publish before it gives up.
const ROUNDS: u32 = 100;

/// On what conditions a version is published, beside its durability.
#[derive(Clone, Copy)]
pub(crate) struct Terms<'a> {
    pub(crate) overwrite: bool,
    /// What must still be there.
    pub(crate) base: Option<&'a Base>,
    /// What the displaced version will be called.
    pub(crate) backup: Option<&'a OsStr>,
}

impl Terms<'_> {
    /// Refuses if the present version is not the one that the body started from.
    fn check(&self, destination: &Destination, now: Option<&Stat>) -> Result<()> {
        match self.base {
            Some(base) if !base.is(now, destination.slots().domain().is_none()) => {
                Err(base::conflict(&destination.path))
            }
            _ => Ok(()),
        }
    }

    /// The error of a destination that appeared where there was nothing.
    fn appeared(&self, destination: &Destination, error: std::io::Error) -> Error {
        if self.base.is_some() { base::conflict(&destination.path) } else { failed(destination, error) }
    }
}

/// What an old kernel, a sandbox or a filesystem without flags answers to `renameat2` with flags.
/// It is a fact about one call on one filesystem, and is never remembered.
pub(crate) fn is_unsupported(error: &std::io::Error) -> bool {
    matches!(errno(error), libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP | libc::EPERM)
}

/// The error of the call that gives a version the destination's name, or another name on the way there.
fn failed(destination: &Destination, error: std::io::Error) -> Error {
    let errno = errno(&error);
    let error = destination.failed("publishing", error).kind_by_errno();
    match errno {
        libc::EEXIST | libc::ENOTEMPTY => error.hint(Hint::Appeared),
        libc::EXDEV if !Mount::of(destination.parent()).is_overlay() => {
            error.kind_is(ErrorKind::Unsupported).hint(Hint::NoMoves)
        }
        libc::EXDEV => error.hint(Hint::LowerLayer),
        libc::EBUSY => error.hint(Hint::InUse),
        libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP => error.kind_is(ErrorKind::Unsupported).hint(Hint::NoPublish),
        libc::EACCES if sys::filesystem(destination.parent()).is_ok_and(|kind| CIFS.contains(&kind)) => {
            error.kind_is(ErrorKind::Busy).hint(Hint::OpenOnServer)
        }
        libc::EPERM | libc::EACCES => error.hint(Hint::NotReplaceable),
        libc::ENOENT => error.hint(Hint::ParentGone),
        _ => error,
    }
}

/// What an unnamed file needs before it gets the destination's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    Nothing,
    /// A slot's name, to be renamed.
    Name,
    /// And a sync under that name.
    NameAndSync,
}

/// How an unnamed file was published.
#[derive(Debug)]
pub(crate) enum Published {
    /// By a link, of which watchers (`inotify(7)`) get `IN_CREATE` only. When what is open here, under the new name, is
    /// closed, they get `IN_CLOSE_WRITE`, also if the process is killed. Its own descriptor has no name that they know.
    /// To give the file a slot's name and to rename that takes longer: 4 µs on tmpfs and 8 on ext4, against 1.5.
    Linked(Option<OwnedFd>),
    /// By renaming this name of a slot, which gives `IN_MOVED_TO`.
    Renamed(Linked),
}

/// Publishes an unnamed file.
pub(crate) fn unnamed(
    destination: &Destination,
    file: BorrowedFd,
    terms: Terms,
    exists: bool,
    before: Before,
) -> Result<Published> {
    let fail = |error| failed(destination, error);
    if !exists {
        terms.check(destination, None)?;
    }
    if !exists && before == Before::Nothing {
        match sys::link_fd(file, destination.parent(), &destination.name) {
            Err(error) if errno(&error) == libc::EEXIST && terms.base.is_some() => {
                return Err(terms.appeared(destination, error));
            }
            Err(error) if errno(&error) == libc::EEXIST && terms.overwrite => {}
            Err(error) => return Err(fail(error)),
            Ok(()) => return Ok(Published::Linked(open(destination))),
        }
    }
    let slots = destination.slots();
    let staging = |error| destination.failed("publishing", error);
    // Locked before it has a name: nobody ever takes it for an orphan.
    sys::lock(file, false).map_err(staging)?;
    let linked = Linked::link(file, slots).map_err(staging)?;
    let publish = || {
        if before == Before::NameAndSync {
            sync::again(file, destination)?;
        }
        named(destination, linked.dir(slots), &linked.name, terms)
    };
    match publish() {
        Ok(()) => Ok(Published::Renamed(linked)),
        Err(error) => {
            // If this fails too, the slot is an orphan, which the next writer removes.
            drop(sys::unlink(linked.dir(slots), &linked.name));
            drop(linked.give_back(slots, &mut checkpoint::go_on));
            Err(error)
        }
    }
}

/// Opens what was published by a link. What cannot be opened is a version that its owner may not write, or has gone:
/// its publish counts all the same.
fn open(destination: &Destination) -> Option<OwnedFd> {
    sys::open_published(destination.parent(), &destination.name).ok()
}

/// Gives watchers the `IN_CLOSE_WRITE` of a version that was not published by a rename; see [`Published::Linked`].
pub(crate) fn tell_watchers(destination: &Destination) {
    drop(open(destination));
}

/// Publishes a file or symlink that has a name in `dir`.
pub(crate) fn named(destination: &Destination, dir: BorrowedFd, name: &OsStr, terms: Terms) -> Result<()> {
    let replace = || rename(destination, dir, name, 0).map_err(|error| failed(destination, error));
    match terms.base {
        Some(base) if !base.is_nothing() => {
            let _lock = destination.lock_publish()?;
            terms.check(destination, destination.stat()?.as_ref())?;
            replace()
        }
        None if terms.overwrite => replace(),
        // A name that stays in the slot goes with the slot.
        _ => move_staged_file(destination, dir, name).map_err(|error| match errno(&error) {
            libc::EEXIST => terms.appeared(destination, error),
            _ => failed(destination, error),
        }),
    }
}

/// Renames what is staged to the destination.
fn rename(destination: &Destination, dir: BorrowedFd, name: &OsStr, flags: u32) -> std::io::Result<()> {
    patiently(destination, dir, name, || sys::renameat2(dir, name, destination.parent(), &destination.name, flags))
}

fn move_staged_file(destination: &Destination, dir: BorrowedFd, name: &OsStr) -> std::io::Result<()> {
    patiently(destination, dir, name, || {
        if let Moved::ByLink(_) = move_file(dir, name, destination.parent(), &destination.name)? {
            tell_watchers(destination);
        }
        Ok(())
    })
}

/// Repeats a publish that a FUSE or network filesystem answers oddly, unless it has happened all the same.
fn patiently(
    destination: &Destination,
    dir: BorrowedFd,
    name: &OsStr,
    publish: impl Fn() -> std::io::Result<()>,
) -> std::io::Result<()> {
    let slots = destination.slots();
    let staged = if slots.domain().is_some() { sys::stat(dir, name)? } else { None };
    let mut patience = slot::Patience::default();
    loop {
        let error = match publish() {
            Err(error) if patience.again(slots, &error) => error,
            other => return other,
        };
        let now = sys::stat(destination.parent(), &destination.name);
        if matches!((now, &staged), (Ok(Some(now)), Some(staged)) if now.same(staged)) {
            // The kernel has not seen it happen, and tells nobody.
            tell_watchers(destination);
            return Ok(());
        }
        // There was nothing to publish.
        if staged.is_none() {
            return Err(error);
        }
    }
}

/// How a file has got its new name.
pub(crate) enum Moved {
    ByRename,
    /// It is published: an error says why it has its old name, too.
    ByLink(std::io::Result<()>),
}

/// Renames a file without replacing: where `NOREPLACE` is missing, `link` and `unlink` promise the same.
pub(crate) fn move_file(dir: BorrowedFd, name: &OsStr, to: BorrowedFd, target: &OsStr) -> std::io::Result<Moved> {
    match sys::renameat2(dir, name, to, target, NOREPLACE) {
        Err(error) if is_unsupported(&error) => {
            sys::link(dir, name, to, target).map_err(|linked| if is_unsupported(&linked) { error } else { linked })?;
            Ok(Moved::ByLink(sys::unlink(dir, name)))
        }
        other => other.map(|()| Moved::ByRename),
    }
}

/// What a slot holds for a destination.
#[derive(Clone, Copy)]
pub(crate) struct InSlot<'a> {
    pub(crate) slot: BorrowedFd<'a>,
    pub(crate) name: &'a OsStr,
    pub(crate) kind: Kind,
}

/// Publishes what is staged in a slot and keeps there what it displaces; `exists` is what was seen just before.
/// Answers the exchange, or `None` if there was nothing to replace. Where `NOREPLACE` is missing `move_file` promises
/// the same for a file, and for a folder, if replacing was asked for, plain `rename`: it replaces nothing but an empty
/// folder.
pub(crate) fn staged(
    destination: &Destination,
    new: InSlot,
    terms: Terms,
    mut exists: bool,
) -> Result<Option<Exchanged>> {
    let InSlot { slot, name, kind } = new;
    let overwrite = terms.overwrite;
    for _ in 0..ROUNDS {
        if exists {
            if let Some(exchanged) = exchange(destination, new, terms)? {
                return Ok(Some(exchanged));
            }
        }
        terms.check(destination, None)?;
        let moved = match kind {
            Kind::File => move_staged_file(destination, slot, name),
            _ => rename(destination, slot, name, NOREPLACE),
        };
        match moved {
            Err(error) if kind != Kind::File && overwrite && is_unsupported(&error) => {
                return rename(destination, slot, name, 0)
                    .map(|()| None)
                    .map_err(|error| unreplaced(destination, error));
            }
            Err(error) if terms.base.is_some() && errno(&error) == libc::EEXIST => {
                return Err(terms.appeared(destination, error));
            }
            Err(error) if overwrite && matches!(errno(&error), libc::EEXIST | libc::ENOTEMPTY) => {
                exists = destination.check(kind, true, false)?.is_some();
            }
            other => return other.map(|()| None).map_err(|error| failed(destination, error)),
        }
    }
    Err(Error::errno("publishing", &destination.path, libc::EBUSY).kind_is(ErrorKind::Busy).hint(Hint::KeepsChanging))
}

/// The error of a folder that plain `rename` cannot publish, since another has appeared at the destination meanwhile.
/// sshfs says `EPERM` of that.
fn unreplaced(destination: &Destination, error: std::io::Error) -> Error {
    // NFS may say that nothing is there for some seconds more.
    let full = matches!(errno(&error), libc::ENOTEMPTY | libc::EEXIST);
    if full || matches!(destination.stat(), Ok(Some(now)) if now.is_folder()) {
        return destination.failed("publishing", error).kind_is(ErrorKind::Unsupported).hint(Hint::FolderAppeared);
    }
    failed(destination, error)
}

/// What an exchange has left to do.
pub(crate) struct Exchanged {
    /// Is the name of the publish lock gone?
    pub(crate) lock_gone: bool,
    /// The mode of the displaced folder, if it had to be made writable to be moved.
    pub(crate) displaced_mode: Option<u32>,
}

/// Exchanges staging and destination under the publish lock; `None` if the destination has vanished.
pub(crate) fn exchange(destination: &Destination, new: InSlot, terms: Terms) -> Result<Option<Exchanged>> {
    let InSlot { slot, name, kind } = new;
    let (parent, target) = (destination.parent(), &destination.name);
    let lock = destination.lock_publish()?;
    let fail = |error| destination.failed("publishing", error);
    if terms.base.is_some() || terms.backup.is_some() {
        let now = destination.stat()?;
        terms.check(destination, now.as_ref())?;
        if now.is_none() {
            return Ok(None);
        }
        if let Some(backup) = terms.backup {
            slot::mark(slot, destination.beside(), backup).map_err(fail)?;
        }
    }
    // Needed for an undo, which hardly ever comes of anything else than such terms.
    let staged = if terms.base.is_some() { sys::stat(slot, name).map_err(fail)? } else { None };
    let swap = || sys::renameat2(slot, name, parent, target, sys::EXCHANGE);
    let mut exchanged = swap();
    let mut writable = None;
    if matches!(&exchanged, Err(error) if errno(error) == libc::EACCES) {
        // The displaced folder moves to another parent too, and may not be writable by its owner.
        // By one handle: whatever takes the name meanwhile keeps its own mode.
        let old = sys::open_handle(parent, target).and_then(|old| sys::stat_fd(old.as_fd()).map(|stat| (old, stat)));
        let (old, stat) = old.map_err(fail)?;
        let mode = stat.permissions();
        if mode & 0o200 == 0 && sys::chmod_handle(old.as_fd(), mode | 0o200).is_ok() {
            exchanged = swap();
            if exchanged.is_err() {
                sys::chmod_handle(old.as_fd(), mode).map_err(fail)?;
            } else {
                writable = Some((old, mode));
            }
        }
    }
    match exchanged {
        Ok(()) => {}
        Err(error) if errno(&error) == libc::ENOENT => return Ok(None),
        Err(error) => return Err(failed(destination, error)),
    }
    // Something else may have taken the name since it was checked, by a rename that asks for no lock.
    // Under the lock nobody has built on our version yet: it is taken back.
    // What cannot be looked at is what was checked under the lock.
    let displaced = sys::stat(slot, name).unwrap_or_default();
    let refused = match (&displaced, kind) {
        (Some(displaced), Kind::Folder) if displaced.kind() == libc::S_IFREG => {
            Err(Error::errno("publishing", &destination.path, libc::ENOTDIR).hint(Hint::FileByFolder))
        }
        (Some(displaced), Kind::File) if displaced.is_folder() => {
            Err(Error::errno("publishing", &destination.path, libc::EISDIR).hint(Hint::FolderByFile))
        }
        (Some(displaced), _) => terms.check(destination, Some(displaced)),
        (None, _) => Ok(()),
    };
    // What was made writable for the move gets its mode back where it stays.
    let restore = || match &writable {
        Some((old, mode)) => sys::chmod_handle(old.as_fd(), *mode),
        None => Ok(()),
    };
    // A writer of another lock domain does not see this lock, and may have published in between: its version goes back.
    let undo = || {
        swap()?;
        match (&staged, sys::stat(slot, name)) {
            (Some(staged), Ok(Some(now))) if !now.same(staged) => swap(),
            _ => Ok(()),
        }
    };
    if let Err(refusal) = refused {
        undo().and_then(|()| restore()).map_err(|error| failed(destination, error).after_publish())?;
        return Err(refusal);
    }
    if terms.backup.is_some_and(|backup| slot::complete(slot, destination.beside(), backup).is_ok()) {
        // If completing fails, giving the slot back tries again, says why, and keeps what it cannot rename.
        restore().map_err(|error| fail(error).after_publish())?;
    }
    let displaced_mode = writable.map(|(_, mode)| mode);
    Ok(Some(Exchanged { lock_gone: lock.release(), displaced_mode }))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;

    use super::*;
    use crate::options::Settings;

    /// What an old btrfs needs, on whatever filesystem the tests run.
    fn publish_with_a_second_sync(path: &Path, overwrite: bool, exists: bool) -> Result<Published> {
        let settings = Settings { overwrite: true, ..Settings::default() };
        let (destination, _) = Destination::open(sys::CWD, path, Kind::File, &settings, false)?;
        let mut file = std::fs::File::from(sys::tmpfile(destination.staging()).unwrap().unwrap());
        file.write_all(b"new").unwrap();
        unnamed(&destination, file.as_fd(), Terms { overwrite, base: None, backup: None }, exists, Before::NameAndSync)
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

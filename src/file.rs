//! `File`: a new version of a file, written unnamed and published in one step.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::fcntl::OFlag;

use crate::backup;
use crate::base::Base;
use crate::checkpoint::{self, Checkpoint};
use crate::clone;
use crate::committed::Committed;
use crate::destination::{Destination, Kind};
use crate::error::{Error, ErrorKind, Hint, Result};
use crate::group::{self, HandedOver};
use crate::metadata::{self, Given, Shown, Work};
use crate::mount::Mount;
use crate::options::{Durability, Options, Settings, Start};
use crate::publish::{self, Before, InSlot, Published, Terms};
use crate::slot::{self, Slot};
use crate::sync;
use crate::sys::{self, Stat, errno};
use crate::trial;

/// A new version of a file, invisible until [`commit`](File::commit).
///
/// Staging is an unnamed inode in the destination's folder (`O_TMPFILE`, `open(2)`): whatever ends
/// the process leaves nothing behind. Where the filesystem has none it stands in a slot
/// `.atomik-0.NAME~/`. Dropping it without a commit discards it.
///
/// # Durability
/// With [`Durability::Full`] a commit that has returned survives a power cut: the content is synced,
/// then published, then the folder is synced. See also [`Options::single_flush`].
///
/// # Errors
/// See [`ErrorKind`]. Until the publish an error leaves the destination untouched; afterwards
/// [`Error::committed`] is true.
///
/// # Examples
/// ```
/// use std::io::Write;
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("result.json");
/// let mut f = atomik::File::options().overwrite(true).create(&path)?;
/// f.write_all(b"{}")?;
/// f.commit()?;
/// # assert_eq!(std::fs::read(&path)?, b"{}");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "dropped without `commit`, it discards the new version"]
pub struct File {
    /// Closed before its slot is given back: FUSE keeps the name of what is open.
    staged: Option<std::fs::File>,
    destination: Destination,
    settings: Settings,
    /// Where the filesystem has no unnamed files; taken when nothing is left to clean up.
    slot: Option<Slot>,
    /// What the body started from.
    base: Option<Base>,
    /// What was at the destination before the body.
    old: Option<Stat>,
    /// What the displaced version will be called.
    backup: Option<OsString>,
    /// The mode that staging was made with.
    born: Option<u32>,
    /// What staging was given of the version to be replaced.
    given: Given,
    /// The process that it belongs to.
    generation: u32,
}

/// Only the end of a commit or rollback closes staging, and both consume the guard.
const OPEN: &str = "staging is open until the end";

/// What the commit knows of the present version.
enum Old {
    /// Look again: a body ran meanwhile.
    Look,
    /// Seen just now.
    Seen(Option<Stat>),
}

impl File {
    /// Starts the options of a new version; see [`Options`].
    pub fn options() -> Options<File> {
        Options::new()
    }

    /// The path that was asked for.
    #[must_use]
    pub fn destination(&self) -> &Path {
        &self.destination.path
    }

    /// Syncs, publishes and syncs the folder, as the durability asks.
    pub fn commit(self) -> Result<Committed> {
        self.commit_with(&mut checkpoint::go_on)
    }

    /// The same, stopped between two steps by `checkpoint` as long as nothing is published.
    pub(crate) fn commit_with(mut self, checkpoint: Checkpoint) -> Result<Committed> {
        self.finish(&Old::Look, checkpoint).map_err(|error| {
            let error = self.explain(error);
            self.after(error)
        })
    }

    /// A destination that has appeared beside an empty new version is mostly a tool's, which has taken it for that.
    fn explain(&self, error: Error) -> Error {
        let appeared = error.kind() == ErrorKind::AlreadyExists && !error.committed() && self.base.is_none();
        let is_empty = || sys::stat_fd(self.as_fd()).is_ok_and(|staged| staged.size == 0);
        if appeared && is_empty() { error.hint(Hint::WrittenByName) } else { error }
    }

    /// What is staged goes with an error; what resists is named with it.
    fn after(&mut self, error: Error) -> Error {
        if self.generation != sys::fork_generation() {
            return error;
        }
        let error = self.destination.explained(error);
        self.staged = None;
        let given_back =
            self.slot.take().map_or(Ok(()), |slot| slot.give_back(self.destination.slots(), &mut checkpoint::go_on));
        let leftover = given_back.err().map(|error| self.destination.failed("rolling back", error));
        error.with_leftover(leftover)
    }

    fn finish(&mut self, old: &Old, checkpoint: Checkpoint) -> Result<Committed> {
        let Self { destination, settings, generation, .. } = &*self;
        if *generation != sys::fork_generation() {
            return Err(Error::errno("committing", &destination.path, libc::ECHILD).kind_is(ErrorKind::OtherProcess));
        }
        let (fd, durability, overwrite) = (self.as_fd(), settings.durability, settings.overwrite);
        let (old, body_ran) = match old {
            Old::Seen(old) => (*old, false),
            Old::Look if overwrite => (self.look_again()?, true),
            Old::Look => (None, true),
        };
        metadata::settle(destination, settings, (fd, None), old, &self.given, || {
            Shown::by(&self.destination, self.as_fd())
        })?;
        sync::file(fd, settings, destination)?;
        checkpoint().map_err(|error| destination.failed("committing", error))?;
        // Without a body and a sync no time has passed.
        if body_ran || durability != Durability::NoSync {
            destination.check_place()?;
        }
        let care = old.map(|_| sync::care(fd, durability, destination, true));
        let durability = care.as_ref().map_or(durability, |care| care.durability);
        let terms = Terms { overwrite, base: self.base.as_ref(), backup: self.backup.as_deref() };
        let again = durability != Durability::NoSync && Mount::of(fd).unnamed_is_not_enough();
        let mut taken = None;
        let mut published = None;
        if self.backup.is_some() {
            taken = self.keep_displaced(terms, old.is_some(), again)?;
        } else if let Some(slot) = &self.slot {
            publish::named(destination, slot.fd.as_fd(), &destination.name, terms)?;
        } else {
            let before = match old {
                _ if again => Before::NameAndSync,
                None if !self.opens_for_writing(body_ran) && !destination.is_append_only() => Before::Name,
                _ => Before::Nothing,
            };
            published = Some(publish::unnamed(destination, fd, terms, old.is_some(), before)?);
        }
        let synced = if durability == Durability::Full { destination.sync_parents(fd) } else { Ok(()) };
        self.slot = self.slot.take().or(taken);
        drop(care);
        let leftover = self.clean_up(published, checkpoint);
        match synced {
            Ok(()) => Ok(Committed::new(leftover)),
            Err(error) => Err(error.with_leftover(leftover)),
        }
    }

    /// Looks at the destination after the body. A tool that was given the destination's path instead of the new version
    /// (Python's `f.name`) has written there, and has left the new version empty: that does not replace what it has written.
    fn look_again(&self) -> Result<Option<Stat>> {
        let now = self.destination.check(Kind::File, true, false)?;
        let is_written = |now: &Stat| {
            let same = |old: &Stat| old.same(now) && (old.size, old.times[1]) == (now.size, now.times[1]);
            now.kind() == libc::S_IFREG && now.size > 0 && !self.old.as_ref().is_some_and(same)
        };
        if self.base.is_none() && now.as_ref().is_some_and(is_written) {
            let staged = sys::stat_fd(self.as_fd());
            if staged.map_err(|error| self.destination.failed("committing", error))?.size == 0 {
                return Err(Error::errno("publishing", &self.destination.path, libc::ESTALE)
                    .kind_is(ErrorKind::Conflict)
                    .hint(Hint::WrittenByName));
            }
        }
        Ok(now)
    }

    /// Will its owner be able to open a new file for writing, as the publish by a link needs ([`Published::Linked`])?
    fn opens_for_writing(&self, body_ran: bool) -> bool {
        let known = if body_ran { None } else { self.born.map(|born| self.settings.permissions.unwrap_or(born)) };
        // What cannot be looked at is tried.
        known.or_else(|| Some(sys::stat_fd(self.as_fd()).ok()?.mode)).is_none_or(|mode| mode & 0o200 != 0)
    }

    /// Publishes so that the displaced version, if there is one, gets its backup's name: by an exchange in a slot. Answers
    /// the slot that an unnamed file has needed for it.
    fn keep_displaced(&self, terms: Terms, exists: bool, sync_named: bool) -> Result<Option<Slot>> {
        let (destination, fd) = (&self.destination, self.as_fd());
        let failed = |error| destination.failed("publishing", error);
        let slots = destination.slots();
        let taken = match &self.slot {
            Some(_) => None,
            None => Some(Slot::take(slots).map_err(failed)?),
        };
        let slot = taken.as_ref().or(self.slot.as_ref()).expect("taken if it was not there").fd.as_fd();
        let publish = || {
            if taken.is_some() {
                sys::link_fd(fd, slot, &destination.name).map_err(failed)?;
                if sync_named {
                    sync::again(fd, destination)?;
                }
            }
            let new = InSlot { slot, name: &destination.name, kind: Kind::File };
            publish::staged(destination, new, terms, exists)
        };
        match publish() {
            Ok(_) => Ok(taken),
            Err(error) => {
                if let Some(slot) = taken {
                    // The error is what matters; a slot that resists stays for the next writer.
                    drop(slot.give_back(slots, &mut checkpoint::go_on));
                }
                Err(error)
            }
        }
    }

    /// Gives the new version a name in a group's slot instead of publishing it.
    pub(crate) fn hand_over(mut self, slot: BorrowedFd, name: &OsStr) -> Result<HandedOver> {
        self.name_in(slot, name).map_err(|error| self.after(error))
    }

    fn name_in(&mut self, slot: BorrowedFd, name: &OsStr) -> Result<HandedOver> {
        let Self { destination, settings, generation, .. } = &*self;
        if *generation != sys::fork_generation() {
            return Err(Error::errno("committing", &destination.path, libc::ECHILD).kind_is(ErrorKind::OtherProcess));
        }
        if self.base.is_some() || self.backup.is_some() || destination.elsewhere() {
            return Err(group::refused(destination));
        }
        let old = if settings.overwrite { self.look_again()? } else { None };
        metadata::settle(destination, settings, (self.as_fd(), None), old, &self.given, || {
            Shown::by(&self.destination, self.as_fd())
        })?;
        let failed = |error| destination.failed("staging in the group", error);
        if settings.durability != Durability::NoSync {
            // The disk works while the next one is staged.
            sys::start_writing(self.as_fd())
                .map_err(|error| destination.failed("syncing the new version", error).kind_is(ErrorKind::Durability))?;
        }
        match &self.slot {
            None => sys::link_fd(self.as_fd(), slot, name),
            Some(own) => sys::renameat2(own.fd.as_fd(), &destination.name, slot, name, 0),
        }
        .map_err(failed)?;
        self.staged = None;
        let own = self.slot.take();
        let given_back = own.map_or(Ok(()), |own| own.give_back(self.destination.slots(), &mut checkpoint::go_on));
        let leftover = given_back.err().map(|error| self.destination.failed("cleaning up", error));
        Ok(HandedOver { kind: Kind::File, later: None, time: None, leftover })
    }

    /// Where it is to be published.
    pub(crate) fn place(&self) -> &Destination {
        &self.destination
    }

    /// Does it replace what is there?
    pub(crate) fn overwrites(&self) -> bool {
        self.settings.overwrite
    }

    /// Gives the slot back and removes orphans; what resists is named, and stays for the next writer.
    fn clean_up(&mut self, published: Option<Published>, checkpoint: Checkpoint) -> Option<Error> {
        if self.slot.is_some() {
            self.staged = None;
        }
        let mut named = None;
        let slots = self.destination.slots();
        let cleaned = match (self.slot.take(), published) {
            (Some(slot), _) => slot.give_back(slots, checkpoint),
            (None, Some(Published::Renamed(linked))) => linked.give_back(slots, checkpoint),
            (None, Some(Published::Linked(open))) => {
                if open.is_none() {
                    // There may have been no descriptor left.
                    self.staged = None;
                    publish::tell_watchers(&self.destination);
                }
                named = open;
                slot::remove_orphans(slots, checkpoint)
            }
            (None, None) => slot::remove_orphans(slots, checkpoint),
        };
        let locked = self.base.is_some() || self.backup.is_some();
        let cleaned = cleaned.and_then(|()| if locked { self.destination.remove_lock() } else { Ok(()) });
        if let Some(staged) = self.staged.take() {
            self.destination.close_with(staged.into(), named.or(self.given.held.take()));
        }
        cleaned.err().map(|error| self.destination.failed("cleaning up", error).after_publish())
    }

    /// Discards the new version and reports what could not be removed; `Drop` does it silently.
    pub fn rollback(mut self) -> Result<()> {
        if self.generation != sys::fork_generation() {
            return Err(
                Error::errno("rolling back", &self.destination.path, libc::ECHILD).kind_is(ErrorKind::OtherProcess)
            );
        }
        self.staged = None;
        let Some(slot) = self.slot.take() else { return Ok(()) };
        slot.give_back(self.destination.slots(), &mut checkpoint::go_on)
            .map_err(|error| self.destination.failed("rolling back", error))
    }

    fn file(&mut self) -> &mut std::fs::File {
        self.staged.as_mut().expect(OPEN)
    }

    /// Where staging has a name, its path; an unnamed file has none.
    #[cfg(feature = "python")]
    pub(crate) fn staging(&self) -> Option<std::path::PathBuf> {
        let slot = self.slot.as_ref()?;
        Some(self.destination.staging_path()?.join(slot.path()).join(&self.destination.name))
    }
}

impl Options<File> {
    /// Starts from a copy of the present version, as [`update`](Options::update) does, and writes everything to its end
    /// (default: false).
    pub fn append(mut self, append: bool) -> Self {
        self.settings.append = append;
        self
    }

    /// Opens a new version of the file `path`; nothing is visible until it is committed.
    pub fn create(&self, path: impl AsRef<Path>) -> Result<File> {
        self.create_at(sys::CWD, path)
    }

    /// The same with a relative path starting from an open folder.
    pub fn create_at(&self, dir: impl AsFd, path: impl AsRef<Path>) -> Result<File> {
        self.create_with(dir.as_fd(), path.as_ref(), &mut checkpoint::go_on)
    }

    /// The same; `checkpoint` stops the copying of the present version.
    pub(crate) fn create_with(&self, dir: BorrowedFd, path: &Path, checkpoint: Checkpoint) -> Result<File> {
        let settings = self.decide(path)?;
        let (destination, old) = Destination::open(dir, path, Kind::File, &settings, true)?;
        stage(dir, destination, settings, old, checkpoint)
    }

    /// Writes a whole file: the fastest way.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("notes.txt");
    /// atomik::File::options().write(&path, "hello")?;
    /// assert!(atomik::File::options().write(&path, "again").is_err()); // it exists
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn write(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<Committed> {
        let fill = |file: &mut std::fs::File, _: Checkpoint| file.write_all(content.as_ref());
        self.write_with(sys::CWD, path.as_ref(), fill, &mut checkpoint::go_on)
    }

    pub(crate) fn write_with(
        &self,
        dir: BorrowedFd,
        path: &Path,
        fill: impl FnOnce(&mut std::fs::File, Checkpoint) -> io::Result<()>,
        checkpoint: Checkpoint,
    ) -> Result<Committed> {
        let (mut new, old) = self.filled(dir, path, fill, checkpoint)?;
        new.finish(&Old::Seen(old), checkpoint).map_err(|error| new.after(error))
    }

    /// Stages a whole file; answers what is at its destination, too.
    pub(crate) fn filled(
        &self,
        dir: BorrowedFd,
        path: &Path,
        fill: impl FnOnce(&mut std::fs::File, Checkpoint) -> io::Result<()>,
        checkpoint: Checkpoint,
    ) -> Result<(File, Option<Stat>)> {
        let settings = self.decide(path)?;
        let (destination, old) = Destination::open(dir, path, Kind::File, &settings, false)?;
        let mut new = stage(dir, destination, settings, old, checkpoint)?;
        fill(new.file(), checkpoint)
            .map_err(|error| new.destination.failed("writing the new version", error).hint(Hint::NotPublished))?;
        Ok((new, old))
    }
}

/// Opens staging: unnamed, or in a slot where the filesystem has no unnamed files.
fn stage(
    at: BorrowedFd,
    destination: Destination,
    settings: Settings,
    old: Option<Stat>,
    checkpoint: Checkpoint,
) -> Result<File> {
    let generation = sys::fork_generation();
    let backup = settings.backup.as_ref().map(|name| backup::name(at, &destination, name, Kind::File)).transpose()?;
    if backup.is_some() && old.is_some() {
        trial::try_exchange(&destination)?;
    }
    let new = old.is_none() && (settings.start != Start::Empty || backup.is_some());
    let must_be_new = !settings.overwrite || new;
    let present = if settings.start == Start::Empty { None } else { present(&destination, &settings, old)? };
    let slots = destination.slots();
    let failed = |error| destination.unstaged(error);
    let unnamed = if destination.elsewhere() { None } else { sys::tmpfile(slots.dir).map_err(failed)? };
    let unnamed = unnamed.filter(|file| trial::may_link(file.as_fd(), slots.dir));
    let (staged, slot) = if let Some(fd) = unnamed {
        (fd, None)
    } else {
        let slot = Slot::take(slots).map_err(failed)?;
        let tried = trial::try_to_move(&destination, &slot);
        let tried = if must_be_new {
            tried.and_then(|()| trial::try_to_move_a_file(&destination, slot.fd.as_fd()))
        } else {
            tried
        };
        let tried = match backup {
            Some(_) => tried.and_then(|()| trial::try_to_mark(&destination, slot.fd.as_fd())),
            None => tried,
        };
        match tried.and_then(|()| open_in(&slot, &destination)) {
            Ok((fd, true)) => (fd, Some(slot)),
            Ok((fd, false)) => {
                // It has served; the end of the commit names what resists.
                drop(slot.give_back(slots, &mut checkpoint::go_on));
                (fd, None)
            }
            Err(error) => {
                // The error is what matters; a slot that resists stays for the next writer.
                drop(slot.give_back(slots, &mut checkpoint::go_on));
                return Err(error);
            }
        }
    };
    let given = Given::default();
    let mut file = File {
        staged: Some(staged.into()),
        destination,
        settings,
        slot,
        base: None,
        old,
        backup,
        given,
        born: None,
        generation,
    };
    match file.begin(present, checkpoint) {
        Ok(()) => Ok(file),
        Err(error) => Err(file.after(error)),
    }
}

impl File {
    /// Gives staging the metadata and, for an update, the content of the present version.
    fn begin(&mut self, present: Option<(OwnedFd, Stat)>, checkpoint: Checkpoint) -> Result<()> {
        let born = sys::stat_fd(self.as_fd()).map_err(|error| self.destination.unstaged(error))?;
        if self.slot.is_none() && !self.destination.elsewhere() {
            self.destination.learn_from(&born);
        }
        self.born = Some(born.mode);
        let opened = present.as_ref();
        let old_version = (opened.map(|(_, stat)| *stat).or(self.old), opened.map(|(fd, _)| fd.as_fd()));
        self.given = metadata::begin(
            &self.destination,
            &self.settings,
            self.as_fd(),
            old_version,
            Some(born),
            Work::ByDescriptor,
        )?;
        if self.settings.start != Start::Empty {
            self.base = Some(self.start(present, self.old, checkpoint)?);
        }
        if self.settings.append {
            sys::append_only(self.as_fd()).map_err(|error| self.destination.failed("opening staging", error))?;
        }
        Ok(())
    }

    /// Copies the version that the body starts from. On NFS a version that another client replaces meanwhile cannot be read
    /// any more (`ESTALE`): then the copy begins again, with the version that is there now.
    fn start(&self, mut present: Option<(OwnedFd, Stat)>, old: Option<Stat>, checkpoint: Checkpoint) -> Result<Base> {
        let failed = |error| self.destination.failed("copying the present version", error);
        let mut patience = slot::Patience::default();
        loop {
            let Some((fd, stat)) = present else { return Ok(Base::nothing()) };
            match clone::content(fd.as_fd(), self.as_fd(), &stat, checkpoint) {
                Err(error) if patience.again(self.destination.slots(), &error) => {
                    sys::resize(self.as_fd(), 0).map_err(failed)?;
                    sys::set_position(self.as_fd(), 0).map_err(failed)?;
                    present = self::present(&self.destination, &self.settings, old)?;
                }
                other => return other.map(|()| Base::version(fd, stat)).map_err(failed),
            }
        }
    }
}

/// Opens the version that the body starts from.
fn present(destination: &Destination, settings: &Settings, old: Option<Stat>) -> Result<Option<(OwnedFd, Stat)>> {
    let failed = |error| destination.failed("opening the present version", error);
    if old.is_none() {
        return match settings.start {
            #[cfg(feature = "python")]
            Start::Existing => Err(failed(io::Error::from_raw_os_error(libc::ENOENT))),
            _ => Ok(None),
        };
    }
    let mut patience = slot::Patience::default();
    let fd = loop {
        match sys::open_any(destination.parent(), &destination.name) {
            // It was there, and is replaced just now.
            Err(error) if patience.again(destination.slots(), &error) => {}
            Err(error) if errno(&error) == libc::ELOOP => {
                return Err(failed(error).hint(Hint::IsSymlink));
            }
            other => break other.map_err(failed)?,
        }
    };
    let stat = sys::stat_fd(fd.as_fd()).map_err(failed)?;
    if stat.kind() != libc::S_IFREG {
        return Err(failed(io::Error::from_raw_os_error(libc::EINVAL)).hint(Hint::NoFileAnyMore));
    }
    Ok(Some((fd, stat)))
}

/// Opens staging in a slot; true if it has a name there. In `tmp_dir` the slot serves to inherit
/// from, and the file itself needs no name.
fn open_in(slot: &Slot, destination: &Destination) -> Result<(OwnedFd, bool)> {
    metadata::inherit(destination, slot.fd.as_fd())?;
    let open = || {
        if destination.elsewhere() {
            if let Some(fd) = sys::tmpfile(slot.fd.as_fd())? {
                return Ok((fd, false));
            }
        }
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        sys::openat(slot.fd.as_fd(), &destination.name, flags, 0o666).map(|fd| (fd, true))
    };
    open().map_err(|error| destination.unstaged(error))
}

/// Writes a new file in one call, durable, and refuses one that exists: [`Options::write`] for more.
pub fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<Committed> {
    File::options().write(path, content)
}

impl Drop for File {
    fn drop(&mut self) {
        if self.generation == sys::fork_generation() {
            self.staged = None;
            if let Some(slot) = self.slot.take() {
                // Drop cannot report: what resists stays as an orphan for the next writer.
                drop(slot.give_back(self.destination.slots(), &mut checkpoint::go_on));
            }
        }
    }
}

impl Write for File {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.file().write(buffer)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file().flush()
    }
}

impl Read for File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file().read(buffer)
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file().seek(to)
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.staged.as_ref().expect(OPEN).as_fd()
    }
}

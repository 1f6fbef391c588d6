//! `File`: a new version of a file, written unnamed and published in one step.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::fcntl::OFlag;

use crate::committed::Committed;
use crate::destination::{Destination, Kind};
use crate::error::{Error, ErrorKind, Result};
use crate::metadata;
use crate::options::{Durability, Options, Settings};
use crate::publish;
use crate::slot::{self, Slot};
use crate::sync;
use crate::sys::{self, Stat};
use crate::tree::{self, Checkpoint};

/// A new version of a file, invisible until [`commit`](File::commit).
///
/// Staging is an unnamed inode in the destination's folder (`O_TMPFILE`, `open(2)`): whatever ends
/// the process leaves nothing behind. Where the filesystem has none it stands in a slot
/// `.atomik-N.NAME/`. Dropping it without a commit discards it.
///
/// # Durability
/// With [`Durability::Full`] a commit that has returned survives a power cut: the content is synced,
/// then published, then the folder is synced.
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
pub struct File {
    /// Closed before its slot is given back: FUSE keeps the name of what is open.
    staged: Option<std::fs::File>,
    destination: Destination,
    settings: Settings,
    /// Where the filesystem has no unnamed files; taken when nothing is left to clean up.
    slot: Option<Slot>,
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
        self.commit_with(&mut tree::go_on)
    }

    /// The same, stopped between two steps by `checkpoint` as long as nothing is published.
    pub(crate) fn commit_with(mut self, checkpoint: Checkpoint) -> Result<Committed> {
        self.finish(&Old::Look, checkpoint)
    }

    fn finish(&mut self, old: &Old, checkpoint: Checkpoint) -> Result<Committed> {
        let Self { destination, settings, generation, .. } = &*self;
        if *generation != sys::fork_generation() {
            return Err(Error::errno("committing", &destination.path, libc::ECHILD).kind_is(ErrorKind::OtherProcess));
        }
        let (fd, durability, overwrite) = (self.as_fd(), settings.durability, settings.overwrite);
        let old = match old {
            Old::Seen(old) => *old,
            Old::Look if overwrite => destination.check(Kind::File, true, false)?,
            Old::Look => None,
        };
        metadata::settle(destination, settings, fd, old)?;
        sync::file(fd, durability, destination)?;
        checkpoint().map_err(|error| destination.failed("committing", error))?;
        let next = if let Some(slot) = &self.slot {
            publish::named(destination, slot.fd.as_fd(), &destination.name, overwrite)?;
            None
        } else {
            let again = durability != Durability::None && sync::unnamed_is_not_enough(fd);
            publish::unnamed(destination, fd, overwrite, old.is_some(), again)?
        };
        let synced = if durability == Durability::Full { destination.sync_parents(fd) } else { Ok(()) };
        let leftover = self.clean_up(next, checkpoint);
        synced.map(|()| Committed::new(leftover))
    }

    /// Gives the slot back and removes orphans; what resists is named, and stays for the next writer.
    fn clean_up(&mut self, next: Option<u32>, checkpoint: Checkpoint) -> Option<Error> {
        self.staged = None;
        let slots = self.destination.slots();
        let cleaned = match (self.slot.take(), next) {
            (Some(slot), _) => slot.give_back(slots, checkpoint),
            (None, Some(next)) => slot::sweep_from(slots, next, checkpoint),
            (None, None) => Ok(()),
        };
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
        slot.give_back(self.destination.slots(), &mut tree::go_on)
            .map_err(|error| self.destination.failed("rolling back", error))
    }

    fn file(&mut self) -> &mut std::fs::File {
        self.staged.as_mut().expect(OPEN)
    }

    /// Does it belong to the parent of this process?
    #[cfg(feature = "python")]
    pub(crate) fn is_foreign(&self) -> bool {
        self.generation != sys::fork_generation()
    }

    /// Where staging has a name, its path; an unnamed file has none.
    #[cfg(feature = "python")]
    pub(crate) fn staging(&self) -> Option<std::path::PathBuf> {
        let slot = self.slot.as_ref()?;
        Some(self.destination.staging_path()?.join(&slot.name).join(&self.destination.name))
    }
}

impl Options<File> {
    /// Opens a new version of the file `path`; nothing is visible until it is committed.
    pub fn create(&self, path: impl AsRef<Path>) -> Result<File> {
        self.create_at(sys::CWD, path)
    }

    /// The same with a relative path starting from an open folder.
    pub fn create_at(&self, dir: impl AsFd, path: impl AsRef<Path>) -> Result<File> {
        let destination = Destination::open(dir.as_fd(), path.as_ref(), Kind::File, &self.settings, true)?.0;
        stage(destination, self.settings.clone())
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
        self.write_with(sys::CWD, path.as_ref(), fill, &mut tree::go_on)
    }

    pub(crate) fn write_with(
        &self,
        dir: BorrowedFd,
        path: &Path,
        fill: impl FnOnce(&mut std::fs::File, Checkpoint) -> io::Result<()>,
        checkpoint: Checkpoint,
    ) -> Result<Committed> {
        let (destination, old) = Destination::open(dir, path, Kind::File, &self.settings, false)?;
        let mut new = stage(destination, self.settings.clone())?;
        fill(new.file(), checkpoint).map_err(|error| {
            new.destination
                .failed("writing the new version", error)
                .hint("it was not published, and the destination is untouched")
        })?;
        new.finish(&Old::Seen(old), checkpoint)
    }
}

/// Opens staging: unnamed, or in a slot where the filesystem has no unnamed files.
fn stage(destination: Destination, settings: Settings) -> Result<File> {
    let generation = sys::fork_generation();
    let slots = destination.slots();
    let failed = |error| destination.unstaged(error);
    let unnamed = if destination.elsewhere() { None } else { sys::tmpfile(slots.dir).map_err(failed)? };
    let (staged, slot) = if let Some(fd) = unnamed {
        (fd, None)
    } else {
        let slot = Slot::take(slots).map_err(failed)?;
        match open_in(&slot, &destination) {
            Ok((fd, true)) => (fd, Some(slot)),
            Ok((fd, false)) => slot.give_back(slots, &mut tree::go_on).map(|()| (fd, None)).map_err(failed)?,
            Err(error) => {
                // The error is what matters; a slot that resists stays for the next writer.
                drop(slot.give_back(slots, &mut tree::go_on));
                return Err(error);
            }
        }
    };
    Ok(File { staged: Some(staged.into()), destination, settings, slot, generation })
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
                drop(slot.give_back(self.destination.slots(), &mut tree::go_on));
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

//! `File`: a new version of a file, written unnamed and published in one step.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::fcntl::OFlag;

use crate::base::Base;
use crate::checkpoint::{self, Checkpoint};
use crate::clone;
use crate::committed::Committed;
use crate::destination::{Destination, Kind};
use crate::draft::{Body, Draft, Staging};
use crate::error::{Hint, Result};
use crate::guard::guard;
use crate::metadata::{self, Work};
use crate::options::{Options, Settings, Start};
use crate::slot;
use crate::sys::{self, Stat, errno};
use crate::trial;

/// What is tried when the version is opened that a body starts from.
const OPENING: &str = "opening the present version";

/// A new version of a file, invisible until [`commit`](File::commit).
///
/// Staging is an unnamed inode in the destination's folder (`O_TMPFILE`, `open(2)`): whatever ends
/// the process leaves nothing behind. Where the filesystem has none it stands in a slot
/// `.atomik-0.NAME~/`. Dropping it without a commit discards it.
///
/// # Durability
/// With [`Durability::Full`](crate::Durability::Full) a commit that has returned survives a power cut: the content is synced,
/// then published, then the folder is synced. See also [`Options::single_flush`].
///
/// # Errors
/// See [`ErrorKind`](crate::ErrorKind). Until the publish an error leaves the destination untouched; afterwards
/// [`Error::committed`](crate::Error::committed) is true.
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
    pub(crate) draft: Draft,
}

guard!(File, Draft::commit, create_with);

impl Options<File> {
    /// Starts from a copy of the present version, as [`update`](Options::update) does, and writes everything to its end
    /// (default: false).
    pub fn append(mut self, append: bool) -> Self {
        self.settings.append = append;
        self
    }

    /// Opens a new version; `checkpoint` stops the copying of the present one.
    pub(crate) fn create_with(&self, dir: BorrowedFd, path: &Path, checkpoint: Checkpoint) -> Result<File> {
        self.open((dir, path), Body::Runs, checkpoint)
    }

    fn open(&self, path: (BorrowedFd, &Path), body: Body, checkpoint: Checkpoint) -> Result<File> {
        let settings = self.decide(path.1)?;
        Draft::open(path, Kind::File, settings, body, |draft| stage(draft, checkpoint)).map(|draft| File { draft })
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
        let fill = |file: &std::fs::File, _: Checkpoint| sys::write_all(file.as_fd(), content.as_ref().into());
        self.write_with(sys::CWD, path.as_ref(), fill, &mut checkpoint::go_on)
    }

    pub(crate) fn write_with(
        &self,
        dir: BorrowedFd,
        path: &Path,
        fill: impl FnOnce(&std::fs::File, Checkpoint) -> io::Result<()>,
        checkpoint: Checkpoint,
    ) -> Result<Committed> {
        self.filled(dir, path, fill, checkpoint)?.draft.commit(checkpoint)
    }

    /// Stages a whole file.
    pub(crate) fn filled(
        &self,
        dir: BorrowedFd,
        path: &Path,
        fill: impl FnOnce(&std::fs::File, Checkpoint) -> io::Result<()>,
        checkpoint: Checkpoint,
    ) -> Result<File> {
        let new = self.open((dir, path), Body::None, checkpoint)?;
        fill(new.draft.file(), checkpoint).map_err(|error| {
            let error = new.draft.destination.failed("writing the new version", error);
            error.hint(Hint::NotPublished)
        })?;
        Ok(new)
    }
}

/// Opens staging, and gives it the metadata and, for an update, the content of the present version.
fn stage(draft: &mut Draft, checkpoint: Checkpoint) -> Result<()> {
    if draft.backup.is_some() && draft.old.is_some() {
        trial::try_exchange(&draft.destination)?;
    }
    let starts = draft.settings.start != Start::Empty;
    let present = if starts { present(&draft.destination, &draft.settings, draft.old)? } else { None };
    let fd = match open_unnamed(draft)? {
        Some(fd) => fd,
        None => open_in_slot(draft)?,
    };
    let destination = &draft.destination;
    let born = destination.patiently(|| sys::stat_fd(fd.as_fd()).map_err(|error| destination.unstaged(error)))?;
    if matches!(draft.staging, Staging::Unnamed) && !destination.elsewhere() {
        destination.learn_from(&born);
    }
    let opened = present.as_ref();
    let old = (opened.map(|(_, stat)| *stat).or(draft.old), opened.map(|(fd, _)| fd.as_fd()));
    let given = metadata::begin(destination, &draft.settings, fd.as_fd(), old, Some(born), Work::ByDescriptor)?;
    draft.hold(fd, given, Some(born.mode));
    if starts {
        draft.base = Some(start(draft, present, checkpoint)?);
    }
    if draft.settings.append {
        sys::append_only(draft.file().as_fd()).map_err(|error| draft.destination.failed("opening staging", error))?;
    }
    Ok(())
}

/// Opens a file without a name; `None` where the filesystem has none, or a sandbox refuses to name one.
fn open_unnamed(draft: &Draft) -> Result<Option<OwnedFd>> {
    let destination = &draft.destination;
    if destination.elsewhere() {
        return Ok(None);
    }
    let unnamed = destination.patiently(|| tmpfile(destination, destination.staging()))?;
    Ok(unnamed.filter(|file| trial::may_link(file.as_fd(), destination.staging())))
}

fn tmpfile(destination: &Destination, folder: BorrowedFd) -> Result<Option<OwnedFd>> {
    sys::tmpfile(folder).map_err(|error| destination.unstaged(error))
}

/// Opens a file in a slot. In `tmp_dir` the slot serves to inherit from, and the file itself needs no name, if it can do
/// without.
fn open_in_slot(draft: &mut Draft) -> Result<OwnedFd> {
    draft.stage_in_slot()?;
    let (destination, slot) = (&draft.destination, draft.slot());
    let starts = draft.settings.start != Start::Empty || draft.backup.is_some();
    if !draft.settings.overwrite || draft.old.is_none() && starts {
        destination.patiently(|| trial::try_to_move_a_file(destination, slot))?;
    }
    if draft.backup.is_some() {
        destination.patiently(|| trial::try_to_mark(destination, slot))?;
    }
    metadata::inherit(destination, slot)?;
    let failed = |error| destination.unstaged(error);
    let unnamed = if destination.elsewhere() { destination.patiently(|| tmpfile(destination, slot))? } else { None };
    if let Some(fd) = unnamed {
        // The slot has served; the end of the commit names what resists.
        drop(draft.discard(&mut checkpoint::go_on));
        draft.staging = Staging::Unnamed;
        return Ok(fd);
    }
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
    destination.patiently(|| sys::openat(slot, &destination.name, flags, 0o666).map_err(failed))
}

/// Copies the version that the body starts from. On NFS a version that another client replaces meanwhile cannot be read
/// any more (`ESTALE`): then the copy begins again, with the version that is there now.
fn start(draft: &Draft, mut present: Option<(OwnedFd, Stat)>, checkpoint: Checkpoint) -> Result<Base> {
    let (destination, staged) = (&draft.destination, draft.file().as_fd());
    let failed = |error| destination.failed("copying the present version", error);
    let mut patience = slot::Patience::default();
    loop {
        let Some((fd, stat)) = present else { return Ok(Base::nothing()) };
        match clone::content(fd.as_fd(), staged, &stat, checkpoint) {
            Err(error) if patience.again(destination.slots(), &error) => {
                sys::resize(staged, 0).map_err(failed)?;
                sys::set_position(staged, 0).map_err(failed)?;
                present = self::present(destination, &draft.settings, draft.old)?;
            }
            other => return other.map(|()| Base::version(fd, stat)).map_err(failed),
        }
    }
}

/// Opens the version that the body starts from.
fn present(destination: &Destination, settings: &Settings, old: Option<Stat>) -> Result<Option<(OwnedFd, Stat)>> {
    match settings.start {
        _ if old.is_some() => open_present(destination).map(Some),
        #[cfg(feature = "python")]
        Start::Existing => Err(destination.failed(OPENING, io::Error::from_raw_os_error(libc::ENOENT))),
        _ => Ok(None),
    }
}

/// Opens the file that is at a destination now.
pub(crate) fn open_present(destination: &Destination) -> Result<(OwnedFd, Stat)> {
    let failed = |error| destination.failed(OPENING, error);
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
    Ok((fd, stat))
}

/// Writes a new file in one call, durable, and refuses one that exists: [`Options::write`] for more.
pub fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<Committed> {
    File::options().write(path, content)
}

impl Write for File {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.draft.file().write(buffer)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.draft.file().flush()
    }
}

impl Read for File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.draft.file().read(buffer)
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.draft.file().seek(to)
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.draft.file().as_fd()
    }
}

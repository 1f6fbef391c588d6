//! `Snapshot`: one version of a folder, pinned for as long as it is read.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use nix::fcntl::OFlag;

use crate::error::{Error, ErrorKind, Result};
use crate::slot::{self, Beside};
use crate::sys::{self, Lock, Stat, User, errno};
use crate::tree::{self, Checkpoint};

/// How often a version that vanishes while it is opened is looked for again, and after how many of
/// these a pause is made.
const ROUNDS: u32 = 5_000;
const EAGER: u32 = 100;

/// One version of a folder, which stays as it is, complete, until this is dropped.
///
/// It is pinned by a shared `flock(2)` on the folder itself: writers publish new versions meanwhile, and
/// never wait for it; the version that they displace is removed by the last reader that may, or by the
/// next writer. Death frees the pin.
///
/// # Errors
/// [`ErrorKind::Unsupported`] where folders cannot be locked (NFS); `ENOTDIR` for a file, which is
/// its own snapshot once it is open.
///
/// # Platform notes
/// [`path`](Snapshot::path) leads through `/proc/PID/fd`: other processes of this user can follow it
/// for as long as the snapshot is open. Resolving it (`canonicalize`) gives a path that is not pinned.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("site");
/// # std::fs::create_dir(&path)?;
/// # std::fs::write(path.join("index.html"), "old")?;
/// let site = atomik::Snapshot::open(&path)?;
/// let new = atomik::Folder::options().overwrite(true).create(&path)?;
/// new.commit()?; // an empty folder now
/// assert_eq!(std::fs::read(site.path().join("index.html"))?, b"old");
/// # drop(site);
/// # assert_eq!(std::fs::read_dir(dir.path())?.count(), 1);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Snapshot {
    /// Taken when it is closed.
    version: Option<OwnedFd>,
    stat: Stat,
    path: PathBuf,
    /// The path that was asked for, where it starts from the current folder.
    asked: Option<PathBuf>,
    /// The process that it belongs to.
    generation: u32,
}

impl Snapshot {
    /// Pins the version of a folder that is there now. A symlink is followed.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_at(sys::CWD, path.as_ref(), true)
    }

    pub(crate) fn open_at(at: BorrowedFd, path: &Path, follow: bool) -> Result<Self> {
        let failed = |error: io::Error| {
            let errno = errno(&error);
            let error = Error::new("opening a snapshot", path, error);
            match errno {
                libc::ENOTDIR => error.hint("only a folder needs a snapshot: a file that is open stays as it is"),
                libc::EOPNOTSUPP => error.hint("this filesystem cannot lock folders"),
                libc::EBUSY => error.hint("another program holds a lock on the folder"),
                _ => error,
            }
        };
        for round in 0..ROUNDS {
            if round >= EAGER {
                std::thread::sleep(Duration::from_millis(1));
            }
            if let Some((version, stat)) = pin(at, path.as_os_str(), follow).map_err(failed)? {
                let asked = follow.then(|| path.to_owned());
                let path = proc_path(&version).map_err(failed)?;
                return Ok(Self { version: Some(version), stat, path, asked, generation: sys::fork_generation() });
            }
        }
        Err(failed(io::Error::from_raw_os_error(libc::EBUSY)))
    }

    /// Where the version is read: for this process, its threads, and other processes of this user.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets go of the version, and removes it if it was displaced and nobody else reads it.
    pub fn close(self) {
        self.close_with(&mut tree::go_on);
    }

    pub(crate) fn close_with(mut self, checkpoint: Checkpoint) {
        self.release(checkpoint);
    }

    /// What the version was when it was pinned.
    pub(crate) fn stat(&self) -> Stat {
        self.stat
    }

    fn release(&mut self, checkpoint: Checkpoint) {
        let Some(version) = self.version.take() else { return };
        // A forked child closes its copy, and the pin stays its parent's.
        if self.generation != sys::fork_generation() {
            return;
        }
        // Mostly it still has its name, and looking at that costs half of asking where it is.
        let named = self.asked.as_ref().and_then(|path| sys::stat_followed(sys::CWD, path.as_os_str()).ok().flatten());
        if named.is_some_and(|named| named.same(&self.stat)) {
            return;
        }
        if let Some((slots, slot, name)) = displaced(version.as_fd()) {
            drop(version);
            let (user, folder) = (User::default(), OnceLock::new());
            let beside = Beside { dir: slots.as_fd(), destination: &name, user: &user, folder: &folder };
            // Not permitted, in use again, resisting: the next writer, or `sweep`, sees to it.
            drop(slot::remove_displaced(beside, &slot, &self.stat, checkpoint));
        }
    }
}

impl AsFd for Snapshot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // Only closing takes it, and that consumes the snapshot.
        self.version.as_ref().expect("a version until the end").as_fd()
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.release(&mut tree::go_on);
    }
}

/// Opens and locks the version; `None` if it is no longer the one that the path leads to.
fn pin(at: BorrowedFd, path: &OsStr, follow: bool) -> io::Result<Option<(OwnedFd, Stat)>> {
    let nofollow = if follow { OFlag::empty() } else { OFlag::O_NOFOLLOW };
    let version = sys::openat(at, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | nofollow, 0)?;
    match sys::lock_shared(version.as_fd())? {
        Lock::Held => {}
        // Whoever removes a version holds this; the name leads to a newer one by then.
        Lock::Taken => return Ok(None),
        Lock::Unsupported => return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
    }
    let stat = sys::stat_fd(version.as_fd())?;
    let named = if follow { sys::stat_followed(at, path)? } else { sys::stat(at, path)? };
    Ok(named.is_some_and(|named| named.same(&stat)).then_some((version, stat)))
}

/// Not through `/proc/self`, which is another folder for each process that follows it.
fn proc_path(version: &OwnedFd) -> io::Result<PathBuf> {
    static MOUNTED: OnceLock<bool> = OnceLock::new();
    if !*MOUNTED.get_or_init(|| Path::new("/proc/self/fd").exists()) {
        return Err(io::Error::other("/proc is not mounted"));
    }
    let fd = std::os::fd::AsRawFd::as_raw_fd(version);
    Ok(PathBuf::from(format!("/proc/{}/fd/{fd}", sys::process_id())))
}

/// If a publish has displaced the version: the folder of the slot that it is in, the slot's name and its own.
fn displaced(version: BorrowedFd) -> Option<(OwnedFd, std::ffi::OsString, std::ffi::OsString)> {
    let path = PathBuf::from(sys::path_now(version).ok()?);
    let slot = path.parent()?;
    let slot_name = slot.file_name()?;
    if !slot::is_name(slot_name) {
        return None;
    }
    let (slots, _) = sys::open_parent(sys::CWD, slot.parent()?.as_os_str(), false).ok()?;
    Some((slots, slot_name.to_owned(), path.file_name()?.to_owned()))
}

/// The present version that a body starts from. It is kept open, so that its inode number is nobody
/// else's until the publish has been decided.
#[derive(Debug)]
pub(crate) struct Base(Option<(OwnedFd, Stat)>);

impl Base {
    /// There was nothing.
    pub(crate) fn nothing() -> Self {
        Self(None)
    }

    pub(crate) fn version(fd: OwnedFd, stat: Stat) -> Self {
        Self(Some((fd, stat)))
    }

    /// Is what is there now still the version that the body started from?
    pub(crate) fn is(&self, now: Option<&Stat>) -> bool {
        match (&self.0, now) {
            (None, None) => true,
            (Some((_, base)), Some(now)) => base.same(now),
            _ => false,
        }
    }

    /// Was there nothing?
    pub(crate) fn is_nothing(&self) -> bool {
        self.0.is_none()
    }
}

/// The error of a body whose base has been replaced meanwhile.
pub(crate) fn conflict(path: &Path) -> Error {
    Error::errno("publishing", path, libc::ESTALE)
        .kind_is(ErrorKind::Conflict)
        .hint("somebody else has published since this version was begun, and theirs stands: begin again from it")
}

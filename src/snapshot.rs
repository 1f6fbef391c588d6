//! `Snapshot`: one version of a folder, pinned for as long as it is read.

mod number;

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use nix::fcntl::OFlag;

use crate::checkpoint::{self, Checkpoint};
use crate::destination::Destination;
use crate::error::{Error, ErrorKind, Hint, Result};
use crate::process::Process;
use crate::slot;
use crate::sys::{self, Lock, Stat, errno};

/// How often opening a version is repeated, each time since the version was displaced meanwhile.
const MAX_ROUNDS: u32 = 5_000;
/// How many rounds begin without a pause.
const ROUNDS_WITHOUT_PAUSE: u32 = 100;

/// One version of a folder, which stays as it is, complete, until this is dropped.
///
/// It is pinned by a shared `flock(2)` on the folder itself. Writers publish new versions meanwhile, and never wait for
/// it. The version that they displace is removed by the last reader that may, or by the next writer. A writer that does
/// not see such a lock ([`LockReach`](crate::LockReach)) removes it at once. The end of the process frees the pin.
///
/// # Errors
/// [`ErrorKind::Unsupported`] where folders cannot be locked; `ENOTDIR` for a file, which is its own snapshot once it is
/// open.
///
/// # Platform notes
/// [`path`](Snapshot::path) leads through `/proc/PID/fd`: other processes of this user can follow it
/// for as long as the snapshot is open. Afterwards it leads nowhere: a number comes again only when half of the limit of
/// descriptors, at most 15,872, have been used. Resolving it (`canonicalize`) gives a path that is not pinned. It is a
/// symlink: tools that copy it as such take the folder if `/.` follows.
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
#[must_use = "dropped, it holds the version no longer"]
pub struct Snapshot {
    /// `None` once the snapshot is closed.
    pin: Option<Pin>,
    path: PathBuf,
    /// The path that the caller gave.
    asked: PathBuf,
    process: Process,
}

impl Snapshot {
    /// Pins the version of a folder that is there now. A symlink is followed.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let asked = path.as_ref().to_owned();
        let pin = pin(sys::CWD, asked.as_os_str(), true).map_err(|error| failed(&asked, error))?;
        let pin = Pin { version: number::fresh(pin.version), ..pin };
        let path = proc_path(&pin.version).map_err(|error| failed(&asked, error))?;
        Ok(Self { pin: Some(pin), path, asked, process: Process::current() })
    }

    /// The path under which this process and other processes of this user read the version.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets go of the version, and removes it if it was displaced and no other reader holds it.
    pub fn close(self) {
        self.close_with(&mut checkpoint::go_on);
    }

    pub(crate) fn close_with(mut self, checkpoint: Checkpoint) {
        self.release(checkpoint);
    }

    fn release(&mut self, checkpoint: Checkpoint) {
        let Some(pin) = self.pin.take() else { return };
        // A forked child closes its copy, and the pin stays its parent's.
        if self.process.is_current() {
            pin.release(|| sys::stat_followed(sys::CWD, self.asked.as_os_str()), checkpoint);
        }
    }
}

impl AsFd for Snapshot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // Only closing takes it, and closing consumes the snapshot.
        self.pin.as_ref().expect("a version until the end").version.as_fd()
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.release(&mut checkpoint::go_on);
    }
}

/// A version of a folder that is held by a shared lock.
#[derive(Debug)]
pub(crate) struct Pin {
    version: OwnedFd,
    stat: Stat,
    /// The number of forks (`sys::forks`) when it was opened.
    forks: u32,
}

impl Pin {
    /// Pins the version that is at a destination now.
    pub(crate) fn of(destination: &Destination) -> Result<Self> {
        pin(destination.parent(), &destination.name, false).map_err(|error| failed(&destination.path, error))
    }

    /// The description of the version from when it was pinned.
    pub(crate) fn stat(&self) -> Stat {
        self.stat
    }

    /// Lets go of the version, and removes it if it was displaced and no other reader holds it. `named` looks up the
    /// version that has the name now.
    pub(crate) fn release(self, named: impl FnOnce() -> io::Result<Option<Stat>>, checkpoint: Checkpoint) {
        // The pin is let go of before the name is looked up: a writer that displaces the version after that removes it.
        // A forked child that has a copy of the descriptor keeps the pin, and the next writer removes the displaced
        // version.
        if self.forks == sys::forks() && sys::unlock(self.version.as_fd()).is_err() {
            return;
        }
        // Mostly the version still has its name. Looking that up costs half of asking for the version's path.
        if !matches!(named(), Ok(Some(named)) if named.same(&self.stat)) {
            // If it cannot be removed, it stays for the next writer, or for `sweep`.
            drop(slot::remove_displaced(self.version, checkpoint));
        }
    }
}

impl AsFd for Pin {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.version.as_fd()
    }
}

fn failed(path: &Path, error: io::Error) -> Error {
    let errno = errno(&error);
    let error = Error::new("opening a snapshot", path, error);
    match errno {
        libc::ENOTDIR => error.hint(Hint::SnapshotOfFile),
        libc::EOPNOTSUPP => error.hint(Hint::NoFolderLocks),
        libc::EBUSY => error.kind_is(ErrorKind::Busy).hint(Hint::FolderLocked),
        _ => error,
    }
}

/// Opens and locks the version that a path leads to.
fn pin(at: BorrowedFd, path: &OsStr, follow: bool) -> io::Result<Pin> {
    let nofollow = if follow { OFlag::empty() } else { OFlag::O_NOFOLLOW };
    for round in 0..MAX_ROUNDS {
        if round >= ROUNDS_WITHOUT_PAUSE {
            sys::sleep(Duration::from_millis(1));
        }
        let version = sys::openat(at, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | nofollow, 0)?;
        match sys::lock_shared(version.as_fd())? {
            Lock::Held => {}
            // A process that removes the version holds the lock; the name leads to a newer version by then.
            Lock::Taken => continue,
            Lock::Unsupported => return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
        }
        let pin = Pin { stat: sys::stat_fd(version.as_fd())?, forks: sys::forks(), version };
        let named = || if follow { sys::stat_followed(at, path) } else { sys::stat(at, path) };
        if named()?.is_some_and(|named| named.same(&pin.stat)) {
            return Ok(pin);
        }
        // The version was displaced meanwhile. Its writer may have found it pinned, and have left it.
        pin.release(named, &mut checkpoint::go_on);
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}

/// The path of an open version. It does not lead through `/proc/self`, which is another folder in each process.
fn proc_path(version: &OwnedFd) -> io::Result<PathBuf> {
    static MOUNTED: OnceLock<bool> = OnceLock::new();
    if !*MOUNTED.get_or_init(|| matches!(sys::stat_followed(sys::CWD, "/proc/self/fd".as_ref()), Ok(Some(_)))) {
        return Err(io::Error::other("/proc is not mounted"));
    }
    let fd = std::os::fd::AsRawFd::as_raw_fd(version);
    Ok(PathBuf::from(format!("/proc/{}/fd/{fd}", sys::process_id())))
}

//! `probe`: tries what a filesystem can do.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::fcntl::OFlag;

use crate::checkpoint;
use crate::error::{Error, Result};
use crate::options::Durability;
use crate::slot::{Beside, Known, LockReach, Slot};
use crate::sync;
use crate::sys::{self, EXCHANGE, Lock, NOREPLACE};
use crate::trial;

/// What the filesystem of a folder can do, as it was seen to do it in a scratch slot there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is an answer of its own")]
#[non_exhaustive]
#[must_use = "a probe changes nothing: only its answer counts"]
pub struct Probe {
    /// The filesystem's type, as `/proc/self/mountinfo` names it: "ext4", "fuse.bindfs".
    pub filesystem: String,
    /// The mount's number (`statx(2)`, `STATX_MNT_ID`), 0 before Linux 5.8.
    pub mount_id: u64,
    /// Unnamed files (`O_TMPFILE`) that can be given a name.
    pub unnamed_files: bool,
    /// `RENAME_NOREPLACE`, between folders: false where a sandbox forbids that.
    pub noreplace: bool,
    /// `RENAME_EXCHANGE`, between folders: false where a sandbox forbids that.
    pub exchange: bool,
    /// Copies that share their blocks (`FICLONE`).
    pub reflink: bool,
    /// `flock(2)` on folders: needed for snapshots and updates, and to know orphans from the living.
    pub directory_locks: bool,
    /// How far such a lock is seen: only there do writers know each other's slots, and updates each other's publish.
    pub lock_reach: LockReach,
    /// Hard links (`link(2)`): a new file is published by one where there are unnamed files, or no `RENAME_NOREPLACE`.
    pub hard_links: bool,
    /// Does a new folder show the mode that was asked for? If not, the filesystem makes modes up.
    pub modes_kept: bool,
    /// Does a new file show the user that made it? If not, the filesystem makes owners up.
    pub owners_kept: bool,
    /// `user.*` extended attributes.
    pub xattrs: bool,
    /// `syncfs(2)` that syncs and reports errors.
    pub syncfs: bool,
    /// A durable commit waits for one flush of the disk instead of two: the filesystem's journal makes that enough,
    /// and `ATOMIK_SINGLE_FLUSH=0` is not set. On ext4 only once something has been synced since it was mounted.
    pub single_flush: bool,
    /// The strongest durability that can be promised: [`Durability::NoSync`] in memory; `None` where it is for a
    /// server or a user-space program to keep the promise.
    pub durability: Option<Durability>,
}

impl Probe {
    /// Its rows: a name, and what was seen.
    fn rows(&self) -> [(&'static str, String); 15] {
        let yes = |can: bool| String::from(if can { "yes" } else { "no" });
        [
            ("filesystem", self.filesystem.clone()),
            ("mount id", self.mount_id.to_string()),
            ("unnamed files", yes(self.unnamed_files)),
            ("NOREPLACE", yes(self.noreplace)),
            ("EXCHANGE", yes(self.exchange)),
            ("reflink", yes(self.reflink)),
            ("directory locks", yes(self.directory_locks)),
            ("locks reach", self.lock_reach_words().into()),
            ("hard links", yes(self.hard_links)),
            ("modes kept", yes(self.modes_kept)),
            ("owners kept", yes(self.owners_kept)),
            ("user xattrs", yes(self.xattrs)),
            ("syncfs", yes(self.syncfs)),
            ("single flush", yes(self.single_flush)),
            ("durability", self.durability_word().into()),
        ]
    }

    /// How far locks are seen, in words: "everybody", "this machine and mount", "nobody".
    #[must_use]
    pub fn lock_reach_words(&self) -> &'static str {
        self.lock_reach.words()
    }

    /// The strongest durability in a word: "full", "none", or "unknown".
    #[must_use]
    pub fn durability_word(&self) -> &'static str {
        match self.durability {
            Some(Durability::Full) => "full",
            Some(Durability::Ordered) => "ordered",
            Some(Durability::NoSync) => "none",
            None => "unknown",
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, answer)) in self.rows().iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{name:<16} {answer}")?;
        }
        Ok(())
    }
}

/// Tries what the filesystem of a folder can do. Nothing is left there.
///
/// # Errors
/// The folder cannot be opened, or nothing can be made in it.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// let can = atomik::probe(dir.path())?;
/// println!("{can}");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn probe(directory: impl AsRef<Path>) -> Result<Probe> {
    let directory = directory.as_ref();
    let failed = |error| Error::new("probing", directory, error);
    let (dir, _) = sys::open_parent(sys::CWD, directory.as_os_str(), false).map_err(failed)?;
    let known = Known::default();
    let beside = Beside { dir: dir.as_fd(), destination: OsStr::new("probe"), known: &known };
    let slot = Slot::take(beside).map_err(failed)?;
    let tried = try_all(&slot, beside);
    slot.give_back(beside, &mut checkpoint::go_on).map_err(failed)?;
    tried.map_err(failed)
}

fn try_all(slot: &Slot, beside: Beside) -> io::Result<Probe> {
    let dir = slot.fd.as_fd();
    let make = |name: &str| {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        let fd = sys::openat(dir, OsStr::new(name), flags, 0o600)?;
        sys::write_all(fd.as_fd(), [1; 8192][..].into())?;
        Ok::<_, io::Error>(fd)
    };
    let (one, other) = (make("one")?, make("other")?);
    let rename =
        |old: &str, new: &str, flags| sys::renameat2(dir, OsStr::new(old), dir, OsStr::new(new), flags).is_ok();
    let folders = [OsStr::new("folder"), OsStr::new("other folder")];
    for folder in folders {
        sys::mkdir(dir, folder, 0o700)?;
    }
    let unnamed = match sys::tmpfile(dir)? {
        Some(file) => sys::link_fd(file.as_fd(), dir, OsStr::new("unnamed")).is_ok(),
        None => false,
    };
    let (known, mount) = (beside.mount(), sys::mount_in_table(dir)?);
    let (file, folder) = (sys::stat_fd(one.as_fd())?, sys::stat(dir, folders[0])?);
    let directory_locks = locks(dir)?;
    let moves = trial::may_move(beside.dir, slot.path().as_os_str(), dir, OsStr::new("moved")).is_ok();
    Ok(Probe {
        filesystem: type_of(mount).unwrap_or_else(|| format!("{:#x}", sys::filesystem(dir).unwrap_or(0))),
        mount_id: mount,
        unnamed_files: unnamed,
        noreplace: moves && rename("one", "third", NOREPLACE),
        exchange: moves && rename("folder", "other folder", EXCHANGE),
        reflink: sys::reflink(one.as_fd(), other.as_fd())?,
        directory_locks,
        lock_reach: match beside.domain() {
            _ if !directory_locks => LockReach::Nobody,
            None => LockReach::Everybody,
            Some(_) => LockReach::ThisMachineAndMount,
        },
        hard_links: sys::link(dir, OsStr::new("other"), dir, OsStr::new("linked")).is_ok(),
        modes_kept: folder.is_some_and(|folder| folder.permissions() & 0o777 == 0o700),
        owners_kept: file.uid == beside.known.user.id(),
        xattrs: sys::set_xattr(other.as_fd(), c"user.atomik", b"probe").is_ok(),
        syncfs: known.syncfs_works(),
        single_flush: sync::single_flush(known),
        durability: known.durability(),
    })
}

/// Can a folder be locked, so that another open file of it sees the lock?
fn locks(slot: BorrowedFd) -> io::Result<bool> {
    let open = || sys::open_folder(slot, OsStr::new("folder"));
    let (first, second) = (open()?, open()?);
    Ok(sys::lock(first.as_fd(), false)? == Lock::Held && sys::lock(second.as_fd(), false)? == Lock::Taken)
}

/// The filesystem type of a mount (`proc_pid_mountinfo(5)`: the word after the dash).
fn type_of(mount: u64) -> Option<String> {
    let table = sys::read_file(Path::new("/proc/self/mountinfo")).ok()?;
    let table = String::from_utf8_lossy(&table);
    let line = table.lines().find(|line| line.split(' ').next().is_some_and(|id| id.parse() == Ok(mount)))?;
    line.split(" - ").nth(1)?.split(' ').next().map(String::from)
}

//! `Sweep`: finds and removes orphans for which no next writer comes.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::checkpoint::{self, Checkpoint};
use crate::error::{Error, Result};
use crate::slot::{self, Beside, Known, SweepTerms, Swept};
use crate::sys::{self, errno};
use crate::tree::{self, Visitor};

/// A slot, a room or a lock that a killed process has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    path: PathBuf,
    bytes: u64,
    files: u64,
    age: Duration,
    removed: bool,
}

impl Orphan {
    /// An orphan that another process has found.
    #[cfg(feature = "python")]
    pub(crate) fn restored(path: PathBuf, bytes: u64, files: u64, age: Duration, removed: bool) -> Self {
        Self { path, bytes, files, age, removed }
    }

    /// The path where it is, or was.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes that it takes on the disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many files are in it; folders are not counted.
    #[must_use]
    pub fn files(&self) -> u64 {
        self.files
    }

    /// The time since an entry was last made or removed directly in it.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.age
    }

    /// Has it been removed? A dry run removes nothing, and an orphan stays if an entry in it cannot be removed.
    #[must_use]
    pub fn removed(&self) -> bool {
        self.removed
    }
}

/// Removes orphans from a folder. The next writer to a destination also removes the orphans of that destination.
///
/// A sweep never touches a slot that is alive, pinned or another user's, nor a folder that only has the name of a slot.
/// Where another machine or another mount may have made a slot (see [`LockReach`](crate::LockReach)), its lock does not
/// tell whether its process is alive. Such a slot is removed only if [`older_than`](Sweep::older_than) gives an age,
/// and the slot has reached it.
///
/// # Errors
/// The folder cannot be opened or read. An orphan that cannot be removed is reported, and is no error.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// for orphan in atomik::Sweep::new().dry_run(true).run(dir.path())? {
///     println!("{}: {} bytes", orphan.path().display(), orphan.bytes());
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "nothing is swept until it is run"]
pub struct Sweep {
    recursive: bool,
    dry_run: bool,
    older_than: Option<Duration>,
}

impl Sweep {
    /// Sweeps one folder, and removes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sweeps the folders below as well, but follows no symlink and crosses no mount (default: false).
    pub fn recursive(mut self, recursive: bool) -> Self {
        self.recursive = recursive;
        self
    }

    /// Reports the orphans, and removes nothing (default: false).
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// Also removes slots whose lock tells nothing, from this age on: slots of other lock domains, and slots where
    /// folders cannot be locked (default: none).
    pub fn older_than(mut self, age: Duration) -> Self {
        self.older_than = Some(age);
        self
    }

    /// Sweeps `directory`.
    pub fn run(&self, directory: impl AsRef<Path>) -> Result<Vec<Orphan>> {
        self.run_with(directory.as_ref(), &mut checkpoint::go_on)
    }

    pub(crate) fn run_with(&self, directory: &Path, checkpoint: Checkpoint) -> Result<Vec<Orphan>> {
        let failed = |error| Error::new("sweeping", directory, error);
        let (root, _) = sys::open_parent(sys::CWD, directory.as_os_str(), true).map_err(failed)?;
        let mut finder = Finder {
            sweep: self,
            levels: vec![Level { path: directory.to_owned(), names: Vec::new() }],
            orphans: Vec::new(),
        };
        let reader = sys::open_folder(root.as_fd(), OsStr::new(".")).map_err(failed)?;
        tree::walk(reader, &mut finder, checkpoint).map_err(failed)?;
        finder.finish(root.as_fd(), &mut checkpoint::go_on).map_err(failed)?;
        Ok(finder.orphans)
    }
}

/// A folder that is swept.
struct Level {
    path: PathBuf,
    /// The names in it that the library makes.
    names: Vec<OsString>,
}

struct Finder<'a> {
    sweep: &'a Sweep,
    levels: Vec<Level>,
    orphans: Vec<Orphan>,
}

impl Finder<'_> {
    fn note(&mut self, name: &OsStr) {
        if let Some(level) = self.levels.last_mut() {
            level.names.push(name.to_owned());
        }
    }

    /// Inspects the names that were noted in a folder.
    fn finish(&mut self, dir: BorrowedFd, checkpoint: Checkpoint) -> io::Result<()> {
        let Some(Level { path, names }) = self.levels.pop() else { return Ok(()) };
        let known = Known::default();
        let terms = SweepTerms { dry_run: self.sweep.dry_run, older_than: self.sweep.older_than };
        for name in names {
            let Some(parsed) = slot::parse(&name) else { continue };
            let beside = Beside { dir, destination: &parsed.destination, known: &known };
            for found in slot::sweep_name(beside, &name, &parsed, terms, checkpoint)? {
                let Swept { path: inner, bytes, files, changed, removed } = found;
                let age = SystemTime::now().duration_since(changed).unwrap_or_default();
                self.orphans.push(Orphan { path: path.join(inner), bytes, files, age, removed });
            }
        }
        Ok(())
    }
}

impl Visitor for Finder<'_> {
    fn file(&mut self, _dir: BorrowedFd, name: &OsStr, _kind: u8) -> io::Result<()> {
        if slot::parse(name).is_some() {
            self.note(name);
        }
        Ok(())
    }

    fn enter(&mut self, dir: BorrowedFd, name: &OsStr) -> io::Result<Option<OwnedFd>> {
        if slot::parse(name).is_some() {
            self.note(name);
            return Ok(None);
        }
        if !self.sweep.recursive {
            return Ok(None);
        }
        match sys::open_folder_same_mount(dir, name) {
            Ok(fd) => {
                let path = self.levels.last().map(|level| level.path.join(name)).unwrap_or_default();
                self.levels.push(Level { path, names: Vec::new() });
                Ok(Some(fd))
            }
            // It is another mount or another user's folder, or it was removed or replaced meanwhile.
            Err(error)
                if slot::is_change(&error) || matches!(errno(&error), libc::EXDEV | libc::EACCES | libc::ELOOP) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn leave(&mut self, folder: BorrowedFd, _dir: BorrowedFd, _name: &OsStr) -> io::Result<()> {
        self.finish(folder, &mut checkpoint::go_on)
    }

    fn allows_removal(&self) -> bool {
        true
    }
}

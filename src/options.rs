//! What a caller can ask of a commit.

use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use crate::error::{Error, Hint, Result};

/// What is left of a commit after a power cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When the commit has returned, the new version survives a power cut.
    #[default]
    Full,
    /// After a power cut the destination is complete old or complete new; it may be the old.
    Ordered,
    /// Safe against the end of the process, not of the machine: no sync calls at all. Python and the command call it
    /// `"none"`; here `None` would read as that of [`Option`].
    NoSync,
}

/// When a displaced version is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cleanup {
    /// Before the commit returns.
    #[default]
    Inline,
    /// In a thread, after the commit has returned. What the end of the process interrupts, the next
    /// writer finishes.
    Background,
}

/// What becomes of what a tool has left beside the path that it was given: see [`Entry`](crate::Entry).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Siblings {
    /// Nothing is published: [`ErrorKind::Siblings`](crate::ErrorKind::Siblings) names them.
    #[default]
    Refuse,
    /// They are published beside the destination, in one group with it.
    Publish,
    /// They are removed.
    Discard,
}

/// What a new version starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Start {
    #[default]
    Empty,
    /// The present version, if there is one.
    Present,
    /// The present version, which must be there.
    #[cfg(feature = "python")]
    Existing,
}

/// What the options of a guard mean together.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) overwrite: bool,
    pub(crate) durability: Durability,
    pub(crate) single_flush: bool,
    pub(crate) permissions: Option<u32>,
    pub(crate) preserve: bool,
    pub(crate) follow_symlinks: bool,
    pub(crate) tmp_dir: Option<PathBuf>,
    pub(crate) start: Start,
    pub(crate) append: bool,
    pub(crate) backup: Option<PathBuf>,
    pub(crate) cleanup: Cleanup,
    pub(crate) siblings: Siblings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            overwrite: false,
            durability: Durability::Full,
            single_flush: true,
            permissions: None,
            preserve: true,
            follow_symlinks: false,
            tmp_dir: None,
            start: Start::Empty,
            append: false,
            backup: None,
            cleanup: Cleanup::Inline,
            siblings: Siblings::Refuse,
        }
    }
}

impl Settings {
    /// Are siblings to be published, with something that does not go with a group?
    pub(crate) fn is_no_group(&self) -> bool {
        let alone = self.start != Start::Empty || self.backup.is_some() || self.tmp_dir.is_some();
        self.siblings == Siblings::Publish && alone
    }
}

/// Options for a [`File`](crate::File), a [`Folder`](crate::Folder) or an [`Entry`](crate::Entry).
///
/// Their order does not matter: each sets only itself, and the last call of each counts. What they mean together is
/// decided when a guard is created. Options that contradict each other are refused then with `EINVAL`, before anything is
/// touched.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("settings.json");
/// atomik::File::options()
///     .overwrite(true)
///     .durability(atomik::Durability::Ordered)
///     .write(&path, b"{}")?;
/// # assert_eq!(std::fs::read(&path)?, b"{}");
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use = "options do nothing until something is created with them"]
pub struct Options<Guard> {
    /// All but what the others here decide.
    pub(crate) settings: Settings,
    /// `None`: never said.
    overwrite: Option<bool>,
    update: bool,
    guard: PhantomData<fn() -> Guard>,
}

impl<Guard> Options<Guard> {
    pub(crate) fn new() -> Self {
        Self { settings: Settings::default(), overwrite: None, update: false, guard: PhantomData }
    }

    /// Python's options, where `overwrite=False` is the default and refuses no update.
    #[cfg(feature = "python")]
    pub(crate) fn from_settings(settings: Settings) -> Self {
        Self { overwrite: settings.overwrite.then_some(true), settings, ..Self::new() }
    }

    /// Decides what the options mean together for a new version of `path`.
    pub(crate) fn decide(&self, path: &Path) -> Result<Settings> {
        let refuse = |hint| Err(Error::errno("checking the options", path, libc::EINVAL).hint(hint));
        let mut settings = self.settings.clone();
        settings.overwrite = self.overwrite.unwrap_or_default();
        if self.update || settings.append || settings.start != Start::Empty {
            if self.overwrite == Some(false) {
                return refuse(Hint::OverwriteRefused);
            }
            settings.overwrite = true;
            if settings.start == Start::Empty {
                settings.start = Start::Present;
            }
        }
        if settings.is_no_group() {
            return refuse(Hint::SiblingsAlone);
        }
        Ok(settings)
    }

    /// Replaces what is there (default: only if [`update`](Options::update) or `append` ask for it). Devices, FIFOs, sockets
    /// and mount points are never replaced.
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = Some(overwrite);
        self
    }

    /// Chooses what a power cut may take (default: [`Durability::Full`], nothing).
    pub fn durability(mut self, durability: Durability) -> Self {
        self.settings.durability = durability;
        self
    }

    /// Waits for one flush of the disk instead of two, where the filesystem's journal makes that enough (default: true):
    /// on ext4 with its journal inside, and on xfs with its log on the same device. Elsewhere it changes nothing. The
    /// environment variable `ATOMIK_SINGLE_FLUSH=0`, read once, switches it off for a whole process.
    pub fn single_flush(mut self, single_flush: bool) -> Self {
        self.settings.single_flush = single_flush;
        self
    }

    /// Gives the new version exactly these permission bits, whatever the umask or the old version's.
    pub fn permissions(mut self, mode: u32) -> Self {
        self.settings.permissions = Some(mode & 0o7777);
        self
    }

    /// Keeps the replaced version's mode, owner, group, ACL and user xattrs (default: true).
    pub fn preserve(mut self, preserve: bool) -> Self {
        self.settings.preserve = preserve;
        self
    }

    /// Publishes where a symlink leads (default: false, the link itself is the destination).
    pub fn follow_symlinks(mut self, follow: bool) -> Self {
        self.settings.follow_symlinks = follow;
        self
    }

    /// Starts from a copy of the present version, if there is one (default: from nothing), and replaces it.
    ///
    /// If somebody else has published meanwhile, the commit is refused
    /// ([`ErrorKind::Conflict`](crate::ErrorKind::Conflict)) and theirs stands. A [`File`](crate::File)
    /// starts at its beginning: seek to write elsewhere. It does not go with `overwrite(false)`.
    pub fn update(mut self, update: bool) -> Self {
        self.update = update;
        self
    }

    /// Gives the displaced version this name beside the destination, replacing the backup before it.
    pub fn backup(mut self, name: impl Into<PathBuf>) -> Self {
        self.settings.backup = Some(name.into());
        self
    }

    /// Stages in this folder, which must be on the destination's mount (default: beside the destination).
    pub fn tmp_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.settings.tmp_dir = Some(folder.into());
        self
    }
}

// Derived, they would ask the same of the guard.
impl<Guard> Clone for Options<Guard> {
    fn clone(&self) -> Self {
        Self { settings: self.settings.clone(), ..*self }
    }
}

impl<Guard> fmt::Debug for Options<Guard> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { settings, overwrite, update, guard: _ } = self;
        let mut shown = f.debug_struct("Options");
        shown.field("overwrite", overwrite).field("update", update).field("settings", settings).finish()
    }
}

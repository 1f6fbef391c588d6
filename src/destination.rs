//! The destination: the path that the user names. Its parent folder is opened once, so that `chdir` and a rename of the
//! parent in the body change nothing. Each check that is possible before the body is made when it is opened.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Hint, Result};
use crate::mount::Mount;
use crate::options::{Durability, Settings};
use crate::path::split;
use crate::slot::{self, Beside, Known, PublishLock};
use crate::sys::{self, Stat, errno};

mod checks;
mod symlinks;

pub(crate) use checks::{Check, Kind, refusal};
use symlinks::Located;

/// A resolved destination.
#[derive(Debug)]
pub(crate) struct Destination {
    /// The path as the user gave it: for messages.
    pub(crate) path: PathBuf,
    /// The last component, after symlinks if they are followed.
    pub(crate) name: OsString,
    /// The folder that holds the name; `None` once `close_with` has closed it.
    parent: Option<OwnedFd>,
    /// The folder for staging, if it is not the parent.
    tmp_dir: Option<OwnedFd>,
    /// The facts that are known of the folder for staging.
    known: Known,
    /// False if `parent` or `tmp_dir` was opened without the permission to read it, and so cannot be synced by itself.
    parent_syncs: bool,
    /// Only a folder may be published (the path ends with a slash).
    pub(crate) folder_only: bool,
    /// Does the path begin at a descriptor of the caller's, which is not kept?
    from_descriptor: bool,
}

impl Destination {
    /// Opens the parent of `path` and checks the destination; answers with the version that is there now.
    pub(crate) fn open(
        at: BorrowedFd,
        path: &Path,
        kind: Kind,
        settings: &Settings,
        check: Check,
    ) -> Result<(Self, Option<Stat>)> {
        let (located, slash) = locate(at, path, kind, settings)?;
        let destination = Self {
            path: path.into(),
            name: located.name,
            parent: Some(located.parent),
            tmp_dir: None,
            known: Known::default(),
            parent_syncs: located.parent_syncs,
            folder_only: slash,
            from_descriptor: !path.is_absolute() && at.as_raw_fd() != libc::AT_FDCWD,
        };
        let old = destination.check(kind, settings.overwrite, check)?;
        // A new file is linked, not renamed: an append-only folder takes it.
        if old.is_some() || kind != Kind::File {
            destination.check_move(old)?;
        }
        match &settings.tmp_dir {
            Some(folder) => Ok((destination.staged_in(folder, settings.durability)?, old)),
            None => Ok((destination, old)),
        }
    }

    /// A destination that has been checked before, with its parent opened again.
    pub(crate) fn known(path: PathBuf, name: OsString, parent: OwnedFd, known: Known) -> Self {
        let (tmp_dir, parent) = (None, Some(parent));
        Self { path, name, parent, tmp_dir, known, parent_syncs: true, folder_only: false, from_descriptor: false }
    }

    /// The destination of another name in the same folder.
    pub(crate) fn sibling(&self, name: OsString) -> Result<Self> {
        let parent = self.parent().try_clone_to_owned().map_err(|error| self.unstaged(error))?;
        Ok(Self::known(self.path.with_file_name(&name), name, parent, self.known_of_mount()))
    }

    /// The facts that are known of the mount.
    pub(crate) fn mount(&self) -> Mount {
        self.slots().mount()
    }

    /// The facts that are known of the mount, without those of the folder, for another destination.
    pub(crate) fn known_of_mount(&self) -> Known {
        self.known.on_the_same_mount()
    }

    fn staged_in(mut self, folder: &Path, durability: Durability) -> Result<Self> {
        let failed = |error| Error::new("opening tmp_dir", folder, error);
        let (tmp_dir, syncs) = sys::open_parent(sys::CWD, folder.as_os_str(), true).map_err(failed)?;
        if durability == Durability::Full && !syncs && !Mount::at(tmp_dir.as_fd()).syncfs_works() {
            return Err(Error::errno("opening tmp_dir", folder, libc::EACCES).hint(Hint::UnreadableParent));
        }
        let (here, there) = (self.stat_parent()?, sys::stat_fd(tmp_dir.as_fd()).map_err(failed)?);
        let mounts = (sys::mount_id(self.parent()), sys::mount_id(tmp_dir.as_fd()));
        if here.dev != there.dev || mounts.0.map_err(failed)? != mounts.1.map_err(failed)? {
            return Err(Error::errno("opening tmp_dir", folder, libc::EXDEV)
                .to(&self.path)
                .kind_by_errno()
                .hint(Hint::OtherMount));
        }
        sys::may_write(self.parent(), OsStr::new("."))
            .map_err(|error| self.failed("opening the parent folder", error).hint(Hint::UnwritableParent))?;
        // If tmp_dir is the parent itself, by whatever path, a second descriptor would only be synced a second time.
        if !here.same(&there) {
            self.tmp_dir = Some(tmp_dir);
            self.parent_syncs &= syncs;
            self.known.folder = there.into();
        }
        Ok(self)
    }

    /// The folder that holds the destination.
    pub(crate) fn parent(&self) -> BorrowedFd<'_> {
        // Only `close_with` takes it, at the end of a commit.
        self.parent.as_ref().expect("an open folder until the end").as_fd()
    }

    /// Closes the parent, together with staging and `other`: a new file's name, or the replaced version.
    pub(crate) fn close_with(&mut self, staged: OwnedFd, other: Option<OwnedFd>) {
        sys::close_together([Some(staged), other, self.parent.take()].into_iter().flatten().collect());
    }

    /// Notes the mount and the user that an unnamed file shows which this process has just made here. Then the clean-up
    /// need not ask for them.
    pub(crate) fn learn_from(&self, file: &Stat) {
        slot::learn(self.slots(), file);
    }

    /// The folder that holds slots and unnamed files.
    pub(crate) fn staging(&self) -> BorrowedFd<'_> {
        self.tmp_dir.as_ref().map_or_else(|| self.parent(), AsFd::as_fd)
    }

    /// The folder for staging, where the slots of this destination are.
    pub(crate) fn slots(&self) -> Beside<'_> {
        Beside { dir: self.staging(), destination: &self.name, known: &self.known }
    }

    /// The parent, where the publish lock of this destination is.
    pub(crate) fn beside(&self) -> Beside<'_> {
        Beside { dir: self.parent(), ..self.slots() }
    }

    /// Waits for the publish lock.
    pub(crate) fn lock_publish(&self) -> Result<PublishLock<'_>> {
        let failed = |error| self.failed("taking the publish lock", error);
        PublishLock::take(self.beside()).map_err(failed)?.ok_or_else(|| {
            let name = self.beside().name(slot::Kind::Lock);
            failed(std::io::Error::from_raw_os_error(libc::EBUSY))
                .kind_is(ErrorKind::Busy)
                .hint(Hint::ForeignLock(name.to_string_lossy().into()))
        })
    }

    /// Removes the orphan of a publish lock, if staging is in another folder. Otherwise giving the slot back removes
    /// it.
    pub(crate) fn remove_lock(&self) -> std::io::Result<()> {
        if self.elsewhere() {
            return self.remove_lock_here();
        }
        Ok(())
    }

    /// Removes the orphan of a publish lock, wherever staging is.
    pub(crate) fn remove_lock_here(&self) -> std::io::Result<()> {
        slot::remove_orphan_lock(self.beside())
    }

    /// Can any user rename entries of the folder for staging?
    pub(crate) fn anybody_renames(&self) -> bool {
        self.known.folder.get().is_some_and(|folder| folder.others_rename(0o002))
    }

    /// Is staging in another folder than the destination's?
    pub(crate) fn elsewhere(&self) -> bool {
        self.tmp_dir.is_some()
    }

    /// The version that has the name now.
    pub(crate) fn stat(&self) -> Result<Option<Stat>> {
        sys::stat(self.parent(), &self.name).map_err(|error| self.failed("looking at the destination", error))
    }

    /// Does the parent take new files, but no renames (`chattr +a`)?
    pub(crate) fn is_append_only(&self) -> bool {
        self.stat_parent().is_ok_and(|parent| parent.append_only)
    }

    fn stat_parent(&self) -> Result<Stat> {
        self.patiently(|| {
            sys::stat_fd(self.parent()).map_err(|error| self.failed("looking at the parent folder", error))
        })
    }

    /// Refuses a destination that a version of this kind must not replace; answers with the version that is there.
    pub(crate) fn check(&self, kind: Kind, overwrite: bool, check: Check) -> Result<Option<Stat>> {
        let Some(old) = self.stat()? else { return Ok(None) };
        let refuse =
            |errno, hint| Err(Error::errno("checking the destination", &self.path, errno).kind_by_errno().hint(hint));
        if !overwrite {
            return refuse(libc::EEXIST, Hint::Exists);
        }
        if old.mount_root {
            return refuse(libc::EBUSY, Hint::MountPoint);
        }
        if let Some((errno, hint)) = refusal(self.parent(), &self.name, &old, kind) {
            return refuse(errno, hint);
        }
        if let Some(attribute) = old.fixed() {
            return refuse(libc::EPERM, Hint::Fixed(attribute.into()));
        }
        if check == Check::BeforeBody && !self.is_own(&old) {
            let parent = self.stat_parent()?;
            let me = self.known.user.id();
            if parent.mode & libc::S_ISVTX != 0 && me != 0 && parent.uid != me {
                return refuse(libc::EPERM, Hint::Sticky);
            }
        }
        Ok(Some(old))
    }

    /// Does the version that is there belong to this user?
    fn is_own(&self, old: &Stat) -> bool {
        // The user id that the program started with costs no system call.
        old.uid == sys::started_as() || old.uid == self.known.user.id()
    }

    /// Refuses, before the body, a parent or a replaced folder that the kernel would not let the publish rename.
    fn check_move(&self, old: Option<Stat>) -> Result<()> {
        let parent = self.stat_parent()?;
        self.known.folder.get_or_init(|| parent);
        if let Some(attribute) = parent.fixed() {
            return Err(Error::errno("checking the parent folder", &self.path, libc::EPERM)
                .hint(Hint::NothingRenamed(attribute.into())));
        }
        // An exchange moves the old folder to another parent. That takes write permission on the folder itself, which
        // its owner can add.
        match old {
            Some(old) if old.is_folder() && old.uid != self.known.user.id() => {
                match sys::may_write(self.parent(), &self.name) {
                    // It is replaced just now.
                    Err(error) if slot::is_change(&error) => Ok(()),
                    Err(error) => Err(self.failed("checking the destination", error).hint(Hint::UnwritableFolder)),
                    Ok(()) => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Did another user put this version into a folder that all users can write to? Keeping its mode and owner would
    /// hand the new content to that user. So it is replaced as if it did not exist, by the rule of
    /// `fs.protected_regular` (`proc_sys_fs(5)`).
    pub(crate) fn is_strangers(&self, old: &Stat) -> bool {
        if self.is_own(old) {
            return false;
        }
        let parent = match self.known.folder.get() {
            Some(folder) if self.tmp_dir.is_none() => Ok(*folder),
            _ => sys::stat_fd(self.parent()),
        };
        // A folder that cannot be looked at counts as one that all users can write to.
        parent.map_or(true, |parent| parent.mode & 0o002 != 0 && parent.uid != old.uid)
    }

    /// Refuses, just before the publish, a parent that was displaced or removed since it was opened. A parent that was
    /// only moved is still the destination's.
    pub(crate) fn check_place(&self) -> Result<()> {
        if self.is_displaced() { Err(folder_conflict(&self.path)) } else { Ok(()) }
    }

    fn is_displaced(&self) -> bool {
        slot::is_displaced(self.parent(), self.beside(), |slot| self.from_descriptor || self.leads_into(slot))
    }

    /// Does the caller's path lead into this slot? Then the caller writes into the staging of another body.
    fn leads_into(&self, slot: &Path) -> bool {
        let lead = || -> Option<bool> {
            let (parent, _, _) = split(&self.path).ok()?;
            let (parent, _) = sys::open_parent(sys::CWD, parent, false).ok()?;
            Some(match sys::path_now(parent.as_fd()) {
                Ok(path) => Path::new(&path).starts_with(slot),
                Err(_) => sys::stat_fd(parent.as_fd()).ok()?.same(&sys::stat_fd(self.parent()).ok()?),
            })
        };
        lead().unwrap_or(false)
    }

    /// The error of a commit; a conflict if it failed since the parent was displaced or removed.
    pub(crate) fn explained(&self, error: Error) -> Error {
        let missing = matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE | libc::ENOTDIR));
        if missing && !error.committed() && (slot::is_removed(self.parent()) || self.is_displaced()) {
            return folder_conflict(&self.path);
        }
        error
    }

    /// Makes the publish durable: syncs the parent, and the folder for staging if it is another.
    pub(crate) fn sync_parents(&self, staged: BorrowedFd) -> Result<()> {
        let tmp_dir = || self.tmp_dir.as_ref().map_or(Ok(()), |folder| sys::fsync(folder.as_fd()));
        let synced =
            if self.parent_syncs { sys::fsync(self.parent()).and_then(|()| tmp_dir()) } else { sys::syncfs(staged) };
        synced.map_err(|error| {
            self.failed("syncing the parent folder", error)
                .kind_is(ErrorKind::Durability)
                .after_publish()
                .hint(Hint::OldMayReturn)
        })
    }

    /// The error if staging could not be made.
    pub(crate) fn unstaged(&self, error: std::io::Error) -> Error {
        let denied = matches!(errno(&error), libc::EACCES | libc::EPERM | libc::EROFS);
        let folder = if errno(&error) == libc::EPERM { sys::stat_fd(self.staging()).ok() } else { None };
        let error = self.failed("creating staging", error);
        if let Some(attribute) = folder.and_then(|folder| folder.fixed()) {
            return error.hint(Hint::NothingNew(attribute.into()));
        }
        if denied { error.hint(Hint::UnwritableStaging) } else { error }
    }

    /// Repeats a step that a FUSE or network filesystem answers oddly: bindfs says `ENOENT` of what is there, and even of
    /// what is open, while other processes work in the same folder.
    pub(crate) fn patiently<T>(&self, mut step: impl FnMut() -> Result<T>) -> Result<T> {
        let mut patience = slot::Patience::default();
        loop {
            match step() {
                Err(error) if patience.again(self.slots(), error.io()) => {}
                other => return other,
            }
        }
    }

    /// An error of the system about this destination.
    pub(crate) fn failed(&self, operation: &'static str, error: std::io::Error) -> Error {
        Error::new(operation, &self.path, error)
    }

    /// The absolute path of the folder for staging, for names that are handed to other programs; `None` if it is too
    /// long for one system call.
    pub(crate) fn staging_path(&self) -> Option<PathBuf> {
        match sys::path_now(self.staging()) {
            Ok(path) => Some(path.into()),
            Err(error) if errno(&error) == libc::ENAMETOOLONG => None,
            // Without /proc: the path that the user gave, from the current folder.
            Err(_) => sys::absolute(self.path.parent().unwrap_or(Path::new("."))).ok(),
        }
    }
}

/// Opens the parent of `path`, after symlinks if they are followed, and refuses names that no version can have. Also
/// says whether the path ends with a slash.
fn locate(at: BorrowedFd, path: &Path, kind: Kind, settings: &Settings) -> Result<(Located, bool)> {
    let readable = settings.durability == Durability::Full;
    let (folder, name, slash) = split(path)?;
    let (parent, parent_syncs) = symlinks::open_parent(at, folder, path, readable)?;
    let mut located = Located { parent, parent_syncs, name: name.to_owned() };
    if settings.follow_symlinks {
        located = symlinks::follow(located, path, readable)?;
    }
    if slot::is_reserved(&located.name) {
        return Err(Error::errno("reading the path", path, libc::EINVAL).hint(Hint::ReservedName));
    }
    if slash && kind == Kind::File {
        return Err(Error::errno("opening the destination", path, libc::EISDIR).hint(Hint::SlashAfterFile));
    }
    if readable && !located.parent_syncs && !Mount::at(located.parent.as_fd()).syncfs_works() {
        return Err(Error::errno("opening the parent folder", path, libc::EACCES).hint(Hint::UnreadableParent));
    }
    Ok((located, slash))
}

/// The error of a publish into a folder that is no longer there.
pub(crate) fn folder_conflict(path: &Path) -> Error {
    Error::errno("publishing", path, libc::ESTALE).kind_is(ErrorKind::Conflict).hint(Hint::ParentReplaced)
}

//! The destination: the path that the user names, opened once, so that `chdir` and a renamed parent
//! folder change nothing, and everything about it that can be known before the body runs.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Hint, Result};
use crate::mount::Mount;
use crate::options::{Durability, Settings};
use crate::path::split;
use crate::slot::{self, Beside, Known, PublishLock};
use crate::sys::{self, Stat, errno};

/// What is to be published; `Any` until a tool has made up its mind ([`crate::Entry`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
    Any,
}

/// A resolved destination.
#[derive(Debug)]
pub(crate) struct Destination {
    /// As the user gave it: for messages.
    pub(crate) path: PathBuf,
    /// The last component, after symlinks if they are followed.
    pub(crate) name: OsString,
    /// The folder that holds the name; taken when it is closed with another.
    parent: Option<OwnedFd>,
    /// The folder for staging, if it is another one.
    tmp_dir: Option<OwnedFd>,
    /// What is known of the folder of staging.
    known: Known,
    /// False if `parent` may not be read, and so cannot be synced by itself.
    parent_syncs: bool,
    /// Only a folder may be published (the path ends with a slash).
    pub(crate) folder_only: bool,
    /// Does the path begin at a descriptor of the caller's, which is not kept?
    from_descriptor: bool,
}

impl Destination {
    /// Opens the parent of `path` and refuses what can be refused before anything is made; answers
    /// with what is there now. `early`: a body follows.
    pub(crate) fn open(
        at: BorrowedFd,
        path: &Path,
        kind: Kind,
        settings: &Settings,
        early: bool,
    ) -> Result<(Self, Option<Stat>)> {
        let readable = settings.durability == Durability::Full;
        let (parent_path, name, slash) = split(path)?;
        let failed = |error| Error::new("opening the parent folder", path, error).hint(Hint::NoParent);
        let (mut parent, mut parent_syncs) = sys::open_parent(at, parent_path, readable).map_err(failed)?;
        let mut name = name.to_owned();
        if settings.follow_symlinks {
            // Before it is followed: what is below /proc leads to open files, whose names are not what the caller meant.
            if leads_below_proc(parent.as_fd(), &name) {
                return Err(Error::errno("following symlinks", path, libc::EBUSY)
                    .kind_by_errno()
                    .hint(Hint::SymlinkBelowProc));
            }
            // As open(2) follows them: a dangling one names what is to be created.
            for hop in 0.. {
                let denied = |error| Error::new("following a symlink", path, error);
                let target = match sys::readlink(parent.as_fd(), &name) {
                    Ok(target) => target,
                    Err(error) if matches!(errno(&error), libc::EINVAL | libc::ENOENT) => break,
                    Err(error) => return Err(denied(error)),
                };
                // The kernel's own rule, `fs.protected_symlinks`, holds for those who follow by themselves, too.
                match sys::stat_followed(parent.as_fd(), &name) {
                    Err(error) if errno(&error) == libc::EACCES => {
                        return Err(denied(error).hint(Hint::StrangersSymlink));
                    }
                    _ => {}
                }
                if hop == MAX_SYMLINKS {
                    return Err(Error::errno("following symlinks", path, libc::ELOOP));
                }
                let (folder, last, _) = split(Path::new(&target))?;
                (parent, parent_syncs) = sys::open_parent(parent.as_fd(), folder, readable).map_err(failed)?;
                last.clone_into(&mut name);
            }
        }
        if slot::is_reserved(&name) {
            return Err(Error::errno("reading the path", path, libc::EINVAL).hint(Hint::ReservedName));
        }
        if slash && kind == Kind::File {
            return Err(Error::errno("opening the destination", path, libc::EISDIR).hint(Hint::SlashAfterFile));
        }
        if readable && !parent_syncs && !Mount::of(parent.as_fd()).syncfs_works() {
            return Err(Error::errno("opening the parent folder", path, libc::EACCES).hint(Hint::UnreadableParent));
        }
        let destination = Self {
            path: path.into(),
            name,
            parent: Some(parent),
            tmp_dir: None,
            known: Known::default(),
            parent_syncs,
            folder_only: slash,
            from_descriptor: !path.is_absolute() && at.as_raw_fd() != libc::AT_FDCWD,
        };
        let old = destination.check(kind, settings.overwrite, early)?;
        // A new file is linked, not renamed: an append-only folder takes it.
        if old.is_some() || kind != Kind::File {
            destination.check_move(old)?;
        }
        match &settings.tmp_dir {
            Some(folder) => Ok((destination.staged_in(folder)?, old)),
            None => Ok((destination, old)),
        }
    }

    /// A destination that was looked at before, by its folder, open again.
    pub(crate) fn known(path: PathBuf, name: OsString, parent: OwnedFd, known: Known) -> Self {
        let (tmp_dir, parent) = (None, Some(parent));
        Self { path, name, parent, tmp_dir, known, parent_syncs: true, folder_only: false, from_descriptor: false }
    }

    /// The destination of another name in the same folder.
    pub(crate) fn beside_it(&self, name: OsString) -> Result<Self> {
        let parent = self.parent().try_clone_to_owned().map_err(|error| self.unstaged(error))?;
        Ok(Self::known(self.path.with_file_name(&name), name, parent, self.known_of_mount()))
    }

    /// What is known of the mount.
    pub(crate) fn known_of_mount(&self) -> Known {
        self.known.on_the_same_mount()
    }

    fn staged_in(mut self, folder: &Path) -> Result<Self> {
        let failed = |error| Error::new("opening tmp_dir", folder, error);
        let (tmp_dir, _) = sys::open_parent(sys::CWD, folder.as_os_str(), true).map_err(failed)?;
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
        // The same folder by another name would only be synced twice.
        if !here.same(&there) {
            self.tmp_dir = Some(tmp_dir);
            self.known.folder = there.into();
        }
        Ok(self)
    }

    /// The folder that holds the destination.
    pub(crate) fn parent(&self) -> BorrowedFd<'_> {
        // Only `close_with` takes it, at the end of a commit.
        self.parent.as_ref().expect("an open folder until the end").as_fd()
    }

    /// Closes what was staged, what else is open of the destination (a new file's name, or the replaced version), and the
    /// parent, which nobody needs any more.
    pub(crate) fn close_with(&mut self, staged: OwnedFd, other: Option<OwnedFd>) {
        sys::close_together([Some(staged), other, self.parent.take()].into_iter().flatten().collect());
    }

    /// Learns from an unnamed file that this process has just made here what the clean-up asks otherwise: the mount, and
    /// the user.
    pub(crate) fn learn_from(&self, file: &Stat) {
        slot::learn(self.slots(), file);
    }

    /// The folder that holds slots and unnamed files.
    pub(crate) fn staging(&self) -> BorrowedFd<'_> {
        self.tmp_dir.as_ref().map_or_else(|| self.parent(), AsFd::as_fd)
    }

    /// Where its slots are.
    pub(crate) fn slots(&self) -> Beside<'_> {
        Beside { dir: self.staging(), destination: &self.name, known: &self.known }
    }

    /// Where its publish lock is.
    pub(crate) fn beside(&self) -> Beside<'_> {
        Beside { dir: self.parent(), ..self.slots() }
    }

    /// Has a stranger put this where everybody can? Their mode and owner would hand our content to them: it is
    /// replaced as if it were not there, as `fs.protected_regular` (`proc_sys_fs(5)`) judges it.
    pub(crate) fn is_strangers(&self, old: &Stat) -> bool {
        // What the program started as costs no system call.
        if old.uid == sys::started_as() || old.uid == self.known.user.id() {
            return false;
        }
        let parent = match self.known.folder.get() {
            Some(folder) if self.tmp_dir.is_none() => Ok(*folder),
            _ => sys::stat_fd(self.parent()),
        };
        // A folder that cannot be looked at is taken for one that everybody can write to.
        parent.map_or(true, |parent| parent.mode & 0o002 != 0 && parent.uid != old.uid)
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

    /// Removes the publish lock's name, if it could not be removed in time and nobody who cleans up staging
    /// comes by here.
    pub(crate) fn remove_lock(&self) -> std::io::Result<()> {
        if self.elsewhere() {
            return self.remove_lock_here();
        }
        Ok(())
    }

    /// The same wherever staging is.
    pub(crate) fn remove_lock_here(&self) -> std::io::Result<()> {
        slot::remove_orphan_lock(self.beside())
    }

    /// Can any user rename what stands in the folder of staging?
    pub(crate) fn anybody_renames(&self) -> bool {
        self.known.folder.get().is_some_and(|folder| folder.others_rename(0o002))
    }

    /// Does staging happen in another folder than the destination's?
    pub(crate) fn elsewhere(&self) -> bool {
        self.tmp_dir.is_some()
    }

    /// What has the name now.
    pub(crate) fn stat(&self) -> Result<Option<Stat>> {
        sys::stat(self.parent(), &self.name).map_err(|error| self.failed("looking at the destination", error))
    }

    /// Can files be made in its folder, and never be renamed there (`chattr +a`)?
    pub(crate) fn is_append_only(&self) -> bool {
        self.stat_parent().is_ok_and(|parent| parent.append_only)
    }

    fn stat_parent(&self) -> Result<Stat> {
        sys::stat_fd(self.parent()).map_err(|error| self.failed("looking at the parent folder", error))
    }

    /// Refuses, before the body, what renaming something to here would be refused for after it.
    fn check_move(&self, old: Option<Stat>) -> Result<()> {
        let parent = self.stat_parent()?;
        self.known.folder.get_or_init(|| parent);
        if let Some(attribute) = parent.fixed() {
            return Err(Error::errno("checking the parent folder", &self.path, libc::EPERM)
                .hint(Hint::NothingRenamed(attribute.into())));
        }
        // A folder that is exchanged moves to another parent, for which it must be writable itself;
        // its owner can see to that.
        match old {
            Some(old) if old.is_folder() && old.uid != self.known.user.id() => {
                sys::may_write(self.parent(), &self.name)
                    .map_err(|error| self.failed("checking the destination", error).hint(Hint::UnwritableFolder))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a destination that must not be replaced by a `kind`; answers what is there. `early`
    /// adds what the publish itself would refuse, too late.
    pub(crate) fn check(&self, kind: Kind, overwrite: bool, early: bool) -> Result<Option<Stat>> {
        let Some(old) = self.stat()? else { return Ok(None) };
        let refuse =
            |errno, hint| Err(Error::errno("checking the destination", &self.path, errno).kind_by_errno().hint(hint));
        if !overwrite {
            return refuse(libc::EEXIST, Hint::Exists);
        }
        if old.mount_root {
            return refuse(libc::EBUSY, Hint::MountPoint);
        }
        match (old.kind(), kind) {
            (libc::S_IFDIR, Kind::File) => return refuse(libc::EISDIR, Hint::FolderByFile),
            (libc::S_IFREG, Kind::Folder) => return refuse(libc::ENOTDIR, Hint::FileByFolder),
            (libc::S_IFDIR | libc::S_IFREG | libc::S_IFLNK, _) => {}
            _ => return refuse(libc::EBUSY, Hint::Special),
        }
        if old.kind() == libc::S_IFLNK {
            if let Some(hint) = never_replaced(self.parent(), &self.name) {
                return refuse(libc::EBUSY, hint);
            }
        }
        if let Some(attribute) = old.fixed() {
            return refuse(libc::EPERM, Hint::Fixed(attribute.into()));
        }
        if early && old.uid != sys::started_as() && old.uid != self.known.user.id() {
            let parent = self.stat_parent()?;
            let me = self.known.user.id();
            if parent.mode & libc::S_ISVTX != 0 && me != 0 && parent.uid != me {
                return refuse(libc::EPERM, Hint::Sticky);
            }
        }
        Ok(Some(old))
    }

    /// Refuses, just before the publish, a folder that was displaced or removed since it was opened. One that was only moved
    /// is still the destination's.
    pub(crate) fn check_place(&self) -> Result<()> {
        if self.is_displaced() { Err(folder_conflict(&self.path)) } else { Ok(()) }
    }

    fn is_displaced(&self) -> bool {
        slot::is_displaced(self.parent(), self.beside(), |slot| self.from_descriptor || self.leads_into(slot))
    }

    /// Does the caller's path lead into a slot? Then the caller writes into the staging of another body.
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

    /// The error of a commit, or what explains it: what was to be published, or where, has gone with the folder.
    pub(crate) fn explained(&self, error: Error) -> Error {
        let missing = matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE | libc::ENOTDIR));
        if missing && !error.committed() && (slot::is_removed(self.parent()) || self.is_displaced()) {
            return folder_conflict(&self.path);
        }
        error
    }

    /// Makes the publish durable: syncs the parent, and the folder of staging if it is another.
    pub(crate) fn sync_parents(&self, staged: BorrowedFd) -> Result<()> {
        let synced = if self.parent_syncs { sys::fsync(self.parent()) } else { sys::syncfs(staged) };
        let synced = synced.and_then(|()| self.tmp_dir.as_ref().map_or(Ok(()), |folder| sys::fsync(folder.as_fd())));
        synced.map_err(|error| {
            self.failed("syncing the parent folder", error)
                .kind_is(ErrorKind::Durability)
                .after_publish()
                .hint(Hint::OldMayReturn)
        })
    }

    /// An error on the way to staging.
    pub(crate) fn unstaged(&self, error: std::io::Error) -> Error {
        let denied = matches!(errno(&error), libc::EACCES | libc::EPERM | libc::EROFS);
        let folder = if errno(&error) == libc::EPERM { sys::stat_fd(self.staging()).ok() } else { None };
        let error = self.failed("creating staging", error);
        if let Some(attribute) = folder.and_then(|folder| folder.fixed()) {
            return error.hint(Hint::NothingNew(attribute.into()));
        }
        if denied { error.hint(Hint::UnwritableStaging) } else { error }
    }

    /// An error of the system about this destination.
    pub(crate) fn failed(&self, operation: &'static str, error: std::io::Error) -> Error {
        Error::new(operation, &self.path, error)
    }

    /// The absolute path of the folder of staging, for names that are handed to other programs; `None`
    /// if it is too long for one system call.
    pub(crate) fn staging_path(&self) -> Option<PathBuf> {
        match std::fs::read_link(sys::proc_path(self.staging())) {
            Ok(path) => Some(path),
            Err(error) if errno(&error) == libc::ENAMETOOLONG => None,
            // Without /proc: as the user wrote it, from where the program stands now.
            Err(_) => std::path::absolute(self.path.parent().unwrap_or(Path::new("."))).ok(),
        }
    }
}

/// The error of a body whose destination's folder is no longer there.
pub(crate) fn folder_conflict(path: &Path) -> Error {
    Error::errno("publishing", path, libc::ESTALE).kind_is(ErrorKind::Conflict).hint(Hint::ParentReplaced)
}

/// How many symlinks are followed, as `open(2)` follows them.
const MAX_SYMLINKS: u32 = 40;

/// Does a symlink lead to something that is never replaced? Then neither is the symlink: a program that writes to
/// `/dev/stdout` means what it leads to. Answers what to say about it.
pub(crate) fn never_replaced(dir: BorrowedFd, name: &OsStr) -> Option<Hint> {
    // What cannot be looked at is none of these, as far as this user can tell.
    match sys::stat_followed(dir, name) {
        Ok(Some(there)) if there.mount_root => return Some(Hint::SymlinkToMount),
        Ok(Some(there)) if !matches!(there.kind(), libc::S_IFDIR | libc::S_IFREG) => {
            return Some(Hint::SymlinkToSpecial);
        }
        _ => {}
    }
    leads_below_proc(dir, name).then_some(Hint::SymlinkBelowProc)
}

/// Is the name a symlink that leads below `/proc`? An open file there is a symlink itself, to the name that the file had: it
/// is looked at where a path comes through, not at its end.
fn leads_below_proc(dir: BorrowedFd, name: &OsStr) -> bool {
    let mut at: Option<OwnedFd> = None;
    let mut name = name.to_owned();
    for _ in 0..MAX_SYMLINKS {
        let folder = at.as_ref().map_or(dir, AsFd::as_fd);
        let Ok(target) = sys::readlink(folder, &name) else { return false };
        if Path::new(&target).starts_with("/proc") || is_proc(folder) {
            return true;
        }
        let Ok((parent, last, _)) = split(Path::new(&target)) else { return false };
        let Ok((parent, _)) = sys::open_parent(folder, parent, false) else { return false };
        if is_proc(parent.as_fd()) {
            return true;
        }
        last.clone_into(&mut name);
        at = Some(parent);
    }
    false
}

fn is_proc(folder: BorrowedFd) -> bool {
    sys::filesystem(folder).is_ok_and(|kind| kind == sys::filesystems::PROC)
}

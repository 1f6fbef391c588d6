//! Whose a slot, a room or a lock is: told by owner and mode, where the filesystem keeps them.
//!
//! Some make them up (FAT, CIFS with `uid=` and `dir_mode=`, a FUSE mount that forces an owner): there a folder that was
//! just made does not show what was asked for. A file, made with `O_EXCL` and looked at by its own descriptor, shows what
//! any file of this process shows there, and nobody can put another in its place.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::OFlag;

use super::beside::{Beside, Fresh};
use super::name;
use crate::sys::filesystems::{BTRFS, EXT4, F2FS, OVERLAY, TMPFS, XFS};
use crate::sys::{self, Stat, errno};

/// The bit that marks a slot or a room where others can rename what is in the folder: [`Beside::mode`].
const MARK: u32 = 0o1000;

/// Filesystems that are known to keep owners and modes.
const KEEPING: [u64; 6] = [EXT4, XFS, BTRFS, F2FS, TMPFS, OVERLAY];

impl Beside<'_> {
    /// The mode of a slot and of a room. Where others can rename in the folder, a folder of this user that is no slot might
    /// be given a slot's name, to be emptied: there slots are marked by a bit that no other folder has beside this mode.
    pub(crate) fn mode(&self) -> io::Result<u32> {
        let open = self.look()?.others_rename(0o022);
        Ok(if open { MARK | 0o700 } else { 0o700 })
    }

    /// Does what shows this owner belong to this user?
    pub(crate) fn owns(&self, stat: &Stat) -> bool {
        stat.uid == self.known.user.id() || self.known.fresh.get().is_some_and(|fresh| fresh.uid == stat.uid)
    }

    /// Asks whether a folder is this user's, and once more after finding out, in that folder, what the filesystem makes up.
    pub(super) fn recognizes(&self, folder: BorrowedFd, ask: impl Fn() -> io::Result<bool>) -> io::Result<bool> {
        if ask()? {
            return Ok(true);
        }
        let known = self.known.fresh.get().is_some();
        if known || sys::filesystem(self.dir).is_ok_and(|kind| KEEPING.contains(&kind)) {
            return Ok(false);
        }
        self.learn(folder)?;
        ask()
    }

    /// Are modes known to be made up here?
    pub(crate) fn makes_up_modes(&self) -> bool {
        self.known.fresh.get().is_some_and(|fresh| !fresh.modes_kept)
    }

    /// Is this folder a slot or a room of this user, by its owner and its mode?
    pub(super) fn is_own_folder(&self, stat: &Stat) -> io::Result<bool> {
        let marked = stat.mode & 0o1077 == MARK;
        let owned = self.owns(stat) && stat.is_folder() && !stat.mount_root;
        Ok(owned && (marked || self.mode()? == 0o700 || self.makes_up_modes()))
    }

    /// Is this file one that this user has on its way to the destination?
    pub(super) fn is_own_file(&self, stat: &Stat) -> io::Result<bool> {
        // A file that root replaces gets its owner back before it has a name, unless everybody can put
        // files here: it cannot be told from that owner's own file, and only the name is removed.
        let restored = self.known.user.id() == 0 && self.look()?.mode & 0o002 == 0;
        Ok(stat.kind() == libc::S_IFREG && (self.owns(stat) || restored))
    }

    /// Makes the mark on a slot or a room that this process has made and that is still empty, and finds out what is made up
    /// here. Answers what the folder shows then, and whether it is this user's.
    pub(super) fn claim(&self, folder: BorrowedFd, mut stat: Stat) -> io::Result<(Stat, bool)> {
        let unmarked = stat.mode & 0o1077 != MARK && self.mode()? != 0o700;
        // Changing the mode might cost a group that is to be inherited.
        if unmarked && self.owns(&stat) && stat.mode & libc::S_ISGID == 0 {
            match sys::chmod(folder, MARK | 0o700) {
                Err(error) if !is_refusal(&error) => return Err(error),
                _ => stat = sys::stat_fd(folder)?,
            }
        }
        let inherits = stat.mode & libc::S_ISGID != 0 && self.owns(&stat);
        if inherits || self.is_own_folder(&stat)? {
            return Ok((stat, stat.is_folder() && !stat.mount_root));
        }
        self.learn(folder)?;
        Ok((stat, self.is_own_folder(&stat)?))
    }

    /// Finds out what a file shows that this process makes in `folder`, a slot or a room, with which the file goes if the
    /// process is killed here. Where the process can make none, nothing is known.
    fn learn(&self, folder: BorrowedFd) -> io::Result<()> {
        if self.known.fresh.get().is_some() {
            return Ok(());
        }
        let name = name::name(name::Kind::Porch, Some(sys::random()?), OsStr::new("owner"));
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        let file = match sys::openat(folder, &name, flags, 0o600) {
            Err(error) if is_refusal(&error) => return Ok(()),
            other => other?,
        };
        let stat = sys::stat_fd(file.as_fd());
        drop(file);
        sys::unlink(folder, &name)?;
        let stat = stat?;
        self.known.fresh.get_or_init(|| Fresh { uid: stat.uid, modes_kept: stat.permissions() == 0o600 });
        Ok(())
    }
}

/// What a filesystem answers that has no modes to change, or that is not this user's to change.
fn is_refusal(error: &io::Error) -> bool {
    matches!(errno(error), libc::EPERM | libc::EACCES | libc::EROFS | libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL)
}

//! The owner of a slot, a room or a lock: told by owner and mode, where the filesystem keeps them.
//!
//! Some filesystems make owners and modes up (FAT, CIFS with `uid=` and `dir_mode=`, a FUSE mount that forces an
//! owner): there a new folder does not show the owner and mode that were asked for. So this process makes a file with
//! `O_EXCL`, and describes it by its descriptor, in whose place no other user can put another file. Each file of this
//! process shows that owner.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::OFlag;

use super::beside::{Beside, Fresh};
use super::name;
use crate::sys::filesystems::{BTRFS, EXT4, F2FS, OVERLAY, TMPFS, XFS};
use crate::sys::{self, Stat, errno};

/// The bit of a slot or a room where other users can rename entries of the folder: [`Beside::mode`].
const STICKY: u32 = 0o1000;

/// Filesystems that are known to keep owners and modes.
const KEEPS_OWNERS: [u64; 6] = [EXT4, XFS, BTRFS, F2FS, TMPFS, OVERLAY];

impl Beside<'_> {
    /// The mode of a slot and of a room. Where other users can rename entries of the folder, they could give another
    /// folder of this user a slot's name, so that it would be emptied. There slots have the sticky bit, which no other
    /// folder of mode 0700 has.
    pub(crate) fn mode(&self) -> io::Result<u32> {
        let open = self.folder()?.others_rename(0o022);
        Ok(if open { STICKY | 0o700 } else { 0o700 })
    }

    /// Does a file or folder with this owner belong to this user?
    pub(super) fn owns(&self, stat: &Stat) -> bool {
        stat.uid == self.known.user.id() || self.known.fresh.get().is_some_and(|fresh| fresh.uid == stat.uid)
    }

    /// Asks whether a folder is this user's. If it is not, asks once more after a file in that folder has shown the
    /// owner and mode that the filesystem makes up.
    pub(super) fn recognizes(&self, folder: BorrowedFd, ask: impl Fn() -> io::Result<bool>) -> io::Result<bool> {
        if ask()? {
            return Ok(true);
        }
        let known = self.known.fresh.get().is_some();
        if known || KEEPS_OWNERS.contains(&self.filesystem()) {
            return Ok(false);
        }
        self.learn_from_a_file(folder)?;
        ask()
    }

    /// Are modes known to be made up here?
    pub(super) fn makes_up_modes(&self) -> bool {
        self.known.fresh.get().is_some_and(|fresh| !fresh.modes_kept)
    }

    /// Is this folder a slot or a room of this user, by its owner and its mode?
    pub(super) fn is_own_folder(&self, stat: &Stat) -> io::Result<bool> {
        let marked = stat.mode & 0o1077 == STICKY;
        let owned = self.owns(stat) && stat.is_folder() && !stat.mount_root;
        Ok(owned && (marked || self.mode()? == 0o700 || self.makes_up_modes()))
    }

    /// Is this file a slot of this user?
    pub(super) fn is_own_file(&self, stat: &Stat) -> io::Result<bool> {
        // A file that root replaces gets its owner back before it is linked as a slot. So a file of another owner
        // counts as root's slot, unless all users can put files here. Only its name is removed.
        let restored = self.known.user.id() == 0 && self.folder()?.mode & 0o002 == 0;
        Ok(stat.kind() == libc::S_IFREG && (self.owns(stat) || restored))
    }

    /// Sets the sticky bit, where slots have it, on an empty slot or room that this process has made, and finds out
    /// whether owner and mode are made up. Answers with the folder's description, and whether it is this user's.
    pub(super) fn claim(&self, folder: BorrowedFd, mut stat: Stat) -> io::Result<(Stat, bool)> {
        let unmarked = stat.mode & 0o1077 != STICKY && self.mode()? != 0o700;
        // Changing the mode might clear the set-group-id bit, and with it the group that entries inherit.
        if unmarked && self.owns(&stat) && stat.mode & libc::S_ISGID == 0 {
            match sys::chmod(folder, STICKY | 0o700) {
                Err(error) if !is_refusal(&error) => return Err(error),
                _ => stat = sys::stat_fd(folder)?,
            }
        }
        let inherits = stat.mode & libc::S_ISGID != 0 && self.owns(&stat);
        if inherits || self.is_own_folder(&stat)? {
            return Ok((stat, stat.is_folder() && !stat.mount_root));
        }
        self.learn_from_a_file(folder)?;
        Ok((stat, self.is_own_folder(&stat)?))
    }

    /// Makes a file in `folder` for a moment, and notes the owner and mode that it shows. `folder` is a slot or a room,
    /// so an orphan of this file is removed with it. Where no file can be made, nothing is noted.
    fn learn_from_a_file(&self, folder: BorrowedFd) -> io::Result<()> {
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

/// Is this the error of a filesystem that has no modes to change, or lets this user change none?
fn is_refusal(error: &io::Error) -> bool {
    matches!(errno(error), libc::EPERM | libc::EACCES | libc::EROFS | libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL)
}

//! `rename`, `exchange` and the bare `renameat2`: one system call on files and folders that are already there.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use crate::error::{Error, ErrorKind, Hint, Result};
use crate::path::split;
use crate::publish::{self, Moved};
use crate::sys::{self, EXCHANGE, NOREPLACE, WHITEOUT, errno};

/// The flags of `renameat2(2)`, combined with `|`; any value reaches the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RenameFlags(pub u32);

impl RenameFlags {
    /// Fails with `EEXIST` instead of replacing.
    pub const NOREPLACE: Self = Self(NOREPLACE);
    /// Exchanges the two names.
    pub const EXCHANGE: Self = Self(EXCHANGE);
    /// Leaves a whiteout in the old place (for union filesystems; needs `CAP_MKNOD`).
    pub const WHITEOUT: Self = Self(WHITEOUT);
}

impl std::ops::BitOr for RenameFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Renames a file or folder; refuses to replace another one unless `overwrite` (then `rename(2)`).
///
/// No sync: durable once both parent folders are. Where the filesystem lacks `RENAME_NOREPLACE`, a
/// file is moved by `link` and `unlink`, which promise the same; a folder is [`ErrorKind::Unsupported`].
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let (a, b) = (dir.path().join("a"), dir.path().join("b"));
/// std::fs::write(&a, "")?;
/// atomik::rename(&a, &b, false)?;
/// # assert!(b.exists() && !a.exists());
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn rename(src: impl AsRef<Path>, dst: impl AsRef<Path>, overwrite: bool) -> Result<()> {
    let flags = if overwrite { RenameFlags::default() } else { RenameFlags::NOREPLACE };
    rename_at(sys::CWD, src.as_ref(), sys::CWD, dst.as_ref(), flags)
}

pub(crate) fn rename_at(
    src_dir: BorrowedFd,
    src: &Path,
    dst_dir: BorrowedFd,
    dst: &Path,
    RenameFlags(flags): RenameFlags,
) -> Result<()> {
    let renamed = sys::renameat2(src_dir, src.as_os_str(), dst_dir, dst.as_os_str(), flags);
    let error = match renamed {
        Err(error) if flags == NOREPLACE && publish::is_unsupported(&error) => error,
        other => return other.map_err(|error| explain(src, dst, flags, error)),
    };
    // EINVAL also means that a folder would be moved into itself. So only files are moved by a link.
    let kind = sys::stat(src_dir, src.as_os_str()).ok().flatten().map(|stat| stat.kind());
    if kind == Some(libc::S_IFDIR) || errno(&error) == libc::EPERM {
        return Err(explain(src, dst, flags, error));
    }
    let moved = publish::move_file(src_dir, src.as_os_str(), dst_dir, dst.as_os_str());
    let Moved::ByLink(unlinked) = moved.map_err(|error| explain(src, dst, flags, error))? else { return Ok(()) };
    if kind == Some(libc::S_IFREG) {
        // Watchers hear of this as they do of a rename. A file that cannot be opened has been moved all the same.
        drop(sys::open_published(dst_dir, dst.as_os_str()));
    }
    unlinked
        .map_err(|error| Error::new("removing the old name", src, error).to(dst).after_publish().hint(Hint::BothNames))
}

/// Exchanges two paths of any types in one step (`RENAME_EXCHANGE`). No sync.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let (live, next) = (dir.path().join("live"), dir.path().join("next"));
/// # std::fs::write(&live, "1")?; std::fs::write(&next, "2")?;
/// atomik::exchange(&live, &next)?;
/// # assert_eq!(std::fs::read(&live)?, b"2");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn exchange(a: impl AsRef<Path>, b: impl AsRef<Path>) -> Result<()> {
    exchange_at(sys::CWD, a.as_ref(), sys::CWD, b.as_ref())
}

pub(crate) fn exchange_at(a_dir: BorrowedFd, a: &Path, b_dir: BorrowedFd, b: &Path) -> Result<()> {
    sys::renameat2(a_dir, a.as_os_str(), b_dir, b.as_os_str(), EXCHANGE).map_err(|error| explain(a, b, EXCHANGE, error))
}

/// The bare `renameat2(2)`: any flags, the kernel's answer.
pub fn renameat2(
    olddir: impl AsFd,
    old: impl AsRef<Path>,
    newdir: impl AsFd,
    new: impl AsRef<Path>,
    flags: RenameFlags,
) -> io::Result<()> {
    sys::renameat2(olddir.as_fd(), old.as_ref().as_os_str(), newdir.as_fd(), new.as_ref().as_os_str(), flags.0)
}

fn explain(a: &Path, b: &Path, flags: u32, error: io::Error) -> Error {
    let errno = errno(&error);
    let operation = if flags & EXCHANGE == 0 { "renaming" } else { "exchanging" };
    let error = Error::new(operation, a, error).to(b).kind_by_errno();
    match errno {
        libc::EEXIST if flags & NOREPLACE != 0 => error.hint(Hint::RenameExists),
        libc::ENOTEMPTY | libc::EEXIST => error.hint(Hint::FullFolder),
        libc::EXDEV => error.hint(Hint::RenameCrosses),
        libc::EBUSY => error.hint(Hint::RenameMountPoint),
        libc::EINVAL if flags & !WHITEOUT != 0 && !into_itself(a, b) => {
            error.kind_is(ErrorKind::Unsupported).hint(Hint::NotInOneStep)
        }
        libc::EINVAL if flags & WHITEOUT != 0 => error.kind_is(ErrorKind::Unsupported).hint(Hint::NoWhiteouts),
        libc::ENOSYS | libc::EOPNOTSUPP => error.kind_is(ErrorKind::Unsupported).hint(Hint::NotInOneStepHere),
        _ => error,
    }
}

/// Is one of the two inside the other? `rename(2)` answers `EINVAL` to that as well.
fn into_itself(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| {
        let (parent, name, _) = split(path).ok()?;
        Some(sys::real_path(parent).ok()?.join(name))
    };
    match (real(a), real(b)) {
        (Some(a), Some(b)) => a.starts_with(&b) || b.starts_with(&a),
        _ => false,
    }
}

//! What files, filesystems and the kernel are like.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
#[cfg(test)]
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;

use nix::fcntl::AtFlags;

use super::call::{check, cstring, errno, lookup, once};

/// Access and modification times, in seconds and nanoseconds.
pub(crate) type Times = [(i64, u32); 2];

/// What the code asks of `statx(2)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    /// Type and permission bits.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Device, as one number.
    pub(crate) dev: u64,
    /// Inode number.
    pub(crate) ino: u64,
    /// The number of its mount: since Linux 6.8 one that no later mount gets; 0 before Linux 5.8.
    pub(crate) mount: u64,
    /// Is `mount` a number that no later mount gets (`STATX_MNT_ID_UNIQUE`)?
    pub(crate) mount_is_unique: bool,
    /// The root of a mount: a mount point, seen from above.
    pub(crate) mount_root: bool,
    /// Immutable (`chattr +i`).
    pub(crate) immutable: bool,
    /// Append-only (`chattr +a`).
    pub(crate) append_only: bool,
    /// Names that lead to it.
    pub(crate) links: u32,
    /// Bytes.
    pub(crate) size: u64,
    /// Bytes that it takes on the disk: less than its size if it has holes.
    pub(crate) allocated: u64,
    /// Access and modification.
    pub(crate) times: Times,
    /// The last change of its status, in seconds and nanoseconds.
    pub(crate) changed: (i64, u32),
}

impl Stat {
    /// The type bits, `S_IFREG` and so on.
    pub(crate) fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }
    /// Is it a folder?
    pub(crate) fn is_folder(&self) -> bool {
        self.kind() == libc::S_IFDIR
    }
    /// The attribute, if it has one, for which it can be neither replaced nor removed (`chattr(1)`).
    pub(crate) fn fixed(&self) -> Option<&'static str> {
        match self {
            Stat { immutable: true, .. } => Some("immutable"),
            Stat { append_only: true, .. } => Some("append-only"),
            _ => None,
        }
    }
    /// When its content, or what is directly in it, was last changed.
    pub(crate) fn modified(&self) -> std::time::SystemTime {
        let (seconds, nanoseconds) = self.times[1];
        let seconds = u64::try_from(seconds).unwrap_or(0);
        std::time::UNIX_EPOCH + std::time::Duration::new(seconds, nanoseconds)
    }
    /// The permission bits with set-id and sticky bits.
    pub(crate) fn permissions(&self) -> u32 {
        self.mode & 0o7777
    }
    /// Can users in this class of others (0o020, 0o002) rename what is in this folder, whosever it is?
    pub(crate) fn others_rename(&self, class: u32) -> bool {
        self.mode & class != 0 && self.mode & libc::S_ISVTX == 0
    }
    /// Do both describe the same inode?
    pub(crate) fn same(&self, other: &Stat) -> bool {
        (self.dev, self.ino) == (other.dev, other.ino)
    }
    /// Do both describe the same inode, with nothing of its metadata changed in between?
    pub(crate) fn is_unchanged(&self, now: &Stat) -> bool {
        let told = |stat: &Stat| (stat.mode, stat.uid, stat.gid, stat.changed);
        self.same(now) && told(self) == told(now)
    }
}

/// Describes an open file.
pub(crate) fn stat_fd(fd: BorrowedFd) -> io::Result<Stat> {
    statx(fd, c"", libc::AT_EMPTY_PATH)
}

/// Describes a name without following it; `None` if nothing has it.
pub(crate) fn stat(at: BorrowedFd, name: &OsStr) -> io::Result<Option<Stat>> {
    match statx(at, &cstring(name)?, libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT) {
        Err(error) if errno(&error) == libc::ENOENT => Ok(None),
        other => other.map(Some),
    }
}

/// Describes what a path leads to, through symlinks; `None` if that is nothing.
pub(crate) fn stat_followed(at: BorrowedFd, path: &OsStr) -> io::Result<Option<Stat>> {
    match statx(at, &cstring(path)?, 0) {
        Err(error) if errno(&error) == libc::ENOENT => Ok(None),
        other => other.map(Some),
    }
}

fn statx(at: BorrowedFd, name: &CStr, flags: i32) -> io::Result<Stat> {
    static MISSING: OnceLock<()> = OnceLock::new();
    if MISSING.get().is_none() {
        // A kernel that knows the unique number answers with that one.
        let mask = libc::STATX_BASIC_STATS | libc::STATX_MNT_ID | libc::STATX_MNT_ID_UNIQUE;
        note!(crate::explore::place(at, OsStr::from_bytes(name.to_bytes())));
        match raw_statx(at, name, flags, mask) {
            Ok(raw) => {
                let known = raw.stx_mask & (libc::STATX_MNT_ID | libc::STATX_MNT_ID_UNIQUE) != 0;
                let attribute = |bit: i32| raw.stx_attributes & u64::try_from(bit).unwrap_or(0) != 0;
                let stat = Stat {
                    mode: raw.stx_mode.into(),
                    uid: raw.stx_uid,
                    gid: raw.stx_gid,
                    dev: u64::from(raw.stx_dev_major) << 32 | u64::from(raw.stx_dev_minor),
                    ino: raw.stx_ino,
                    mount: if known { raw.stx_mnt_id } else { 0 },
                    mount_is_unique: raw.stx_mask & libc::STATX_MNT_ID_UNIQUE != 0,
                    mount_root: attribute(libc::STATX_ATTR_MOUNT_ROOT),
                    immutable: attribute(libc::STATX_ATTR_IMMUTABLE),
                    append_only: attribute(libc::STATX_ATTR_APPEND),
                    links: raw.stx_nlink,
                    size: raw.stx_size,
                    allocated: raw.stx_blocks * 512,
                    times: [
                        (raw.stx_atime.tv_sec, raw.stx_atime.tv_nsec),
                        (raw.stx_mtime.tv_sec, raw.stx_mtime.tv_nsec),
                    ],
                    changed: (raw.stx_ctime.tv_sec, raw.stx_ctime.tv_nsec),
                };
                #[cfg(test)]
                let stat = Stat { uid: crate::explore::owner(stat.dev, stat.ino).unwrap_or(stat.uid), ..stat };
                return Ok(stat);
            }
            // Before Linux 4.11, and sandboxes older than the call.
            Err(error) => match errno(&error) {
                libc::ENOSYS => drop(MISSING.set(())),
                libc::EPERM => {}
                _ => return Err(error),
            },
        }
    }
    let old = look(name, "fstatat", || nix::sys::stat::fstatat(at, name, AtFlags::from_bits_truncate(flags)))?;
    Ok(Stat {
        mode: old.st_mode,
        uid: old.st_uid,
        gid: old.st_gid,
        dev: old.st_dev,
        ino: old.st_ino,
        mount: 0,
        mount_is_unique: false,
        mount_root: false,
        immutable: false,
        append_only: false,
        links: u32::try_from(old.st_nlink).unwrap_or(u32::MAX),
        size: u64::try_from(old.st_size).unwrap_or(0),
        allocated: u64::try_from(old.st_blocks).unwrap_or(0) * 512,
        times: [
            (old.st_atime, u32::try_from(old.st_atime_nsec).unwrap_or(0)),
            (old.st_mtime, u32::try_from(old.st_mtime_nsec).unwrap_or(0)),
        ],
        changed: (old.st_ctime, u32::try_from(old.st_ctime_nsec).unwrap_or(0)),
    })
}

/// Makes a call on a name; what is open is not looked up again.
fn look<T>(name: &CStr, call: &'static str, make: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    if name.is_empty() { once(call, make) } else { lookup(call, make) }
}

fn raw_statx(at: BorrowedFd, name: &CStr, flags: i32, mask: u32) -> io::Result<libc::statx> {
    let mut buffer = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the name is NUL-terminated; the kernel writes at most one `struct statx`.
    let mut call =
        || unsafe { libc::syscall(libc::SYS_statx, at.as_raw_fd(), name.as_ptr(), flags, mask, buffer.as_mut_ptr()) };
    look(name, "statx", || check(call()))?;
    // SAFETY: zeroed before, and every bit pattern is a valid `struct statx`.
    Ok(unsafe { buffer.assume_init() })
}

/// The number that `/proc/self/mountinfo` has for the mount of an open file; 0 before Linux 5.8.
pub(crate) fn mount_in_table(fd: BorrowedFd) -> io::Result<u64> {
    let raw = raw_statx(fd, c"", libc::AT_EMPTY_PATH, libc::STATX_MNT_ID)?;
    Ok(if raw.stx_mask & libc::STATX_MNT_ID == 0 { 0 } else { raw.stx_mnt_id })
}

/// The mount that an open file is on, also where `statx` does not say: before Linux 5.8 by
/// `/proc/self/fdinfo` (`mnt_id`, since 3.15). `None` if that is not there either.
pub(crate) fn mount_id(fd: BorrowedFd) -> io::Result<Option<u64>> {
    let known = stat_fd(fd)?.mount;
    if known != 0 {
        return Ok(Some(known));
    }
    let Ok(info) = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())) else { return Ok(None) };
    let line = info.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    Ok(line.and_then(|id| id.trim().parse().ok()))
}

/// Types of filesystems, as `statfs(2)` numbers them.
pub(crate) mod filesystems {
    /// ext2, ext3 and ext4 alike.
    pub(crate) const EXT4: u64 = 0xef53;
    pub(crate) const XFS: u64 = 0x5846_5342;
    pub(crate) const BTRFS: u64 = 0x9123_683e;
    pub(crate) const BCACHEFS: u64 = 0xca45_1a4e;
    pub(crate) const F2FS: u64 = 0xf2f5_2010;
    pub(crate) const JFS: u64 = 0x3153_464a;
    pub(crate) const NILFS: u64 = 0x3434;
    pub(crate) const TMPFS: u64 = 0x0102_1994;
    pub(crate) const RAMFS: u64 = 0x8584_58f6;
    pub(crate) const OVERLAY: u64 = 0x794c_7630;
    /// FAT in all its sizes, but not exFAT.
    pub(crate) const VFAT: u64 = 0x4d44;
    pub(crate) const EXFAT: u64 = 0x2011_bab0;
    pub(crate) const PROC: u64 = 0x9fa0;
    pub(crate) const ZFS: u64 = 0x2fc1_2fc1;
    /// CIFS, by the two numbers that it has had.
    pub(crate) const CIFS: [u64; 2] = [0xff53_4d42, 0xfe53_4d42];
}

/// The type of a filesystem, as `statfs(2)` numbers them.
#[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)]
pub(crate) fn filesystem(fd: BorrowedFd) -> io::Result<u64> {
    let answer = once("fstatfs", || nix::sys::statfs::fstatfs(fd))?;
    Ok(answer.filesystem_type().0 as u64 & 0xffff_ffff)
}

/// Is the running kernel at least this release? Unknown releases count as old.
pub(crate) fn kernel_at_least(major: u32, minor: u32) -> bool {
    static RELEASE: OnceLock<(u32, u32)> = OnceLock::new();
    let running = *RELEASE.get_or_init(|| {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    });
    running >= (major, minor)
}

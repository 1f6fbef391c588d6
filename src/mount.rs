//! What is known of a mounted filesystem: its type, and what its journal promises.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Mutex;

use crate::options::Durability;
use crate::sys;
use crate::sys::filesystems::{BTRFS, EXT4, F2FS, OVERLAY, RAMFS, TMPFS, XFS};

/// What matters to a sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The type, as `statfs(2)` numbers them; 0 if it is not known.
    kind: u64,
    /// A commit of the journal makes durable whatever had reached the disk's cache before it, and all metadata
    /// changed before: see `sync`.
    pub(crate) one_flush: bool,
    /// Can what a publish displaces be overwritten before the publish is durable, so that a power cut brings the
    /// old version back with other files' blocks in it? ext4 does that when mounted with `data=writeback`:
    /// there `ext4_free_blocks` gives data blocks back at once, elsewhere with the transaction that frees them.
    /// Seen in 138 of 3,440 crash states; 0 once the replaced file stays open until the folder is synced.
    pub(crate) frees_early: bool,
}

/// How many mounts are remembered. More are looked at each time.
const REMEMBERED: usize = 64;

/// By the number that no later mount gets (`STATX_MNT_ID_UNIQUE`, Linux 6.8).
static KNOWN: Mutex<Vec<(u64, Mount)>> = Mutex::new(Vec::new());

impl Mount {
    /// The mount that an open file is on. What cannot be found out is not promised.
    pub(crate) fn of(fd: BorrowedFd) -> Self {
        #[cfg(test)]
        if let Some(pretended) = pretended() {
            return pretended;
        }
        let kind = sys::filesystem(fd).unwrap_or(0);
        if kind != EXT4 && kind != XFS {
            return Self { kind, ..Self::default() };
        }
        let Ok(stat) = sys::stat_fd(fd) else { return Self { kind, ..Self::default() } };
        let (device, number) = (stat.dev, stat.mount_is_unique.then_some(stat.mount));
        // Never waited for: a child of fork(2) may have inherited it locked.
        let known = KNOWN.try_lock().ok().and_then(|known| known.iter().find(|(of, _)| Some(*of) == number).copied());
        if let Some((_, mount)) = known {
            return mount;
        }
        let (mount, settled) = Self::look(kind, device);
        if let (Some(number), true, Ok(mut known)) = (number, settled, KNOWN.try_lock()) {
            if known.len() < REMEMBERED {
                known.push((number, mount));
            }
        }
        mount
    }

    /// Looks it up; false if the next look may answer otherwise.
    fn look(kind: u64, device: u64) -> (Self, bool) {
        let unknown = Self { kind, ..Self::default() };
        let Some((filesystem, options)) = mounted(device) else { return (unknown, false) };
        if kind == XFS {
            return (Self { one_flush: filesystem == "xfs" && xfs_is_plain(&options), ..unknown }, true);
        }
        let Ok(ext4) = Ext4::of(device) else { return (unknown, false) };
        let frees_early = ext4.has("data=writeback");
        let journal = filesystem == "ext4" && writes_ranges() && ext4.journal_is_plain();
        let fast_commits = if journal { ext4.fast_commits() } else { Some(true) };
        (Self { one_flush: fast_commits == Some(false), frees_early, ..unknown }, fast_commits.is_some())
    }

    /// Is this a filesystem known to implement `syncfs(2)`, on a kernel whose `syncfs` reports errors
    /// (5.8)? FUSE answers success and does nothing.
    pub(crate) fn syncfs_works(self) -> bool {
        let known = [EXT4, XFS, BTRFS, TMPFS, F2FS, OVERLAY];
        known.contains(&self.kind) && sys::kernel_at_least(5, 8)
    }

    /// The strongest durability that can be promised; `None` if that is for others to say.
    pub(crate) fn durability(self) -> Option<Durability> {
        match self.kind {
            EXT4 | XFS | BTRFS | F2FS => Some(Durability::Full),
            TMPFS | RAMFS => Some(Durability::NoSync),
            _ => None,
        }
    }

    /// Is there no disk to wait for?
    pub(crate) fn is_memory(self) -> bool {
        self.kind == TMPFS
    }

    /// Do syncs of several threads stand in each other's way? On btrfs eight threads took four times as long as one.
    pub(crate) fn syncs_in_turn(self) -> bool {
        self.kind == BTRFS
    }

    /// Is this an overlay, whose lower folders cannot be moved?
    pub(crate) fn is_overlay(self) -> bool {
        self.kind == OVERLAY
    }

    /// Must a file be synced again once it has its name? Before Linux 6.16 btrfs wrote no log for an
    /// inode without links ("btrfs: fix fsync of files with no hard links not persisting deletion"
    /// changed it), so that its fsync did not carry the content over a power cut.
    pub(crate) fn unnamed_is_not_enough(self) -> bool {
        needs_name(self.kind, sys::kernel_at_least(6, 16))
    }
}

fn needs_name(kind: u64, recent: bool) -> bool {
    // One whose type cannot be asked may be btrfs.
    matches!(kind, BTRFS | 0) && !recent
}

/// Does `sync_file_range(2)`, asked to write and to wait, write all? Before Linux 5.2 it passed over pages that
/// were busy (`WB_SYNC_NONE`; "fs/sync.c: `sync_file_range(2)` may use `WB_SYNC_ALL` writeback" changed it).
fn writes_ranges() -> bool {
    sys::kernel_at_least(5, 2)
}

/// The type of the filesystem on a device, and its options, as the mount table has them
/// (`proc_pid_mountinfo(5)`): `statfs` numbers ext2, ext3 and ext4 alike.
fn mounted(device: u64) -> Option<(String, String)> {
    let table = fs::read("/proc/self/mountinfo").ok()?;
    find(&String::from_utf8_lossy(&table), device)
}

fn find(table: &str, device: u64) -> Option<(String, String)> {
    let number = format!("{}:{}", device >> 32, device & 0xffff_ffff);
    let line = table.lines().find(|line| line.split(' ').nth(2) == Some(&number))?;
    let mut described = line.split(" - ").nth(1)?.split(' ');
    let filesystem = described.next()?;
    Some((filesystem.into(), described.nth(1)?.into()))
}

/// One device holds data and log: a flush of the log is a flush of the data.
fn xfs_is_plain(options: &str) -> bool {
    let other = |option: &str| option.starts_with("logdev=") || option.starts_with("rtdev=");
    writes_ranges() && !options.split(',').any(|option| other(option) || option == "nobarrier" || is_dax(option))
}

/// Memory that is mapped has no cache that a flush empties.
fn is_dax(option: &str) -> bool {
    matches!(option, "dax" | "dax=always")
}

/// An ext4 filesystem (or ext2, or ext3: one driver), as `/proc/fs` describes it.
struct Ext4 {
    /// Of its device, as the kernel spells it.
    name: OsString,
    options: String,
}

impl Ext4 {
    fn of(device: u64) -> io::Result<Self> {
        let link = fs::read_link(format!("/sys/dev/block/{}:{}", device >> 32, device & 0xffff_ffff))?;
        let name = link.file_name().unwrap_or_default().to_owned();
        // The mount table leaves out what is the filesystem's own default.
        let options = fs::read_to_string(Path::new("/proc/fs/ext4").join(&name).join("options"))?;
        Ok(Self { name, options })
    }

    fn has(&self, option: &str) -> bool {
        self.options.lines().any(|line| line == option)
    }

    /// What the journal has counted. One in the filesystem itself is called by the device and its inode, which
    /// is always 8; one on another device has that one's name.
    fn journal(&self) -> io::Result<String> {
        let mut journal = self.name.clone();
        journal.push("-8");
        fs::read_to_string(Path::new("/proc/fs/jbd2").join(journal).join("info"))
    }

    /// Does every commit of a journal on the same device begin with a flush?
    fn journal_is_plain(&self) -> bool {
        let no_flush = ["nobarrier", "barrier=0", "journal_async_commit"];
        self.journal().is_ok() && !self.options.lines().any(|line| no_flush.contains(&line) || is_dax(line))
    }

    /// Does it write fast commits (`mkfs.ext4 -O fast_commit`)? `None` if that does not show yet.
    ///
    /// Kernels with `CONFIG_EXT4_DEBUG` say so among the options, by the name of an option that forces it.
    /// Elsewhere the counters tell: with the feature, each `fsync` counts as a fast commit or as one that
    /// could not be; without it, as a commit that was requested. So does a `syncfs`, with or without it: a
    /// filesystem with fast commits in which nobody has synced a file since it was mounted, but somebody all of it, is
    /// taken for one without. A fast commit, too, flushes the disk's cache before it counts.
    fn fast_commits(&self) -> Option<bool> {
        if self.has("fc_debug_force") {
            return Some(true);
        }
        if !sys::kernel_at_least(5, 10) {
            return Some(false);
        }
        let counted = fs::read_to_string(Path::new("/proc/fs/ext4").join(&self.name).join("fc_info")).ok();
        judge(&counted?, &self.journal().ok()?)
    }
}

fn judge(fast: &str, journal: &str) -> Option<bool> {
    let number = |text: &str, word: &str| -> Option<u64> {
        let before = text.split_once(word)?.0;
        before.rsplit(|c: char| !c.is_ascii_digit()).find(|digits| !digits.is_empty())?.parse().ok()
    };
    if number(fast, " commits")? + number(fast, " ineligible")? > 0 {
        return Some(true);
    }
    (number(journal, " requested")? > 0).then_some(false)
}

#[cfg(test)]
thread_local! {
    static PRETENDED: std::cell::Cell<Option<Mount>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
fn pretended() -> Option<Mount> {
    PRETENDED.get()
}

#[cfg(test)]
impl Mount {
    /// One whose journal makes one flush enough.
    pub(crate) const ONE_FLUSH: Self = Self { kind: EXT4, one_flush: true, frees_early: false };
    /// One that is known, and whose journal does not.
    pub(crate) const TWO_FLUSHES: Self = Self { kind: BTRFS, one_flush: false, frees_early: false };
    /// One that nobody knows.
    pub(crate) const UNKNOWN: Self = Self { kind: 1, one_flush: false, frees_early: false };
}

/// Runs a test as if every mount were like this.
#[cfg(test)]
pub(crate) fn pretend<T>(mount: Mount, test: impl FnOnce() -> T) -> T {
    PRETENDED.set(Some(mount));
    let result = test();
    PRETENDED.set(None);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_older_btrfs_is_synced_again_under_its_name() {
        assert!(needs_name(BTRFS, false));
        assert!(needs_name(0, false));
        assert!(!needs_name(BTRFS, true));
        assert!(!needs_name(EXT4, false) && !needs_name(XFS, false));
    }

    #[test]
    fn a_mount_is_found_by_its_device() {
        let table = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n\
                     28 27 7:1 / /a\\040-\\040b rw shared:5 master:1 - xfs /dev/loop1 rw,logdev=/dev/loop2,noquota\n";
        let found = |major: u64, minor| find(table, major << 32 | minor);
        assert_eq!(found(254, 0), Some(("ext4".into(), "rw,discard".into())));
        assert_eq!(found(7, 1), Some(("xfs".into(), "rw,logdev=/dev/loop2,noquota".into())));
        assert_eq!(found(7, 2), None);
    }

    #[test]
    fn xfs_with_its_log_or_data_elsewhere_is_not_plain() {
        assert!(xfs_is_plain("rw,attr2,inode64,logbufs=8,logbsize=32k,noquota"));
        for option in ["logdev=/dev/sdb1", "rtdev=/dev/sdb1", "nobarrier", "dax=always"] {
            assert!(!xfs_is_plain(&format!("rw,{option},noquota")), "{option}");
        }
    }

    #[test]
    fn fast_commits_are_ruled_out_by_a_commit_that_was_requested() {
        let fast = |commits, ineligible| format!("fc stats:\n{commits} commits\n{ineligible} ineligible\n0 numblks\n");
        let journal = |requested| format!("12 transactions ({requested} requested), each up to 1365 blocks\n");
        assert_eq!(judge(&fast(0, 0), &journal(3)), Some(false));
        assert_eq!(judge(&fast(0, 0), &journal(0)), None);
        assert_eq!(judge(&fast(1, 0), &journal(3)), Some(true));
        assert_eq!(judge(&fast(0, 1), &journal(3)), Some(true));
        assert_eq!(judge("", &journal(3)), None);
        assert_eq!(judge(&fast(0, 0), ""), None);
    }

    #[test]
    fn what_has_no_journal_needs_two_flushes() {
        let null = fs::File::open("/dev/null").unwrap();
        let proc = fs::File::open("/proc/self/mountinfo").unwrap();
        for fd in [&null, &proc] {
            assert!(!Mount::of(std::os::fd::AsFd::as_fd(fd)).one_flush);
        }
    }
}

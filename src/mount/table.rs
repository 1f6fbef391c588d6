//! What this process remembers of mounts, so that a commit need not ask again.
//!
//! Since Linux 6.8 a mount has a number that no later mount gets: what is known by that number holds as long as the process
//! lives. Older kernels give a number to another mount once the first has gone. There, what is known of a mount holds until
//! the mount table changes: `poll(2)` on an open `/proc/self/mountinfo` tells of each mount, unmount and remount
//! (`proc_pid_mounts(5)`). The open file stands for the mount namespace of the thread that opened it, and a mount that
//! this namespace does not list is not remembered: so an entry holds for every thread, also for one that has moved to another
//! namespace. What the namespace is not told is a remount in another namespace of the same filesystem; it can change the
//! option `barrier`, without which no sync reaches the disk, and none of what decides between one flush and two.
//!
//! The lock is never waited for: a child of `fork(2)` may have inherited it locked.

use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard};

use nix::fcntl::OFlag;

use super::journal::Journal;
use crate::sys::{self, Stat};

/// How many mounts are remembered. What is known of others is asked each time.
const MAX_REMEMBERED: usize = 64;

/// From which number on the open mount table gets its descriptor.
const APART: i32 = 200;

/// By what a mount is remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountId {
    /// 0 if it is not known.
    number: u64,
    /// Does no later mount get this number?
    pub(super) unique: bool,
    pub(super) device: u64,
}

impl MountId {
    /// The mount that something is on.
    pub(crate) fn of(stat: &Stat) -> Self {
        Self { number: stat.mount, unique: stat.mount_is_unique, device: stat.dev }
    }

    /// Does a line of the mount table describe it? (`proc_pid_mountinfo(5)`: number, number of the mount above, device.)
    fn is_line(self, line: &str) -> bool {
        let mut words = line.split(' ');
        let number = words.next().and_then(|word| word.parse().ok());
        let device = words.nth(1).and_then(|word| word.split_once(':'));
        let device =
            device.and_then(|(major, minor)| Some(major.parse::<u64>().ok()? << 32 | minor.parse::<u64>().ok()?));
        number == Some(self.number) && device == Some(self.device)
    }
}

/// What is known of a mount.
struct Entry {
    id: MountId,
    /// The type of its filesystem; 0 if nobody has asked.
    kind: u64,
    journal: Option<Journal>,
    /// The flags of `renameat2(2)` that it has been seen to take.
    flags: u32,
}

struct Table {
    entries: Vec<Entry>,
    watch: Option<Watch>,
    /// How often the mount table was seen to have changed.
    changes: u64,
}

static KNOWN: Mutex<Table> = Mutex::new(Table { entries: Vec::new(), watch: None, changes: 0 });

/// The table, unless another thread has it: a child of fork(2) could inherit the lock locked.
fn table() -> Option<MutexGuard<'static, Table>> {
    // Tests repeat a run call by call. There the tests that run beside them must not make a difference.
    #[cfg(test)]
    for _ in 0..100_000 {
        if let Ok(table) = KNOWN.try_lock() {
            return Some(table);
        }
        std::thread::yield_now();
    }
    KNOWN.try_lock().ok()
}

/// What the journal of a mount is known to promise.
pub(super) fn recall(id: MountId) -> Option<Journal> {
    table()?.recall(id)
}

/// To be asked before a look whose answer is to be remembered: how often the mount table has changed.
pub(super) fn changes(id: MountId) -> Option<u64> {
    if id.unique || id.number == 0 { None } else { Some(table()?.changes()) }
}

/// Remembers what a look has told, unless the mount table has changed since.
pub(super) fn remember(id: MountId, journal: Journal, since: Option<u64>) {
    if let Some(mut table) = table() {
        table.remember(id, journal, since);
    }
}

/// The type of the filesystem of a mount with a unique number.
pub(super) fn kind(id: MountId) -> Option<u64> {
    table()?.find(id).map(|known| known.kind).filter(|kind| *kind != 0)
}

pub(super) fn remember_kind(id: MountId, kind: u64) {
    if let Some(mut table) = table() {
        table.note(id, |entry| entry.kind = kind);
    }
}

/// Has a mount been seen to take these flags of `renameat2(2)`? Where its number is not unique, nobody remembers.
pub(crate) fn can(id: MountId, flags: u32) -> bool {
    #[cfg(test)]
    if !crate::faults::Pretended::now().remembers && !crate::explore::is_running() {
        return false;
    }
    table().is_some_and(|table| table.find(id).is_some_and(|known| known.flags & flags == flags))
}

/// Remembers that a mount has been seen to take these flags of `renameat2(2)`.
pub(crate) fn has_done(id: MountId, flags: u32) {
    if id.unique {
        if let Some(mut table) = table() {
            table.note(id, |entry| entry.flags |= flags);
        }
    }
}

impl Table {
    fn find(&self, id: MountId) -> Option<&Entry> {
        self.entries.iter().find(|known| known.id == id)
    }

    fn note(&mut self, id: MountId, note: impl FnOnce(&mut Entry)) {
        if let Some(known) = self.entries.iter_mut().find(|known| known.id == id) {
            note(known);
        } else if self.entries.len() < MAX_REMEMBERED {
            let mut entry = Entry { id, kind: 0, journal: None, flags: 0 };
            note(&mut entry);
            self.entries.push(entry);
        }
    }

    fn recall(&mut self, id: MountId) -> Option<Journal> {
        let known = self.find(id)?.journal?;
        (id.unique || self.is_unchanged()).then_some(known)
    }

    fn changes(&mut self) -> u64 {
        if self.watch.is_none() {
            self.watch = Watch::open();
        }
        self.is_unchanged();
        self.changes
    }

    fn remember(&mut self, id: MountId, journal: Journal, since: Option<u64>) {
        if id.unique || since == Some(self.changes) && self.is_unchanged() && self.lists(id) {
            self.note(id, |entry| entry.journal = Some(journal));
        }
    }

    /// Is the mount table as it was? If not, forgets all mounts whose numbers another mount may have by now.
    fn is_unchanged(&mut self) -> bool {
        let unchanged = match &self.watch {
            Some(watch) if watch.is_open() => sys::mounts_changed(watch.table.as_fd()).is_ok_and(|changed| !changed),
            Some(_) => {
                self.watch.take().into_iter().for_each(Watch::end);
                false
            }
            None => false,
        };
        if !unchanged {
            self.entries.retain(|known| known.id.unique);
            self.changes += 1;
        }
        unchanged
    }

    /// Is the mount in the namespace that is watched? If it is in this thread's namespace instead, that one is watched from
    /// now on.
    fn lists(&mut self, id: MountId) -> bool {
        if self.watch.as_ref().is_some_and(|watch| watch.lists(id)) {
            return true;
        }
        if let Some(other) = Watch::open().filter(|other| other.lists(id)) {
            self.watch.replace(other).into_iter().for_each(Watch::end);
            self.entries.retain(|known| known.id.unique);
            self.changes += 1;
        }
        false
    }
}

/// A mount table that is kept open.
struct Watch {
    table: OwnedFd,
    stat: Stat,
    /// The process that opened it: a forked child shares the open file, and would hear of a change once with its parent.
    generation: u32,
}

impl Watch {
    fn open() -> Option<Self> {
        let table = sys::openat(sys::CWD, "/proc/thread-self/mountinfo".as_ref(), OFlag::O_RDONLY, 0).ok()?;
        // Apart from the numbers of a commit, which are closed together if they follow each other.
        Self::of(sys::duplicate(table.as_fd(), APART).unwrap_or(table))
    }

    fn of(table: OwnedFd) -> Option<Self> {
        let stat = sys::stat_fd(table.as_fd()).ok()?;
        Some(Self { table, stat, generation: sys::fork_generation() })
    }

    /// Is it still what was opened? A program may close all descriptors that it does not know, and use the number again.
    fn is_itself(&self) -> bool {
        sys::stat_fd(self.table.as_fd()).is_ok_and(|now| now.same(&self.stat))
    }

    fn is_open(&self) -> bool {
        self.generation == sys::fork_generation() && self.is_itself()
    }

    fn lists(&self, id: MountId) -> bool {
        let table = sys::read_again(self.table.as_fd()).unwrap_or_default();
        String::from_utf8_lossy(&table).lines().any(|line| id.is_line(line))
    }

    /// Closes it, unless its number is somebody else's by now.
    fn end(self) {
        if !self.is_itself() {
            let _number = self.table.into_raw_fd();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_mount_table_is_of_one_mount() {
        let id = MountId { number: 28, unique: false, device: 7 << 32 | 1 };
        assert!(id.is_line("28 27 7:1 / /a rw shared:5 - xfs /dev/loop1 rw"));
        for other in ["28 27 7:2 / /a rw", "29 27 7:1 / /a rw", "27 28 7:1 / /a rw", "28", ""] {
            assert!(!id.is_line(other), "{other}");
        }
    }

    const ONE_FLUSH: Journal = Journal { one_flush: true, frees_early: false };
    const ID: MountId = MountId { number: 28, unique: false, device: 7 << 32 | 1 };

    /// A table whose watch is a file with these lines; `poll` says of a file that it has not changed.
    fn watching(lines: &str) -> Table {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, lines.as_bytes()).unwrap();
        Table { entries: Vec::new(), watch: Watch::of(file.into()), changes: 0 }
    }

    fn known() -> Table {
        let mut table = watching("27 1 254:0 / / rw - ext4 /dev/vda rw\n28 27 7:1 / /a rw - xfs /dev/loop1 rw\n");
        let since = table.changes();
        table.remember(ID, ONE_FLUSH, Some(since));
        assert_eq!(table.recall(ID), Some(ONE_FLUSH));
        table
    }

    #[test]
    fn what_is_known_by_a_number_that_is_given_again_holds_until_the_mount_table_changes() {
        let mut table = known();
        let unique = MountId { unique: true, number: 4_294_967_300, ..ID };
        table.remember(unique, Journal::default(), None);
        // `poll` says `POLLERR`, as of a mount table that has changed.
        let (reader, writer) = nix::unistd::pipe().unwrap();
        drop(reader);
        table.watch = Watch::of(writer);
        assert_eq!(table.recall(ID), None);
        assert_eq!(table.recall(unique), Some(Journal::default()));
    }

    #[test]
    fn a_look_that_began_before_the_mount_table_changed_is_not_remembered() {
        let mut table = watching("28 27 7:1 / /a rw - xfs /dev/loop1 rw\n");
        let since = table.changes();
        table.changes += 1;
        table.remember(ID, ONE_FLUSH, Some(since));
        assert_eq!(table.recall(ID), None);
    }

    #[test]
    fn a_mount_that_the_mount_table_does_not_list_is_not_remembered() {
        let mut table = known();
        for strange in [MountId { number: 29, ..ID }, MountId { device: 7 << 32 | 2, ..ID }] {
            let since = table.changes();
            table.remember(strange, ONE_FLUSH, Some(since));
            assert_eq!(table.recall(strange), None);
        }
        assert_eq!(table.recall(ID), Some(ONE_FLUSH));
    }

    #[test]
    fn a_descriptor_that_somebody_else_has_by_now_is_neither_believed_nor_closed() {
        let mut table = known();
        let theirs = tempfile::tempfile().unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&theirs);
        table.watch.as_mut().unwrap().table = theirs.into();
        assert_eq!(table.recall(ID), None);
        assert!(std::fs::exists(format!("/proc/self/fd/{number}")).unwrap());
    }

    #[test]
    fn a_forked_child_opens_the_mount_table_for_itself() {
        let mut table = known();
        table.watch.as_mut().unwrap().generation += 1;
        assert_eq!(table.recall(ID), None);
        assert!(table.watch.is_none());
    }

    #[test]
    fn the_mount_table_of_this_process_lists_its_mounts() {
        let proc = std::fs::File::open("/proc").unwrap();
        let number = sys::mount_in_table(proc.as_fd()).unwrap();
        let id = MountId { number, unique: false, device: sys::stat_fd(proc.as_fd()).unwrap().dev };
        // A kernel before Linux 5.8 has no numbers.
        if number != 0 {
            assert!(Watch::open().unwrap().lists(id));
        }
    }
}

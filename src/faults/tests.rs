//! Proves what is left when the kernel fails: each call of each operation fails once, with each error
//! that is plausible for it; then pairs of calls do; then all calls of a name. Checked every time: see
//! [`Judge`].
//!
//! Pairs are chosen at random where there are too many; `ATOMIK_FAULTS_SEED` repeats a choice, and
//! `ATOMIK_FAULTS_PAIRS` is how many are tried for each operation.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::scene::{self, OPERATIONS, Operation, Snapshot};
use super::{Call, Fault, inject, plausible};
use crate::mount;
use crate::mount::Mount;
use crate::sync;
use crate::{Committed, Durability, Error, ErrorKind, Result};

/// What a filesystem or kernel can lack, as faults that are always there.
struct Lack {
    name: &'static str,
    faults: &'static [Fault],
}

const UNNAMED: Fault = Fault::Every("O_TMPFILE", 0, Errno::EOPNOTSUPP);
const FLAGS: Fault = Fault::Every("renameat2", 0, Errno::EINVAL);
const LOCKS: Fault = Fault::Every("flock", 0, Errno::ENOLCK);
const LACKS: &[Lack] = &[
    Lack { name: "everything", faults: &[] },
    Lack { name: "no O_TMPFILE", faults: &[UNNAMED] },
    Lack { name: "no O_TMPFILE, no flags of renameat2", faults: &[UNNAMED, FLAGS] },
    Lack { name: "no locks", faults: &[LOCKS] },
];

/// One operation on one kind of system, with what an undisturbed run of it starts from and ends with.
struct Judge<'a> {
    operation: &'a Operation,
    lack: &'a Lack,
    durability: Durability,
    /// Where the folders of its runs are made.
    place: &'a Path,
    old: Snapshot,
    new: Snapshot,
    calls: Vec<Call>,
}

const PANIC: &str = "it panics";
const OPEN: &str = "a descriptor is left";

/// How many pairs are tried where nothing is lacking: every two calls of a file's publish, and some
/// of a folder's. Elsewhere it is a sample.
const PAIRS: usize = 400;
const PAIRS_ELSEWHERE: usize = 40;

impl<'a> Judge<'a> {
    /// `None`: the operation is refused where this is lacking.
    fn new(operation: &'a Operation, lack: &'a Lack, durability: Durability, place: &'a Path) -> Option<Self> {
        let dir = tempfile::tempdir_in(place).unwrap();
        (operation.before)(dir.path());
        let old = scene::snapshot(dir.path());
        let (result, calls) = inject(lack.faults, || (operation.run)(dir.path(), durability));
        let result = result.unwrap();
        if matches!(&result, Err(error) if error.kind() == ErrorKind::Unsupported) {
            return None;
        }
        result.unwrap();
        let new = scene::snapshot(dir.path());
        Some(Self { operation, lack, durability, place, old, new, calls })
    }

    /// Runs it with these faults; answers the calls that it made and every promise that it broke.
    fn run(&self, faults: &[Fault]) -> (Vec<Call>, Vec<String>) {
        let dir = tempfile::tempdir_in(self.place).unwrap();
        (self.operation.before)(dir.path());
        let all = [faults, self.lack.faults].concat();
        let (result, calls) = inject(&all, || (self.operation.run)(dir.path(), self.durability));
        let mut broken = Vec::new();
        match result {
            Ok(result) => self.check(dir.path(), faults, &result, &calls, &mut broken),
            Err(panic) => broken.push(format!("{PANIC}: {:?}", panic.downcast_ref::<String>())),
        }
        broken.extend(scene::descriptors(dir.path()).into_iter().map(|path| format!("{OPEN}: {path}")));
        (calls, broken)
    }

    fn check(
        &self,
        dir: &Path,
        faults: &[Fault],
        result: &Result<Committed>,
        calls: &[Call],
        broken: &mut Vec<String>,
    ) {
        let found = scene::snapshot(dir);
        let published = scene::destination(&self.old) != scene::destination(&self.new);
        let mode_failed = calls.iter().any(|call| call.name == "fchmod" && call.injected);
        let is_new = published && scene::is_version(&found, &self.new, mode_failed && result.is_err());
        if !is_new && !scene::is_version(&found, &self.old, false) {
            broken.push(format!("the destination is neither old nor new: {:?}", scene::destination(&found)));
        }
        match result {
            Ok(_) if published && !is_new => broken.push("success, and the old version is there".into()),
            Err(error) if error.committed() != is_new => {
                broken.push(format!("committed is {}, and the new version is there: {is_new}", error.committed()));
            }
            _ => {}
        }
        let expected = if is_new { &self.new } else { &self.old };
        let lost = scene::more(expected, &found).into_iter().filter(|path| !path.starts_with(".atomik-"));
        broken.extend(lost.map(|path| format!("{path} is lost")));
        self.check_litter(dir, faults, (result, calls), &scene::more(&found, expected), broken);
        check_syncs(result, calls, broken);
    }

    /// Only a removal that fails leaves something, which is named and goes with the next writer.
    fn check_litter(
        &self,
        dir: &Path,
        faults: &[Fault],
        (result, calls): (&Result<Committed>, &[Call]),
        litter: &[String],
        broken: &mut Vec<String>,
    ) {
        // An orphan that was there before and resists is nobody's error.
        let own: Vec<_> = litter.iter().filter(|path| !self.old.contains_key(*path)).collect();
        if !own.is_empty() && !removal_failed(calls) {
            broken.push(format!("no removal failed, and still there is {own:?}"));
        }
        // The name of a lock means nothing, and nobody must know of it.
        let slots = own.iter().any(|path| !path.starts_with(".atomik-lock."));
        if slots && matches!(result, Ok(committed) if committed.leftover().is_none()) {
            broken.push(format!("success without a word of {own:?}"));
        }
        let told = is_told(&[self.lack.faults, faults].concat(), calls);
        let Some(next) = self.operation.next.filter(|_| told && !litter.is_empty()) else { return };
        let (again, _) = inject(self.lack.faults, || next(dir, self.durability));
        // What is new here is old for the next one, and to replace it may be refused.
        let refused = |error: &Error| error.kind() == ErrorKind::Unsupported && !self.operation.flags;
        if !matches!(&again, Ok(Ok(_))) && !matches!(&again, Ok(Err(error)) if refused(error)) {
            broken.push(format!("after {litter:?} the next writer fails: {again:?}"));
        }
        let left: Vec<_> = scene::snapshot(dir).into_keys().filter(|path| path.starts_with(".atomik-")).collect();
        if !left.is_empty() {
            broken.push(format!("the next writer leaves {left:?}"));
        }
    }

    /// All single faults; answers each with the number of calls that its run made.
    fn single(&self, complaints: &mut Complaints) -> Vec<(Fault, Vec<Call>)> {
        let mut runs = Vec::new();
        for fault in faults_of(&self.calls, 0) {
            let (calls, broken) = self.run(&[fault]);
            complaints.add(self, &[fault], &calls, broken);
            runs.push((fault, calls));
        }
        runs
    }

    /// A second fault in each of these runs, in an order that follows from `seed`: first each pair of
    /// calls once, with any errors, then with others.
    fn pairs(&self, runs: &[(Fault, Vec<Call>)], seed: u64, complaints: &mut Complaints) {
        let pairs: Vec<_> = runs
            .iter()
            .flat_map(|(first, calls)| faults_of(calls, first.number() + 1).map(|second| [*first, second]))
            .collect();
        let mut order: Vec<_> = (0..pairs.len()).collect();
        order.sort_by_key(|index| mixed(seed, *index));
        let mut positions = HashSet::new();
        let (new, more): (Vec<_>, Vec<_>) =
            order.into_iter().partition(|index| positions.insert(pairs[*index].map(|fault| fault.number())));
        let plain = self.lack.faults.is_empty() && self.durability == Durability::Full;
        let most = if plain { PAIRS } else { PAIRS_ELSEWHERE };
        let most = std::env::var("ATOMIK_FAULTS_PAIRS").map_or(most, |text| text.parse().unwrap());
        for index in new.into_iter().chain(more).take(most) {
            let (calls, broken) = self.run(&pairs[index]);
            complaints.add(self, &pairs[index], &calls, broken);
        }
    }
}

/// The faults that can hit these calls, from one on.
pub(super) fn faults_of(calls: &[Call], from: usize) -> impl Iterator<Item = Fault> {
    let open = calls.iter().enumerate().skip(from).filter(|(_, call)| !call.injected);
    open.flat_map(|(number, call)| plausible(call.name).iter().map(move |errno| Fault::At(number, *errno)))
}

/// Can the next writer tell an orphan from the living? Not where a lock was refused, nor the type of the filesystem: then the
/// orphan is of another lock domain.
pub(super) fn is_told(faults: &[Fault], calls: &[Call]) -> bool {
    let locks = !faults.iter().any(|fault| fault.errno() == Errno::ENOLCK);
    let refused = |call: &Call| match call.name {
        // The same as in `sys::lock`.
        "flock" => matches!(
            call.error,
            Some(Errno::EBADF | Errno::ENOLCK | Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::EINVAL | Errno::EPERM)
        ),
        name => name == "fstatfs",
    };
    locks && !calls.iter().any(|call| call.injected && refused(call))
}

/// Did anything fail that cleaning up needs? That is a removal, whatever follows the publish but the
/// syncs, and whatever follows another failure.
pub(super) fn removal_failed(calls: &[Call]) -> bool {
    let is_publish = |call: &Call| matches!(call.name, "linkat" | "renameat" | "renameat2") && call.error.is_none();
    let published = calls.iter().rposition(is_publish).unwrap_or(calls.len());
    let mut earlier = false;
    calls.iter().enumerate().filter(|(_, call)| call.injected).any(|(number, call)| {
        let cleans = matches!(call.name, "unlinkat" | "rmdir") || std::mem::replace(&mut earlier, true);
        cleans || (number > published && !matches!(call.name, "fsync" | "syncfs" | "fchmod"))
    })
}

/// A failed sync is final: not repeated, reported, and nothing is published after it.
fn check_syncs(result: &Result<Committed>, calls: &[Call], broken: &mut Vec<String>) {
    let is_sync = |call: &Call| matches!(call.name, "fsync" | "syncfs" | "sync_file_range");
    // An interrupted one has not failed: it is repeated. One that a sandbox lacks has another in its place.
    let lacking = |call: &Call, error| call.name != "fsync" && [Errno::ENOSYS, Errno::EPERM].contains(&error);
    let is_failure = |call: &Call, error| error != Errno::EINTR && !lacking(call, error);
    let failed = |call: &Call| is_sync(call) && call.error.is_some_and(|error| is_failure(call, error));
    let Some(at) = calls.iter().position(failed) else { return };
    if calls[at + 1..].iter().any(is_sync) {
        broken.push("a sync after one that failed".into());
    }
    if calls[at + 1..].iter().any(|call| matches!(call.name, "linkat" | "renameat" | "renameat2")) {
        broken.push("a publish after a sync that failed".into());
    }
    match result {
        Err(error) if error.kind() == ErrorKind::Durability => {}
        other => broken.push(format!("a sync failed, and the answer is {other:?}")),
    }
}

/// `SplitMix64`: a number for each pair of a seed and an index.
pub(super) fn mixed(seed: u64, index: usize) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(index as u64 + 1));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Broken promises, each with the shortest way to it.
#[derive(Default)]
struct Complaints {
    runs: usize,
    list: Vec<String>,
}

impl Complaints {
    fn add(&mut self, judge: &Judge, faults: &[Fault], calls: &[Call], broken: Vec<String>) {
        self.runs += 1;
        let Judge { operation, lack, durability, .. } = judge;
        for promise in broken {
            let (name, lack) = (operation.name, lack.name);
            self.list.push(format!("{name} ({durability:?}, {lack}) with {faults:?}: {promise}\n    {calls:?}"));
        }
    }

    fn settle(self, what: &str) {
        println!("{what}: {} runs", self.runs);
        let shown = self.list.iter().take(20).map(String::as_str).collect::<Vec<_>>().join("\n");
        assert!(self.list.is_empty(), "{what}: {} of {} runs broke a promise\n{shown}", self.list.len(), self.runs);
    }
}

/// Folders to test in, and how durably: one in memory, where a sync costs nothing, and without syncs the
/// system's temporary one, whose filesystem may be another.
pub(super) fn places() -> Vec<(PathBuf, &'static [Durability])> {
    let (memory, disk) = (PathBuf::from("/dev/shm"), std::env::temp_dir());
    if tempfile::tempdir_in(&memory).is_err() {
        return vec![(disk, &[Durability::Full, Durability::None])];
    }
    vec![(memory, &[Durability::Full, Durability::None]), (disk, &[Durability::None])]
}

/// Every operation, wherever it works.
fn judges(place: &Path, durabilities: &[Durability], mut each: impl FnMut(&Judge)) {
    for operation in OPERATIONS {
        for lack in LACKS {
            for durability in durabilities {
                if let Some(judge) = Judge::new(operation, lack, *durability, place) {
                    each(&judge);
                } else {
                    assert!(operation.flags || operation.name == "file synced under its name", "{}", operation.name);
                }
            }
        }
    }
}

#[test]
fn one_failing_call_breaks_no_promise() {
    for (place, durabilities) in places() {
        let mut complaints = Complaints::default();
        judges(&place, durabilities, |judge| drop(judge.single(&mut complaints)));
        complaints.settle(&format!("single faults in {}", place.display()));
    }
}

/// What a filesystem may be, whatever the tests run on.
const MOUNTS: [Mount; 3] = [Mount::ONE_FLUSH, Mount::TWO_FLUSHES, Mount::UNKNOWN];

#[test]
fn one_failing_call_breaks_no_promise_however_is_synced() {
    let (place, _) = places().swap_remove(0);
    for mount in MOUNTS {
        let mut complaints = Complaints::default();
        mount::pretend(mount, || {
            judges(&place, &[Durability::Full, Durability::Ordered], |judge| drop(judge.single(&mut complaints)));
        });
        complaints.settle(&format!("single faults on {mount:?}"));
    }
}

/// The syncs that a commit makes on such a filesystem, with these faults.
fn syncs(mount: Mount, operation: &str, durability: Durability, faults: &[Fault]) -> Vec<&'static str> {
    let dir = tempfile::tempdir().unwrap();
    let operation = OPERATIONS.iter().find(|known| known.name == operation).unwrap();
    let run = || inject(faults, || (operation.run)(dir.path(), durability));
    let (result, calls) = mount::pretend(mount, run);
    result.unwrap().unwrap();
    let syncs = calls.iter().map(|call| call.name).filter(|name| name.contains("sync"));
    syncs.collect()
}

#[test]
fn where_one_flush_is_enough_content_is_written_without_one() {
    let (range, mount) = ("sync_file_range", Mount::ONE_FLUSH);
    assert_eq!(syncs(mount, "new file", Durability::Full, &[]), [range, "fsync"]);
    assert_eq!(syncs(mount, "new file", Durability::Ordered, &[]), [range]);
    assert!(syncs(mount, "new file", Durability::None, &[]).is_empty());
    // Two files: both are begun before the first is waited for.
    assert_eq!(syncs(mount, "new folder", Durability::Full, &[]), [range, range, range, range, "fsync"]);
}

#[test]
fn where_ranges_cannot_be_written_files_are_synced() {
    for errno in [Errno::ENOSYS, Errno::EPERM, Errno::EINVAL, Errno::ESPIPE] {
        let lack = [Fault::Every("sync_file_range", 0, errno)];
        let made = syncs(Mount::ONE_FLUSH, "new file", Durability::Full, &lack);
        assert_eq!(made, ["sync_file_range", "fsync", "fsync"]);
    }
}

/// A folder of so many files that is to be published.
fn folder_of(files: usize, dir: &Path) -> crate::Folder {
    let new = crate::Folder::options().durability(Durability::Ordered).create(dir.join("new")).unwrap();
    for number in 0..files {
        std::fs::write(new.path().join(number.to_string()), "x").unwrap();
    }
    new
}

/// The syncs before the publish of a folder with so many files, when so many MiB are to be written.
fn syncs_of_folder(mount: Mount, files: usize, dirty: u64) -> Vec<&'static str> {
    let dir = tempfile::tempdir().unwrap();
    let new = folder_of(files, dir.path());
    let run = || inject(&[], || new.commit());
    let (result, calls) = mount::pretend(mount, || sync::pretend_dirty(dirty, run));
    result.unwrap().unwrap();
    let syncs = calls.iter().map(|call| call.name).filter(|name| matches!(*name, "fsync" | "syncfs"));
    syncs.collect()
}

#[test]
fn many_files_are_synced_at_once_unless_others_have_much_to_write() {
    let mount = Mount::TWO_FLUSHES;
    assert_eq!(syncs_of_folder(mount, 5, 0), ["syncfs"]);
    assert_eq!(syncs_of_folder(mount, 4, 0), ["fsync"; 5]);
    assert_eq!(syncs_of_folder(mount, 50, 40), ["syncfs"]);
    assert_eq!(syncs_of_folder(mount, 50, 60), ["fsync"; 51]);
    assert_eq!(syncs_of_folder(Mount::ONE_FLUSH, 50, 0), [""; 0]);
}

#[test]
fn where_syncfs_may_do_nothing_each_file_is_synced() {
    // From several threads, whose calls are theirs: the root is synced by this one.
    assert_eq!(syncs_of_folder(Mount::UNKNOWN, 100, 0), ["fsync"]);
    assert_eq!(syncs_of_folder(Mount::UNKNOWN, 10, 0), ["fsync"; 11]);
}

#[test]
fn a_long_sync_can_be_stopped_until_the_publish() {
    for mount in MOUNTS {
        let mut stopped = 0;
        for calls in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let new = folder_of(200, dir.path());
            let mut left = calls;
            let mut checkpoint = || {
                left -= 1;
                if left < 0 { Err(std::io::ErrorKind::Interrupted.into()) } else { Ok(()) }
            };
            let commit = || new.commit_with(&mut checkpoint);
            let result = mount::pretend(mount, || sync::pretend_dirty(1000, commit));
            assert_eq!(scene::descriptors(dir.path()), [""; 0], "{mount:?}");
            match result {
                Ok(_) => break,
                Err(error) => assert!(!error.committed()),
            }
            assert!(!dir.path().join("new").exists());
            stopped += 1;
        }
        assert!(stopped > 3, "{mount:?}: looked {stopped} times");
    }
}

#[test]
fn two_failing_calls_break_no_promise() {
    let seed = std::env::var("ATOMIK_FAULTS_SEED")
        .map_or_else(|_| crate::sys::random().unwrap(), |text| text.parse().unwrap());
    let (place, durabilities) = places().swap_remove(0);
    let mut complaints = Complaints::default();
    judges(&place, durabilities, |judge| {
        let runs = judge.single(&mut Complaints::default());
        judge.pairs(&runs, seed, &mut complaints);
    });
    complaints.settle(&format!("pairs of faults in {} (ATOMIK_FAULTS_SEED={seed})", place.display()));
}

/// What loops wait for the end of. A kernel does not go on with these for ever; somebody who makes and removes names
/// as fast as they are looked at can make it look so.
const STUBBORN: &[Errno] = &[Errno::ENOENT, Errno::EEXIST, Errno::ENOTEMPTY, Errno::ESTALE, Errno::ERANGE];

#[test]
fn an_operation_ends_though_a_call_fails_for_ever() {
    let (place, _) = places().swap_remove(0);
    let mut complaints = Complaints::default();
    judges(&place, &[Durability::None], |judge| {
        let mut names = HashSet::new();
        let firsts = judge.calls.iter().enumerate().filter(|(_, call)| !call.injected && names.insert(call.name));
        for (number, call) in firsts {
            // An interrupted call is repeated until it is not: a signal for every attempt is no fault.
            let errors = plausible(call.name).iter().chain(STUBBORN).filter(|errno| **errno != Errno::EINTR);
            for errno in errors {
                let fault = [Fault::Every(call.name, number, *errno)];
                let (calls, mut broken) = judge.run(&fault);
                // What such a kernel leaves is another question.
                broken.retain(|promise| promise.contains(PANIC) || promise.contains(OPEN));
                complaints.add(judge, &fault, &calls[..calls.len().min(50)], broken);
            }
        }
    });
    complaints.settle("calls that fail for ever");
}

/// Every call of `sys.rs` that can fail must be made by `once` or `retry`, or no fault ever reaches it.
#[test]
fn no_call_escapes_the_faults() {
    // They cannot fail, or are asked about this process alone.
    let harmless = ["libc::getauxval(", "libc::pthread_atfork(", "unistd::geteuid(", "unistd::getegid("];
    let is_call = |line: &str, room: &str| {
        line.match_indices(room).any(|(at, _)| {
            let name: String =
                line[at + room.len()..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let called = line[at + room.len() + name.len()..].starts_with('(');
            called && name.starts_with(char::is_lowercase) && !harmless.contains(&format!("{room}{name}(").as_str())
        })
    };
    let rooms = ["libc::", "fcntl::", "unistd::", "nix::sys::stat::", "nix::sys::statfs::"];
    let files = [
        include_str!("../sys.rs"),
        include_str!("../sys/attributes.rs"),
        include_str!("../sys/copy.rs"),
        include_str!("../sys/stat.rs"),
    ];
    let functions = files.iter().flat_map(|file| file.split("\n}\n"));
    let mut seen = 0;
    for function in functions {
        let calls = function.lines().filter(|line| !line.trim_start().starts_with("//"));
        let calls = calls.filter(|line| rooms.iter().any(|room| is_call(line, room))).count();
        let made: usize =
            ["once(\"", "retry(\"", "lookup(\"", "filled(\""].iter().map(|way| function.matches(way).count()).sum();
        assert!(calls <= made, "a call that is not made by `once` or `retry`:{function}\n}}");
        seen += calls;
    }
    assert!(seen > 20, "only {seen} calls were found in sys.rs");
}

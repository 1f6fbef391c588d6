//! What an operation must have done when some of its calls failed. Checked every time: see [`Judge`].

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::sample::Sample;
use super::scene::{self, OPERATIONS, Operation, Snapshot};
use super::{Call, Fault, inject, plausible};
use crate::mount::Mount;
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
pub(super) struct Judge<'a> {
    operation: &'a Operation,
    lack: &'a Lack,
    durability: Durability,
    /// Where the folders of its runs are made.
    place: &'a Path,
    old: Snapshot,
    new: Snapshot,
    pub(super) calls: Vec<Call>,
}

pub(super) const PANIC: &str = "it panics";
pub(super) const OPEN: &str = "a descriptor is left";

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
    pub(super) fn run(&self, faults: &[Fault]) -> (Vec<Call>, Vec<String>) {
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

    /// The single faults of a sample; answers each with the calls that its run made.
    pub(super) fn single(&self, sample: &Sample, complaints: &mut Complaints) -> Vec<(Fault, Vec<Call>)> {
        let mut runs = Vec::new();
        for fault in faults_of(&self.calls, 0).filter(|_| sample.takes_next()) {
            let (calls, broken) = self.run(&[fault]);
            complaints.add(self, &[fault], &calls, broken);
            runs.push((fault, calls));
        }
        runs
    }

    /// A second fault in each of these runs: first each pair of calls once, with any errors, then with others.
    pub(super) fn pairs(&self, runs: &[(Fault, Vec<Call>)], sample: &Sample, complaints: &mut Complaints) {
        let pairs = sample.shuffled(pairs_of(runs));
        let mut positions = HashSet::new();
        let (new, more): (Vec<_>, Vec<_>) =
            pairs.into_iter().partition(|pair| positions.insert(pair.map(|fault| fault.number())));
        let plain = self.lack.faults.is_empty() && self.durability == Durability::Full;
        let most = if plain { PAIRS } else { PAIRS_ELSEWHERE };
        let most = std::env::var("ATOMIK_FAULTS_PAIRS").map_or(sample.of(most), |text| text.parse().unwrap());
        for pair in new.into_iter().chain(more).take(most) {
            let (calls, broken) = self.run(&pair);
            complaints.add(self, &pair, &calls, broken);
        }
    }
}

/// Each of these faults with each that can follow it in its run.
pub(super) fn pairs_of(runs: &[(Fault, Vec<Call>)]) -> Vec<[Fault; 2]> {
    runs.iter().flat_map(|(first, calls)| faults_of(calls, first.number() + 1).map(|second| [*first, second])).collect()
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
    let is_full = |call: &Call| call.name == "rmdir" && call.error == Some(Errno::ENOTEMPTY);
    let published = published.min(calls.iter().position(is_full).unwrap_or(calls.len()));
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

/// Broken promises, each with the shortest way to it.
#[derive(Default)]
pub(super) struct Complaints {
    runs: usize,
    list: Vec<String>,
}

impl Complaints {
    pub(super) fn add(&mut self, judge: &Judge, faults: &[Fault], calls: &[Call], broken: Vec<String>) {
        self.runs += 1;
        let Judge { operation, lack, durability, .. } = judge;
        for promise in broken {
            let (name, lack) = (operation.name, lack.name);
            self.list.push(format!("{name} ({durability:?}, {lack}) with {faults:?}: {promise}\n    {calls:?}"));
        }
    }

    pub(super) fn settle(self, what: &str) {
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
        return vec![(disk, &[Durability::Full, Durability::NoSync])];
    }
    vec![(memory, &[Durability::Full, Durability::NoSync]), (disk, &[Durability::NoSync])]
}

/// Every operation, wherever it works.
pub(super) fn judges(place: &Path, durabilities: &[Durability], mut each: impl FnMut(&Judge)) {
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

/// What a filesystem may be, whatever the tests run on.
pub(super) const MOUNTS: [Mount; 3] = [Mount::ONE_FLUSH, Mount::TWO_FLUSHES, Mount::UNKNOWN];

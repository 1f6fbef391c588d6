//! Tests of the explorer, and a few schedules of the core that every run of the tests explores.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::judge::{Broken, Promise};
use super::owners::Owners;
use super::roles::Mix;
use super::runs::{Tally, by_seed, place, search};
use super::scheduler::{Identity, Job, Outcome, explore};
use super::shrink::{Script, shrink};
use super::strategy::{Kills, Plan, Strategy};
use super::{SCENE, point};
use crate::sys::{self, CWD, Lock};

type Work = Box<dyn FnOnce() + Send>;

fn mix(text: &str) -> Mix {
    Mix::parse(text).unwrap()
}

fn scene() -> tempfile::TempDir {
    tempfile::Builder::new().prefix(SCENE).tempdir_in(place()).unwrap()
}

fn make_files(dir: &Path) {
    for name in ["one", "other"] {
        std::fs::write(dir.join(name), "").unwrap();
    }
}

fn own(work: Work) -> (Identity, Work) {
    (Identity::default(), work)
}

/// Runs processes that are no roles.
fn explore_these(these: Vec<(Identity, Work)>, plan: Plan) -> Outcome {
    let jobs = these.into_iter().map(|(identity, work)| Job { identity, starts_in_body: false, work }).collect();
    explore(jobs, plan, Owners::default(), Box::new(|_| None), true)
}

/// Runs them under the schedules with at most `bound` preemptions, until the outcome of one `is` the expected one.
fn find(
    bound: usize,
    kills: &[(usize, usize)],
    mut these: impl FnMut() -> Vec<(Identity, Work)>,
    is: impl Fn(&Outcome) -> bool,
) -> bool {
    let mut forks = Some(Vec::new());
    while let Some(taken) = forks.take() {
        let plan = Plan { strategy: Strategy::exhaustive(taken, bound), kills: Kills::At(kills.to_vec()) };
        let mut outcome = explore_these(these(), plan);
        if is(&outcome) {
            return true;
        }
        forks = Strategy::advance(std::mem::take(&mut outcome.forks));
    }
    false
}

/// Locks a file in a folder, and lets other actors go on while it holds the lock.
fn lock(dir: &Path, name: &str, wait: bool, then: impl FnOnce(Lock)) {
    let file = sys::openat(CWD, dir.join(name).as_os_str(), nix::fcntl::OFlag::O_RDWR, 0).unwrap();
    let lock = sys::lock(file.as_fd(), wait);
    point("locked");
    then(lock.unwrap());
}

#[test]
fn schedules_of_fixed_seeds_break_no_promise() {
    let mixes = [
        "Folder: Folder Folder",
        "Folder+: FolderUpdate Folder FolderUpdate",
        "Folder: FolderBackground Sweep",
        "Nothing: FolderNew EntryFolder",
        "File: Write Write",
        "File: Write FileUpdate",
        "File: FileRolledBack Exchange",
    ];
    let mut tally = Tally::default();
    for text in mixes {
        for seed in 0..30 {
            let judged = by_seed(&mix(text), seed, false);
            assert!(judged.broken.is_empty(), "{text}, seed {seed}: {:?}", judged.broken);
            tally.schedules += 1;
            tally.kills += judged.outcome.kills.len();
        }
    }
    assert!(tally.kills > tally.schedules / 4, "only {} kills in {} schedules", tally.kills, tally.schedules);
}

#[test]
fn a_big_tree_is_cloned_and_removed_by_threads_that_are_no_actors() {
    for seed in 0..4 {
        let judged = by_seed(&mix("Big: Folder FolderUpdate"), seed, false);
        assert!(judged.broken.is_empty(), "seed {seed}: {:?}", judged.broken);
    }
}

#[test]
fn a_seed_gives_the_same_trace_again() {
    for text in ["Folder: FolderUpdate Folder Reader", "File: FileBackup Write", "Folder: FolderBackground GroupFolder"]
    {
        for seed in 0..5 {
            let (one, other) = (by_seed(&mix(text), seed, true), by_seed(&mix(text), seed, true));
            assert_eq!(one.outcome.trace, other.outcome.trace, "{text}, seed {seed}");
            let script = Script { steps: one.outcome.steps, kills: one.outcome.kills };
            assert_eq!(Script::parse(&script.to_string()).as_ref(), Some(&script));
            let again = super::world::run(&place(), &mix(text), script.plan(), true);
            assert_eq!(again.outcome.trace, other.outcome.trace, "{text}, the script of seed {seed}");
        }
    }
}

/// Two processes that look whether a name is free, and then take it: both may find it free.
#[test]
fn a_check_that_is_no_longer_true_when_it_is_acted_on_is_found() {
    let both_believe = |bound| {
        let winners = Arc::new(Mutex::new(0));
        let these = || {
            let dir = Arc::new(scene());
            *winners.lock().unwrap() = 0;
            let process = |_| {
                let (dir, winners) = (Arc::clone(&dir), Arc::clone(&winners));
                own(Box::new(move || {
                    let path = dir.path().join("taken");
                    if sys::stat(CWD, path.as_os_str()).unwrap().is_none() {
                        drop(sys::mkdir(CWD, path.as_os_str(), 0o700));
                        *winners.lock().unwrap() += 1;
                    }
                }))
            };
            (0..2).map(process).collect()
        };
        find(bound, &[], these, |_| *winners.lock().unwrap() == 2)
    };
    assert!(!both_believe(0));
    assert!(both_believe(1));
}

#[test]
fn a_deadlock_is_reported() {
    let these = || {
        let dir = Arc::new(scene());
        make_files(dir.path());
        let process = |[first, second]: [&'static str; 2]| {
            let dir = Arc::clone(&dir);
            own(Box::new(move || lock(dir.path(), first, true, |_| lock(dir.path(), second, true, |_| ()))))
        };
        vec![process(["one", "other"]), process(["other", "one"])]
    };
    let waits = |outcome: &Outcome| outcome.broken.iter().any(|broken| broken.promise == Promise::Waiting);
    assert!(!find(0, &[], these, waits));
    assert!(find(1, &[], these, waits));
}

#[test]
fn the_locks_of_the_dead_go_one_by_one_and_in_either_order() {
    let these = || {
        let dir = Arc::new(scene());
        make_files(dir.path());
        let theirs = Arc::clone(&dir);
        let holder =
            move || lock(theirs.path(), "one", false, |_| lock(theirs.path(), "other", false, |_| point("killed")));
        let watcher = move || {
            lock(dir.path(), "one", false, |one| {
                lock(dir.path(), "other", false, |other| {
                    assert!(one == other, "one: {one:?}, other: {other:?}");
                });
            });
        };
        vec![own(Box::new(holder)), own(Box::new(watcher))]
    };
    for wanted in ["one: Held, other: Taken", "one: Taken, other: Held"] {
        let seen = |outcome: &Outcome| outcome.broken.iter().any(|broken| broken.text.contains(wanted));
        assert!(find(2, &[(0, 7)], these, seen), "never seen: {wanted}");
    }
}

#[test]
fn a_lock_is_not_seen_from_another_domain() {
    for (domain, seen) in [(1, Lock::Taken), (2, Lock::Held)] {
        let dir = Arc::new(scene());
        std::fs::write(dir.path().join("one"), "").unwrap();
        let found = Arc::new(Mutex::new(Vec::new()));
        let process = |domain| {
            let (dir, found) = (Arc::clone(&dir), Arc::clone(&found));
            let work = move || {
                lock(dir.path(), "one", false, |lock| {
                    assert_eq!(super::lock_domain(), Some(domain));
                    found.lock().unwrap().push(lock);
                    point("holding");
                });
            };
            (Identity { domain: Some(domain), user: None }, Box::new(work) as Work)
        };
        let plan = Plan::script(&Script::parse("0x4 1x5").unwrap().steps, &[]);
        let outcome = explore_these(vec![process(1), process(domain)], plan);
        assert_eq!((outcome.broken, &*found.lock().unwrap()), (Vec::new(), &vec![Lock::Held, seen]));
    }
}

#[test]
fn another_user_owns_the_files_of_that_users_processes() {
    const OTHER: u32 = 60_001;
    let dir = Arc::new(scene());
    let path = dir.path().join("theirs");
    let maker = move || {
        sys::mkdir(CWD, path.as_os_str(), 0o700).unwrap();
        let found = sys::open_folder(CWD, path.as_os_str()).and_then(|folder| sys::stat_fd(folder.as_fd()));
        assert_eq!((found.unwrap().uid, sys::User::default().id()), (OTHER, OTHER));
    };
    let path = dir.path().join("theirs");
    let refused = move || {
        assert_eq!(sys::stat(CWD, path.as_os_str()).unwrap().unwrap().uid, OTHER);
        assert_eq!(
            sys::open_folder(CWD, path.as_os_str()).map_err(|error| sys::errno(&error)).err(),
            Some(libc::EACCES)
        );
    };
    let of = |user| Identity { domain: None, user };
    let these = vec![(of(Some(OTHER)), Box::new(maker) as Work), (of(Some(OTHER + 1)), Box::new(refused))];
    assert_eq!(explore_these(these, Plan::script(&[], &[])).broken, []);
    assert_eq!(dir.path().read_dir().unwrap().next().unwrap().unwrap().file_name(), OsStr::new("theirs"));
}

#[test]
fn an_exhaustive_search_comes_to_its_end() {
    let mut tally = Tally::default();
    assert!(search(&mix("Nothing: WriteNew WriteNew"), 1, None, None, &mut tally));
    assert!(tally.schedules > 10, "only {} schedules", tally.schedules);
}

#[test]
fn a_mix_is_read_as_it_is_written() {
    for text in ["Folder+: Folder@2 Reader FolderBackup#1", "Nothing: GroupFile Sweep", "Big: Folder FolderUpdate"] {
        assert_eq!(mix(text).to_string(), text);
    }
    assert!(Mix::parse("Folder: Folda").unwrap_err().contains("FolderBackground"));
}

/// Shrinking ends also where nothing fails: the script comes back as it is.
#[test]
fn a_schedule_that_fails_no_more_is_not_shrunk() {
    let script = Script::parse("0x3 1x2 0x50").unwrap();
    let broken = Broken::new(Promise::Complete, "never seen".into());
    assert_eq!(shrink(&place(), &mix("Nothing: WriteNew WriteNew"), &script, &broken), script);
}

//! Proves what is left when the kernel fails: each call of each operation fails once, with each error
//! that is plausible for it; then pairs of calls do; then all calls of a name.
//!
//! Pairs are chosen at random where there are too many; `ATOMIK_FAULTS_PAIRS` is how many are tried for each operation.

use std::collections::HashSet;

use nix::errno::Errno;

use super::judge::{Complaints, MOUNTS, OPEN, PANIC, judges, places};
use super::sample::Sample;
use super::scene::OPERATIONS;
use super::{Fault, Pretended, inject, plausible};
use crate::{Durability, Error, ErrorKind};

#[test]
fn one_failing_call_breaks_no_promise() {
    let sample = Sample::new();
    for (place, durabilities) in places() {
        let mut complaints = Complaints::default();
        judges(&place, durabilities, |judge| drop(judge.single(&sample, &mut complaints)));
        complaints.settle(&format!("single faults in {} ({sample})", place.display()));
    }
}

#[test]
fn one_failing_call_breaks_no_promise_however_is_synced() {
    let sample = Sample::new();
    let (place, _) = places().swap_remove(0);
    for mount in MOUNTS {
        let mut complaints = Complaints::default();
        Pretended::mount(mount).run(|| {
            judges(&place, &[Durability::Full, Durability::Ordered], |judge| {
                drop(judge.single(&sample, &mut complaints));
            });
        });
        complaints.settle(&format!("single faults on {mount:?} ({sample})"));
    }
}

#[test]
fn one_failing_call_breaks_no_promise_where_the_mount_is_known() {
    let sample = Sample::new();
    let (place, _) = places().swap_remove(0);
    Pretended { remembers: true, ..Pretended::NOTHING }.run(|| {
        // Each operation has run once: nothing is left to try.
        judges(&place, &[Durability::NoSync], |_| {});
        let mut complaints = Complaints::default();
        judges(&place, &[Durability::NoSync], |judge| drop(judge.single(&sample, &mut complaints)));
        complaints.settle(&format!("single faults where the mount is known ({sample})"));
    });
}

#[test]
fn two_failing_calls_break_no_promise() {
    let sample = Sample::new();
    let (place, durabilities) = places().swap_remove(0);
    let mut complaints = Complaints::default();
    judges(&place, durabilities, |judge| {
        let runs = judge.single(&sample, &mut Complaints::default());
        judge.pairs(&runs, &sample, &mut complaints);
    });
    complaints.settle(&format!("pairs of faults in {} ({sample})", place.display()));
}

/// FUSE says `ENOENT`, and NFS `ESTALE`, of what is there while others work in the same folder.
#[test]
fn an_odd_answer_of_a_fuse_or_network_filesystem_fails_no_operation() {
    const NO_NAMES: &[Fault] = &[Fault::Every("O_TMPFILE", 0, Errno::EOPNOTSUPP)];
    let (place, _) = places().swap_remove(0);
    let mut failed = Vec::new();
    let fuse = Pretended { domain: Some(1), ..Pretended::NOTHING };
    fuse.run(|| {
        // Those without a next writer stage nothing, and the one that is synced under its name needs `O_TMPFILE`.
        let operations = OPERATIONS.iter().filter(|operation| operation.next.is_some());
        for operation in operations.filter(|operation| operation.name != "file synced under its name") {
            let run = |fault: &[Fault]| {
                let dir = tempfile::tempdir_in(&place).unwrap();
                (operation.before)(dir.path());
                inject(&[fault, NO_NAMES].concat(), || (operation.run)(dir.path(), Durability::NoSync))
            };
            let calls = run(&[]).1;
            // The first opens the parent. What is written goes to an open file.
            let numbers = (1..calls.len()).filter(|number| calls[*number].name != "write");
            for (number, errno) in numbers.flat_map(|number| [Errno::ENOENT, Errno::ESTALE].map(|e| (number, e))) {
                let (result, calls) = run(&[Fault::At(number, errno)]);
                if let Err(error) = result.unwrap() {
                    failed.push(format!("{}: {errno:?} at {number}: {error}: {calls:?}", operation.name));
                }
            }
        }
    });
    assert!(failed.is_empty(), "{} failed\n{}", failed.len(), failed.join("\n"));
}

/// What loops wait for the end of. A kernel does not go on with these for ever; somebody who makes and removes names
/// as fast as they are looked at can make it look so.
const STUBBORN: &[Errno] = &[Errno::ENOENT, Errno::EEXIST, Errno::ENOTEMPTY, Errno::ESTALE, Errno::ERANGE];

#[test]
fn an_operation_ends_though_a_call_fails_for_ever() {
    let sample = Sample::new();
    let (place, _) = places().swap_remove(0);
    let mut complaints = Complaints::default();
    judges(&place, &[Durability::NoSync], |judge| {
        let mut names = HashSet::new();
        let firsts = judge.calls.iter().enumerate().filter(|(_, call)| !call.injected && names.insert(call.name));
        for (number, call) in firsts {
            // An interrupted call is repeated until it is not: a signal for every attempt is no fault.
            let errors = plausible(call.name).iter().chain(STUBBORN).filter(|errno| **errno != Errno::EINTR);
            for errno in errors.filter(|_| sample.takes_next()) {
                let fault = [Fault::Every(call.name, number, *errno)];
                let (calls, mut broken) = judge.run(&fault);
                // What such a kernel leaves is another question.
                broken.retain(|promise| promise.contains(PANIC) || promise.contains(OPEN));
                complaints.add(judge, &fault, &calls[..calls.len().min(50)], broken);
            }
        }
    });
    complaints.settle(&format!("calls that fail for ever ({sample})"));
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
        let made: usize = ["once(\"", "retry(\"", "lookup(\"", "look(name, \"", "filled(\""]
            .iter()
            .map(|way| function.matches(way).count())
            .sum();
        assert!(calls <= made, "a call that is not made by `once` or `retry`:{function}\n}}");
        seen += calls;
    }
    assert!(seen > 20, "only {seen} calls were found in sys.rs");
}

/// What these errnos say of a destination, they do not say of a call that gives nothing a name.
#[test]
fn no_kind_is_guessed_from_the_errno_of_another_operation() {
    const NAMING: [&str; 3] = ["linkat", "renameat", "renameat2"];
    const ERRNOS: [Errno; 4] = [Errno::EEXIST, Errno::ENOTEMPTY, Errno::EXDEV, Errno::EBUSY];
    const GUESSED: [ErrorKind; 3] = [ErrorKind::AlreadyExists, ErrorKind::CrossDevice, ErrorKind::Busy];
    let (places, mut wrong) = (places(), Vec::new());
    for operation in OPERATIONS {
        let (place, durabilities) = &places[0];
        let run = |faults: &[Fault]| {
            let dir = tempfile::tempdir_in(place).unwrap();
            (operation.before)(dir.path());
            inject(faults, || (operation.run)(dir.path(), durabilities[0]))
        };
        let numbers = 0..run(&[]).1.len();
        for (number, errno) in numbers.flat_map(|number| ERRNOS.map(|errno| (number, errno))) {
            let (result, calls) = run(&[Fault::At(number, errno)]);
            let (error, leftover) = match &result.unwrap() {
                Ok(committed) => (None, committed.leftover().map(Error::kind)),
                Err(error) => (Some(error.kind()), error.leftover().map(Error::kind)),
            };
            let failed = calls.iter().find(|call| call.injected).filter(|call| !NAMING.contains(&call.name));
            let kinds = [error, leftover].into_iter().flatten().filter(|kind| GUESSED.contains(kind));
            wrong.extend(failed.into_iter().zip(kinds).map(|found| format!("{}: {found:?}", operation.name)));
        }
    }
    assert!(wrong.is_empty(), "{} wrong kinds\n{}", wrong.len(), wrong.join("\n"));
}

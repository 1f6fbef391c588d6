//! Groups under faults: one failing call publishes all members or none; two may leave some new and some old, each
//! complete, and the error says so.

use std::fs;
use std::path::Path;

use nix::errno::Errno;

use super::judge::{faults_of, is_told, pairs_of, places, removal_failed};
use super::sample::Sample;
use super::{Call, Fault, inject, scene};
use crate::{Committed, Durability, ErrorKind, File, Folder, Group, Result};

/// In the order of their publishes: a new file, a replaced one, a replaced folder, a new folder.
const MEMBERS: [&str; 4] = ["one/new", "one/replaced", "two/replaced", "two/new"];

/// So many pairs of faults are tried.
const PAIRS: usize = 400;

fn before(dir: &Path) {
    fs::create_dir_all(dir.join("one")).unwrap();
    fs::create_dir_all(dir.join("two/replaced/below")).unwrap();
    fs::write(dir.join("one/replaced"), "old").unwrap();
    fs::write(dir.join("two/replaced/below/kept"), "old").unwrap();
}

fn run(dir: &Path, durability: Durability) -> Result<Committed> {
    let mut group = Group::new(durability);
    for name in &MEMBERS[..2] {
        group.write(&File::options().overwrite(true), dir.join(name), "new")?;
    }
    for name in &MEMBERS[2..] {
        let folder = Folder::options().overwrite(true).create(dir.join(name))?;
        fs::write(folder.path().join("added"), "new").unwrap();
        group.add(folder)?;
    }
    group.commit()
}

/// What one member is, in a folder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Version {
    Old,
    New,
}

/// The version of each member, or what is wrong with one.
fn versions(dir: &Path) -> std::result::Result<Vec<Version>, String> {
    let content = |name: &str| fs::read_to_string(dir.join(name)).ok();
    let version = |name: &&str| {
        let found = match *name {
            "two/replaced" | "two/new" => {
                let names: Vec<_> = fs::read_dir(dir.join(name))
                    .into_iter()
                    .flatten()
                    .map(|entry| entry.unwrap().file_name())
                    .collect();
                match &names[..] {
                    [] if !dir.join(name).exists() => None,
                    [one] if one == "added" => content(&format!("{name}/added")),
                    [one] if one == "below" => content(&format!("{name}/below/kept")),
                    _ => Some(format!("{names:?}")),
                }
            }
            _ => content(name),
        };
        match (found.as_deref(), name.ends_with("/new")) {
            (Some("new"), _) => Ok(Version::New),
            (None, true) | (Some("old"), false) => Ok(Version::Old),
            (other, _) => Err(format!("{name} is {other:?}")),
        }
    };
    MEMBERS.iter().map(version).collect()
}

fn litter(dir: &Path) -> Vec<String> {
    scene::snapshot(dir).into_keys().filter(|path| path.contains(".atomik-")).collect()
}

/// Runs it with these faults; answers the calls that it made and every promise that it broke.
fn judged(place: &Path, durability: Durability, faults: &[Fault]) -> (Vec<Call>, Vec<String>) {
    let dir = tempfile::tempdir_in(place).unwrap();
    let dir = dir.path();
    before(dir);
    let (result, calls) = inject(faults, || run(dir, durability));
    let mut broken: Vec<_> =
        scene::descriptors(dir).into_iter().map(|path| format!("a descriptor is left: {path}")).collect();
    let versions = versions(dir).unwrap_or_else(|wrong| {
        broken.push(wrong);
        Vec::new()
    });
    let new = versions.iter().filter(|version| **version == Version::New).count();
    if faults.len() < 2 && ![0, MEMBERS.len()].contains(&new) {
        broken.push(format!("one fault, and {versions:?}"));
    }
    match &result {
        Err(panic) => broken.push(format!("it panics: {:?}", panic.downcast_ref::<String>())),
        Ok(Ok(_)) if new != MEMBERS.len() => broken.push(format!("success, and {versions:?}")),
        Ok(Err(error)) if error.committed() != (new > 0) => {
            broken.push(format!("committed is {}, and {versions:?}", error.committed()));
        }
        _ => {}
    }
    let left = litter(dir);
    if !left.is_empty() && !removal_failed(&calls) {
        broken.push(format!("no removal failed, and still there is {left:?}"));
    }
    if !left.is_empty() && is_told(faults, &calls) {
        run(dir, durability).unwrap();
        let left = litter(dir);
        if !left.is_empty() {
            broken.push(format!("the next group leaves {left:?}"));
        }
    }
    (calls, broken)
}

fn settle(runs: usize, sample: &Sample, broken: &[String]) {
    println!("{runs} runs ({sample})");
    let shown = broken.iter().take(20).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(broken.is_empty(), "{} broken promises in {runs} runs ({sample})\n{shown}", broken.len());
}

/// The single faults of a sample, with the calls of their runs.
fn single(place: &Path, durability: Durability, sample: &Sample, all: &mut Vec<String>) -> Vec<(Fault, Vec<Call>)> {
    let (calls, broken) = judged(place, durability, &[]);
    assert!(broken.is_empty(), "{broken:?}");
    faults_of(&calls, 0)
        .filter(|_| sample.takes_next())
        .map(|fault| {
            let (calls, broken) = judged(place, durability, &[fault]);
            all.extend(
                broken.into_iter().map(|promise| format!("{fault:?} ({durability:?}): {promise}\n    {calls:?}")),
            );
            (fault, calls)
        })
        .collect()
}

#[test]
fn one_failing_call_publishes_all_or_none() {
    let (mut runs, mut broken, sample) = (0, Vec::new(), Sample::new());
    for (place, durabilities) in places() {
        for durability in durabilities {
            runs += single(&place, *durability, &sample, &mut broken).len();
        }
    }
    settle(runs, &sample, &broken);
}

#[test]
fn what_cannot_be_taken_back_is_named_and_both_causes_are_told() {
    let undisturbed = || {
        let dir = tempfile::tempdir().unwrap();
        before(dir.path());
        inject(&[], || run(dir.path(), Durability::NoSync)).1
    };
    // The first run asks things that the others remember.
    undisturbed();
    let (calls, mut told) = (undisturbed(), 0);
    for (number, _) in calls.iter().enumerate().filter(|(_, call)| call.name == "renameat2") {
        let dir = tempfile::tempdir().unwrap();
        before(dir.path());
        let faults = [Fault::At(number, Errno::ENOSPC), Fault::Every("renameat2", number + 1, Errno::EIO)];
        let (result, _) = inject(&faults, || run(dir.path(), Durability::NoSync));
        let Err(error) = result.unwrap() else { continue };
        // Before the publishes, or of a call whose failure is none of the group.
        if !error.committed() || error.raw_os_error() != Some(libc::ENOSPC) {
            continue;
        }
        assert_eq!(error.operation(), "publishing");
        let source = std::error::Error::source(&error).unwrap().downcast_ref::<std::io::Error>().unwrap();
        assert_eq!(source.raw_os_error(), Some(libc::ENOSPC));
        let replaced = dir.path().join("one/replaced").display().to_string();
        assert!(error.to_string().contains(&format!("{replaced} (Input/output error)")), "{error}");
        told += 1;
    }
    // The publishes of the two members that come after it.
    assert_eq!(told, 2);
}

#[test]
fn each_sync_of_a_group_that_fails_is_an_error_of_durability() {
    let run = |faults: &[Fault]| {
        let dir = tempfile::tempdir().unwrap();
        let mut group = Group::new(Durability::Full);
        group.add(Folder::options().permissions(0o500).create(dir.path().join("locked")).unwrap()).unwrap();
        inject(faults, || group.commit())
    };
    // The first run asks things that the others remember.
    run(&[]).0.unwrap().unwrap();
    let (_, calls) = run(&[]);
    let mut operations = Vec::new();
    for (number, _) in calls.iter().enumerate().filter(|(_, call)| call.name.contains("sync")) {
        let error = run(&[Fault::At(number, Errno::EIO)]).0.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Durability, "{error}");
        operations.push(error.operation());
    }
    let after = ["setting the new version's mode and time", "syncing the parent folder"];
    assert!(operations.ends_with(&after), "{operations:?}");
}

#[test]
fn two_failing_calls_leave_each_member_complete_and_the_error_says_how_it_is() {
    let sample = Sample::new();
    let (place, _) = places().swap_remove(0);
    let pairs = pairs_of(&single(&place, Durability::Full, &sample, &mut Vec::new()));
    let tried: Vec<_> = sample.shuffled(pairs).into_iter().take(sample.of(PAIRS)).collect();
    let mut broken = Vec::new();
    for pair in &tried {
        let (calls, promises) = judged(&place, Durability::Full, pair);
        broken.extend(promises.into_iter().map(|promise| format!("{pair:?}: {promise}\n    {calls:?}")));
    }
    settle(tried.len(), &sample, &broken);
}

use std::os::fd::AsFd;
use std::os::unix::fs::symlink;

use atomik::{ErrorKind, Folder, Snapshot};

use crate::test_folder::{TestFolder, names};

/// Replaces the folder `d` by one that holds this file only.
fn publish(here: &TestFolder, file: &str) {
    let new = Folder::options().overwrite(true).create(here.at("d")).unwrap();
    std::fs::write(new.path().join(file), file).unwrap();
    new.commit().unwrap();
}

#[test]
fn a_version_stays_as_it_is_through_any_number_of_publishes() {
    let here = TestFolder::new().with_file("d/old", "old");
    let snapshot = Snapshot::open(here.at("d")).unwrap();
    for file in ["a", "b", "c"] {
        publish(&here, file);
        assert_eq!(names(snapshot.path()), ["old"]);
        assert_eq!(std::fs::read(snapshot.path().join("old")).unwrap(), b"old");
        assert_eq!(names(&here.at("d")), [file]);
    }
    snapshot.close();
    assert_eq!(here.names(), ["d"]);
}

#[test]
fn the_last_reader_removes_a_displaced_version() {
    let here = TestFolder::new().with_file("d/old", "old");
    let (first, last) = (Snapshot::open(here.at("d")).unwrap(), Snapshot::open(here.at("d")).unwrap());
    publish(&here, "new");
    drop(first);
    assert_eq!(names(last.path()), ["old"]);
    assert_eq!(here.names().len(), 2, "{:?}", here.names());
    drop(last);
    assert_eq!(here.names(), ["d"]);
}

#[test]
fn closing_what_nobody_has_displaced_removes_nothing() {
    let here = TestFolder::new().with_file("d/old", "old");
    Snapshot::open(here.at("d")).unwrap().close();
    drop(Snapshot::open(here.at("d")).unwrap());
    assert_eq!((here.names(), here.read("d/old")), (vec!["d".into()], "old".into()));
}

#[test]
fn each_snapshot_is_of_the_version_that_was_there() {
    let here = TestFolder::new().with_file("d/0", "");
    let mut snapshots = Vec::new();
    for file in ["1", "2", "3"] {
        snapshots.push(Snapshot::open(here.at("d")).unwrap());
        publish(&here, file);
    }
    let seen: Vec<_> = snapshots.iter().map(|snapshot| names(snapshot.path())).collect();
    assert_eq!(seen, [["0"], ["1"], ["2"]]);
    drop(snapshots);
    assert_eq!(here.names(), ["d"]);
}

#[test]
fn a_snapshot_is_an_open_folder_for_calls_that_take_one() {
    let here = TestFolder::new().with_file("d/x", "1");
    let snapshot = Snapshot::open(here.at("d")).unwrap();
    publish(&here, "new");
    let mode = nix::sys::stat::Mode::empty();
    nix::fcntl::openat(snapshot.as_fd(), "x", nix::fcntl::OFlag::O_RDONLY, mode).unwrap();
}

#[test]
fn a_symlink_is_followed_to_the_version_that_it_leads_to() {
    let here = TestFolder::new().with_file("d/x", "1");
    symlink("d", here.at("link")).unwrap();
    let snapshot = Snapshot::open(here.at("link")).unwrap();
    publish(&here, "new");
    assert_eq!(names(snapshot.path()), ["x"]);
}

#[test]
fn a_file_and_what_is_missing_have_no_snapshot() {
    let here = TestFolder::new().with_file("f", "");
    let file = Snapshot::open(here.at("f")).unwrap_err();
    assert_eq!((file.raw_os_error(), file.path()), (Some(libc::ENOTDIR), here.at("f").as_path()));
    let missing = Snapshot::open(here.at("missing")).unwrap_err();
    assert_eq!((missing.raw_os_error(), missing.kind()), (Some(libc::ENOENT), ErrorKind::Io));
}

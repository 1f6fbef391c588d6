use std::os::fd::AsFd;
use std::os::unix::fs::symlink;

use atomik::{ErrorKind, Folder, Snapshot};

use crate::home::{Home, names};

/// Replaces the folder `d` by one that holds this file only.
fn publish(home: &Home, file: &str) {
    let new = Folder::options().overwrite(true).create(home.at("d")).unwrap();
    std::fs::write(new.path().join(file), file).unwrap();
    new.commit().unwrap();
}

#[test]
fn a_version_stays_as_it_is_through_any_number_of_publishes() {
    let home = Home::new().with_file("d/old", "old");
    let snapshot = Snapshot::open(home.at("d")).unwrap();
    for file in ["a", "b", "c"] {
        publish(&home, file);
        assert_eq!(names(snapshot.path()), ["old"]);
        assert_eq!(std::fs::read(snapshot.path().join("old")).unwrap(), b"old");
        assert_eq!(names(&home.at("d")), [file]);
    }
    snapshot.close();
    assert_eq!(home.names(), ["d"]);
}

#[test]
fn the_last_reader_removes_a_displaced_version() {
    let home = Home::new().with_file("d/old", "old");
    let (first, last) = (Snapshot::open(home.at("d")).unwrap(), Snapshot::open(home.at("d")).unwrap());
    publish(&home, "new");
    drop(first);
    assert_eq!(names(last.path()), ["old"]);
    assert_eq!(home.names().len(), 2, "{:?}", home.names());
    drop(last);
    assert_eq!(home.names(), ["d"]);
}

#[test]
fn closing_what_nobody_has_displaced_removes_nothing() {
    let home = Home::new().with_file("d/old", "old");
    Snapshot::open(home.at("d")).unwrap().close();
    drop(Snapshot::open(home.at("d")).unwrap());
    assert_eq!((home.names(), home.read("d/old")), (vec!["d".into()], "old".into()));
}

#[test]
fn each_snapshot_is_of_the_version_that_was_there() {
    let home = Home::new().with_file("d/0", "");
    let mut snapshots = Vec::new();
    for file in ["1", "2", "3"] {
        snapshots.push(Snapshot::open(home.at("d")).unwrap());
        publish(&home, file);
    }
    let seen: Vec<_> = snapshots.iter().map(|snapshot| names(snapshot.path())).collect();
    assert_eq!(seen, [["0"], ["1"], ["2"]]);
    drop(snapshots);
    assert_eq!(home.names(), ["d"]);
}

#[test]
fn a_snapshot_is_an_open_folder_for_calls_that_take_one() {
    let home = Home::new().with_file("d/x", "1");
    let snapshot = Snapshot::open(home.at("d")).unwrap();
    publish(&home, "new");
    let mode = nix::sys::stat::Mode::empty();
    nix::fcntl::openat(snapshot.as_fd(), "x", nix::fcntl::OFlag::O_RDONLY, mode).unwrap();
}

#[test]
fn a_symlink_is_followed_to_the_version_that_it_leads_to() {
    let home = Home::new().with_file("d/x", "1");
    symlink("d", home.at("link")).unwrap();
    let snapshot = Snapshot::open(home.at("link")).unwrap();
    publish(&home, "new");
    assert_eq!(names(snapshot.path()), ["x"]);
}

#[test]
fn a_file_and_what_is_missing_have_no_snapshot() {
    let home = Home::new().with_file("f", "");
    let file = Snapshot::open(home.at("f")).unwrap_err();
    assert_eq!((file.raw_os_error(), file.path()), (Some(libc::ENOTDIR), home.at("f").as_path()));
    let missing = Snapshot::open(home.at("missing")).unwrap_err();
    assert_eq!((missing.raw_os_error(), missing.kind()), (Some(libc::ENOENT), ErrorKind::Io));
}

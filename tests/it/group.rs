use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use atomik::{Durability, Entry, ErrorKind, File, Folder, Group};

use crate::test_folder::{TestFolder, names};

fn overwrite() -> atomik::Options<File> {
    File::options().overwrite(true)
}

/// Adds a folder with one file.
fn add_folder(group: &mut Group, here: &TestFolder, name: &str) {
    let folder = Folder::options().overwrite(true).create(here.at(name)).unwrap();
    std::fs::write(folder.path().join("new"), "new").unwrap();
    group.add(folder).unwrap();
}

#[test]
fn nothing_is_visible_before_the_commit_and_nothing_stays_of_what_is_dropped() {
    let here = TestFolder::new().with_file("file", "old").with_file("folder/old", "old");
    let mut group = Group::new(Durability::Full);
    group.write(&overwrite(), here.at("file"), "new").unwrap();
    group.write(&overwrite(), here.at("another"), "new").unwrap();
    add_folder(&mut group, &here, "folder");
    assert_eq!((here.read("file"), names(&here.at("folder"))), ("old".into(), vec!["old".into()]));
    assert!(!here.at("another").exists());
    drop(group);
    assert_eq!((here.names(), here.read("file")), (vec!["file".into(), "folder".into()], "old".into()));
}

#[test]
fn a_commit_publishes_files_folders_and_entries() {
    let here = TestFolder::new().with_file("file", "old").with_file("folder/old", "old").with_file("sub/x", "");
    let mut group = Group::new(Durability::Full);
    group.write(&overwrite(), here.at("file"), "new").unwrap();
    let mut file = File::options().create(here.at("sub/guarded")).unwrap();
    file.write_all(b"new").unwrap();
    group.add(file).unwrap();
    add_folder(&mut group, &here, "folder");
    let entry = Entry::options().create(here.at("entry")).unwrap();
    std::os::unix::fs::symlink("file", entry.path()).unwrap();
    group.add(entry).unwrap();
    assert!(group.commit().unwrap().leftover().is_none());
    assert_eq!(["file", "sub/guarded", "folder/new", "entry"].map(|name| here.read(name)), ["new"; 4]);
    assert_eq!((here.names().len(), names(&here.at("folder"))), (4, vec!["new".into()]));
}

#[test]
fn a_publish_that_fails_takes_back_those_before_it_and_is_named() {
    let here = TestFolder::new().with_file("file", "old").with_file("folder/old", "old");
    std::fs::set_permissions(here.at("file"), std::fs::Permissions::from_mode(0o604)).unwrap();
    let mut group = Group::new(Durability::NoSync);
    group.write(&overwrite(), here.at("file"), "new").unwrap();
    add_folder(&mut group, &here, "folder");
    group.write(&File::options(), here.at("third"), "new").unwrap();
    std::fs::write(here.at("third"), "somebody else's").unwrap();
    let error = group.commit().unwrap_err();
    assert_eq!((error.kind(), error.committed()), (ErrorKind::AlreadyExists, false));
    assert_eq!(error.path(), here.at("third").canonicalize().unwrap());
    assert_eq!((here.read("file"), here.read("folder/old")), ("old".into(), "old".into()));
    assert_eq!(here.at("file").metadata().unwrap().permissions().mode() & 0o7777, 0o604);
    assert_eq!(here.read("third"), "somebody else's");
}

#[test]
fn a_destination_is_in_a_group_once() {
    let here = TestFolder::new();
    let mut group = Group::new(Durability::NoSync);
    group.write(&File::options(), here.at("file"), "first").unwrap();
    let error = group.write(&File::options(), here.at("./file"), "second").unwrap_err();
    assert!(error.to_string().contains("in this group already"), "{error}");
    group.commit().unwrap();
    assert_eq!(here.read("file"), "first");
}

#[test]
fn what_starts_from_the_present_version_or_keeps_it_is_refused() {
    let here = TestFolder::new().with_file("folder/old", "old");
    let mut group = Group::new(Durability::NoSync);
    for options in [Folder::options().update(true), Folder::options().overwrite(true).backup("before")] {
        let error = group.add(options.create(here.at("folder")).unwrap()).unwrap_err();
        assert!(error.to_string().contains("by itself"), "{error}");
    }
    group.commit().unwrap();
    assert_eq!((here.names(), here.read("folder/old")), (vec!["folder".into()], "old".into()));
}

#[test]
fn an_empty_group_commits_nothing() {
    assert!(Group::new(Durability::Full).commit().unwrap().leftover().is_none());
}

#[test]
fn a_rollback_reports_and_leaves_nothing() {
    let here = TestFolder::new();
    let mut group = Group::new(Durability::Full);
    add_folder(&mut group, &here, "folder");
    group.rollback().unwrap();
    assert!(here.names().is_empty());
}

#[test]
fn members_that_contain_each_other_are_refused_when_the_second_comes() {
    for inner_first in [true, false] {
        let here = TestFolder::new().with_file("site/sub/old", "old");
        let mut group = Group::new(Durability::NoSync);
        let inner = |group: &mut Group| group.write(&File::options(), here.at("site/sub/new"), "new");
        let outer = |group: &mut Group| group.add(Folder::options().overwrite(true).create(here.at("site"))?);
        let (first, second) =
            if inner_first { (inner(&mut group), outer(&mut group)) } else { (outer(&mut group), inner(&mut group)) };
        first.unwrap();
        assert!(second.unwrap_err().to_string().contains("in this group"));
        group.commit().unwrap();
        assert_eq!(here.at("site/sub/new").exists(), inner_first);
    }
}

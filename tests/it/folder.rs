use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::thread;

use atomik::{Entry, ErrorKind, Folder, Siblings};

use crate::test_folder::{TestFolder, names};

#[test]
fn an_existing_folder_or_file_is_refused() {
    let here = TestFolder::new().with_file("d/x", "old").with_file("f", "");
    assert_eq!(Folder::options().create(here.at("d")).unwrap_err().kind(), ErrorKind::AlreadyExists);
    let over = Folder::options().overwrite(true).create(here.at("f")).unwrap_err();
    assert_eq!(over.raw_os_error(), Some(libc::ENOTDIR));
    assert_eq!(here.read("d/x"), "old");
}

#[test]
fn a_folder_that_appears_meanwhile_stands() {
    let here = TestFolder::new();
    let new = Folder::options().create(here.at("d")).unwrap();
    std::fs::create_dir(here.at("d")).unwrap();
    assert_eq!(new.commit().unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(here.names(), ["d"]);
}

#[test]
fn dropping_or_rolling_back_leaves_the_old_version() {
    let here = TestFolder::new().with_file("d/x", "old");
    for how in ["drop", "rollback"] {
        let new = Folder::options().overwrite(true).create(here.at("d")).unwrap();
        std::fs::write(new.path().join("y"), "").unwrap();
        if how == "drop" { drop(new) } else { new.rollback().unwrap() }
    }
    assert_eq!((here.names(), here.read("d/x")), (vec!["d".into()], "old".into()));
}

#[test]
fn a_folder_is_replaced_whole_and_the_old_one_removed() {
    let here = TestFolder::new().with_file("d/sub/x", "old");
    let new = Folder::options().overwrite(true).create(here.at("d")).unwrap();
    std::fs::create_dir_all(new.path().join("a/b/c")).unwrap();
    std::fs::write(new.path().join("a/b/c/y"), "new").unwrap();
    assert_eq!(new.path().file_name(), here.at("d").file_name());
    assert!(new.commit().unwrap().leftover().is_none());
    assert_eq!((names(&here.at("d")), here.read("d/a/b/c/y")), (vec!["a".into()], "new".into()));
}

#[test]
fn a_destination_that_vanishes_meanwhile_is_no_error() {
    let here = TestFolder::new().with_file("d/x", "old");
    let new = Folder::options().overwrite(true).create(here.at("d")).unwrap();
    std::fs::remove_dir_all(here.at("d")).unwrap();
    new.commit().unwrap();
    assert!(names(&here.at("d")).is_empty());
}

#[test]
fn a_symlink_to_a_folder_is_replaced_and_its_target_untouched() {
    let here = TestFolder::new().with_file("precious/x", "1");
    symlink("precious", here.at("link")).unwrap();
    Folder::options().overwrite(true).create(here.at("link")).unwrap().commit().unwrap();
    assert_eq!(here.read("precious/x"), "1");
    assert!(here.at("link").symlink_metadata().unwrap().is_dir());
}

#[test]
fn replacing_keeps_the_mode_even_one_that_cannot_be_moved_with() {
    let here = TestFolder::new().with_file("d/x", "old");
    std::fs::set_permissions(here.at("d"), PermissionsExt::from_mode(0o2550)).unwrap();
    Folder::options().overwrite(true).create(here.at("d")).unwrap().commit().unwrap();
    assert_eq!(std::fs::metadata(here.at("d")).unwrap().permissions().mode() & 0o7777, 0o2550);
}

#[test]
fn a_displaced_tree_deeper_than_any_path_is_removed() {
    let here = TestFolder::new();
    let old = Folder::options().create(here.at("d")).unwrap();
    let mut deepest = nix::fcntl::open(old.path(), nix::fcntl::OFlag::O_PATH, nix::sys::stat::Mode::empty()).unwrap();
    for _ in 0..10_000 {
        nix::sys::stat::mkdirat(&deepest, "deep", nix::sys::stat::Mode::S_IRWXU).unwrap();
        deepest =
            nix::fcntl::openat(&deepest, "deep", nix::fcntl::OFlag::O_PATH, nix::sys::stat::Mode::empty()).unwrap();
    }
    old.commit().unwrap();
    let new = Folder::options().overwrite(true).create(here.at("d")).unwrap();
    assert!(new.commit().unwrap().leftover().is_none());
    assert!(names(&here.at("d")).is_empty());
}

#[test]
fn many_writers_never_lose_each_others_staging() {
    let here = TestFolder::new();
    thread::scope(|scope| {
        for writer in 0..32 {
            let here = &here;
            scope.spawn(move || {
                let options = Folder::options().overwrite(true).durability(atomik::Durability::NoSync);
                let new = options.create(here.at("d")).unwrap();
                for file in ["a", "b", "c"] {
                    std::fs::write(new.path().join(file), writer.to_string()).unwrap();
                }
                new.commit().unwrap();
            });
        }
    });
    let one: Vec<_> = ["d/a", "d/b", "d/c"].map(|name| here.read(name)).into();
    assert!(one.iter().all(|content| *content == one[0]), "{one:?}");
    assert_eq!(here.names(), ["d"]);
}

#[test]
fn an_entry_publishes_what_the_tool_made_and_nothing_beside_it() {
    let here = TestFolder::new();
    let empty = Entry::options().create(here.at("t.csv")).unwrap();
    std::fs::write(empty.path().with_extension("csv.npy"), "").unwrap();
    let error = empty.commit().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    assert!(error.to_string().contains("t.csv.npy"), "{error}");
    for content in ["one", "two"] {
        let table = Entry::options().overwrite(true).siblings(Siblings::Discard).create(here.at("t.csv")).unwrap();
        std::fs::write(table.path(), content).unwrap();
        std::fs::write(table.path().with_extension("csv-journal"), "").unwrap();
        table.commit().unwrap();
        assert_eq!((here.read("t.csv"), here.names()), (content.into(), vec!["t.csv".into()]));
    }
    let folder = Entry::options().create(here.at("made/")).unwrap();
    std::fs::create_dir(folder.path()).unwrap();
    folder.commit().unwrap();
    assert!(here.at("made").is_dir());
}

#[test]
fn a_folder_guard_is_its_staging_folder_open_for_reading() {
    let here = TestFolder::new().with_file("old/x", "old");
    for (name, update, copied) in [("new", false, 0), ("old", true, 1), ("old", false, 0)] {
        let options = if update { Folder::options().update(true) } else { Folder::options().overwrite(true) };
        let new = options.create(here.at(name)).unwrap();
        let flags = nix::fcntl::OFlag::O_WRONLY | nix::fcntl::OFlag::O_CREAT;
        drop(nix::fcntl::openat(&new, "made", flags, nix::sys::stat::Mode::S_IRWXU).unwrap());
        let shown = names(std::path::Path::new(&format!("/proc/self/fd/{}", new.as_fd().as_raw_fd())));
        assert_eq!((names(new.path()), shown.len()), (shown.clone(), copied + 1));
        new.commit().unwrap();
        assert!(here.at(name).join("made").exists());
    }
    assert_eq!(here.names(), ["new", "old"]);
}

#[test]
fn a_staging_folder_that_the_body_replaces_is_published_as_it_is_then() {
    let here = TestFolder::new();
    let new = Folder::options().create(here.at("d")).unwrap();
    std::fs::remove_dir(new.path()).unwrap();
    std::fs::create_dir(new.path()).unwrap();
    std::fs::write(new.path().join("x"), "another").unwrap();
    new.commit().unwrap();
    assert_eq!((here.read("d/x"), here.names()), ("another".into(), vec!["d".into()]));
}

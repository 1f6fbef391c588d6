use std::os::unix::fs::{PermissionsExt, symlink};
use std::thread;

use atomik::{Entry, ErrorKind, Folder, Siblings};

use crate::home::{Home, names};

#[test]
fn an_existing_folder_or_file_is_refused() {
    let home = Home::new().with_file("d/x", "old").with_file("f", "");
    assert_eq!(Folder::options().create(home.at("d")).unwrap_err().kind(), ErrorKind::AlreadyExists);
    let over = Folder::options().overwrite(true).create(home.at("f")).unwrap_err();
    assert_eq!(over.raw_os_error(), Some(libc::ENOTDIR));
    assert_eq!(home.read("d/x"), "old");
}

#[test]
fn a_folder_that_appears_meanwhile_stands() {
    let home = Home::new();
    let new = Folder::options().create(home.at("d")).unwrap();
    std::fs::create_dir(home.at("d")).unwrap();
    assert_eq!(new.commit().unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(home.names(), ["d"]);
}

#[test]
fn dropping_or_rolling_back_leaves_the_old_version() {
    let home = Home::new().with_file("d/x", "old");
    for how in ["drop", "rollback"] {
        let new = Folder::options().overwrite(true).create(home.at("d")).unwrap();
        std::fs::write(new.path().join("y"), "").unwrap();
        if how == "drop" { drop(new) } else { new.rollback().unwrap() }
    }
    assert_eq!((home.names(), home.read("d/x")), (vec!["d".into()], "old".into()));
}

#[test]
fn a_folder_is_replaced_whole_and_the_old_one_removed() {
    let home = Home::new().with_file("d/sub/x", "old");
    let new = Folder::options().overwrite(true).create(home.at("d")).unwrap();
    std::fs::create_dir_all(new.path().join("a/b/c")).unwrap();
    std::fs::write(new.path().join("a/b/c/y"), "new").unwrap();
    assert_eq!(new.path().file_name(), home.at("d").file_name());
    assert!(new.commit().unwrap().leftover().is_none());
    assert_eq!((names(&home.at("d")), home.read("d/a/b/c/y")), (vec!["a".into()], "new".into()));
}

#[test]
fn a_destination_that_vanishes_meanwhile_is_no_error() {
    let home = Home::new().with_file("d/x", "old");
    let new = Folder::options().overwrite(true).create(home.at("d")).unwrap();
    std::fs::remove_dir_all(home.at("d")).unwrap();
    new.commit().unwrap();
    assert!(names(&home.at("d")).is_empty());
}

#[test]
fn a_symlink_to_a_folder_is_replaced_and_its_target_untouched() {
    let home = Home::new().with_file("precious/x", "1");
    symlink("precious", home.at("link")).unwrap();
    Folder::options().overwrite(true).create(home.at("link")).unwrap().commit().unwrap();
    assert_eq!(home.read("precious/x"), "1");
    assert!(home.at("link").symlink_metadata().unwrap().is_dir());
}

#[test]
fn replacing_keeps_the_mode_even_one_that_cannot_be_moved_with() {
    let home = Home::new().with_file("d/x", "old");
    std::fs::set_permissions(home.at("d"), PermissionsExt::from_mode(0o2550)).unwrap();
    Folder::options().overwrite(true).create(home.at("d")).unwrap().commit().unwrap();
    assert_eq!(std::fs::metadata(home.at("d")).unwrap().permissions().mode() & 0o7777, 0o2550);
}

#[test]
fn a_displaced_tree_deeper_than_any_path_is_removed() {
    let home = Home::new();
    let old = Folder::options().create(home.at("d")).unwrap();
    let mut here = nix::fcntl::open(old.path(), nix::fcntl::OFlag::O_PATH, nix::sys::stat::Mode::empty()).unwrap();
    for _ in 0..10_000 {
        nix::sys::stat::mkdirat(&here, "deep", nix::sys::stat::Mode::S_IRWXU).unwrap();
        here = nix::fcntl::openat(&here, "deep", nix::fcntl::OFlag::O_PATH, nix::sys::stat::Mode::empty()).unwrap();
    }
    old.commit().unwrap();
    let new = Folder::options().overwrite(true).create(home.at("d")).unwrap();
    assert!(new.commit().unwrap().leftover().is_none());
    assert!(names(&home.at("d")).is_empty());
}

#[test]
fn many_writers_never_lose_each_others_staging() {
    let home = Home::new();
    thread::scope(|scope| {
        for writer in 0..32 {
            let home = &home;
            scope.spawn(move || {
                let options = Folder::options().overwrite(true).durability(atomik::Durability::None);
                let new = options.create(home.at("d")).unwrap();
                for file in ["a", "b", "c"] {
                    std::fs::write(new.path().join(file), writer.to_string()).unwrap();
                }
                new.commit().unwrap();
            });
        }
    });
    let one: Vec<_> = ["d/a", "d/b", "d/c"].map(|name| home.read(name)).into();
    assert!(one.iter().all(|content| *content == one[0]), "{one:?}");
    assert_eq!(home.names(), ["d"]);
}

#[test]
fn an_entry_publishes_what_the_tool_made_and_nothing_beside_it() {
    let home = Home::new();
    let empty = Entry::options().create(home.at("t.csv")).unwrap();
    std::fs::write(empty.path().with_extension("csv.npy"), "").unwrap();
    let error = empty.commit().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    assert!(error.to_string().contains("t.csv.npy"), "{error}");
    for content in ["one", "two"] {
        let table = Entry::options().overwrite(true).siblings(Siblings::Discard).create(home.at("t.csv")).unwrap();
        std::fs::write(table.path(), content).unwrap();
        std::fs::write(table.path().with_extension("csv-journal"), "").unwrap();
        table.commit().unwrap();
        assert_eq!((home.read("t.csv"), home.names()), (content.into(), vec!["t.csv".into()]));
    }
    let folder = Entry::options().create(home.at("made/")).unwrap();
    std::fs::create_dir(folder.path()).unwrap();
    folder.commit().unwrap();
    assert!(home.at("made").is_dir());
}

use std::io::{Read, Seek, Write};
use std::os::unix::fs::{PermissionsExt, symlink};

use atomik::{Durability, ErrorKind, File};

use crate::test_folder::TestFolder;

const ALL: [Durability; 3] = [Durability::Full, Durability::Ordered, Durability::NoSync];

#[test]
fn an_existing_file_is_refused_before_anything_is_written() {
    let here = TestFolder::new().with_file("a", "old");
    let error = File::options().create(here.at("a")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!((error.path(), error.raw_os_error()), (here.at("a").as_path(), Some(libc::EEXIST)));
    assert!(!error.committed() && error.to_string().contains("overwrite"));
    assert_eq!(here.read("a"), "old");
}

#[test]
fn a_destination_that_appears_meanwhile_stands() {
    let here = TestFolder::new();
    let mut new = File::options().create(here.at("a")).unwrap();
    new.write_all(b"new").unwrap();
    std::fs::write(here.at("a"), "other").unwrap();
    assert_eq!(new.commit().unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(here.read("a"), "other");
}

#[test]
fn what_is_never_replaced_is_refused_even_when_asked() {
    let here = TestFolder::new().with_file("folder/x", "");
    nix::unistd::mkfifo(&here.at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let refuse = |name: &str| File::options().overwrite(true).create(here.at(name)).unwrap_err();
    assert_eq!(refuse("folder").raw_os_error(), Some(libc::EISDIR));
    assert_eq!(refuse("fifo").kind(), ErrorKind::Busy);
    assert_eq!(refuse("missing/a").raw_os_error(), Some(libc::ENOENT));
    assert_eq!(refuse("folder/..").raw_os_error(), Some(libc::EBUSY));
    assert_eq!(refuse(&"n".repeat(256)).raw_os_error(), Some(libc::ENAMETOOLONG));
}

#[test]
fn dropping_or_rolling_back_leaves_the_old_version() {
    let here = TestFolder::new().with_file("a", "old");
    let mut new = File::options().overwrite(true).create(here.at("a")).unwrap();
    new.write_all(b"new").unwrap();
    drop(new);
    File::options().overwrite(true).create(here.at("a")).unwrap().rollback().unwrap();
    assert_eq!((here.read("a"), here.names()), ("old".into(), vec!["a".into()]));
}

#[test]
fn a_file_appears_complete_with_every_durability() {
    let here = TestFolder::new();
    for durability in ALL {
        for overwrite in [false, true] {
            let mut new = File::options().overwrite(overwrite).durability(durability).create(here.at("a")).unwrap();
            new.write_all(b"one two").unwrap();
            new.rewind().unwrap();
            new.write_all(b"ONE").unwrap();
            new.rewind().unwrap();
            let mut content = String::new();
            new.read_to_string(&mut content).unwrap();
            assert_eq!(content, "ONE two");
            assert_eq!(here.at("a").exists(), overwrite);
            assert!(new.commit().unwrap().leftover().is_none());
            assert_eq!(here.read("a"), "ONE two");
        }
        std::fs::remove_file(here.at("a")).unwrap();
    }
}

#[test]
fn replacing_keeps_the_mode_but_not_the_set_id_bits() {
    let here = TestFolder::new().with_file("a", "old");
    let mode = |here: &TestFolder| std::fs::metadata(here.at("a")).unwrap().permissions().mode() & 0o7777;
    std::fs::set_permissions(here.at("a"), PermissionsExt::from_mode(0o4750)).unwrap();
    File::options().overwrite(true).write(here.at("a"), "new").unwrap();
    assert_eq!(mode(&here), 0o750);
    File::options().overwrite(true).permissions(0o604).write(here.at("a"), "new").unwrap();
    assert_eq!(mode(&here), 0o604);
}

#[test]
fn a_symlink_is_replaced_or_followed_as_asked() {
    let here = TestFolder::new().with_file("target", "old");
    symlink("target", here.at("link")).unwrap();
    File::options().overwrite(true).follow_symlinks(true).write(here.at("link"), "through").unwrap();
    assert_eq!(here.read("target"), "through");
    File::options().overwrite(true).write(here.at("link"), "instead").unwrap();
    assert_eq!((here.read("target"), here.read("link")), ("through".into(), "instead".into()));
    symlink("born", here.at("dangling")).unwrap();
    File::options().follow_symlinks(true).write(here.at("dangling"), "x").unwrap();
    assert_eq!(here.read("born"), "x");
}

#[test]
fn a_loop_of_symlinks_is_an_error() {
    let here = TestFolder::new();
    symlink("loop", here.at("loop")).unwrap();
    let error = File::options().overwrite(true).follow_symlinks(true).create(here.at("loop")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
}

#[test]
fn staging_elsewhere_publishes_here() {
    let here = TestFolder::new().with_file("tmp/keep", "").with_file("out/a", "old");
    File::options().overwrite(true).tmp_dir(here.at("tmp")).write(here.at("out/a"), "new").unwrap();
    File::options().tmp_dir(here.at("tmp")).write(here.at("out/b"), "new").unwrap();
    assert_eq!((here.read("out/a"), here.read("out/b")), ("new".into(), "new".into()));
    assert_eq!(crate::test_folder::names(&here.at("tmp")), ["keep"]);
    assert_eq!(crate::test_folder::names(&here.at("out")), ["a", "b"]);
}

#[test]
fn an_orphan_slot_is_removed_by_the_next_writer() {
    let here = TestFolder::new()
        .with_file("a", "old")
        .with_file(".atomik-0.a~", "orphan")
        .with_file(&format!("{}/slot/a", crate::test_folder::room("a")), "x");
    File::options().overwrite(true).write(here.at("a"), "new").unwrap();
    assert_eq!(here.names(), ["a"]);
}

#[test]
fn what_has_the_name_of_a_slot_but_is_none_is_left() {
    let here = TestFolder::new().with_file("a", "old").with_file("target", "precious");
    symlink("target", here.at(".atomik-0.a~")).unwrap();
    File::options().overwrite(true).write(here.at("a"), "new").unwrap();
    assert_eq!((here.read("a"), here.read("target")), ("new".into(), "precious".into()));
    std::fs::remove_file(here.at(".atomik-0.a~")).unwrap();
}

#[test]
fn a_name_of_the_librarys_own_is_refused_by_every_guard() {
    let here = TestFolder::new();
    for name in [".atomik-0.notes", ".atomik-lock.notes~", ".atomik"] {
        let errors = [
            File::options().create(here.at(name)).unwrap_err(),
            File::options().write(here.at(name), "").unwrap_err(),
            atomik::Folder::options().create(here.at(name)).unwrap_err(),
            atomik::Entry::options().create(here.at(name)).unwrap_err(),
        ];
        assert!(errors.iter().all(|error| error.raw_os_error() == Some(nix::libc::EINVAL)), "{errors:?}");
    }
    assert_eq!(here.names(), [""; 0]);
}

#[test]
fn a_symlink_to_a_device_is_never_replaced() {
    let here = TestFolder::new();
    std::os::unix::fs::symlink("/dev/null", here.at("link")).unwrap();
    for follow in [false, true] {
        let error = File::options().overwrite(true).follow_symlinks(follow).write(here.at("link"), "new").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
    }
}

#[test]
fn nothing_is_published_into_a_folder_that_was_displaced_meanwhile() {
    let here = TestFolder::new().with_file("site/sub/old", "old");
    let snapshot = atomik::Snapshot::open(here.at("site")).unwrap();
    let mut new = File::options().create(here.at("site/sub/new")).unwrap();
    new.write_all(b"new").unwrap();
    atomik::Folder::options().overwrite(true).create(here.at("site")).unwrap().commit().unwrap();
    let error = new.commit().unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Conflict, here.at("site/sub/new").as_path()));
    assert!(!error.committed() && !snapshot.path().join("sub/new").exists());
}

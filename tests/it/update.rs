use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::thread;

use atomik::{Cleanup, Entry, ErrorKind, File, Folder, Sweep};

use crate::test_folder::{TestFolder, names};

#[test]
fn an_update_starts_from_a_copy_and_changes_only_what_it_changes() {
    let here = TestFolder::new().with_file("d/kept", "old").with_file("d/sub/changed", "old");
    symlink("kept", here.at("d/link")).unwrap();
    std::fs::hard_link(here.at("d/kept"), here.at("d/sub/linked")).unwrap();
    std::fs::set_permissions(here.at("d/kept"), PermissionsExt::from_mode(0o640)).unwrap();
    let before = std::fs::metadata(here.at("d/kept")).unwrap();

    let new = Folder::options().update(true).create(here.at("d")).unwrap();
    let copy = std::fs::metadata(new.path().join("kept")).unwrap();
    assert_ne!(copy.ino(), before.ino());
    assert_eq!(copy.ino(), std::fs::metadata(new.path().join("sub/linked")).unwrap().ino());
    assert_eq!((copy.mode(), copy.mtime(), copy.mtime_nsec()), (before.mode(), before.mtime(), before.mtime_nsec()));
    std::fs::write(new.path().join("sub/changed"), "new").unwrap();
    assert_eq!(here.read("d/sub/changed"), "old");
    new.commit().unwrap();

    assert_eq!(names(&here.at("d")), ["kept", "link", "sub"]);
    assert_eq!(std::fs::read_link(here.at("d/link")).unwrap().to_str(), Some("kept"));
    assert_eq!((here.read("d/kept"), here.read("d/sub/changed")), ("old".into(), "new".into()));
}

#[test]
fn an_update_of_nothing_starts_empty() {
    let here = TestFolder::new();
    let new = Folder::options().update(true).create(here.at("d")).unwrap();
    assert!(names(new.path()).is_empty());
    new.commit().unwrap();
    assert_eq!(here.names(), ["d"]);
}

#[test]
fn of_two_updates_of_one_version_the_first_stands() {
    for first in [0, 1] {
        let here = TestFolder::new().with_file("d/x", "old");
        let mut both = ["a", "b"].map(|name| {
            let new = Folder::options().update(true).create(here.at("d")).unwrap();
            std::fs::write(new.path().join(name), "").unwrap();
            Some(new)
        });
        both[first].take().unwrap().commit().unwrap();
        let error = both[1 - first].take().unwrap().commit().unwrap_err();
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Conflict, Some(libc::ESTALE)));
        assert!(!error.committed());
        assert_eq!(names(&here.at("d")), [["a", "b"][first], "x"]);
        assert_eq!(here.names(), ["d"]);
    }
}

#[test]
fn an_update_of_what_was_removed_meanwhile_is_a_conflict() {
    let here = TestFolder::new().with_file("d/x", "old").with_file("f", "old");
    let folder = Folder::options().update(true).create(here.at("d")).unwrap();
    let file = File::options().update(true).create(here.at("f")).unwrap();
    std::fs::remove_dir_all(here.at("d")).unwrap();
    std::fs::remove_file(here.at("f")).unwrap();
    assert_eq!(folder.commit().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(file.commit().unwrap_err().kind(), ErrorKind::Conflict);
    assert!(here.names().is_empty());
}

#[test]
fn what_appears_where_there_was_nothing_is_a_conflict() {
    let here = TestFolder::new();
    let folder = Folder::options().update(true).create(here.at("d")).unwrap();
    let file = File::options().update(true).create(here.at("f")).unwrap();
    let here = here.with_file("d/theirs", "").with_file("f", "theirs");
    assert_eq!(folder.commit().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(file.commit().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!((names(&here.at("d")), here.read("f")), (vec!["theirs".into()], "theirs".into()));
}

#[test]
fn a_file_is_updated_in_its_middle() {
    let here = TestFolder::new().with_file("f", "one two three");
    let mut new = File::options().update(true).create(here.at("f")).unwrap();
    let mut content = String::new();
    new.read_to_string(&mut content).unwrap();
    assert_eq!(content, "one two three");
    new.seek(SeekFrom::Start(4)).unwrap();
    new.write_all(b"TWO").unwrap();
    assert_eq!(here.read("f"), "one two three");
    new.commit().unwrap();
    assert_eq!(here.read("f"), "one TWO three");
}

#[test]
fn an_entry_starts_from_a_copy_of_the_file_or_folder() {
    let here = TestFolder::new().with_file("d/x", "old").with_file("f", "old");
    for (name, file) in [("d", "d/x"), ("f", "f")] {
        let new = Entry::options().update(true).create(here.at(name)).unwrap();
        let copy = if name == "d" { new.path().join("x") } else { new.path().to_owned() };
        assert_eq!(std::fs::read(&copy).unwrap(), b"old");
        std::fs::write(&copy, "new").unwrap();
        new.commit().unwrap();
        assert_eq!(here.read(file), "new");
    }
}

#[test]
fn what_cannot_be_copied_is_named_and_nothing_is_left() {
    let here = TestFolder::new().with_file("d/sub/x", "old");
    drop(std::os::unix::net::UnixListener::bind(here.at("d/sub/socket")).unwrap());
    let error = Folder::options().update(true).create(here.at("d")).unwrap_err();
    assert_eq!(error.path(), here.at("d/sub/socket"));
    assert_eq!(here.names(), ["d"]);
}

#[test]
fn every_update_of_many_is_there_or_was_refused() {
    let here = TestFolder::new().with_file("d/x", "");
    let published = thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let here = &here;
                scope.spawn(move || {
                    let options = Folder::options().update(true).durability(atomik::Durability::NoSync);
                    let publish = |turn: &i32| {
                        let new = options.create(here.at("d")).unwrap();
                        std::fs::write(new.path().join(format!("{writer}-{turn}")), "").unwrap();
                        match new.commit() {
                            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict),
                            Ok(_) => return true,
                        }
                        false
                    };
                    (0..10).filter(publish).count()
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).sum::<usize>()
    });
    assert!(published > 0);
    assert_eq!(names(&here.at("d")).len(), published + 1);
    assert_eq!(here.names(), ["d"]);
}

#[test]
fn the_displaced_version_gets_the_backups_name() {
    let here = TestFolder::new().with_file("d/1", "").with_file("f", "1").with_file("f.bak", "0");
    for version in ["2", "3"] {
        let new = Folder::options().overwrite(true).backup("d.bak").create(here.at("d")).unwrap();
        std::fs::write(new.path().join(version), "").unwrap();
        new.commit().unwrap();
        File::options().overwrite(true).backup("f.bak").write(here.at("f"), version).unwrap();
    }
    assert_eq!((names(&here.at("d")), names(&here.at("d.bak"))), (vec!["3".into()], vec!["2".into()]));
    assert_eq!((here.read("f"), here.read("f.bak")), ("3".into(), "2".into()));
    assert_eq!(here.names(), ["d", "d.bak", "f", "f.bak"]);
}

#[test]
fn a_backup_elsewhere_or_of_its_own_name_is_refused() {
    let here = TestFolder::new().with_file("f", "1").with_file("sub/x", "");
    for name in ["f", "sub/f", "../f", ".atomik-0.f~"] {
        let name = if name.contains('/') { here.at(name) } else { name.into() };
        let error = File::options().overwrite(true).backup(&name).write(here.at("f"), "2").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{name:?}");
    }
    assert_eq!(here.read("f"), "1");
}

#[test]
fn a_cleanup_in_the_background_removes_what_was_displaced() {
    let here = TestFolder::new().with_file("d/old", "");
    let new = Folder::options().overwrite(true).cleanup(Cleanup::Background).create(here.at("d")).unwrap();
    assert!(new.commit().unwrap().leftover().is_none());
    assert!(names(&here.at("d")).is_empty());
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while here.names() != ["d"] {
        assert!(std::time::Instant::now() < end, "{:?}", here.names());
        thread::sleep(std::time::Duration::from_millis(1));
    }
}

#[test]
fn a_sweep_reports_and_removes_orphans_and_leaves_the_living() {
    let here = TestFolder::new().with_file(".atomik-0.orphan~/orphan/x", "1234");
    let slot = here.at(".atomik-0.orphan~");
    std::fs::set_permissions(&slot, PermissionsExt::from_mode(0o700)).unwrap();
    let alive = Folder::options().create(here.at("d")).unwrap();
    for dry_run in [true, false] {
        let found = Sweep::new().dry_run(dry_run).run(here.at("")).unwrap();
        let seen: Vec<_> = found.iter().map(|orphan| (orphan.path(), orphan.files(), orphan.removed())).collect();
        assert_eq!(seen, [(slot.as_path(), 1, !dry_run)]);
    }
    assert!(alive.path().is_dir());
    alive.commit().unwrap();
    assert_eq!(here.names(), ["d"]);
}

#[test]
fn what_is_appended_goes_to_the_end_of_the_present_version() {
    let here = TestFolder::new().with_file("f", "one\n");
    let mut new = File::options().append(true).create(here.at("f")).unwrap();
    new.rewind().unwrap();
    new.write_all(b"two\n").unwrap();
    new.commit().unwrap();
    assert_eq!(std::fs::read(here.at("f")).unwrap(), b"one\ntwo\n");
    assert_eq!(here.names(), ["f"]);
}

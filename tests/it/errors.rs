//! What a program can learn from an error.

use std::io;

use atomik::{Error, ErrorKind, File};

use crate::test_folder::TestFolder;

#[test]
fn the_errno_survives_io_error() {
    let here = TestFolder::new().with_file("p", "old");
    assert_eq!(io::Error::from(atomik::write(here.at("p"), "new").unwrap_err()).raw_os_error(), Some(libc::EEXIST));
    let with_question_mark = || -> io::Result<()> {
        drop(File::options().create(here.at("missing/p"))?);
        Ok(())
    };
    let error = with_question_mark().unwrap_err();
    assert_eq!((error.raw_os_error(), error.kind()), (Some(libc::ENOENT), io::ErrorKind::NotFound));
    let without_errno = io::Error::from(atomik::write("a\0b", "").unwrap_err());
    assert_eq!(without_errno.kind(), io::ErrorKind::InvalidInput);
    assert!(without_errno.to_string().contains("null byte"));
}

#[test]
fn the_whole_error_is_reachable_in_one_that_is_described() {
    let here = TestFolder::new().with_file("p", "old");
    let error = atomik::write(here.at("p"), "new").unwrap_err().described();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert!(error.to_string().starts_with(here.at("p").to_str().unwrap()));
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()).unwrap();
    assert_eq!((inner.path(), inner.raw_os_error()), (here.at("p").as_path(), Some(libc::EEXIST)));
}

#[test]
fn an_error_says_what_was_being_done() {
    let here = TestFolder::new().with_file("p", "old").with_file("d/x", "");
    let operations = [
        (atomik::write(here.at("p"), "").unwrap_err(), "checking the destination"),
        (atomik::write(here.at("missing/p"), "").unwrap_err(), "opening the parent folder"),
        (atomik::write(here.at(".atomik-1"), "").unwrap_err(), "reading the path"),
        (atomik::exchange(here.at("p"), here.at("missing")).unwrap_err(), "exchanging"),
        (atomik::rename(here.at("p"), here.at("d"), false).unwrap_err(), "renaming"),
    ];
    for (error, operation) in operations {
        assert_eq!(error.operation(), operation);
        assert!(error.to_string().contains(&format!(" while {operation}")), "{error}");
    }
}

#[test]
fn a_kind_follows_from_the_errno_only_where_it_is_about_the_destination() {
    let here = TestFolder::new().with_file("p", "old").with_file("d/x", "");
    assert_eq!(atomik::write(here.at("p"), "").unwrap_err().kind(), ErrorKind::AlreadyExists);
    let full = atomik::rename(here.at("d"), here.at("p"), false).unwrap_err();
    assert_eq!((full.kind(), full.raw_os_error()), (ErrorKind::AlreadyExists, Some(libc::EEXIST)));
    assert_eq!(atomik::write(here.at("d/.."), "").unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(atomik::write("/", "").unwrap_err().kind(), ErrorKind::Busy);
    // Another mount than the destination's.
    let elsewhere = File::options().tmp_dir("/proc/self").write(here.at("new"), "").unwrap_err();
    assert_eq!(elsewhere.kind(), ErrorKind::CrossDevice);
}

#[test]
fn the_way_out_is_named_in_rusts_words() {
    let here = TestFolder::new().with_file("p", "old").with_file("q", "old");
    let exists = atomik::write(here.at("p"), "").unwrap_err();
    assert!(exists.reason().ends_with("the destination exists; call .overwrite(true) to replace it"), "{exists}");
    let renamed = atomik::rename(here.at("p"), here.at("q"), false).unwrap_err();
    assert!(renamed.to_string().contains("call rename with overwrite true"), "{renamed}");
    let entry = atomik::Entry::options().create(here.at("e")).unwrap();
    for name in ["e", "e-wal"] {
        std::fs::write(entry.path().with_file_name(name), "").unwrap();
    }
    let siblings = entry.commit().unwrap_err();
    assert!(siblings.to_string().contains("e-wal") && siblings.to_string().contains("Siblings::Discard"), "{siblings}");
}

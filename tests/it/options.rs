//! Options mean the same in any order, and nothing is overwritten unasked.

use std::io::Write;

use atomik::{Entry, ErrorKind, File, Folder, Options, Siblings};

use crate::test_folder::TestFolder;

/// The calls that say something of the present version.
const CALLS: [(&str, bool); 6] = [
    ("overwrite", true),
    ("overwrite", false),
    ("update", true),
    ("update", false),
    ("append", true),
    ("append", false),
];

fn options(calls: &[(&str, bool)]) -> Options<File> {
    let quick = File::options().durability(atomik::Durability::NoSync);
    calls.iter().fold(quick, |options, (call, on)| match *call {
        "overwrite" => options.overwrite(*on),
        "update" => options.update(*on),
        _ => options.append(*on),
    })
}

/// What a file that holds "older" is after "new" was written with such options, or the errno.
fn outcome(calls: &[(&str, bool)]) -> Result<String, Option<i32>> {
    let here = TestFolder::new().with_file("a", "older");
    let written = || -> atomik::Result<()> {
        let mut new = options(calls).create(here.at("a"))?;
        new.write_all(b"new").unwrap();
        new.commit().map(drop)
    };
    let outcome = written().map(|()| here.read("a")).map_err(|error| error.raw_os_error());
    assert!(outcome.is_ok() || here.read("a") == "older");
    assert_eq!(here.names(), ["a"]);
    outcome
}

/// What the last call of each option says means.
fn expected(calls: &[(&str, bool)]) -> Result<String, Option<i32>> {
    let last = |name| calls.iter().rfind(|(call, _)| *call == name).map(|(_, on)| *on);
    let starts = last("update") == Some(true) || last("append") == Some(true);
    match (last("overwrite"), starts) {
        (Some(false), true) => Err(Some(libc::EINVAL)),
        (_, true) if last("append") == Some(true) => Ok("oldernew".into()),
        (_, true) => Ok("newer".into()),
        (Some(true), false) => Ok("new".into()),
        (_, false) => Err(Some(libc::EEXIST)),
    }
}

#[test]
fn options_mean_the_same_in_any_order() {
    for first in CALLS {
        assert_eq!(outcome(&[first]), expected(&[first]), "{first:?}");
        for second in CALLS {
            let two = [first, second];
            assert_eq!(outcome(&two), expected(&two), "{two:?}");
            for third in CALLS {
                let three = [first, second, third];
                assert_eq!(outcome(&three), expected(&three), "{three:?}");
            }
        }
    }
}

#[test]
fn nothing_is_overwritten_by_options_that_were_taken_back() {
    let here = TestFolder::new().with_file("a", "old").with_file("d/x", "old");
    assert!(File::options().update(true).update(false).write(here.at("a"), "new").is_err());
    assert!(File::options().append(true).append(false).write(here.at("a"), "new").is_err());
    let folder = Folder::options().update(true).update(false).create(here.at("d")).unwrap_err();
    let entry = Entry::options().update(true).update(false).create(here.at("d")).unwrap_err();
    assert_eq!([folder.kind(), entry.kind()], [ErrorKind::AlreadyExists; 2]);
    assert!(File::options().update(true).append(false).create(here.at("a")).unwrap().commit().is_ok());
    assert_eq!((here.read("a"), here.read("d/x")), ("old".into(), "old".into()));
}

#[test]
fn contradictions_are_refused_before_anything_is_touched() {
    let here = TestFolder::new();
    let missing = here.at("missing/a");
    let errors = [
        File::options().overwrite(false).append(true).write(&missing, "").unwrap_err(),
        Folder::options().update(true).overwrite(false).create(&missing).unwrap_err(),
        Entry::options().siblings(Siblings::Publish).update(true).create(&missing).unwrap_err(),
        Entry::options().backup("b").siblings(Siblings::Publish).create(&missing).unwrap_err(),
    ];
    for error in errors {
        assert_eq!((error.raw_os_error(), error.path()), (Some(libc::EINVAL), missing.as_path()), "{error}");
    }
    assert!(here.names().is_empty());
}

#[test]
fn options_that_are_cloned_ask_for_the_same() {
    let here = TestFolder::new().with_file("a", "old");
    let options = File::options().append(true);
    options.clone().write(here.at("a"), "new").unwrap();
    assert_eq!(here.read("a"), "oldnew");
    assert_eq!(format!("{:?}", options.clone()), format!("{options:?}"));
}

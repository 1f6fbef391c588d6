use std::fs;
use std::path::Path;

use atomik::{Entry, ErrorKind, File, Group, Options, Siblings};

use crate::test_folder::TestFolder;

/// What a tool makes whose format has two files.
fn make(path: &Path) {
    fs::write(path, "new").unwrap();
    fs::write(path.with_extension("dbf"), "new").unwrap();
}

fn overwriting(siblings: Siblings) -> Options<Entry> {
    Entry::options().overwrite(true).siblings(siblings)
}

#[test]
fn siblings_are_refused_by_name() {
    let here = TestFolder::new();
    let new = Entry::options().create(here.at("map.shp")).unwrap();
    make(new.path());
    let refused = new.commit().unwrap_err();
    assert_eq!((refused.kind(), refused.raw_os_error()), (ErrorKind::Siblings, Some(39)));
    assert!(refused.to_string().contains("map.dbf") && !refused.committed());
    assert_eq!(here.names(), [""; 0]);
}

#[test]
fn siblings_are_published_in_one_group_or_discarded() {
    for (siblings, dbf) in [(Siblings::Publish, "new"), (Siblings::Discard, "old")] {
        let here = TestFolder::new().with_file("map.shp", "old").with_file("map.dbf", "old");
        let new = overwriting(siblings).create(here.at("map.shp")).unwrap();
        make(new.path());
        new.commit().unwrap();
        assert_eq!((here.read("map.shp").as_str(), here.read("map.dbf").as_str()), ("new", dbf));
        assert_eq!(here.names(), ["map.dbf", "map.shp"]);
    }
}

#[test]
fn siblings_that_cannot_be_published_keep_the_entry_from_it() {
    let here = TestFolder::new().with_file("map.shp", "old").with_file("map.dbf/inner", "old");
    let new = overwriting(Siblings::Publish).create(here.at("map.shp")).unwrap();
    make(new.path());
    assert_eq!(new.commit().unwrap_err().raw_os_error(), Some(21));
    assert_eq!(here.read("map.shp"), "old");
}

#[test]
fn a_group_takes_an_entry_with_its_siblings_or_nothing_of_it() {
    let here = TestFolder::new();
    let mut group = Group::new(atomik::Durability::NoSync);
    group.write(&File::options(), here.at("map.shp"), "first").unwrap();
    let twice = Entry::options().siblings(Siblings::Publish).create(here.at("map.shp")).unwrap();
    make(twice.path());
    // Its sibling has been added by then.
    assert!(group.add(twice).is_err());
    group.write(&File::options(), here.at("map.dbf"), "first").unwrap();
    group.commit().unwrap();
    assert_eq!((here.read("map.shp").as_str(), here.read("map.dbf").as_str()), ("first", "first"));
}

#[test]
fn publishing_siblings_does_not_go_with_an_update() {
    let here = TestFolder::new();
    let refused = Entry::options().siblings(Siblings::Publish).update(true).create(here.at("x")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(22));
    assert_eq!(here.names(), [""; 0]);
}

#[test]
fn an_empty_version_does_not_replace_what_was_written_meanwhile() {
    let here = TestFolder::new();
    let new = File::options().overwrite(true).create(here.at("x")).unwrap();
    fs::write(here.at("x"), "a tool's").unwrap();
    assert_eq!(new.commit().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(here.read("x"), "a tool's");
}

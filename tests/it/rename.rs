use atomik::{ErrorKind, RenameFlags};

use crate::test_folder::TestFolder;

#[test]
fn a_rename_refuses_to_replace_unless_asked() {
    let here = TestFolder::new().with_file("a", "a").with_file("b", "b");
    let error = atomik::rename(here.at("a"), here.at("b"), false).unwrap_err();
    assert_eq!((error.kind(), error.path2()), (ErrorKind::AlreadyExists, Some(here.at("b").as_path())));
    atomik::rename(here.at("a"), here.at("b"), true).unwrap();
    assert_eq!((here.read("b"), here.names()), ("a".into(), vec!["b".into()]));
}

#[test]
fn a_folder_is_not_renamed_into_itself() {
    let here = TestFolder::new().with_file("d/x", "");
    let error = atomik::rename(here.at("d"), here.at("d/e"), false).unwrap_err();
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Io, Some(libc::EINVAL)));
}

#[test]
fn an_exchange_swaps_a_file_and_a_folder() {
    let here = TestFolder::new().with_file("a", "a").with_file("d/x", "x");
    assert_eq!(atomik::exchange(here.at("a"), here.at("no")).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    atomik::exchange(here.at("a"), here.at("d")).unwrap();
    assert_eq!((here.read("a/x"), here.read("d")), ("x".into(), "a".into()));
}

#[test]
fn the_bare_call_gives_the_kernels_answer() {
    let here = TestFolder::new().with_file("a", "a").with_file("b", "b");
    let call = |flags| atomik::renameat2(nix::fcntl::AT_FDCWD, here.at("a"), nix::fcntl::AT_FDCWD, here.at("b"), flags);
    let both = RenameFlags::NOREPLACE | RenameFlags::EXCHANGE;
    assert_eq!(call(both).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    assert_eq!(call(RenameFlags::NOREPLACE).unwrap_err().raw_os_error(), Some(libc::EEXIST));
    call(RenameFlags::EXCHANGE).unwrap();
    assert_eq!(here.read("a"), "b");
}

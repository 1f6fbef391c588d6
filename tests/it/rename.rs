use atomik::{ErrorKind, RenameFlags};

use crate::home::Home;

#[test]
fn a_rename_refuses_to_replace_unless_asked() {
    let home = Home::new().with_file("a", "a").with_file("b", "b");
    let error = atomik::rename(home.at("a"), home.at("b"), false).unwrap_err();
    assert_eq!((error.kind(), error.path2()), (ErrorKind::AlreadyExists, Some(home.at("b").as_path())));
    atomik::rename(home.at("a"), home.at("b"), true).unwrap();
    assert_eq!((home.read("b"), home.names()), ("a".into(), vec!["b".into()]));
}

#[test]
fn a_folder_is_not_renamed_into_itself() {
    let home = Home::new().with_file("d/x", "");
    let error = atomik::rename(home.at("d"), home.at("d/e"), false).unwrap_err();
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Io, Some(libc::EINVAL)));
}

#[test]
fn an_exchange_swaps_a_file_and_a_folder() {
    let home = Home::new().with_file("a", "a").with_file("d/x", "x");
    assert_eq!(atomik::exchange(home.at("a"), home.at("no")).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    atomik::exchange(home.at("a"), home.at("d")).unwrap();
    assert_eq!((home.read("a/x"), home.read("d")), ("x".into(), "a".into()));
}

#[test]
fn the_bare_call_gives_the_kernels_answer() {
    let home = Home::new().with_file("a", "a").with_file("b", "b");
    let call = |flags| atomik::renameat2(nix::fcntl::AT_FDCWD, home.at("a"), nix::fcntl::AT_FDCWD, home.at("b"), flags);
    let both = RenameFlags::NOREPLACE | RenameFlags::EXCHANGE;
    assert_eq!(call(both).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    assert_eq!(call(RenameFlags::NOREPLACE).unwrap_err().raw_os_error(), Some(libc::EEXIST));
    call(RenameFlags::EXCHANGE).unwrap();
    assert_eq!(home.read("a"), "b");
}

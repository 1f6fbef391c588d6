//! Which syncs a commit makes, on each kind of filesystem and where some of them are refused.

use std::path::Path;

use nix::errno::Errno;

use super::judge::MOUNTS;
use super::scene::{self, OPERATIONS};
use super::{Fault, Pretended, inject};
use crate::Durability;
use crate::guard::sealed::Guard;
use crate::mount::Mount;

/// The syncs that a commit makes on such a filesystem, with these faults.
fn syncs(mount: Mount, operation: &str, durability: Durability, faults: &[Fault]) -> Vec<&'static str> {
    let dir = tempfile::tempdir().unwrap();
    let operation = OPERATIONS.iter().find(|known| known.name == operation).unwrap();
    let run = || inject(faults, || (operation.run)(dir.path(), durability));
    let (result, calls) = Pretended::mount(mount).run(run);
    result.unwrap().unwrap();
    let syncs = calls.iter().map(|call| call.name).filter(|name| name.contains("sync"));
    syncs.collect()
}

#[test]
fn where_one_flush_is_enough_content_is_written_without_one() {
    let (range, mount) = ("sync_file_range", Mount::ONE_FLUSH);
    assert_eq!(syncs(mount, "new file", Durability::Full, &[]), [range, "fsync"]);
    assert_eq!(syncs(mount, "new file", Durability::Ordered, &[]), [range]);
    assert!(syncs(mount, "new file", Durability::NoSync, &[]).is_empty());
    // Two files: both are begun before the first is waited for.
    assert_eq!(syncs(mount, "new folder", Durability::Full, &[]), [range, range, range, range, "fsync"]);
}

#[test]
fn where_ranges_cannot_be_written_files_are_synced() {
    for errno in [Errno::ENOSYS, Errno::EPERM, Errno::EINVAL, Errno::ESPIPE] {
        let lack = [Fault::Every("sync_file_range", 0, errno)];
        let made = syncs(Mount::ONE_FLUSH, "new file", Durability::Full, &lack);
        assert_eq!(made, ["sync_file_range", "fsync", "fsync"]);
    }
}

/// A folder of so many files that is to be published.
fn folder_of(files: usize, dir: &Path) -> crate::Folder {
    let new = crate::Folder::options().durability(Durability::Ordered).create(dir.join("new")).unwrap();
    for number in 0..files {
        std::fs::write(new.path().join(number.to_string()), "x").unwrap();
    }
    new
}

/// The syncs before the publish of a folder with so many files, when so many MiB are to be written.
fn syncs_of_folder(mount: Mount, files: usize, dirty: u64) -> Vec<&'static str> {
    let dir = tempfile::tempdir().unwrap();
    let new = folder_of(files, dir.path());
    let run = || inject(&[], || new.commit());
    let (result, calls) = Pretended { dirty: Some(dirty), ..Pretended::mount(mount) }.run(run);
    result.unwrap().unwrap();
    let syncs = calls.iter().map(|call| call.name).filter(|name| matches!(*name, "fsync" | "syncfs"));
    syncs.collect()
}

#[test]
fn many_files_are_synced_at_once_unless_others_have_much_to_write() {
    let mount = Mount::TWO_FLUSHES;
    assert_eq!(syncs_of_folder(mount, 5, 0), ["syncfs"]);
    assert_eq!(syncs_of_folder(mount, 4, 0), ["fsync"; 5]);
    assert_eq!(syncs_of_folder(mount, 50, 40), ["syncfs"]);
    assert_eq!(syncs_of_folder(mount, 50, 60), ["fsync"; 51]);
    assert_eq!(syncs_of_folder(Mount::ONE_FLUSH, 50, 0), [""; 0]);
}

#[test]
fn where_syncfs_may_do_nothing_each_file_is_synced() {
    // From several threads, whose calls are theirs: the root is synced by this one.
    assert_eq!(syncs_of_folder(Mount::UNKNOWN, 100, 0), ["fsync"]);
    assert_eq!(syncs_of_folder(Mount::UNKNOWN, 10, 0), ["fsync"; 11]);
}

#[test]
fn a_long_sync_can_be_stopped_until_the_publish() {
    for mount in MOUNTS {
        let mut stopped = 0;
        for calls in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let new = folder_of(200, dir.path());
            let mut left = calls;
            let mut checkpoint = || {
                left -= 1;
                if left < 0 { Err(std::io::ErrorKind::Interrupted.into()) } else { Ok(()) }
            };
            let busy = Pretended { dirty: Some(1000), ..Pretended::mount(mount) };
            let result = busy.run(|| new.into_draft().commit(&mut checkpoint));
            assert_eq!(scene::descriptors(dir.path()), [""; 0], "{mount:?}");
            match result {
                Ok(_) => break,
                Err(error) => assert!(!error.committed()),
            }
            assert!(!dir.path().join("new").exists());
            stopped += 1;
        }
        assert!(stopped > 3, "{mount:?}: looked {stopped} times");
    }
}

#[test]
fn a_tmp_dir_that_cannot_be_read_is_synced_with_its_filesystem() {
    let (here, apart) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let options = crate::File::options().tmp_dir(apart.path());
    let publish = |name: &str, faults: &[Fault]| {
        let run = || inject(faults, || options.write(here.path().join(name), "new"));
        let (result, calls) = Pretended::mount(Mount::TWO_FLUSHES).run(run);
        result.unwrap().unwrap();
        calls.iter().map(|call| call.name).collect::<Vec<_>>()
    };
    let syncs = |calls: &[&'static str]| calls.iter().copied().filter(|name| name.contains("sync")).collect::<Vec<_>>();
    let calls = publish("one", &[]);
    assert_eq!(syncs(&calls), ["fsync"; 3]);
    // The first one opens the parent.
    let opens_tmp_dir = calls.iter().enumerate().filter(|(_, name)| **name == "openat").nth(1).unwrap().0;
    let denied = [Fault::At(opens_tmp_dir, Errno::EACCES)];
    assert_eq!(syncs(&publish("other", &denied)), ["fsync", "syncfs"]);
}

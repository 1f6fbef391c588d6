//! Removes whole trees, with several threads once a tree turns out to be large.
//!
//! Each thread walks a part of its own, children before their folder. A thread without work waits until another thread
//! gives it a half: of the subfolders that are nearest to the root of that thread's part, or of the files of a flat
//! folder. So the work is shared out whatever the shape of a tree. Unlinking in one folder takes a lock of that folder
//! in the kernel; freeing the unlinked file does not. So several threads may be faster even in a flat folder.
//!
//! Memory and descriptors are bounded. A folder is read a buffer at a time, and the entries of one buffer are removed
//! before the next one is read. Of a deep chain the newest [`walk::MAX_OPEN_FOLDERS`](super::walk::MAX_OPEN_FOLDERS)
//! folders are open.
//!
//! A folder whose children another thread is still removing stays. One thread removes it in a second pass, and reports
//! the first entry that cannot be removed.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::walk::{Visitor, walk};
use crate::checkpoint::{Checkpoint, go_on};
use crate::sys::{self, errno};

mod entries;
mod part;
mod pool;

use entries::Removal;
use part::Part;
use pool::Pool;

/// After so many removed entries other threads help.
const MIN_ENTRIES_FOR_THREADS: usize = 64;

/// Removes everything in the folder `root`, but not the folder itself. The error is that of the first entry that could
/// not be removed; all entries that could be are gone.
pub(crate) fn remove_below(root: BorrowedFd, checkpoint: Checkpoint) -> io::Result<()> {
    // The folder is opened again, since the position in a folder belongs to the open file.
    let open = || sys::open_folder(root, OsStr::new("."));
    let pool = Pool::default();
    let complete = std::thread::scope(|scope| {
        let mut removed = 0;
        let mut others = None;
        let result = pool.remove(Part::new("".into(), open()?), &mut |more| {
            removed += more;
            if removed >= MIN_ENTRIES_FOR_THREADS && others.is_none() {
                let spawn = |_: &usize| std::thread::Builder::new().spawn_scoped(scope, || pool.work()).is_ok();
                others = Some((1..pool.threads(root)).filter(spawn).count());
            }
            checkpoint()
        });
        pool.finish(result, checkpoint)
    })?;
    if complete {
        return Ok(());
    }
    let mut removal = Removal::default();
    walk(open()?, &mut removal, checkpoint)?;
    removal.failure.map_or(Ok(()), Err)
}

/// Removes the file or the folder that has this name, if there is one.
pub(crate) fn remove_named(dir: BorrowedFd, name: &OsStr) -> io::Result<()> {
    let mut removal = Removal::default();
    let there = match sys::stat(dir, name) {
        // NFS answers this for names in a folder that another client has removed.
        Err(error) if errno(&error) == libc::ESTALE => None,
        other => other?,
    };
    match there {
        None => return Ok(()),
        Some(stat) if stat.is_folder() => {
            if let Some(folder) = removal.enter(dir, name)? {
                remove_below(folder.as_fd(), &mut go_on)?;
                removal.leave(folder.as_fd(), dir, name)?;
            }
        }
        Some(_) => removal.file(dir, name, libc::DT_UNKNOWN)?,
    }
    removal.failure.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removed(root: &std::path::Path) -> io::Result<()> {
        let dir = sys::open_folder(sys::CWD, root.as_os_str())?;
        remove_below(dir.as_fd(), &mut go_on)
    }

    fn is_empty(path: &std::path::Path) -> bool {
        std::fs::read_dir(path).unwrap().next().is_none()
    }

    #[test]
    fn a_flat_folder_of_many_buffers_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let name = "n".repeat(200);
        for number in 0..2 * pool::BUFFER_SIZE / 220 {
            std::fs::File::create(root.path().join(format!("{name}{number}"))).unwrap();
        }
        removed(root.path()).unwrap();
        assert!(is_empty(root.path()));
    }

    #[test]
    fn a_tree_is_removed_whatever_its_shape() {
        let root = tempfile::tempdir().unwrap();
        // It is wide, deeper than MAX_OPEN_FOLDERS, and has one folder at each of the first two levels.
        for wide in 0..40 {
            let deep: std::path::PathBuf = (0..wide).map(|level| format!("deep-{level}")).collect();
            let folder = root.path().join("one").join("way").join(format!("wide-{wide}")).join(deep);
            std::fs::create_dir_all(&folder).unwrap();
            for number in 0..30 {
                std::fs::write(folder.join(number.to_string()), "x").unwrap();
                std::fs::create_dir(folder.join(format!("empty-{number}"))).unwrap();
            }
        }
        removed(root.path()).unwrap();
        assert!(is_empty(root.path()));
    }

    #[test]
    fn an_error_of_the_checkpoint_stops_all_threads() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..4 * MIN_ENTRIES_FOR_THREADS {
            let folder = root.path().join(number.to_string());
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("file"), "x").unwrap();
        }
        let dir = sys::open_folder(sys::CWD, root.path().as_os_str()).unwrap();
        let mut calls = 0;
        let stopped = remove_below(dir.as_fd(), &mut || {
            calls += 1;
            if calls > MIN_ENTRIES_FOR_THREADS { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
        });
        assert_eq!(stopped.unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert!(!is_empty(root.path()));
        remove_below(dir.as_fd(), &mut go_on).unwrap();
        assert!(is_empty(root.path()));
    }
}

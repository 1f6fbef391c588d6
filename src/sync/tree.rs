//! Syncs a tree file by file.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::{self, errno};
use crate::tree::{self, Checkpoint, Visitor};

/// How many files are open while the disk writes them.
const BATCH: usize = 64;

/// Syncs each file, then, unless the journal does, the folder that it is in.
struct Sync {
    one_flush: bool,
    /// Their write-back has been started.
    started: Vec<OwnedFd>,
    /// Something may not be opened, or its folder not read, by its owner: only `syncfs` reaches it.
    unreachable: Option<io::Error>,
}

impl Sync {
    fn opened(&mut self, opened: io::Result<OwnedFd>) -> io::Result<Option<OwnedFd>> {
        match opened {
            Ok(fd) => Ok(Some(fd)),
            Err(error) if errno(&error) == libc::EACCES || errno(&error) == libc::EPERM => {
                self.unreachable = Some(error);
                Ok(None)
            }
            // A mount inside the tree is not part of the version.
            Err(error) if errno(&error) == libc::EXDEV => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits for what was started.
    fn finish(&mut self) -> io::Result<()> {
        for fd in self.started.drain(..) {
            if self.one_flush {
                super::range(fd.as_fd())?;
            } else {
                sys::fsync(fd.as_fd())?;
            }
        }
        Ok(())
    }
}

impl Visitor for Sync {
    fn file(&mut self, dir: BorrowedFd, name: &OsStr, kind: u8) -> io::Result<()> {
        // Symlinks, FIFOs and devices are entries of their folder: its sync has them.
        if kind != libc::DT_REG {
            return Ok(());
        }
        let opened = sys::open_to_sync(dir, name);
        if let Some(fd) = self.opened(opened)? {
            sys::start_writing(fd.as_fd())?;
            self.started.push(fd);
        }
        if self.started.len() == BATCH { self.finish() } else { Ok(()) }
    }

    fn enter(&mut self, dir: BorrowedFd, name: &OsStr) -> io::Result<Option<OwnedFd>> {
        let opened = sys::open_folder_same_mount(dir, name);
        self.opened(opened)
    }

    fn leave(&mut self, folder: BorrowedFd, _dir: BorrowedFd, _name: &OsStr) -> io::Result<()> {
        if self.one_flush { Ok(()) } else { sys::fsync(folder) }
    }
}

/// Syncs everything in a folder, then the folder. The error of what could not be opened comes back
/// in the inner option: there `syncfs` is needed.
pub(super) fn sync(root: BorrowedFd, one_flush: bool, checkpoint: Checkpoint) -> io::Result<Option<io::Error>> {
    let mut visitor = Sync { one_flush, started: Vec::new(), unreachable: None };
    tree::walk(sys::open_folder(root, OsStr::new("."))?, &mut visitor, checkpoint)?;
    visitor.finish()?;
    if !one_flush {
        sys::fsync(root)?;
    }
    Ok(visitor.unreachable)
}

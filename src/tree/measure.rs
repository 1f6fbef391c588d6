//! Measures the space that a tree takes on the disk.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::walk::{Visitor, walk};
use crate::checkpoint::Checkpoint;
use crate::sys;

/// Adds up the space and the number of files.
struct Measure {
    bytes: u64,
    files: u64,
}

impl Visitor for Measure {
    fn file(&mut self, dir: BorrowedFd, name: &OsStr, _kind: u8) -> io::Result<()> {
        if let Some(stat) = sys::stat(dir, name)? {
            self.bytes += stat.allocated;
            self.files += 1;
        }
        Ok(())
    }

    fn enter(&mut self, dir: BorrowedFd, name: &OsStr) -> io::Result<Option<OwnedFd>> {
        // A folder that its owner may not read does not count, nor does a mount point.
        Ok(sys::open_folder_same_mount(dir, name).ok())
    }

    fn leave(&mut self, folder: BorrowedFd, _dir: BorrowedFd, _name: &OsStr) -> io::Result<()> {
        self.bytes += sys::stat_fd(folder)?.allocated;
        Ok(())
    }

    fn allows_removal(&self) -> bool {
        true
    }
}

/// The bytes on the disk and the number of files below a folder.
pub(crate) fn measure(root: BorrowedFd, checkpoint: Checkpoint) -> io::Result<(u64, u64)> {
    let mut measure = Measure { bytes: 0, files: 0 };
    walk(sys::open_folder(root, OsStr::new("."))?, &mut measure, checkpoint)?;
    Ok((measure.bytes, measure.files))
}

//! `Removal`: removes files and folders one after the other, and remembers the first error.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::sys::{self, errno};
use crate::tree::walk::Visitor;

/// Removes entries one after the other. An entry that cannot be removed stays, and the first error is remembered.
#[derive(Default)]
pub(super) struct Removal {
    pub(super) failure: Option<io::Error>,
}

impl Removal {
    /// Removes an entry of `dir`. If that is refused, makes `dir` writable and tries again.
    fn remove(&mut self, dir: BorrowedFd, remove: impl Fn() -> io::Result<()>) {
        let mut result = remove();
        if matches!(&result, Err(error) if errno(error) == libc::EACCES) && sys::chmod(dir, 0o700).is_ok() {
            result = remove();
        }
        self.note(result);
    }

    pub(super) fn note(&mut self, result: io::Result<()>) {
        match result {
            Err(error) if errno(&error) != libc::ENOENT => drop(self.failure.get_or_insert(error)),
            _ => {}
        }
    }
}

impl Visitor for Removal {
    fn file(&mut self, dir: BorrowedFd, name: &OsStr, _kind: u8) -> io::Result<()> {
        self.remove(dir, || sys::unlink(dir, name));
        Ok(())
    }

    fn enter(&mut self, dir: BorrowedFd, name: &OsStr) -> io::Result<Option<OwnedFd>> {
        let mut opened = sys::open_folder_same_mount(dir, name);
        // The folder, or the folder above it, may not be readable or searchable. Their owner can change both.
        let refused = |opened: &io::Result<OwnedFd>| matches!(opened, Err(error) if errno(error) == libc::EACCES);
        if refused(&opened) && sys::chmod_unopened(dir, name, 0o700).is_err() {
            // If this fails, the folder is refused again when it is opened.
            drop(sys::chmod(dir, 0o700).and_then(|()| sys::chmod_unopened(dir, name, 0o700)));
        }
        if refused(&opened) {
            opened = sys::open_folder_same_mount(dir, name);
        }
        match opened {
            Ok(fd) => Ok(Some(fd)),
            Err(error) => {
                self.note(Err(error));
                Ok(None)
            }
        }
    }

    fn leave(&mut self, _folder: BorrowedFd, dir: BorrowedFd, name: &OsStr) -> io::Result<()> {
        // If an entry of the folder could not be removed, this is ENOTEMPTY, and the error of that entry was noted
        // before.
        self.remove(dir, || sys::rmdir(dir, name));
        Ok(())
    }
}

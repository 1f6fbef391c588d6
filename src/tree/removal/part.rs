//! `Part`: a folder that one thread removes.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::sys::{self, Stat};

/// How many files are unlinked between two looks at the threads that wait and at the checkpoint.
pub(super) const MAX_FILES_AT_ONCE: usize = 64;

/// A folder, and its entries that have been read and not yet removed.
pub(super) struct Part {
    pub(super) name: OsString,
    /// `None` if it was closed since it is far above; it is opened again from below.
    fd: Option<Arc<OwnedFd>>,
    /// The inode when the folder was closed, and how far it was read.
    closed: Option<(Stat, i64)>,
    pub(super) files: Vec<OsString>,
    pub(super) subfolders: Vec<OsString>,
    /// Has the folder been read to its end?
    pub(super) read: bool,
}

impl Part {
    pub(super) fn new(name: OsString, fd: OwnedFd) -> Self {
        let (files, subfolders) = (Vec::new(), Vec::new());
        Self { name, fd: Some(Arc::new(fd)), closed: None, files, subfolders, read: false }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        // The two newest parts are always open, and no other part is asked for its descriptor.
        self.fd.as_ref().expect("an open folder").as_fd()
    }

    /// Takes half of the subfolders out for another thread; `None` if there are too few. At least `kept` of them stay.
    /// This thread enters the last ones next, so it gives the first ones.
    pub(super) fn half_of_subfolders(&mut self, kept: usize) -> Option<Self> {
        let fd = Arc::clone(self.fd.as_ref()?);
        let many = Some(self.subfolders.len()).filter(|many| *many > kept)?;
        let subfolders = self.subfolders.drain(..many.div_ceil(2)).collect();
        Some(Self { name: OsString::new(), fd: Some(fd), closed: None, files: Vec::new(), subfolders, read: true })
    }

    /// Takes half of the files out for another thread; `None` if there are subfolders, or too few files.
    pub(super) fn half_of_files(&mut self) -> Option<Self> {
        let fd = Arc::clone(self.fd.as_ref()?);
        let many = Some(self.files.len()).filter(|many| self.subfolders.is_empty() && *many > 2 * MAX_FILES_AT_ONCE)?;
        let files = self.files.drain(..many / 2).collect();
        Some(Self { name: OsString::new(), fd: Some(fd), closed: None, files, subfolders: Vec::new(), read: true })
    }

    /// Reads the next buffer.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let mut entries = Vec::new();
        self.read = !sys::read_folder(self.fd(), buffer, &mut entries)?;
        // ext4 lists names by their hashes. In the order of their inodes, blocks are changed one after the other.
        entries.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.inode));
        for entry in entries {
            let is_folder = match entry.kind {
                libc::DT_UNKNOWN => sys::stat(self.fd(), &entry.name)?.is_some_and(|stat| stat.is_folder()),
                kind => kind == libc::DT_DIR,
            };
            if is_folder { &mut self.subfolders } else { &mut self.files }.push(entry.name);
        }
        Ok(())
    }

    /// Closes the folder; the rest of it is read when it is opened again.
    pub(super) fn close(&mut self) -> io::Result<()> {
        if let Some(fd) = &self.fd {
            self.closed = Some((sys::stat_fd(fd.as_fd())?, sys::position(fd.as_fd())?));
            self.fd = None;
        }
        Ok(())
    }

    /// Opens a closed folder again from the folder `below`, and fails if another process has moved the tree meanwhile.
    pub(super) fn reopen(&mut self, below: BorrowedFd) -> io::Result<()> {
        let Some((stat, position)) = self.closed.filter(|_| self.fd.is_none()) else { return Ok(()) };
        let fd = sys::open_folder(below, OsStr::new(".."))?;
        if !stat.same(&sys::stat_fd(fd.as_fd())?) {
            return Err(io::Error::other("the tree was moved while it was removed"));
        }
        sys::set_position(fd.as_fd(), position)?;
        self.fd = Some(Arc::new(fd));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_gives_half_but_never_all_of_the_last_thing_to_do() {
        let names = |count: usize| (0..count).map(|name| OsString::from(name.to_string())).collect::<Vec<_>>();
        let root = tempfile::tempdir().unwrap();
        let open = || sys::open_folder(sys::CWD, root.path().as_os_str()).unwrap();
        let counts = |part: Option<Part>| part.map(|part| (part.files.len(), part.subfolders.len()));
        let with = |files, subfolders| Part {
            files: names(files),
            subfolders: names(subfolders),
            ..Part::new("".into(), open())
        };
        assert_eq!(counts(with(1000, 0).half_of_files()), Some((500, 0)));
        assert_eq!(counts(with(1000, 1).half_of_files()), None);
        assert_eq!(counts(with(1000, 0).half_of_subfolders(0)), None);
        assert_eq!(counts(with(2 * MAX_FILES_AT_ONCE, 0).half_of_files()), None);
        assert_eq!(counts(with(0, 1).half_of_subfolders(1)), None);
        assert_eq!(counts(with(0, 1).half_of_subfolders(0)), Some((0, 1)));
        assert_eq!(counts(with(0, 5).half_of_subfolders(1)), Some((0, 3)));
    }
}

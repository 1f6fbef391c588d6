//! Reads what the kernel tells in `/proc` and `/sys`, and asks for paths.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{self, OFlag};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd;

use super::call::{errno, once, retry};
use super::content::read;
use super::folder::set_position;
use super::open::{CWD, openat, proc_path};

/// How much is read at once.
const PIECE: usize = 64 << 10;

/// Reads a whole file.
pub(crate) fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    read_on(openat(CWD, path.as_os_str(), OFlag::O_RDONLY, 0)?.as_fd())
}

/// Reads an open file from its beginning to its end.
pub(crate) fn read_again(file: BorrowedFd) -> io::Result<Vec<u8>> {
    set_position(file, 0)?;
    read_on(file)
}

fn read_on(file: BorrowedFd) -> io::Result<Vec<u8>> {
    let (mut content, mut piece) = (Vec::new(), vec![0_u8; PIECE]);
    loop {
        match read(file, &mut piece)? {
            0 => return Ok(content),
            length => content.extend(&piece[..length]),
        }
    }
}

/// The path of an open file as the kernel knows it now (`proc(5)`, `/proc/self/fd`).
pub(crate) fn path_now(fd: BorrowedFd) -> io::Result<OsString> {
    once("readlink", || fcntl::readlink(proc_path(fd).as_os_str()))
}

/// The path that a path leads to, through symlinks (`realpath(3)`): for where `/proc` is missing.
pub(crate) fn real_path(path: &OsStr) -> io::Result<PathBuf> {
    once("realpath", || std::fs::canonicalize(path).map_err(|error| Errno::from_raw(errno(&error))))
}

/// A path from the root, without a look at what is there.
pub(crate) fn absolute(path: &Path) -> io::Result<PathBuf> {
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    // Without the dots in it.
    once("getcwd", unistd::getcwd).map(|here| here.join(path).components().collect())
}

/// Has the mount table changed since this open file of it was opened, or was asked last? (`proc_pid_mounts(5)`.)
pub(crate) fn mounts_changed(table: BorrowedFd) -> io::Result<bool> {
    let told = PollFlags::POLLERR | PollFlags::POLLPRI;
    let mut fds = [PollFd::new(table, PollFlags::POLLPRI)];
    retry("poll", || poll(&mut fds, PollTimeout::ZERO))?;
    // What cannot be understood is a change.
    Ok(fds[0].revents().is_none_or(|events| events.intersects(told)))
}

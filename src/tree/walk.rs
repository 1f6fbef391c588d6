//! Walks a tree of folders relative to descriptors. A walk follows no symlink, crosses no mount, and keeps at most
//! [`MAX_OPEN_FOLDERS`] folders open whatever the depth. The path of a call is never longer than one name.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::checkpoint::Checkpoint;
use crate::sys::{self, Stat, errno};

/// How many folders a walk keeps open. Folders further up are closed, and opened again through `..` on the way up,
/// where they must be the same inode.
pub(super) const MAX_OPEN_FOLDERS: usize = 32;

/// The work that is done at each file and folder of a walk.
pub(crate) trait Visitor {
    /// Visits an entry that is no folder.
    fn file(&mut self, dir: BorrowedFd, name: &OsStr, kind: u8) -> io::Result<()>;
    /// Opens a folder that the walk then enters; `None` passes the folder over.
    fn enter(&mut self, dir: BorrowedFd, name: &OsStr) -> io::Result<Option<OwnedFd>>;
    /// Ends the visit of a folder below the root, after everything in it: `folder` is the open folder called `name` in
    /// `dir`.
    fn leave(&mut self, folder: BorrowedFd, dir: BorrowedFd, name: &OsStr) -> io::Result<()>;
    /// May another process remove a folder while the walk reads it? If not, that is an error.
    fn allows_removal(&self) -> bool {
        false
    }
}

struct Frame {
    name: OsString,
    fd: Option<OwnedFd>,
    /// The inode of the folder, from when it was closed.
    stat: Option<Stat>,
    subfolders: Vec<OsString>,
}

impl Frame {
    fn fd(&self) -> BorrowedFd<'_> {
        // The two newest frames are always open, and no other frame is asked for its descriptor.
        self.fd.as_ref().expect("an open folder").as_fd()
    }
}

/// Walks everything below `root`, which must be open for reading, children before their folder.
pub(crate) fn walk(root: OwnedFd, visitor: &mut dyn Visitor, checkpoint: Checkpoint) -> io::Result<()> {
    let mut buffer = vec![0_u8; 32 * 1024];
    let mut frames = vec![read(OsString::new(), root, &mut buffer, visitor, checkpoint)?];
    while let Some(top) = frames.last_mut() {
        checkpoint()?;
        if let Some(name) = top.subfolders.pop() {
            if let Some(fd) = visitor.enter(top.fd(), &name)? {
                frames.push(read(name, fd, &mut buffer, visitor, checkpoint)?);
                // It may be closed already: the walk goes down more than once.
                let far = frames.len().checked_sub(MAX_OPEN_FOLDERS + 1).map(|index| &mut frames[index]);
                if let Some((old, fd)) = far.and_then(|old| old.fd.take().map(|fd| (old, fd))) {
                    old.stat = Some(sys::stat_fd(fd.as_fd())?);
                }
            }
        } else if let Some(done) = frames.pop() {
            if let Some(above) = frames.last_mut() {
                if above.fd.is_none() {
                    above.fd = Some(reopen(&done, above)?);
                }
                visitor.leave(done.fd(), above.fd(), &done.name)?;
            }
        }
    }
    Ok(())
}

/// Opens the folder above again, and fails if another process has moved the tree meanwhile.
fn reopen(below: &Frame, above: &Frame) -> io::Result<OwnedFd> {
    let fd = sys::open_folder(below.fd(), OsStr::new(".."))?;
    match above.stat {
        Some(stat) if stat.same(&sys::stat_fd(fd.as_fd())?) => Ok(fd),
        _ => Err(io::Error::other("the tree was moved while it was walked")),
    }
}

fn read(
    name: OsString,
    fd: OwnedFd,
    buffer: &mut [u8],
    visitor: &mut dyn Visitor,
    checkpoint: Checkpoint,
) -> io::Result<Frame> {
    let mut subfolders = Vec::new();
    let mut entries = Vec::new();
    loop {
        match sys::read_folder(fd.as_fd(), buffer, &mut entries) {
            Ok(true) => {}
            Err(error) if !(visitor.allows_removal() && matches!(errno(&error), libc::ENOENT | libc::ESTALE)) => {
                return Err(error);
            }
            _ => break,
        }
        for sys::Entry { name, mut kind, .. } in entries.drain(..) {
            if kind == libc::DT_UNKNOWN {
                kind = match sys::stat(fd.as_fd(), &name)? {
                    Some(stat) => u8::try_from(stat.kind() >> 12).unwrap_or(libc::DT_UNKNOWN),
                    None => continue,
                };
            }
            if kind == libc::DT_DIR {
                subfolders.push(name);
            } else {
                visitor.file(fd.as_fd(), &name, kind)?;
            }
        }
        checkpoint()?;
    }
    Ok(Frame { name, fd: Some(fd), stat: None, subfolders })
}

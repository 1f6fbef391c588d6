//! Walks a tree of folders relative to descriptors: follows no symlink, crosses no mount, keeps at
//! most [`OPEN`] folders open whatever the depth, and no path is ever longer than one name.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::sys::{self, Stat, errno};

/// Called now and then in long work; an error stops it.
pub(crate) type Checkpoint<'a> = &'a mut dyn FnMut() -> io::Result<()>;

/// The checkpoint of callers that cannot be interrupted.
#[allow(clippy::unnecessary_wraps, reason = "it is a checkpoint")]
pub(crate) fn go_on() -> io::Result<()> {
    Ok(())
}

/// How many folders a walk keeps open at once. Deeper ones are opened again through `..` on the
/// way up, and must be the same inode.
const OPEN: usize = 32;

/// What is done at each place of a walk.
pub(crate) trait Visitor {
    /// Anything but a folder.
    fn file(&mut self, dir: BorrowedFd, name: &OsStr, kind: u8) -> io::Result<()>;
    /// Opens a folder to go into; `None` passes it over.
    fn enter(&mut self, dir: BorrowedFd, name: &OsStr) -> io::Result<Option<OwnedFd>>;
    /// After all that is in a folder below the root: `folder` is the open folder called `name` in `dir`.
    fn leave(&mut self, folder: BorrowedFd, dir: BorrowedFd, name: &OsStr) -> io::Result<()>;
}

struct Frame {
    name: OsString,
    fd: Option<OwnedFd>,
    /// Set when the descriptor is given up.
    stat: Option<Stat>,
    subfolders: Vec<OsString>,
}

impl Frame {
    fn fd(&self) -> BorrowedFd<'_> {
        // The two newest frames are always open, and no other is asked.
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
                // It may have been given up before: the walk goes down more than once.
                let far = frames.len().checked_sub(OPEN + 1).map(|index| &mut frames[index]);
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

/// Opens the folder above again: whoever moved the tree meanwhile does not lead the walk elsewhere.
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
    while sys::read_folder(fd.as_fd(), buffer, &mut entries)? {
        for (name, mut kind) in entries.drain(..) {
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

/// Removes a whole tree; what cannot be removed stays, and the first reason is remembered.
struct Removal {
    failure: Option<io::Error>,
}

impl Removal {
    /// Runs a removal in `dir`, makes a read-only `dir` of ours writable if that is what it takes.
    fn attempt(&mut self, dir: BorrowedFd, remove: impl Fn() -> io::Result<()>) {
        let mut result = remove();
        if matches!(&result, Err(error) if errno(error) == libc::EACCES) && sys::chmod(dir, 0o700).is_ok() {
            result = remove();
        }
        self.note(result);
    }

    fn note(&mut self, result: io::Result<()>) {
        match result {
            Err(error) if errno(&error) != libc::ENOENT => drop(self.failure.get_or_insert(error)),
            _ => {}
        }
    }
}

impl Visitor for Removal {
    fn file(&mut self, dir: BorrowedFd, name: &OsStr, _kind: u8) -> io::Result<()> {
        self.attempt(dir, || sys::unlink(dir, name));
        Ok(())
    }

    fn enter(&mut self, dir: BorrowedFd, name: &OsStr) -> io::Result<Option<OwnedFd>> {
        let mut opened = sys::open_folder_same_mount(dir, name);
        // Not searchable itself, or in a folder that is not: their owner can change both.
        let refused = |opened: &io::Result<OwnedFd>| matches!(opened, Err(error) if errno(error) == libc::EACCES);
        if refused(&opened) && sys::chmod_unopened(dir, name, 0o700).is_err() {
            // If this fails, opening says so again.
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
        // A folder that keeps something says ENOTEMPTY: the reason was noted before.
        self.attempt(dir, || sys::rmdir(dir, name));
        Ok(())
    }
}

/// Removes everything in the folder `root`, but not the folder itself. An error is the first thing
/// that could not be removed; everything else has gone.
///
/// Subfolders of a large tree are shared out among threads: unlinking in one folder takes a lock of
/// that folder in the kernel, in several it does not.
pub(crate) fn remove_below(root: BorrowedFd, checkpoint: Checkpoint) -> io::Result<()> {
    let removal = Removal { failure: None };
    // A descriptor of its own: the position in a folder belongs to the open file.
    let root = sys::open_folder(root, OsStr::new("."))?;
    let mut counted = Counted { inner: removal, entries: 0 };
    let mut top = read(OsString::new(), root, &mut vec![0_u8; 32 * 1024], &mut counted, checkpoint)?;
    while let Some(name) = top.subfolders.pop() {
        remove_subfolder(top.fd(), &name, &mut counted, checkpoint)?;
        if counted.entries >= LARGE && top.subfolders.len() > 1 {
            let subfolders = std::mem::take(&mut top.subfolders);
            remove_together(top.fd(), subfolders, &mut counted, checkpoint)?;
        }
    }
    counted.inner.failure.map_or(Ok(()), Err)
}

/// Removes what has this name, if anything has.
pub(crate) fn remove_named(dir: BorrowedFd, name: &OsStr) -> io::Result<()> {
    let mut removal = Removal { failure: None };
    match sys::stat(dir, name)? {
        None => return Ok(()),
        Some(stat) if stat.is_folder() => remove_subfolder(dir, name, &mut removal, &mut go_on)?,
        Some(_) => removal.file(dir, name, libc::DT_UNKNOWN)?,
    }
    removal.failure.map_or(Ok(()), Err)
}

/// After so many entries a tree is worth threads; and how many of them, at most.
const LARGE: u64 = 500;
const MOST: usize = 8;
/// How often Ctrl-C is looked for while other threads finish.
const HEARING: Duration = Duration::from_millis(50);

/// Counts what a removal comes by.
struct Counted {
    inner: Removal,
    entries: u64,
}

impl Visitor for Counted {
    fn file(&mut self, dir: BorrowedFd, name: &OsStr, kind: u8) -> io::Result<()> {
        self.entries += 1;
        self.inner.file(dir, name, kind)
    }
    fn enter(&mut self, dir: BorrowedFd, name: &OsStr) -> io::Result<Option<OwnedFd>> {
        self.entries += 1;
        self.inner.enter(dir, name)
    }
    fn leave(&mut self, folder: BorrowedFd, dir: BorrowedFd, name: &OsStr) -> io::Result<()> {
        self.inner.leave(folder, dir, name)
    }
}

fn remove_subfolder(
    dir: BorrowedFd,
    name: &OsStr,
    visitor: &mut dyn Visitor,
    checkpoint: Checkpoint,
) -> io::Result<()> {
    let Some(fd) = visitor.enter(dir, name)? else { return Ok(()) };
    let again = fd.try_clone()?;
    walk(fd, visitor, checkpoint)?;
    visitor.leave(again.as_fd(), dir, name)
}

/// Removes subfolders of one folder from several threads, of which this one only listens for Ctrl-C.
fn remove_together(
    dir: BorrowedFd,
    subfolders: Vec<OsString>,
    removal: &mut Counted,
    checkpoint: Checkpoint,
) -> io::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(MOST);
    let queue = Mutex::new(subfolders);
    let stop = AtomicBool::new(false);
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let work = || {
        let mut removal = Removal { failure: None };
        let mut go_on = || if stop.load(Ordering::Relaxed) { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) };
        while let Some(name) = next() {
            let removed = remove_subfolder(dir, &name, &mut removal, &mut go_on);
            removal.note(removed);
        }
        removal.failure
    };
    let (ended, ends) = channel();
    let mut heard = Ok(());
    std::thread::scope(|scope| {
        let spawn = |_: &usize| {
            let (ended, work) = (ended.clone(), &work);
            let report = move || ended.send(work()).unwrap_or_default();
            std::thread::Builder::new().spawn_scoped(scope, report).is_ok()
        };
        let threads = (0..cores).filter(spawn).count();
        if threads == 0 {
            let failure = work();
            removal.inner.note(failure.map_or(Ok(()), Err));
        }
        for _ in 0..threads {
            loop {
                match ends.recv_timeout(HEARING) {
                    Ok(failure) => {
                        removal.inner.note(failure.map_or(Ok(()), Err));
                        break;
                    }
                    Err(_) if heard.is_ok() => {
                        heard = checkpoint();
                        stop.store(heard.is_err(), Ordering::Relaxed);
                    }
                    Err(_) => {}
                }
            }
        }
    });
    heard
}

/// Adds up what a tree takes on the disk.
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
        // What its owner may not read, or is mounted there, does not count.
        Ok(sys::open_folder_same_mount(dir, name).ok())
    }

    fn leave(&mut self, folder: BorrowedFd, _dir: BorrowedFd, _name: &OsStr) -> io::Result<()> {
        self.bytes += sys::stat_fd(folder)?.allocated;
        Ok(())
    }
}

/// The bytes on the disk and the number of files below a folder.
pub(crate) fn measure(root: BorrowedFd, checkpoint: Checkpoint) -> io::Result<(u64, u64)> {
    let mut measure = Measure { bytes: 0, files: 0 };
    walk(sys::open_folder(root, OsStr::new("."))?, &mut measure, checkpoint)?;
    Ok((measure.bytes, measure.files))
}

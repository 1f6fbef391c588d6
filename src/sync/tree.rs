//! Syncs a tree file by file, and says whether that is the way to take.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::memory;
use crate::checkpoint::Checkpoint;
use crate::sys::{self, errno};
use crate::tree::{self, Visitor};

/// How a file is synced.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// By `sync_file_range`; folders not at all: the journal has them.
    Ranges,
    /// By `fsync`, as each folder.
    Fsync,
    /// The same from several threads.
    Together,
}

/// How many files are open while the disk writes them; of each thread, if there are several.
const BATCH: usize = 128;
const SHARE: usize = 16;
/// How many threads wait for the disk. They do not compute: it is more than there are cores.
const THREADS: usize = 8;
/// How often Ctrl-C is looked for while they finish.
const HEARING: Duration = Duration::from_millis(50);

/// Up to so many files are synced one by one, whatever else is to be written.
const FEW: u64 = 4;
/// How many folders beside them may be open at once.
const MAX_OPEN: usize = 16;

/// Visits each file: begins to write it, and waits for many at once.
struct Sync<'a, 'b> {
    way: Way,
    checkpoint: &'a RefCell<Checkpoint<'b>>,
    /// Their write-back has been started.
    started: Vec<OwnedFd>,
    pool: Option<Pool>,
    /// Something may not be opened, or its folder not read, by its owner: only `syncfs` reaches it.
    unreachable: Option<io::Error>,
}

impl Sync<'_, '_> {
    fn opened(&mut self, opened: io::Result<OwnedFd>) -> io::Result<Option<OwnedFd>> {
        match opened {
            Ok(fd) => Ok(Some(fd)),
            Err(error) if is_refusal(&error) => {
                self.unreachable = Some(error);
                Ok(None)
            }
            // A mount inside the tree is not part of the version.
            Err(error) if errno(&error) == libc::EXDEV => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits for the oldest that were started, or has all waited for.
    fn wait(&mut self) -> io::Result<()> {
        if self.way == Way::Together && self.pool.is_none() {
            self.pool = Pool::new();
        }
        if let Some(pool) = &self.pool {
            pool.give(std::mem::take(&mut self.started))?;
        } else {
            // The disk has the newer half to do meanwhile.
            let older = self.started.len() / 2;
            wait_for(self.started.drain(..older), self.way == Way::Ranges)?;
        }
        (self.checkpoint.borrow_mut())()
    }

    fn finish(&mut self) -> io::Result<()> {
        let rest = std::mem::take(&mut self.started);
        match self.pool.take() {
            Some(pool) => {
                pool.give(rest)?;
                pool.finish(&mut **self.checkpoint.borrow_mut())
            }
            // A few are not worth a thread.
            None => wait_for(rest.into_iter(), self.way == Way::Ranges),
        }
    }
}

fn wait_for(files: impl Iterator<Item = OwnedFd>, ranges: bool) -> io::Result<()> {
    for fd in files {
        if ranges {
            range(fd.as_fd())?;
        } else {
            sys::fsync(fd.as_fd())?;
        }
    }
    Ok(())
}

/// Writes a file's content and waits until the disk has it; a sandbox may lack the call.
pub(super) fn range(fd: BorrowedFd) -> io::Result<()> {
    if sys::write_and_wait(fd)? { Ok(()) } else { sys::fsync(fd) }
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(errno(error), libc::EACCES | libc::EPERM)
}

impl Visitor for Sync<'_, '_> {
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
        let most = if self.way == Way::Together { SHARE } else { BATCH };
        if self.started.len() == most { self.wait() } else { Ok(()) }
    }

    fn enter(&mut self, dir: BorrowedFd, name: &OsStr) -> io::Result<Option<OwnedFd>> {
        let opened = sys::open_folder_same_mount(dir, name);
        self.opened(opened)
    }

    fn leave(&mut self, folder: BorrowedFd, _dir: BorrowedFd, _name: &OsStr) -> io::Result<()> {
        if self.way == Way::Ranges { Ok(()) } else { sys::fsync(folder) }
    }
}

/// Syncs everything in a folder, and the folder. The error of what could not be opened comes back
/// in the inner option: there `syncfs` is needed.
pub(super) fn sync(root: BorrowedFd, way: Way, checkpoint: Checkpoint) -> io::Result<Option<io::Error>> {
    let checkpoint = RefCell::new(checkpoint);
    let mut visitor = Sync { way, checkpoint: &checkpoint, started: Vec::new(), pool: None, unreachable: None };
    let root_again = sys::open_folder(root, OsStr::new("."))?;
    tree::walk(root_again, &mut visitor, &mut || (checkpoint.borrow_mut())())?;
    visitor.finish()?;
    if way != Way::Ranges {
        sys::fsync(root)?;
    }
    Ok(visitor.unreachable)
}

/// Threads that wait for the disk.
struct Pool {
    /// Closed when there is no more to come.
    batches: Option<SyncSender<Vec<OwnedFd>>>,
    ends: Receiver<io::Result<()>>,
    threads: usize,
    /// Nobody waits for the rest any more.
    stop: Arc<AtomicBool>,
}

impl Pool {
    /// `None`: no thread can be had.
    fn new() -> Option<Self> {
        // None lies in between: each file that is open is in somebody's hands.
        let (give, batches) = sync_channel(0);
        let (report, ends) = channel();
        let (batches, stop) = (Arc::new(Mutex::new(batches)), Arc::new(AtomicBool::new(false)));
        let spawn = |_: &usize| {
            let (batches, report, stop) = (Arc::clone(&batches), report.clone(), Arc::clone(&stop));
            std::thread::Builder::new().name("atomik sync".into()).spawn(move || work(&batches, &report, &stop)).is_ok()
        };
        let threads = (0..THREADS).filter(spawn).count();
        (threads > 0).then_some(Self { batches: Some(give), ends, threads, stop })
    }

    fn give(&self, batch: Vec<OwnedFd>) -> io::Result<()> {
        match self.batches.as_ref().map(|batches| batches.send(batch)) {
            // After a failure they take what comes, and only close it.
            Some(Ok(())) if !self.stop.load(Ordering::Relaxed) => Ok(()),
            _ => self.ends.recv().unwrap_or(Ok(())).and(Err(ended())),
        }
    }

    /// Waits until all is synced, or `checkpoint` says otherwise.
    fn finish(mut self, checkpoint: Checkpoint) -> io::Result<()> {
        self.batches = None;
        let mut result = Ok(());
        while self.threads > 0 {
            match self.ends.recv_timeout(HEARING) {
                Ok(ended) => {
                    self.threads -= 1;
                    result = result.and(ended);
                }
                Err(RecvTimeoutError::Timeout) if result.is_ok() => {
                    result = checkpoint();
                    self.stop.store(result.is_err(), Ordering::Relaxed);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(ended()),
            }
        }
        result
    }
}

impl Drop for Pool {
    /// Whatever ended the walk: nothing of the tree is open when it is removed.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.batches = None;
        while self.ends.recv().is_ok() {}
    }
}

fn ended() -> io::Error {
    io::Error::other("a thread that syncs has ended")
}

fn work(batches: &Mutex<Receiver<Vec<OwnedFd>>>, report: &Sender<io::Result<()>>, stop: &AtomicBool) {
    let next = || batches.lock().unwrap_or_else(PoisonError::into_inner).recv();
    let mut result = Ok(());
    while let Ok(batch) = next() {
        let open = batch.into_iter().take_while(|_| !stop.load(Ordering::Relaxed));
        let synced = wait_for(open, false);
        if synced.is_err() {
            stop.store(true, Ordering::Relaxed);
            result = result.and(synced);
            break;
        }
    }
    // Nobody listens after an error.
    drop(report.send(result));
}

/// How large a tree is, as far as its sync is concerned.
pub(super) enum Size {
    /// One `syncfs` is cheaper than the files one by one.
    Many,
    Some,
    /// So small that all of it is open.
    Few(Few),
}

/// All files and folders of a small tree but the root; folders after what is in them.
#[derive(Default)]
pub(super) struct Few {
    files: Vec<OwnedFd>,
    folders: Vec<OwnedFd>,
}

impl Few {
    /// Syncs all, and the root.
    pub(super) fn sync(self, root: BorrowedFd, checkpoint: Checkpoint) -> io::Result<()> {
        for fd in &self.files {
            sys::start_writing(fd.as_fd())?;
        }
        wait_for(self.files.into_iter().chain(self.folders), false)?;
        checkpoint()?;
        sys::fsync(root)
    }
}

/// Counts a tree until it is known to be worth a `syncfs`, and opens what is in it as long as that is little.
struct Count {
    files: u64,
    bytes: u64,
    /// What else is to be written, in MiB; asked if there are more than a few files.
    unrelated: Option<u64>,
    many: bool,
    /// `None`: there is more than that, or something cannot be opened.
    few: Option<Few>,
}

impl Visitor for Count {
    fn file(&mut self, dir: BorrowedFd, name: &OsStr, kind: u8) -> io::Result<()> {
        if kind != libc::DT_REG {
            return Ok(());
        }
        self.files += 1;
        // Few are few, however large.
        if self.files <= FEW {
            if let Some(few) = &mut self.few {
                match sys::open_to_sync(dir, name) {
                    Ok(fd) => few.files.push(fd),
                    // The sync of the whole tree says why.
                    Err(_) => self.few = None,
                }
            }
            return Ok(());
        }
        self.few = None;
        let unrelated = *self.unrelated.get_or_insert_with(memory::dirty);
        if unrelated > FEW {
            self.bytes += sys::stat(dir, name)?.map_or(0, |stat| stat.allocated);
        }
        self.many = self.files + (self.bytes >> 20) > unrelated.max(FEW);
        // Ends the walk.
        if self.many { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }

    fn enter(&mut self, dir: BorrowedFd, name: &OsStr) -> io::Result<Option<OwnedFd>> {
        match sys::open_folder_same_mount(dir, name) {
            Err(error) if errno(&error) == libc::EXDEV => Ok(None),
            Err(error) if is_refusal(&error) => {
                self.few = None;
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    fn leave(&mut self, folder: BorrowedFd, _dir: BorrowedFd, _name: &OsStr) -> io::Result<()> {
        let Some(few) = self.few.as_mut().filter(|few| few.folders.len() < MAX_OPEN) else {
            self.few = None;
            return Ok(());
        };
        match sys::duplicate(folder, 3) {
            Ok(copy) => few.folders.push(copy),
            Err(_) => self.few = None,
        }
        Ok(())
    }
}

/// Is one `syncfs` cheaper than the files one by one? It writes what everybody has changed in the filesystem, of which the
/// tree has a part. A file by itself costs about as much as a MiB of others' data (see `benches/syncing.rs` and
/// `docs/syncing.md`).
pub(super) fn size(root: BorrowedFd, checkpoint: Checkpoint) -> io::Result<Size> {
    let mut count = Count { files: 0, bytes: 0, unrelated: None, many: false, few: Some(Few::default()) };
    let walked = tree::walk(sys::open_folder(root, OsStr::new("."))?, &mut count, checkpoint);
    if count.many {
        return Ok(Size::Many);
    }
    walked.map(|()| count.few.map_or(Size::Some, Size::Few))
}

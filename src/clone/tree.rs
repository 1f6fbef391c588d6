//! Clones whole trees.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::content::{Means, give_flags};
use crate::checkpoint::Checkpoint;
use crate::error::Hint;
use crate::metadata::Metadata;
use crate::sys::{self, Stat, errno};
use crate::tree::{self, Visitor};

mod entries;
mod shared;

use entries::clone_batch;
use shared::{Batch, Failure, Filling, Place, Shared};

/// How many files are handed to another thread at once, and how many such batches wait for a thread.
const FILES_PER_BATCH: usize = 64;
const MAX_WAITING_BATCHES: usize = 32;
/// More threads do not clone faster: the disk is the limit.
const MAX_THREADS: usize = 8;
/// How often Ctrl-C is looked for while other threads finish.
const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(50);

/// Clones everything in the folder `from` into the empty folder `to`: content, modes, owners, times,
/// symlinks, hard links within the tree, extended attributes, ACLs and holes. The folder `to` keeps its
/// own metadata.
///
/// One thread reads the folders. Once there are many files, it hands batches of them out to other threads.
pub(crate) fn tree(from: BorrowedFd, to: BorrowedFd, checkpoint: Checkpoint) -> Result<(), Failure> {
    let shared = Shared {
        root: to,
        means: Means::new(),
        links: Mutex::default(),
        failure: Mutex::default(),
        stop: AtomicBool::new(false),
    };
    let cloned = fill(from, to, &shared, checkpoint);
    if let Some(failure) = shared.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(failure);
    }
    cloned.map_err(|error| Failure { place: PathBuf::new(), error, hint: None })
}

fn fill(from: BorrowedFd, to: BorrowedFd, shared: &Shared, checkpoint: Checkpoint) -> io::Result<()> {
    let (sender, receiver) = sync_channel::<Batch>(MAX_WAITING_BATCHES);
    let receiver = Mutex::new(receiver);
    let (ended, ends) = channel();
    std::thread::scope(|scope| {
        let receiver = &receiver;
        let spawn = || {
            let ended = ended.clone();
            let work = move || {
                clone_batches(shared, receiver);
                ended.send(()).unwrap_or_default();
            };
            std::thread::Builder::new().spawn_scoped(scope, work).is_ok()
        };
        let root = Arc::new(Place { above: None, name: OsString::new() });
        let root = Filling { place: root, fd: to.try_clone_to_owned()?, born: OnceLock::new(), metadata: None, shared };
        let mut cloning = Cloning {
            shared,
            into: vec![Level::Open(Arc::new(root))],
            batch: None,
            sender,
            spawn: &spawn,
            workers: None,
        };
        let reader = sys::open_folder(from, OsStr::new("."))?;
        give_flags(from, to, &shared.means)?;
        let walked = tree::walk(reader, &mut cloning, &mut || shared.go_on().and_then(|()| checkpoint()));
        let walked = walked.and_then(|()| cloning.hand_out_batch());
        if walked.is_err() {
            shared.stop.store(true, Ordering::Relaxed);
        }
        let workers = cloning.workers.unwrap_or(0);
        // This ends the channel, and with it the other threads. Until they have ended, Ctrl-C is looked for.
        drop(cloning);
        let mut waited = walked;
        for _ in 0..workers {
            while ends.recv_timeout(CHECKPOINT_INTERVAL).is_err() {
                if waited.is_ok() {
                    waited = checkpoint();
                    if waited.is_err() {
                        shared.stop.store(true, Ordering::Relaxed);
                    }
                }
            }
        }
        waited
    })
}

fn clone_batches(shared: &Shared, batches: &Mutex<Receiver<Batch>>) {
    loop {
        let batch = batches.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(batch) = batch else { return };
        clone_batch(shared, &batch, &mut || shared.go_on());
    }
}

/// A folder of the clone, from the root to the folder that the walk is in.
enum Level<'a> {
    Open(Arc<Filling<'a>>),
    /// Closed while the walk is far below, opened again on the way up.
    Closed(Box<Closed>),
}

struct Closed {
    place: Arc<Place>,
    metadata: Option<Metadata>,
    stat: Stat,
}

/// How many levels are open at most.
const MAX_OPEN_LEVELS: usize = 32;

/// Makes a folder in the clone for each folder of the original, and collects the files in batches.
struct Cloning<'a, 'b> {
    shared: &'a Shared<'a>,
    into: Vec<Level<'a>>,
    batch: Option<Batch<'a>>,
    sender: SyncSender<Batch<'a>>,
    spawn: &'b dyn Fn() -> bool,
    /// How many other threads clone; `None` until the first batch is full.
    workers: Option<usize>,
}

impl<'a> Cloning<'a, '_> {
    fn current(&self) -> &Arc<Filling<'a>> {
        match self.into.last() {
            Some(Level::Open(filling)) => filling,
            _ => unreachable!("the root is never left, and the newest level is open"),
        }
    }

    /// Closes a level far above, unless a thread still fills it.
    fn close_far_above(&mut self) -> io::Result<()> {
        let Some(far) = self.into.len().checked_sub(MAX_OPEN_LEVELS + 1) else { return Ok(()) };
        let Level::Open(filling) = &mut self.into[far] else { return Ok(()) };
        let stat = sys::stat_fd(filling.fd.as_fd())?;
        if let Some(alone) = Arc::get_mut(filling) {
            let (place, metadata) = (Arc::clone(&alone.place), alone.metadata.take());
            self.into[far] = Level::Closed(Box::new(Closed { place, metadata, stat }));
        }
        Ok(())
    }

    /// Leaves the current level, and opens the one above it again if it was closed.
    fn leave_level(&mut self) -> io::Result<()> {
        let Some(Level::Open(left)) = self.into.pop() else { return Ok(()) };
        let Some(Level::Closed(closed)) = self.into.last_mut() else { return Ok(()) };
        let fd = sys::open_folder(left.fd.as_fd(), OsStr::new(".."))?;
        if !sys::stat_fd(fd.as_fd())?.same(&closed.stat) {
            return Err(io::Error::other("the clone was moved while it was made"));
        }
        let (place, metadata) = (Arc::clone(&closed.place), closed.metadata.take());
        let filling = Filling { place, fd, born: OnceLock::new(), metadata, shared: self.shared };
        *self.into.last_mut().expect("looked at above") = Level::Open(Arc::new(filling));
        Ok(())
    }

    /// Gives the collected files to another thread. If all are busy, or there is none, this thread clones the files.
    fn hand_out_batch(&mut self) -> io::Result<()> {
        let Some(batch) = self.batch.take() else { return Ok(()) };
        let full = batch.files.len() >= FILES_PER_BATCH;
        if full && self.workers.is_none() {
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            self.workers = Some((1..cores.min(MAX_THREADS)).filter(|_| (self.spawn)()).count());
        }
        let batch = if self.workers.is_some_and(|workers| workers > 0) {
            match self.sender.try_send(batch) {
                Ok(()) => return self.shared.go_on(),
                Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) => batch,
            }
        } else {
            batch
        };
        let shared = self.shared;
        clone_batch(shared, &batch, &mut || shared.go_on());
        shared.go_on()
    }

    fn refuse(&self, name: &OsStr, error: io::Error, hint: Option<Hint>) -> io::Error {
        self.shared.fail(Failure { place: self.current().place.path(name), error, hint });
        io::ErrorKind::Interrupted.into()
    }
}

impl Visitor for Cloning<'_, '_> {
    fn file(&mut self, dir: BorrowedFd, name: &OsStr, kind: u8) -> io::Result<()> {
        if self.batch.is_none() {
            let (from, into) = (dir.try_clone_to_owned()?, Arc::clone(self.current()));
            self.batch = Some(Batch { from, into, files: Vec::with_capacity(FILES_PER_BATCH) });
        }
        let files = self.batch.as_mut().map(|batch| &mut batch.files);
        let full = files.is_some_and(|files| {
            files.push((name.to_owned(), kind));
            files.len() >= FILES_PER_BATCH
        });
        if full { self.hand_out_batch() } else { Ok(()) }
    }

    fn enter(&mut self, dir: BorrowedFd, name: &OsStr) -> io::Result<Option<OwnedFd>> {
        self.hand_out_batch()?;
        let from = match sys::open_folder_same_mount(dir, name) {
            Err(error) if errno(&error) == libc::EXDEV => {
                return Err(self.refuse(name, error, Some(Hint::MountInside)));
            }
            Err(error) => return Err(self.refuse(name, error, None)),
            Ok(from) => from,
        };
        let make = || {
            let metadata = Metadata::all(from.as_fd(), sys::stat_fd(from.as_fd())?)?;
            let above = self.current();
            sys::mkdir(above.fd.as_fd(), name, 0o700)?;
            let fd = sys::open_folder(above.fd.as_fd(), name)?;
            give_flags(from.as_fd(), fd.as_fd(), &self.shared.means)?;
            let place = Arc::new(Place { above: Some(Arc::clone(&above.place)), name: name.to_owned() });
            Ok(Filling { place, fd, born: OnceLock::new(), metadata: Some(metadata), shared: self.shared })
        };
        let filling = make().map_err(|error| self.refuse(name, error, None))?;
        self.into.push(Level::Open(Arc::new(filling)));
        self.close_far_above()?;
        Ok(Some(from))
    }

    fn leave(&mut self, _folder: BorrowedFd, _dir: BorrowedFd, _name: &OsStr) -> io::Result<()> {
        self.hand_out_batch()?;
        self.leave_level()
    }
}

//! Clones whole trees.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use nix::fcntl::OFlag;

use super::content::{Means, copy, flags};
use crate::checkpoint::Checkpoint;
use crate::error::Hint;
use crate::metadata::{self, Metadata};
use crate::sys::{self, Stat, errno};
use crate::tree::{self, Visitor};

/// Files that are handed to a worker at once, and how many such batches wait at most.
const BATCH: usize = 64;
const WAITING: usize = 32;
/// How many threads clone, at most: beyond that the disk is the limit.
const MOST: usize = 8;
/// How often Ctrl-C is looked for while other threads finish.
const HEARING: Duration = Duration::from_millis(50);

/// Why a tree cannot be cloned: the place below its root, and the reason.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) place: PathBuf,
    pub(crate) error: io::Error,
    pub(crate) hint: Option<Hint>,
}

/// A folder of the tree, for its path: it holds no descriptor.
struct Place {
    above: Option<Arc<Place>>,
    name: OsString,
}

impl Place {
    /// The names from the root to here.
    fn names(&self) -> Vec<&OsStr> {
        let mut names = Vec::new();
        let mut place = Some(self);
        while let Some(Place { above: Some(above), name }) = place {
            names.push(name.as_os_str());
            place = Some(above);
        }
        names.reverse();
        names
    }

    fn path(&self, name: &OsStr) -> PathBuf {
        self.names().into_iter().chain([name]).collect()
    }
}

/// What a new file gets from the folder that it is made in.
struct Born {
    stat: Stat,
    acl: bool,
}

/// A folder that is being filled. With the last who fills it go its metadata, times last.
struct Filling<'a> {
    place: Arc<Place>,
    fd: OwnedFd,
    born: OnceLock<Born>,
    /// What it is to get in the end; the root keeps its own.
    metadata: Option<Metadata>,
    shared: &'a Shared<'a>,
}

impl Drop for Filling<'_> {
    fn drop(&mut self) {
        if let Some(metadata) = self.metadata.take() {
            if let Err(error) = metadata.give_all(self.fd.as_fd(), None) {
                self.shared.fail(Failure { place: self.place.path(OsStr::new("")), error, hint: None });
            }
        }
    }
}

/// Files of one folder that are cloned together.
struct Batch<'a> {
    from: OwnedFd,
    into: Arc<Filling<'a>>,
    files: Vec<(OsString, u8)>,
}

/// Device and number.
type Inode = (u64, u64);
/// Where the first of several links is, and how many are still to come.
type Linked = (Arc<Place>, OsString, u32);

/// What all threads share.
struct Shared<'a> {
    /// The clone.
    root: BorrowedFd<'a>,
    means: Means,
    /// Files of several links that are not all cloned yet.
    links: Mutex<HashMap<Inode, Linked>>,
    failure: Mutex<Option<Failure>>,
    stop: AtomicBool,
}

impl Shared<'_> {
    fn fail(&self, failure: Failure) {
        self.stop.store(true, Ordering::Relaxed);
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
    }

    /// An error once somebody has failed: what else is done is for nothing.
    fn go_on(&self) -> io::Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }
}

/// Clones everything in the folder `from` into the empty folder `to`: content, modes, owners, times,
/// symlinks, hard links within the tree, extended attributes, ACLs and holes. The folder itself keeps its
/// own metadata.
///
/// One thread reads the folders, and hands files to others once there are many of them.
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
    let (sender, receiver) = sync_channel::<Batch>(WAITING);
    let receiver = Mutex::new(receiver);
    let (ended, ends) = channel();
    std::thread::scope(|scope| {
        let receiver = &receiver;
        let spawn = || {
            let ended = ended.clone();
            let work = move || {
                work(shared, receiver);
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
        flags(from, to, &shared.means)?;
        let walked = tree::walk(reader, &mut cloning, &mut || shared.go_on().and_then(|()| checkpoint()));
        let walked = walked.and_then(|()| cloning.hand_on());
        if walked.is_err() {
            shared.stop.store(true, Ordering::Relaxed);
        }
        let workers = cloning.workers.unwrap_or(0);
        // The channel ends, and with it the workers; meanwhile Ctrl-C is heard.
        drop(cloning);
        let mut waited = walked;
        for _ in 0..workers {
            while ends.recv_timeout(HEARING).is_err() {
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

fn work(shared: &Shared, batches: &Mutex<Receiver<Batch>>) {
    loop {
        let batch = batches.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(batch) = batch else { return };
        clone_batch(shared, &batch, &mut || shared.go_on());
    }
}

/// Clones files of one folder; what fails is noted for all to see.
fn clone_batch(shared: &Shared, batch: &Batch, checkpoint: Checkpoint) {
    for (name, kind) in &batch.files {
        if shared.go_on().is_err() {
            return;
        }
        if let Err((error, hint)) = clone_entry(shared, batch, name, *kind, checkpoint) {
            shared.fail(Failure { place: batch.into.place.path(name), error, hint });
            return;
        }
    }
}

/// A folder of the clone on the way down to where the walk is.
enum Level<'a> {
    Open(Arc<Filling<'a>>),
    /// Given up while the walk is far below, opened again on the way up.
    Closed(Box<Closed>),
}

struct Closed {
    place: Arc<Place>,
    metadata: Option<Metadata>,
    stat: Stat,
}

/// How many levels are kept open.
const OPEN: usize = 32;

/// Reads the folders, makes theirs in the clone, and collects files for those who clone them.
struct Cloning<'a, 'b> {
    shared: &'a Shared<'a>,
    into: Vec<Level<'a>>,
    batch: Option<Batch<'a>>,
    sender: SyncSender<Batch<'a>>,
    spawn: &'b dyn Fn() -> bool,
    /// How many help; `None` until there is more than one batch.
    workers: Option<usize>,
}

impl<'a> Cloning<'a, '_> {
    fn top(&self) -> &Arc<Filling<'a>> {
        match self.into.last() {
            Some(Level::Open(filling)) => filling,
            _ => unreachable!("the root is never left, and the newest level is open"),
        }
    }

    /// Closes a level far above, unless somebody still fills it.
    fn close_far_above(&mut self) -> io::Result<()> {
        let Some(far) = self.into.len().checked_sub(OPEN + 1) else { return Ok(()) };
        let Level::Open(filling) = &mut self.into[far] else { return Ok(()) };
        let stat = sys::stat_fd(filling.fd.as_fd())?;
        if let Some(alone) = Arc::get_mut(filling) {
            let (place, metadata) = (Arc::clone(&alone.place), alone.metadata.take());
            self.into[far] = Level::Closed(Box::new(Closed { place, metadata, stat }));
        }
        Ok(())
    }

    /// Goes up one level.
    fn up(&mut self) -> io::Result<()> {
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

    /// Gives the files collected so far to whoever is free, which may be this thread.
    fn hand_on(&mut self) -> io::Result<()> {
        let Some(batch) = self.batch.take() else { return Ok(()) };
        let full = batch.files.len() >= BATCH;
        if full && self.workers.is_none() {
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            self.workers = Some((1..cores.min(MOST)).filter(|_| (self.spawn)()).count());
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
        self.shared.fail(Failure { place: self.top().place.path(name), error, hint });
        io::ErrorKind::Interrupted.into()
    }
}

impl Visitor for Cloning<'_, '_> {
    fn file(&mut self, dir: BorrowedFd, name: &OsStr, kind: u8) -> io::Result<()> {
        if self.batch.is_none() {
            let (from, into) = (dir.try_clone_to_owned()?, Arc::clone(self.top()));
            self.batch = Some(Batch { from, into, files: Vec::with_capacity(BATCH) });
        }
        let files = self.batch.as_mut().map(|batch| &mut batch.files);
        let full = files.is_some_and(|files| {
            files.push((name.to_owned(), kind));
            files.len() >= BATCH
        });
        if full { self.hand_on() } else { Ok(()) }
    }

    fn enter(&mut self, dir: BorrowedFd, name: &OsStr) -> io::Result<Option<OwnedFd>> {
        self.hand_on()?;
        let from = match sys::open_folder_same_mount(dir, name) {
            Err(error) if errno(&error) == libc::EXDEV => {
                return Err(self.refuse(name, error, Some(Hint::MountInside)));
            }
            Err(error) => return Err(self.refuse(name, error, None)),
            Ok(from) => from,
        };
        let make = || {
            let metadata = Metadata::all(from.as_fd(), sys::stat_fd(from.as_fd())?)?;
            let above = self.top();
            sys::mkdir(above.fd.as_fd(), name, 0o700)?;
            let fd = sys::open_folder(above.fd.as_fd(), name)?;
            flags(from.as_fd(), fd.as_fd(), &self.shared.means)?;
            let place = Arc::new(Place { above: Some(Arc::clone(&above.place)), name: name.to_owned() });
            Ok(Filling { place, fd, born: OnceLock::new(), metadata: Some(metadata), shared: self.shared })
        };
        let filling = make().map_err(|error| self.refuse(name, error, None))?;
        self.into.push(Level::Open(Arc::new(filling)));
        self.close_far_above()?;
        Ok(Some(from))
    }

    fn leave(&mut self, _folder: BorrowedFd, _dir: BorrowedFd, _name: &OsStr) -> io::Result<()> {
        self.hand_on()?;
        self.up()
    }
}

type Refusal = (io::Error, Option<Hint>);

fn clone_entry(shared: &Shared, batch: &Batch, name: &OsStr, kind: u8, checkpoint: Checkpoint) -> Result<(), Refusal> {
    let plain = |error: io::Error| (error, None);
    let (from, to) = (batch.from.as_fd(), batch.into.fd.as_fd());
    match kind {
        libc::DT_REG => clone_file(shared, batch, name, checkpoint),
        libc::DT_LNK => {
            let Some(stat) = sys::stat(from, name).map_err(plain)? else { return Ok(()) };
            let target = sys::readlink(from, name).map_err(plain)?;
            sys::symlink(&target, to, name).and_then(|()| metadata::give_name(to, name, &stat)).map_err(plain)
        }
        libc::DT_FIFO => {
            let Some(stat) = sys::stat(from, name).map_err(plain)? else { return Ok(()) };
            sys::make_fifo(to, name, stat.permissions())
                .and_then(|()| metadata::give_name(to, name, &stat))
                .map_err(plain)
        }
        _ => Err((io::Error::from_raw_os_error(libc::EINVAL), Some(Hint::NotCopied))),
    }
}

fn clone_file(shared: &Shared, batch: &Batch, name: &OsStr, checkpoint: Checkpoint) -> Result<(), Refusal> {
    let plain = |error: io::Error| (error, None);
    let from = sys::open_any(batch.from.as_fd(), name).map_err(plain)?;
    let stat = sys::stat_fd(from.as_fd()).map_err(plain)?;
    if stat.mount_root {
        return Err((io::Error::from_raw_os_error(libc::EXDEV), Some(Hint::MountInside)));
    }
    if stat.kind() != libc::S_IFREG {
        return Err((io::Error::from_raw_os_error(libc::EINVAL), Some(Hint::NotCopied)));
    }
    let new = || {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        sys::openat(batch.into.fd.as_fd(), name, flags, 0o600)
    };
    let to = if stat.links > 1 {
        let mut links = shared.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((place, first, left)) = links.get_mut(&(stat.dev, stat.ino)) {
            link(batch, place, first, name).map_err(plain)?;
            *left -= 1;
            if *left == 0 {
                links.remove(&(stat.dev, stat.ino));
            }
            return Ok(());
        }
        let to = new().map_err(plain)?;
        links.insert((stat.dev, stat.ino), (Arc::clone(&batch.into.place), name.to_owned(), stat.links - 1));
        to
    } else {
        new().map_err(plain)?
    };
    flags(from.as_fd(), to.as_fd(), &shared.means).map_err(plain)?;
    copy(from.as_fd(), to.as_fd(), &stat, &shared.means, checkpoint).map_err(plain)?;
    let born = if let Some(born) = batch.into.born.get() {
        born
    } else {
        let stat = sys::stat_fd(to.as_fd()).map_err(plain)?;
        let acl = metadata::has_acl(to.as_fd()).map_err(plain)?;
        batch.into.born.get_or_init(|| Born { stat, acl })
    };
    let metadata = Metadata::all(from.as_fd(), stat).map_err(plain)?;
    metadata.give_all(to.as_fd(), Some((&born.stat, born.acl))).map_err(plain)
}

/// Links a file whose first name has been cloned before; no path is ever longer than one name.
fn link(batch: &Batch, place: &Place, first: &OsStr, name: &OsStr) -> io::Result<()> {
    let to = batch.into.fd.as_fd();
    if std::ptr::eq(place, &raw const *batch.into.place) {
        return sys::link(to, first, to, name);
    }
    let mut dir = batch.into.shared.root.try_clone_to_owned()?;
    for name in place.names() {
        dir = sys::open_folder(dir.as_fd(), name)?;
    }
    sys::link(dir.as_fd(), first, to, name)
}

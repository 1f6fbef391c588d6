//! `Pool`: the threads of one removal, and how they share the work out.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::entries::Removal;
use super::part::{MAX_FILES_AT_ONCE, Part};
use crate::checkpoint::Checkpoint;
use crate::sys;
use crate::sys::filesystems::{BTRFS, XFS};
use crate::tree::walk::{MAX_OPEN_FOLDERS, Visitor};

/// More threads do not make a removal faster.
const MAX_THREADS: usize = 8;
/// How often Ctrl-C is looked for while other threads finish.
const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(50);
/// The size of a thread's buffer for the entries of a folder. A small folder costs one page of it: the kernel gives
/// memory when it is written to.
pub(super) const BUFFER_SIZE: usize = 1024 * 1024;

/// The state that the threads of one removal share.
#[derive(Default)]
pub(super) struct Pool {
    state: Mutex<State>,
    changed: Condvar,
    /// Does a thread wait for a part that no other thread has given yet?
    part_wanted: AtomicBool,
    /// Are the files of one folder shared out, too?
    shares_files: AtomicBool,
    stop: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Parts that were given and not yet taken.
    parts: Vec<Part>,
    waiting: usize,
    /// How many threads beside the first are removing a part.
    busy: usize,
    /// Is there an entry that could not be removed, or not yet?
    left: bool,
    over: bool,
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many threads remove a tree on this filesystem; also decides whether they share files out.
    ///
    /// Median times of two threads beside one (Linux 6.18, 2 cores, 2,000 to 100,000 files): 1.1 to 2.4 times as long
    /// on btrfs, where they wait for each other in the one tree that holds all folders; on xfs 1.2 to 2 times in one
    /// folder, 0.6 in several; on ext4 and tmpfs 0.7 to 0.9 even in one.
    pub(super) fn threads(&self, root: BorrowedFd) -> usize {
        let kind = sys::filesystem(root).unwrap_or_default();
        self.shares_files.store(kind != XFS, Ordering::Relaxed);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(MAX_THREADS);
        if kind == BTRFS { 1 } else { cores }
    }

    /// Removes a part. `each` is called with the number of entries removed since its last call; its error stops the
    /// removal.
    pub(super) fn remove(&self, part: Part, each: &mut dyn FnMut(usize) -> io::Result<()>) -> io::Result<()> {
        let mut removal = Removal::default();
        let walked = self.walk(vec![part], &mut removal, each);
        if removal.failure.is_some() {
            self.state().left = true;
        }
        walked
    }

    fn walk(
        &self,
        mut parts: Vec<Part>,
        removal: &mut Removal,
        each: &mut dyn FnMut(usize) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut buffer = vec![0_u8; BUFFER_SIZE];
        // How many parts in front have nothing to give. A part changes only while it is the last.
        let mut bare = 0;
        while let Some(top) = parts.last_mut() {
            let mut removed = 1;
            if !top.files.is_empty() {
                let files = top.files.split_off(top.files.len().saturating_sub(MAX_FILES_AT_ONCE));
                for name in files.iter().rev() {
                    removal.file(top.fd(), name, libc::DT_UNKNOWN)?;
                }
                removed = files.len();
            } else if let Some(name) = top.subfolders.pop() {
                if let Some(fd) = removal.enter(top.fd(), &name)? {
                    parts.push(Part::new(name, fd));
                    if let Some(far) = parts.len().checked_sub(MAX_OPEN_FOLDERS + 1) {
                        removal.note(parts[far].close());
                    }
                }
            } else if !top.read {
                let read = top.read(&mut buffer);
                top.read |= read.is_err();
                removal.note(read);
            } else if let Some(done) = parts.pop() {
                bare = bare.min(parts.len().saturating_sub(1));
                if let Some(above) = parts.last_mut() {
                    if let Err(error) = above.reopen(done.fd()) {
                        removal.note(Err(error));
                        return Ok(());
                    }
                    removal.leave(done.fd(), above.fd(), &done.name)?;
                }
            }
            each(removed)?;
            if self.part_wanted.load(Ordering::Relaxed) {
                self.give(&mut parts, &mut bare);
            }
        }
        Ok(())
    }

    /// Gives half of the part that is nearest to the root to a waiting thread, but never the last work of this thread.
    /// Leaves out the first `bare` parts: in a deep tree, looking at all of them for each folder would take longer than
    /// the removal.
    fn give(&self, parts: &mut [Part], bare: &mut usize) {
        let last = parts.len().saturating_sub(1);
        let shares_files = self.shares_files.load(Ordering::Relaxed);
        let given = (*bare..parts.len()).find_map(|index| {
            let mut part = parts[index].half_of_subfolders(usize::from(index == last));
            if part.is_none() && shares_files {
                part = parts[index].half_of_files();
            }
            if part.is_none() {
                *bare = index;
            }
            part
        });
        let Some(part) = given else { return };
        let mut state = self.state();
        state.parts.push(part);
        self.part_wanted.store(state.waiting > state.parts.len(), Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Waits for a part, not longer than `time` if that is given.
    fn wait<'a>(&self, mut state: MutexGuard<'a, State>, time: Option<Duration>) -> MutexGuard<'a, State> {
        state.waiting += 1;
        self.part_wanted.store(true, Ordering::Relaxed);
        let mut state = match time {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(time) => self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0,
        };
        state.waiting -= 1;
        state
    }

    /// The work of every thread but the first: removes parts until the removal is over.
    pub(super) fn work(&self) {
        let mut wanted =
            |_| if self.stop.load(Ordering::Relaxed) { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) };
        let mut state = self.state();
        while !state.over {
            if let Some(part) = state.parts.pop() {
                state.busy += 1;
                drop(state);
                // Its only error is that the first thread has stopped the removal.
                drop(self.remove(part, &mut wanted));
                state = self.state();
                state.busy -= 1;
                if state.busy == 0 {
                    self.changed.notify_all();
                }
            } else {
                state = self.wait(state, None);
            }
        }
    }

    /// The work of the first thread after its own part: removes parts until there are none. `false` if an entry was
    /// left.
    pub(super) fn finish(&self, mut result: io::Result<()>, checkpoint: Checkpoint) -> io::Result<bool> {
        loop {
            let mut state = self.state();
            if result.is_err() {
                self.stop.store(true, Ordering::Relaxed);
                state.parts.clear();
            }
            if let Some(part) = state.parts.pop() {
                drop(state);
                result = self.remove(part, &mut |_| checkpoint());
            } else if state.busy == 0 {
                state.over = true;
                self.changed.notify_all();
                return result.map(|()| !state.left);
            } else {
                drop(self.wait(state, Some(CHECKPOINT_INTERVAL)));
                result = result.and_then(|()| checkpoint());
            }
        }
    }
}

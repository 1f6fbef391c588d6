//! Removes whole trees, with all cores once a tree turns out to be large.
//!
//! Each thread walks a part of its own, children before their folder. A thread without work waits for
//! another to give it half of the subfolders nearest to that one's root, or half of the files of a flat
//! folder: whatever the shape of a tree, its work is shared out. Unlinking in one folder takes a lock
//! of that folder in the kernel; freeing what was unlinked does not, so that even a flat folder may gain.
//!
//! Memory and descriptors are bounded: a folder is read a buffer at a time, what is in the buffer is
//! removed before the next one, and of a deep chain the newest [`MAX_OPEN_FOLDERS`] folders are open. A folder
//! whose children are still being removed elsewhere stays, and goes in a second pass, which also says
//! why something cannot be removed: then there is only one thread, and the first reason is the first.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::walk::{MAX_OPEN_FOLDERS, Visitor, walk};
use crate::checkpoint::{Checkpoint, go_on};
use crate::sys::filesystems::{BTRFS, XFS};
use crate::sys::{self, Stat, errno};

/// After so many entries a tree is worth threads; and how many of them, at most.
const LARGE: usize = 64;
const MOST: usize = 8;
/// How many files are unlinked between two looks at who waits and whether to stop.
const SOME: usize = 64;
/// How often Ctrl-C is looked for while other threads finish.
const HEARING: Duration = Duration::from_millis(50);
/// Memory that is not written to is not taken: small folders cost one page of it.
const BUFFER: usize = 1024 * 1024;

/// Removes everything in the folder `root`, but not the folder itself. An error is the first thing
/// that could not be removed; everything else has gone.
pub(crate) fn remove_below(root: BorrowedFd, checkpoint: Checkpoint) -> io::Result<()> {
    // A descriptor of its own: the position in a folder belongs to the open file.
    let open = || sys::open_folder(root, OsStr::new("."));
    let pool = Pool::default();
    let complete = std::thread::scope(|scope| {
        let mut removed = 0;
        let mut others = None;
        let result = pool.remove(Part::whole(open()?), &mut |more| {
            removed += more;
            if removed >= LARGE && others.is_none() {
                let spawn = |_: &usize| std::thread::Builder::new().spawn_scoped(scope, || pool.work()).is_ok();
                others = Some((1..pool.threads(root)).filter(spawn).count());
            }
            checkpoint()
        });
        pool.finish(result, checkpoint)
    })?;
    if complete {
        return Ok(());
    }
    let mut removal = Removal::default();
    walk(open()?, &mut removal, checkpoint)?;
    removal.failure.map_or(Ok(()), Err)
}

/// Removes what has this name, if anything has.
pub(crate) fn remove_named(dir: BorrowedFd, name: &OsStr) -> io::Result<()> {
    let mut removal = Removal::default();
    let there = match sys::stat(dir, name) {
        // NFS says so of a folder that another client has removed, and all that was in it.
        Err(error) if errno(&error) == libc::ESTALE => None,
        other => other?,
    };
    match there {
        None => return Ok(()),
        Some(stat) if stat.is_folder() => {
            if let Some(folder) = removal.enter(dir, name)? {
                remove_below(folder.as_fd(), &mut go_on)?;
                removal.leave(folder.as_fd(), dir, name)?;
            }
        }
        Some(_) => removal.file(dir, name, libc::DT_UNKNOWN)?,
    }
    removal.failure.map_or(Ok(()), Err)
}

/// Removes one thing after the other; what cannot be removed stays, and the first reason is remembered.
#[derive(Default)]
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

/// A folder and what is known to be in it and not yet removed.
struct Part {
    name: OsString,
    /// `None` if it was given up, to be opened again from below.
    fd: Option<Arc<OwnedFd>>,
    /// What it was when it was given up, and how far it was read.
    given_up: Option<(Stat, i64)>,
    files: Vec<OsString>,
    subfolders: Vec<OsString>,
    /// Nothing more is to be read.
    read: bool,
}

impl Part {
    fn whole(fd: OwnedFd) -> Self {
        let (files, subfolders) = (Vec::new(), Vec::new());
        Self { name: OsString::new(), fd: Some(Arc::new(fd)), given_up: None, files, subfolders, read: false }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // The two newest parts are always open, and no other is asked.
        self.fd.as_ref().expect("an open folder").as_fd()
    }

    /// Half of what is left here for another thread, if it is worth it; of the `last` part, less than all.
    fn half(&mut self, last: bool, shares_files: bool) -> Option<Self> {
        let fd = Some(Arc::clone(self.fd.as_ref()?));
        let (mut files, mut subfolders) = (Vec::new(), Vec::new());
        // The first ones: the last are the next of this thread.
        match self.subfolders.len() {
            0 if shares_files && self.files.len() > 2 * SOME => {
                files = self.files.drain(..self.files.len() / 2).collect();
            }
            0 => return None,
            1 if last => return None,
            some => subfolders.extend(self.subfolders.drain(..some.div_ceil(2))),
        }
        Some(Self { name: OsString::new(), fd, given_up: None, files, subfolders, read: true })
    }

    /// Reads the next buffer.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let mut entries = Vec::new();
        self.read = !sys::read_folder(self.fd(), buffer, &mut entries)?;
        // ext4 lists names by their hashes: in the order of the inodes, their blocks are changed one after the other.
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

    /// Closes a folder far up; what is left of it is read when it is opened again.
    fn give_up(&mut self) -> io::Result<()> {
        if let Some(fd) = &self.fd {
            self.given_up = Some((sys::stat_fd(fd.as_fd())?, sys::position(fd.as_fd())?));
            self.fd = None;
        }
        Ok(())
    }

    /// Opens it again from the folder `below`: whoever moved the tree meanwhile does not lead elsewhere.
    fn reopen(&mut self, below: BorrowedFd) -> io::Result<()> {
        let Some((stat, position)) = self.given_up.filter(|_| self.fd.is_none()) else { return Ok(()) };
        let fd = sys::open_folder(below, OsStr::new(".."))?;
        if !stat.same(&sys::stat_fd(fd.as_fd())?) {
            return Err(io::Error::other("the tree was moved while it was removed"));
        }
        sys::set_position(fd.as_fd(), position)?;
        self.fd = Some(Arc::new(fd));
        Ok(())
    }
}

/// What the threads of one removal share.
#[derive(Default)]
struct Pool {
    state: Mutex<State>,
    changed: Condvar,
    /// Somebody waits for a part.
    hungry: AtomicBool,
    /// The files of one folder are worth sharing out, too.
    shares_files: AtomicBool,
    stop: AtomicBool,
}

#[derive(Default)]
struct State {
    /// What was given and not yet taken.
    parts: Vec<Part>,
    waiting: usize,
    /// Threads beside the first that remove something.
    busy: usize,
    /// Something could not be removed, or not yet.
    left: bool,
    over: bool,
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many threads are worth it, and for what. In turns with one thread, median times (Linux 6.18, 2 cores,
    /// 2,000 to 100,000 files): on btrfs two take 1.1 to 2.4 times as long, for they wait for each other in the
    /// one tree that all folders are in; on xfs 1.2 to 2 times in one folder, 0.6 in several; on ext4 and tmpfs
    /// 0.7 to 0.9 even in one.
    fn threads(&self, root: BorrowedFd) -> usize {
        let kind = sys::filesystem(root).unwrap_or_default();
        self.shares_files.store(kind != XFS, Ordering::Relaxed);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(MOST);
        if kind == BTRFS { 1 } else { cores }
    }

    /// Removes a part, and tells `each` how much has gone since it was last told. An error is `each`'s.
    fn remove(&self, part: Part, each: &mut dyn FnMut(usize) -> io::Result<()>) -> io::Result<()> {
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
        let mut buffer = vec![0_u8; BUFFER];
        // The parts in front that have nothing to give: one changes only while it is the last.
        let mut bare = 0;
        while let Some(top) = parts.last_mut() {
            let mut removed = 1;
            if !top.files.is_empty() {
                let files = top.files.split_off(top.files.len().saturating_sub(SOME));
                for name in files.iter().rev() {
                    removal.file(top.fd(), name, libc::DT_UNKNOWN)?;
                }
                removed = files.len();
            } else if let Some(name) = top.subfolders.pop() {
                if let Some(fd) = removal.enter(top.fd(), &name)? {
                    parts.push(Part { name, ..Part::whole(fd) });
                    if let Some(far) = parts.len().checked_sub(MAX_OPEN_FOLDERS + 1) {
                        removal.note(parts[far].give_up());
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
            if self.hungry.load(Ordering::Relaxed) {
                self.give(&mut parts, &mut bare);
            }
        }
        Ok(())
    }

    /// Gives half of what is nearest to the root to a thread that waits, but never the last thing to do. Leaves out the
    /// first `bare` parts: in a deep tree, looking at all of them for each folder would take longer than the removal.
    fn give(&self, parts: &mut [Part], bare: &mut usize) {
        let last = parts.len().saturating_sub(1);
        let shares_files = self.shares_files.load(Ordering::Relaxed);
        let given = (*bare..parts.len()).find_map(|index| {
            let part = parts[index].half(index == last, shares_files);
            if part.is_none() {
                *bare = index;
            }
            part
        });
        let Some(part) = given else { return };
        let mut state = self.state();
        state.parts.push(part);
        self.hungry.store(state.waiting > state.parts.len(), Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Waits for a part, for a time if one is given.
    fn wait<'a>(&self, mut state: MutexGuard<'a, State>, time: Option<Duration>) -> MutexGuard<'a, State> {
        state.waiting += 1;
        self.hungry.store(true, Ordering::Relaxed);
        let mut state = match time {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(time) => self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0,
        };
        state.waiting -= 1;
        state
    }

    /// What every thread but the first does.
    fn work(&self) {
        let mut wanted =
            |_| if self.stop.load(Ordering::Relaxed) { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) };
        let mut state = self.state();
        while !state.over {
            if let Some(part) = state.parts.pop() {
                state.busy += 1;
                drop(state);
                // It stops only because the first thread wants it.
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

    /// What the first thread does when its own part is done: helps until all is. `false` if something was left.
    fn finish(&self, mut result: io::Result<()>, checkpoint: Checkpoint) -> io::Result<bool> {
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
                drop(self.wait(state, Some(HEARING)));
                result = result.and_then(|()| checkpoint());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removed(root: &std::path::Path) -> io::Result<()> {
        let dir = sys::open_folder(sys::CWD, root.as_os_str())?;
        remove_below(dir.as_fd(), &mut go_on)
    }

    fn is_empty(path: &std::path::Path) -> bool {
        std::fs::read_dir(path).unwrap().next().is_none()
    }

    #[test]
    fn a_flat_folder_of_many_buffers_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let name = "n".repeat(200);
        for number in 0..2 * BUFFER / 220 {
            std::fs::File::create(root.path().join(format!("{name}{number}"))).unwrap();
        }
        removed(root.path()).unwrap();
        assert!(is_empty(root.path()));
    }

    #[test]
    fn a_tree_is_removed_whatever_its_shape() {
        let root = tempfile::tempdir().unwrap();
        // Wide, deeper than what is kept open, and with a single way down to where the work is.
        for wide in 0..40 {
            let deep: std::path::PathBuf = (0..wide).map(|level| format!("deep-{level}")).collect();
            let folder = root.path().join("one").join("way").join(format!("wide-{wide}")).join(deep);
            std::fs::create_dir_all(&folder).unwrap();
            for number in 0..30 {
                std::fs::write(folder.join(number.to_string()), "x").unwrap();
                std::fs::create_dir(folder.join(format!("empty-{number}"))).unwrap();
            }
        }
        removed(root.path()).unwrap();
        assert!(is_empty(root.path()));
    }

    #[test]
    fn what_stops_a_removal_stops_all_threads() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..4 * LARGE {
            let folder = root.path().join(number.to_string());
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("file"), "x").unwrap();
        }
        let dir = sys::open_folder(sys::CWD, root.path().as_os_str()).unwrap();
        let mut calls = 0;
        let stopped = remove_below(dir.as_fd(), &mut || {
            calls += 1;
            if calls > LARGE { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
        });
        assert_eq!(stopped.unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert!(!is_empty(root.path()));
        remove_below(dir.as_fd(), &mut go_on).unwrap();
        assert!(is_empty(root.path()));
    }

    #[test]
    fn a_part_gives_half_but_never_all_of_the_last_thing_to_do() {
        let names = |count: usize| (0..count).map(|name| OsString::from(name.to_string())).collect::<Vec<_>>();
        let root = tempfile::tempdir().unwrap();
        let open = || sys::open_folder(sys::CWD, root.path().as_os_str()).unwrap();
        let counts = |part: Option<Part>| part.map(|part| (part.files.len(), part.subfolders.len()));
        let with =
            |files, subfolders| Part { files: names(files), subfolders: names(subfolders), ..Part::whole(open()) };
        assert_eq!(counts(with(1000, 0).half(true, true)), Some((500, 0)));
        assert_eq!(counts(with(1000, 0).half(true, false)), None);
        assert_eq!(counts(with(2 * SOME, 0).half(true, true)), None);
        assert_eq!(counts(with(0, 1).half(true, true)), None);
        assert_eq!(counts(with(0, 1).half(false, true)), Some((0, 1)));
        assert_eq!(counts(with(0, 5).half(true, true)), Some((0, 3)));
    }
}

//! `Group`: many destinations, published together for the price of one sync a filesystem.
//!
//! Each member, once it is complete, gets a number for a name in a slot of the group (one a mount, beside the first
//! destination there), and its descriptors are closed: what stays open does not grow with the group.

mod place;
mod take_back;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use crate::checkpoint::{self, Checkpoint};
use crate::committed::Committed;
use crate::destination::{Check, Kind, folder_conflict};
use crate::draft::{Draft, Ready};
use crate::error::{Error, ErrorKind, Hint, Result};
use crate::file::File;
use crate::guard::Guard;
use crate::metadata;
use crate::options::{Durability, Options, Settings};
use crate::process::Process;
use crate::publish::{self, Displaced, Exchanged, InSlot, Published, Terms};
use crate::slot;
use crate::sync;
use crate::sys;
use crate::tree;
use place::{Place, Places};

/// How many publishes go between two looks for Ctrl-C.
const STRIDE: usize = 64;

/// Many new versions, published together.
///
/// Nothing is visible until [`commit`](Group::commit): then each filesystem is synced once, all members are published,
/// one after the other, and each of their folders is synced once. The members do not appear in one instant: a
/// reader, or a power cut, during the publishes may find some new and some old, each complete. If a publish fails, those
/// before it are taken back. Dropping the group discards all.
///
/// # Durability
/// The group's; that of the members' options does not count.
///
/// # Errors
/// See [`ErrorKind`]. [`Error::path`] is the member that failed; [`Error::committed`] is true if others stay published.
///
/// # Examples
/// ```
/// use atomik::{Durability, File, Folder, Group};
/// # let dir = tempfile::tempdir()?;
/// # let (page, site) = (dir.path().join("page"), dir.path().join("site"));
/// let mut group = Group::new(Durability::Full);
/// group.write(&File::options(), &page, "hello")?;
/// let folder = Folder::options().create(&site)?;
/// std::fs::write(folder.path().join("index.html"), "hello")?;
/// group.add(folder)?;
/// group.commit()?;
/// # assert!(page.exists() && site.join("index.html").exists());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "dropped without `commit`, it discards all members"]
pub struct Group {
    durability: Durability,
    places: Places,
    members: Vec<Member>,
    /// What could not be removed, so far.
    leftover: Option<Error>,
    process: Process,
}

/// A new version that waits for its publish; its name in the slot is its number.
#[derive(Debug)]
struct Member {
    place: Place,
    inode: u64,
    kind: Kind,
    overwrite: bool,
    /// Is there something to replace? After the publish: was there?
    replaces: bool,
    /// The mode that it cannot be moved with.
    later: Option<u32>,
    /// The modification time that its body has set, of a folder.
    time: Option<(i64, u32)>,
    /// The mode that the displaced folder gets back if it is taken back.
    displaced_mode: Option<u32>,
}

fn number(index: usize) -> OsString {
    index.to_string().into()
}

impl Group {
    /// Starts an empty group.
    pub fn new(durability: Durability) -> Self {
        let (places, process) = (Places::default(), Process::current());
        Self { durability, places, members: Vec::new(), leftover: None, process }
    }

    /// How many members it has.
    #[cfg(feature = "python")]
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Refuses, before a body runs, what would be refused after it; answers a number by which to [`forget`](Self::forget) it.
    #[cfg(feature = "python")]
    pub(crate) fn announce(&mut self, destination: &crate::destination::Destination) -> Result<u64> {
        self.owned()?;
        self.places.announce(destination)
    }

    /// The body of a destination has ended.
    #[cfg(feature = "python")]
    pub(crate) fn forget(&mut self, number: u64) {
        self.places.forget(number);
    }

    /// Adds a whole file.
    pub fn write(&mut self, options: &Options<File>, path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<()> {
        let fill = |file: &std::fs::File, _: Checkpoint| sys::write_all(file.as_fd(), content.as_ref().into());
        self.write_with(options, sys::CWD, path.as_ref(), fill, &mut checkpoint::go_on)
    }

    pub(crate) fn write_with(
        &mut self,
        options: &Options<File>,
        dir: BorrowedFd,
        path: &Path,
        fill: impl FnOnce(&std::fs::File, Checkpoint) -> io::Result<()>,
        checkpoint: Checkpoint,
    ) -> Result<()> {
        self.add(options.filled(dir, path, fill, checkpoint)?)
    }

    /// Adds a [`File`] that has been written, a [`Folder`](crate::Folder) that has been filled, or what a tool has made at
    /// the path of an [`Entry`](crate::Entry), with what it has left beside that if the entry says so
    /// ([`Options::siblings`]). Nothing of it is visible yet.
    pub fn add(&mut self, guard: impl Guard) -> Result<()> {
        self.add_draft(guard.into_draft())
    }

    /// Adds a version that is complete.
    pub(crate) fn add_draft(&mut self, draft: Draft) -> Result<()> {
        let siblings = draft.siblings()?;
        self.add_with_siblings(draft, siblings)
    }

    fn add_alone(&mut self, draft: Draft) -> Result<()> {
        let overwrite = draft.settings.overwrite;
        self.owned()?;
        let place = self.places.place(&draft.destination)?;
        self.put(place, overwrite, |slot, name| draft.hand_over(slot, name))
    }

    /// Adds the siblings of an entry, and after them the entry, so that it is published last.
    pub(crate) fn add_with_siblings(&mut self, draft: Draft, siblings: Vec<OsString>) -> Result<()> {
        let first = self.members.len();
        let added = self.add_siblings(&draft, siblings).and_then(|()| self.add_alone(draft));
        if added.is_err() {
            self.withdraw(first);
        }
        added
    }

    fn add_siblings(&mut self, draft: &Draft, siblings: Vec<OsString>) -> Result<()> {
        if !siblings.is_empty() {
            // Its own slot, not one of a sibling's, is where its next writer looks.
            self.owned()?;
            self.places.expect(&draft.destination)?;
        }
        for name in siblings {
            let destination = draft.destination.sibling(name)?;
            let place = self.places.place(&destination)?;
            self.put(place, draft.settings.overwrite, |slot, name| {
                Ok((draft.hand_over_sibling(&destination, slot, name)?, None))
            })?;
        }
        Ok(())
    }

    /// Takes what is handed over under the next number.
    fn put(
        &mut self,
        place: Place,
        overwrite: bool,
        hand_over: impl FnOnce(BorrowedFd, &OsStr) -> Result<(Ready, Option<Error>)>,
    ) -> Result<()> {
        let name = number(self.members.len());
        let slot = self.places.home(&place).fd();
        let put = hand_over(slot, &name).and_then(|handed| {
            let stat = sys::stat(slot, &name).and_then(|stat| stat.ok_or(io::Error::from_raw_os_error(libc::ENOENT)));
            Ok((handed, stat.map_err(|error| self.places.failed(&place, "staging in the group", error))?))
        });
        match put {
            Ok(((ready, leftover), stat)) => {
                self.leftover = self.leftover.take().or(leftover.map(Error::after_publish));
                let Ready { kind, later, time, .. } = ready;
                let (inode, replaces, displaced_mode) = (stat.ino, false, None);
                self.members.push(Member { place, inode, kind, overwrite, replaces, later, time, displaced_mode });
                Ok(())
            }
            Err(error) => {
                // What has got a name by then goes with the slot; the number is used again.
                let left = tree::remove_named(slot, &name).err();
                let left = left.map(|error| self.places.failed(&place, "rolling back", error));
                self.places.leave(&place);
                Err(error.with_leftover(left))
            }
        }
    }

    /// Forgets the members from a number on, since what they belong to could not be added.
    fn withdraw(&mut self, first: usize) {
        for (index, member) in self.members.split_off(first).into_iter().enumerate().rev() {
            let removed = tree::remove_named(self.places.home(&member.place).fd(), &number(first + index));
            let left = removed.err().map(|error| self.places.failed(&member.place, "rolling back", error));
            self.leftover = self.leftover.take().or(left);
            self.places.leave(&member.place);
        }
    }

    fn owned(&self) -> Result<()> {
        self.process.check("using a group", Path::new("a group"))
    }

    /// Syncs, publishes all members and syncs their folders.
    pub fn commit(self) -> Result<Committed> {
        self.commit_with(&mut checkpoint::go_on)
    }

    /// The same; `checkpoint` stops it between two publishes: those before are then taken back.
    pub(crate) fn commit_with(mut self, checkpoint: Checkpoint) -> Result<Committed> {
        self.owned()?;
        self.finish(checkpoint).map_err(|error| {
            let missing = matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE | libc::ENOTDIR));
            // What is missing has gone with its folder.
            let gone = if missing && !error.committed() { self.check_places().err() } else { None };
            let leftover = self.give_back(&mut checkpoint::go_on);
            gone.unwrap_or(error).with_leftover(leftover)
        })
    }

    /// Refuses to publish anything if one of the folders was displaced or removed since it was opened.
    fn check_places(&self) -> Result<()> {
        let gone = self.places.gone();
        match self.members.iter().find(|member| gone.contains(&member.place.parent)) {
            Some(member) => Err(folder_conflict(&self.places.path(&member.place))),
            None => Ok(()),
        }
    }

    fn finish(&mut self, checkpoint: Checkpoint) -> Result<Committed> {
        self.check_places()?;
        for index in 0..self.members.len() {
            self.pause(index, checkpoint)?;
            let member = &self.members[index];
            let destination = self.places.destination(&member.place)?;
            let old = destination.check(member.kind, member.overwrite, Check::AtCommit)?;
            if member.kind == Kind::File {
                // A folder's own slot has done it.
                let swept = slot::remove_orphans(destination.slots(), checkpoint).err();
                self.leftover = self.leftover.take().or(swept.map(|error| destination.failed("cleaning up", error)));
            }
            self.members[index].replaces = old.is_some();
        }
        let mut settings = Settings { durability: self.durability, ..Settings::default() };
        for home in &self.places.homes {
            sync::folder(home.fd(), home.fd(), &settings, &home.destination, checkpoint)?;
            // Where blocks are given back early, "ordered" takes what "full" takes.
            settings.durability = sync::care(settings.durability, &home.destination, false).durability;
        }
        self.check_places()?;
        for index in 0..self.members.len() {
            if let Err(error) = self.pause(index, checkpoint).and_then(|()| self.publish(index)) {
                // What an error after its publish is about is public itself.
                let published = index + usize::from(error.committed());
                return Err(self.take_back(published, error));
            }
        }
        let settled = self.settle(&settings);
        let leftover = self.give_back(checkpoint);
        match settled {
            Ok(()) => Ok(Committed::new(leftover)),
            Err(error) => Err(error.with_leftover(leftover)),
        }
    }

    fn pause(&self, index: usize, checkpoint: Checkpoint) -> Result<()> {
        if index % STRIDE != 0 {
            return Ok(());
        }
        checkpoint().map_err(|error| self.places.failed(&self.members[index].place, "committing", error))
    }

    fn publish(&mut self, index: usize) -> Result<()> {
        let member = &self.members[index];
        let destination = self.places.destination(&member.place)?;
        let name = number(index);
        let new = InSlot { slot: self.places.home(&member.place).fd(), name: &name, kind: member.kind };
        let terms = Terms { overwrite: member.overwrite, base: None, displaced: Displaced::Kept };
        let published = publish::staged(&destination, new, terms, member.replaces)?;
        let member = &mut self.members[index];
        member.replaces = false;
        if let Published::Exchanged(Exchanged { lock_gone, displaced_mode }) = published {
            (member.replaces, member.displaced_mode) = (true, displaced_mode);
            if !lock_gone {
                // The next writer that needs the lock, or a sweep, removes a name that resists.
                drop(destination.remove_lock_here());
            }
        }
        Ok(())
    }

    /// After the publishes: sets modes that could not be moved with and times that the move has changed, and syncs the folders.
    fn settle(&self, settings: &Settings) -> Result<()> {
        let mut outcome = Ok(());
        let to_set = |member: &&Member| member.later.is_some() || member.time.is_some() && member.replaces;
        for member in self.members.iter().filter(to_set) {
            outcome = outcome.and(self.set_mode_and_time(member, settings.durability));
        }
        if settings.durability != Durability::Full {
            return outcome;
        }
        let mut synced = Ok(());
        for parent in &self.places.parents {
            let sync = || -> io::Result<()> {
                let fd = parent.open()?;
                match sys::open_folder(fd.as_fd(), OsStr::new(".")) {
                    Ok(folder) => sys::fsync(folder.as_fd()),
                    // Who may not read it syncs the filesystem; that this works was asked when the member came.
                    Err(_) => sys::syncfs(self.places.homes[parent.home as usize].fd()),
                }
            };
            let failed = |error| {
                Error::new("syncing the parent folder", &parent.path, error)
                    .kind_is(ErrorKind::Durability)
                    .after_publish()
                    .hint(Hint::OldOnesMayReturn)
            };
            synced = synced.and(sync().map_err(failed));
        }
        synced.and(outcome)
    }

    /// Sets the mode that a member could not be moved with, and the time that its move has changed.
    fn set_mode_and_time(&self, member: &Member, durability: Durability) -> Result<()> {
        let failed =
            |error| self.places.failed(&member.place, "setting the new version's mode and time", error).after_publish();
        let open = || sys::open_folder(self.places.parent(&member.place).open()?.as_fd(), &member.place.name);
        let fd = open().map_err(failed)?;
        if sys::stat_fd(fd.as_fd()).map_err(failed)?.ino != member.inode {
            return Ok(());
        }
        if let Some(time) = member.time {
            metadata::keep_time(fd.as_fd(), time).map_err(failed)?;
        }
        let Some(mode) = member.later else { return Ok(()) };
        sys::chmod(fd.as_fd(), mode).map_err(failed)?;
        if durability == Durability::NoSync {
            return Ok(());
        }
        let unsynced = |error| failed(error).kind_is(ErrorKind::Durability).hint(Hint::ModeMayGo);
        sys::fsync(fd.as_fd()).map_err(unsynced)
    }

    /// Gives the slots back, with what is in them.
    fn give_back(&mut self, checkpoint: Checkpoint) -> Option<Error> {
        let mut leftover = self.leftover.take();
        for home in &mut self.places.homes {
            if let Some(slot) = home.slot.take() {
                let given_back = slot.give_back(home.destination.slots(), checkpoint);
                leftover = leftover
                    .or(given_back.err().map(|error| home.destination.failed("cleaning up", error).after_publish()));
            }
        }
        leftover
    }

    /// Discards all members and reports what could not be removed; `Drop` does it silently.
    pub fn rollback(self) -> Result<()> {
        self.rollback_with(&mut checkpoint::go_on)
    }

    pub(crate) fn rollback_with(mut self, checkpoint: Checkpoint) -> Result<()> {
        self.owned()?;
        self.give_back(checkpoint).map_or(Ok(()), |leftover| Err(leftover.not_published()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.process.is_current() {
            // Drop cannot report: what resists stays as an orphan for the next writer.
            drop(self.give_back(&mut checkpoint::go_on));
        }
    }
}

//! `Group`: many destinations, published together for the price of one sync a filesystem.
//!
//! Each member, once it is complete, gets a number for a name in a slot of the group (one a mount, beside the first
//! destination there), and its descriptors are closed: what stays open does not grow with the group.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::hash::BuildHasher;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::checkpoint::{self, Checkpoint};
use crate::committed::Committed;
use crate::destination::{Destination, Kind, folder_conflict};
use crate::error::{Error, ErrorKind, Hint, Result, answer};
use crate::file::File;
use crate::folder::{Entry, Folder};
use crate::metadata;
use crate::options::{Durability, Options, Settings};
use crate::path::split;
use crate::publish::{self, Exchanged, InSlot, Terms};
use crate::slot::{self, Slot};
use crate::sync;
use crate::sys;
use crate::tree;
use crate::trial;

/// So many folders of destinations are kept open; the others are opened again when they are needed, and must be the same.
const OPEN: usize = 64;
/// How many publishes go between two looks for Ctrl-C.
const STRIDE: usize = 64;
/// So many paths are named in an error; of the others the number is told.
const NAMED: usize = 3;

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
    homes: Vec<Home>,
    parents: Vec<Parent>,
    /// Device, inode and mount of each of them.
    places: HashMap<(u64, u64, usize), u32>,
    /// Their paths, and those of all folders above.
    paths: HashMap<PathBuf, u32>,
    above: HashSet<PathBuf>,
    members: Vec<Member>,
    /// Hashes of the destinations, to refuse one that comes twice.
    known: HashSet<u64>,
    hasher: RandomState,
    /// The destinations of bodies that are running, by numbers.
    expected: HashMap<u64, PathBuf>,
    /// What could not be removed, so far.
    leftover: Option<Error>,
    /// The process that it belongs to.
    generation: u32,
}

/// The slot of the group on one mount.
#[derive(Debug)]
struct Home {
    mount: Option<u64>,
    device: u64,
    /// Whose slot it is: the first destination here.
    destination: Destination,
    /// Taken when nothing is left to clean up.
    slot: Option<Slot>,
    /// Has an exchange been tried in it?
    exchanges: bool,
}

impl Home {
    fn fd(&self) -> BorrowedFd<'_> {
        // Only the end of the group takes it, and that consumes the group.
        self.slot.as_ref().expect("a slot until the end").fd.as_fd()
    }
}

/// A folder of destinations.
#[derive(Debug)]
struct Parent {
    path: PathBuf,
    /// As the caller wrote it, up to the name.
    written: PathBuf,
    device: u64,
    inode: u64,
    home: u32,
    fd: Option<OwnedFd>,
}

impl Parent {
    /// The folder that was opened at the start, whatever has its path now.
    fn open(&self) -> io::Result<OwnedFd> {
        if let Some(fd) = &self.fd {
            return fd.try_clone();
        }
        let (fd, _) = sys::open_parent(sys::CWD, self.path.as_os_str(), false)?;
        let stat = sys::stat_fd(fd.as_fd())?;
        if (stat.dev, stat.ino) == (self.device, self.inode) {
            Ok(fd)
        } else {
            Err(io::Error::from_raw_os_error(libc::ENOENT))
        }
    }
}

/// A new version that waits for its publish; its name in the slot is its number.
#[derive(Debug)]
struct Member {
    name: Box<OsStr>,
    /// The path, where the caller wrote it in another way than that of the folder's first member.
    written: Option<Box<Path>>,
    inode: u64,
    parent: u32,
    /// The mode that it cannot be moved with.
    later: Option<u32>,
    /// The modification time that its body has set, of a folder.
    time: Option<(i64, u32)>,
    /// The mode that the displaced folder gets back if it is.
    displaced_mode: Option<u32>,
    kind: Kind,
    overwrite: bool,
    /// Is there something to replace? After the publish: was there?
    replaces: bool,
}

/// A guard that a [`Group`] takes: [`File`], [`Folder`] or [`Entry`], and no other type.
pub trait Guard: sealed::Join {}

mod sealed {
    /// Moves its version to a slot of the group.
    pub trait Join {
        fn join(self, group: &mut super::Group) -> super::Result<()>;
    }
}

impl Guard for File {}

impl sealed::Join for File {
    fn join(self, group: &mut Group) -> Result<()> {
        let (overwrite, (place, home)) = (self.overwrites(), group.place(self.place())?);
        group.put(place, home, overwrite, |slot, name| self.hand_over(slot, name))
    }
}

impl Guard for Folder {}

impl sealed::Join for Folder {
    fn join(self, group: &mut Group) -> Result<()> {
        let (overwrite, (place, home)) = (self.overwrites(), group.place(self.place())?);
        group.put(place, home, overwrite, |slot, name| self.hand_over(slot, name))
    }
}

impl Guard for Entry {}

impl sealed::Join for Entry {
    fn join(self, group: &mut Group) -> Result<()> {
        let first = group.members.len();
        let added = group.add_siblings(&self).and_then(|()| {
            let (overwrite, (place, home)) = (self.overwrites(), group.place(self.place())?);
            group.put(place, home, overwrite, |slot, name| self.hand_over(slot, name))
        });
        if added.is_err() {
            group.withdraw(first);
        }
        added
    }
}

/// What a guard says of the version that it has moved to a group's slot.
pub(crate) struct HandedOver {
    pub(crate) kind: Kind,
    pub(crate) later: Option<u32>,
    pub(crate) time: Option<(i64, u32)>,
    pub(crate) leftover: Option<Error>,
}

/// The error of a guard that a group cannot take.
pub(crate) fn refused(destination: &Destination) -> Error {
    Error::errno("adding to a group", &destination.path, libc::EINVAL).hint(Hint::NotForGroup)
}

/// Where the folder of a destination is, whatever the caller calls it.
fn real_path(destination: &Destination) -> Result<PathBuf> {
    let path = sys::path_now(destination.parent()).map(PathBuf::from);
    // Without /proc; of a path that is too long to be asked for, too.
    let path = path.or_else(|_| std::fs::canonicalize(split(&destination.path).map_err(io::Error::from)?.0));
    path.map_err(|error| destination.failed("looking at the parent folder", error))
}

/// A path without its name.
fn written(path: &Path, name: &OsStr) -> PathBuf {
    let whole = path.as_os_str().as_bytes();
    PathBuf::from(OsStr::from_bytes(whole.strip_suffix(name.as_bytes()).unwrap_or(whole)))
}

fn number(index: usize) -> OsString {
    index.to_string().into()
}

impl Group {
    /// Starts an empty group.
    pub fn new(durability: Durability) -> Self {
        let generation = sys::fork_generation();
        Self {
            durability,
            homes: Vec::new(),
            parents: Vec::new(),
            places: HashMap::new(),
            paths: HashMap::new(),
            above: HashSet::new(),
            members: Vec::new(),
            known: HashSet::new(),
            hasher: RandomState::new(),
            expected: HashMap::new(),
            leftover: None,
            generation,
        }
    }

    /// How many members it has.
    #[cfg(feature = "python")]
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Adds a whole file.
    pub fn write(&mut self, options: &Options<File>, path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<()> {
        let fill = |file: &mut std::fs::File, _: Checkpoint| io::Write::write_all(file, content.as_ref());
        self.write_with(options, sys::CWD, path.as_ref(), fill, &mut checkpoint::go_on)
    }

    pub(crate) fn write_with(
        &mut self,
        options: &Options<File>,
        dir: BorrowedFd,
        path: &Path,
        fill: impl FnOnce(&mut std::fs::File, Checkpoint) -> io::Result<()>,
        checkpoint: Checkpoint,
    ) -> Result<()> {
        let (staged, _) = options.filled(dir, path, fill, checkpoint)?;
        self.add(staged)
    }

    /// Adds a [`File`] that has been written, a [`Folder`] that has been filled, or what a tool has made at the path of an
    /// [`Entry`], with what it has left beside that if the entry says so ([`Options::siblings`]). Nothing of it is visible
    /// yet.
    pub fn add(&mut self, guard: impl Guard) -> Result<()> {
        guard.join(self)
    }

    /// Adds the siblings of an entry: before it, so that it is published last.
    fn add_siblings(&mut self, entry: &Entry) -> Result<()> {
        let siblings = entry.siblings()?;
        if !siblings.is_empty() {
            // Its own slot, not one of a sibling's, is where its next writer looks.
            self.expect(entry.place())?;
        }
        for name in siblings {
            let destination = entry.place().beside_it(name)?;
            let (place, home) = self.place(&destination)?;
            self.put(place, home, entry.overwrites(), |slot, name| entry.hand_over_sibling(&destination, slot, name))?;
        }
        Ok(())
    }

    /// Forgets the members from a number on, since what they belong to could not be added.
    fn withdraw(&mut self, first: usize) {
        for index in (first..self.members.len()).rev() {
            if let Some(member) = self.members.pop() {
                let removed = tree::remove_named(self.home(&member).fd(), &number(index));
                let left = removed.err().map(|error| self.failed(&member, "rolling back", error));
                self.leftover = self.leftover.take().or(left);
                let hash = self.hasher.hash_one((member.parent, &*member.name));
                self.known.remove(&hash);
            }
        }
    }

    /// Refuses, before a body runs, what would be refused after it; answers a number by which to [`forget`](Self::forget) it.
    #[cfg(feature = "python")]
    pub(crate) fn announce(&mut self, destination: &Destination) -> Result<u64> {
        let path = real_path(destination)?;
        self.check_alone(destination, &path)?;
        self.expect(destination)?;
        let number = self.expected.keys().max().map_or(0, |last| last + 1);
        self.expected.insert(number, path.join(&destination.name));
        Ok(number)
    }

    /// The body of a destination has ended.
    #[cfg(feature = "python")]
    pub(crate) fn forget(&mut self, number: u64) {
        self.expected.remove(&number);
    }

    /// Refuses a destination that is in the group already, or lies in another one, or holds another one: which of them is
    /// published last would decide what is there. `folder` is where it is.
    fn check_alone(&self, destination: &Destination, folder: &Path) -> Result<()> {
        let path = folder.join(&destination.name);
        let refuse = |hint| Err(Error::errno("adding to a group", &destination.path, libc::EINVAL).hint(hint));
        let holds = self.above.contains(&path) || self.expected.values().any(|other| other.starts_with(&path));
        let same = self.has(folder, &destination.name) || self.expected.values().any(|other| *other == path);
        if same {
            return refuse(Hint::InGroup);
        }
        if holds {
            return refuse(Hint::HoldsMember);
        }
        // A folder of destinations was looked at when the first of them came, and what came later holds none of them.
        let fresh = !self.paths.contains_key(folder);
        let mut above = folder.ancestors().filter(|_| fresh);
        let inside = above.any(|above| match (above.parent(), above.file_name()) {
            (Some(parent), Some(name)) => self.has(parent, name),
            _ => false,
        });
        if inside || self.expected.values().any(|other| path.starts_with(other)) {
            return refuse(Hint::InsideMember);
        }
        Ok(())
    }

    /// Is this a destination of the group?
    fn has(&self, folder: &Path, name: &OsStr) -> bool {
        let Some(&parent) = self.paths.get(folder) else { return false };
        self.known.contains(&self.hasher.hash_one((parent, name)))
            && self.members.iter().any(|member| member.parent == parent && *member.name == *name)
    }

    /// Refuses, before a body runs, what would be refused after it; makes the slot on this mount.
    fn expect(&mut self, destination: &Destination) -> Result<usize> {
        self.owned()?;
        let failed = |error| destination.unstaged(error);
        let parent = sys::stat_fd(destination.parent()).map_err(failed)?;
        let (device, mut mount) = (parent.dev, Some(parent.mount));
        if !parent.mount_is_unique {
            mount = sys::mount_id(destination.parent()).map_err(failed)?;
        }
        let here = self.homes.iter().position(|home| (home.device, home.mount) == (device, mount));
        let index = if let Some(index) = here {
            index
        } else {
            let parent = destination.parent().try_clone_to_owned().map_err(failed)?;
            let known = destination.known_of_mount();
            let own = Destination::known(destination.path.clone(), destination.name.clone(), parent, known);
            let slot = Slot::take(own.slots()).map_err(failed)?;
            let tried = trial::try_to_move_a_file(&own, slot.fd.as_fd());
            if let Err(error) = tried {
                // It is empty; if it resists, the next writer removes it.
                drop(slot.give_back(own.slots(), &mut checkpoint::go_on));
                return Err(error);
            }
            self.homes.push(Home { mount, device, destination: own, slot: Some(slot), exchanges: false });
            self.homes.len() - 1
        };
        if !self.places.contains_key(&(parent.dev, parent.ino, index)) {
            trial::try_to_move_from(self.homes[index].fd(), destination)?;
        }
        let home = &mut self.homes[index];
        if !home.exchanges && destination.stat()?.is_some() {
            trial::try_to_exchange(destination, home.fd())?;
            home.exchanges = true;
        }
        Ok(index)
    }

    /// Finds the folder and the mount of a destination, and refuses one that is there twice.
    fn place(&mut self, destination: &Destination) -> Result<(Member, usize)> {
        let home = self.expect(destination)?;
        let failed = |error| destination.unstaged(error);
        let stat = sys::stat_fd(destination.parent()).map_err(failed)?;
        let identity = (stat.dev, stat.ino, home);
        let parent = if let Some(parent) = self.places.get(&identity) {
            let parent = *parent;
            self.check_alone(destination, &self.parents[parent as usize].path)?;
            parent
        } else {
            let path = real_path(destination)?;
            self.check_alone(destination, &path)?;
            let written = written(&destination.path, &destination.name);
            let fd = (self.parents.len() < OPEN).then(|| destination.parent().try_clone_to_owned()).transpose();
            let parent = Parent {
                path,
                written,
                device: stat.dev,
                inode: stat.ino,
                home: index32(home),
                fd: fd.map_err(failed)?,
            };
            let number = index32(self.parents.len());
            self.above.extend(parent.path.ancestors().map(Path::to_owned));
            self.paths.insert(parent.path.clone(), number);
            self.parents.push(parent);
            self.places.insert(identity, number);
            number
        };
        self.known.insert(self.hasher.hash_one((parent, destination.name.as_os_str())));
        let usual = self.parents[parent as usize].written.join(&destination.name) == destination.path;
        let member = Member {
            name: destination.name.as_os_str().into(),
            written: (!usual).then(|| destination.path.as_path().into()),
            inode: 0,
            parent,
            later: None,
            time: None,
            displaced_mode: None,
            kind: Kind::Any,
            overwrite: false,
            replaces: false,
        };
        Ok((member, home))
    }

    fn put(
        &mut self,
        member: Member,
        home: usize,
        overwrite: bool,
        hand_over: impl FnOnce(BorrowedFd, &OsStr) -> Result<HandedOver>,
    ) -> Result<()> {
        let name = number(self.members.len());
        let slot = self.homes[home].fd();
        let put = hand_over(slot, &name).and_then(|handed| {
            let stat = sys::stat(slot, &name).map_err(|error| self.failed(&member, "staging in the group", error))?;
            let vanished = || self.failed(&member, "staging in the group", io::Error::from_raw_os_error(libc::ENOENT));
            Ok((handed, stat.ok_or_else(vanished)?))
        });
        match put {
            Ok((HandedOver { kind, later, time, leftover }, stat)) => {
                self.leftover = self.leftover.take().or(leftover.map(Error::after_publish));
                self.members.push(Member { kind, later, time, overwrite, inode: stat.ino, ..member });
                Ok(())
            }
            Err(error) => {
                // What has got a name by then goes with the slot; the number is used again.
                let left = tree::remove_named(slot, &name);
                let hash = self.hasher.hash_one((member.parent, &*member.name));
                self.known.remove(&hash);
                Err(error.with_leftover(left.err().map(|left| self.failed(&member, "rolling back", left))))
            }
        }
    }

    fn owned(&self) -> Result<()> {
        if self.generation == sys::fork_generation() {
            return Ok(());
        }
        Err(Error::errno("using a group", Path::new("a group"), libc::ECHILD).kind_is(ErrorKind::OtherProcess))
    }

    /// As the caller wrote it.
    fn path(&self, member: &Member) -> PathBuf {
        match &member.written {
            Some(path) => path.to_path_buf(),
            None => self.parents[member.parent as usize].written.join(&*member.name),
        }
    }

    fn failed(&self, member: &Member, operation: &'static str, error: io::Error) -> Error {
        Error::new(operation, &self.path(member), error)
    }

    fn destination(&self, member: &Member) -> Result<Destination> {
        let parent = self.parents[member.parent as usize].open().map_err(|error| {
            self.failed(member, "opening the parent folder", error)
                .kind_is(ErrorKind::Conflict)
                .hint(Hint::MemberFolderGone)
        })?;
        let known = self.home(member).destination.known_of_mount();
        Ok(Destination::known(self.path(member), member.name.to_os_string(), parent, known))
    }

    fn home(&self, member: &Member) -> &Home {
        &self.homes[self.parents[member.parent as usize].home as usize]
    }

    /// Syncs, publishes all members and syncs their folders.
    pub fn commit(self) -> Result<Committed> {
        self.commit_with(&mut checkpoint::go_on)
    }

    /// The same; `checkpoint` stops it between two publishes: those before are then taken back.
    pub(crate) fn commit_with(mut self, checkpoint: Checkpoint) -> Result<Committed> {
        self.finish(checkpoint).map_err(|error| {
            if self.owned().is_err() {
                return error;
            }
            let missing = matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE | libc::ENOTDIR));
            // What is missing has gone with its folder.
            let gone = if missing && !error.committed() { self.check_places().err() } else { None };
            let error = gone.unwrap_or(error);
            let leftover = self.give_back(&mut checkpoint::go_on);
            error.with_leftover(leftover)
        })
    }

    /// Refuses to publish anything if one of the folders was displaced or removed since it was opened.
    fn check_places(&self) -> Result<()> {
        for (index, parent) in self.parents.iter().enumerate() {
            let gone = parent.open().is_ok_and(|folder| {
                let home = &self.homes[parent.home as usize].destination;
                let was_inside = |slot: &Path| parent.path.starts_with(slot);
                slot::is_removed(folder.as_fd()) || slot::is_displaced(folder.as_fd(), home.beside(), was_inside)
            });
            let member = self.members.iter().find(|member| member.parent as usize == index);
            if let (true, Some(member)) = (gone, member) {
                return Err(folder_conflict(&self.path(member)));
            }
        }
        Ok(())
    }

    fn finish(&mut self, checkpoint: Checkpoint) -> Result<Committed> {
        self.owned()?;
        self.check_places()?;
        for index in 0..self.members.len() {
            self.pause(index, checkpoint)?;
            let member = &self.members[index];
            let destination = self.destination(member)?;
            let old = destination.check(member.kind, member.overwrite, false)?;
            if member.kind == Kind::File {
                // A folder's own slot has done it.
                let swept = slot::remove_orphans(destination.slots(), checkpoint).err();
                self.leftover = self.leftover.take().or(swept.map(|error| destination.failed("cleaning up", error)));
            }
            self.members[index].replaces = old.is_some();
        }
        let mut settings = Settings { durability: self.durability, ..Settings::default() };
        for home in &self.homes {
            sync::folder(home.fd(), home.fd(), &settings, &home.destination, checkpoint)?;
            // Where blocks are given back early, "ordered" takes what "full" takes.
            settings.durability = sync::care(home.fd(), settings.durability, &home.destination, false).durability;
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
        checkpoint().map_err(|error| self.failed(&self.members[index], "committing", error))
    }

    fn publish(&mut self, index: usize) -> Result<()> {
        let member = &self.members[index];
        let destination = self.destination(member)?;
        let name = number(index);
        let new = InSlot { slot: self.home(member).fd(), name: &name, kind: member.kind };
        let terms = Terms { overwrite: member.overwrite, base: None, backup: None };
        let exchanged = publish::staged(&destination, new, terms, member.replaces)?;
        let member = &mut self.members[index];
        member.replaces = exchanged.is_some();
        if let Some(Exchanged { lock_gone, displaced_mode }) = exchanged {
            member.displaced_mode = displaced_mode;
            if !lock_gone {
                // The next writer that needs the lock, or a sweep, removes a name that resists.
                drop(destination.remove_lock_here());
            }
        }
        Ok(())
    }

    /// Takes back what was published before a failure, the last one first. The error stays that of the failure, and names
    /// what could not be taken back, and why.
    fn take_back(&mut self, published: usize, error: Error) -> Error {
        let (mut stay, mut leftover) = (Vec::new(), None);
        for index in (0..published).rev() {
            let member = &self.members[index];
            let taken = self.destination(member).map_err(io::Error::from).and_then(|destination| {
                let taken = self.take_one_back(member, &destination, &number(index))?;
                let restored = member.displaced_mode.filter(|_| taken).map_or(Ok(()), |mode| {
                    let old = sys::open_handle(destination.parent(), &member.name)?;
                    sys::chmod_handle(old.as_fd(), mode)
                });
                leftover =
                    leftover.take().or(restored.err().map(|error| self.failed(member, "restoring the mode", error)));
                Ok(taken)
            });
            if !matches!(taken, Ok(true)) {
                let path = self.path(member).display().to_string();
                stay.push(taken.map_or_else(|error| format!("{path} ({})", answer(&error)), |_| path.clone()));
            }
        }
        self.leftover = self.leftover.take().or(leftover);
        if published == 0 {
            return error;
        }
        if stay.is_empty() {
            return error.not_published().and_hint(Hint::TakenBack(published.to_string()));
        }
        let more = stay.len().saturating_sub(NAMED);
        stay.truncate(NAMED);
        if more > 0 {
            stay.push(format!("{more} more"));
        }
        error.after_publish().and_hint(Hint::NotTakenBack(stay.join(", ")))
    }

    /// Takes one publish back, unless somebody else's version is there by now. Under the publish lock: whoever has
    /// built on our version either has published by then, or finds it gone.
    fn take_one_back(&self, member: &Member, destination: &Destination, name: &OsStr) -> io::Result<bool> {
        // Who holds the publish lock has a slot here, so that the next writer looks for the lock after a kill. Without one,
        // on a full disk, the version is taken back all the same.
        let mark = Slot::take(destination.slots()).ok();
        let taken = self.swap_back(member, destination, name);
        if let Some(mark) = mark {
            // It is empty; if it resists, the next writer removes it.
            drop(mark.give_back(destination.slots(), &mut checkpoint::go_on));
        }
        taken
    }

    fn swap_back(&self, member: &Member, destination: &Destination, name: &OsStr) -> io::Result<bool> {
        let (slot, parent, target) = (self.home(member).fd(), destination.parent(), &*member.name);
        let _lock = destination.lock_publish().map_err(io::Error::from)?;
        let ours = |stat: Option<sys::Stat>| stat.is_some_and(|stat| stat.ino == member.inode);
        if !ours(sys::stat(parent, target)?) {
            return Ok(false);
        }
        if !member.replaces && ours(sys::stat(slot, name)?) {
            // It was published by a link and has both names: renaming one to the other would do nothing.
            return sys::unlink(parent, target).map(|()| true);
        }
        let flags = if member.replaces { sys::EXCHANGE } else { 0 };
        let swap = || sys::renameat2(parent, target, slot, name, flags);
        swap()?;
        // What cannot be looked at has been ours a moment ago.
        if matches!(sys::stat(slot, name), Ok(now) if !ours(now)) {
            // Somebody replaced it in between without a lock: theirs goes back to its place.
            if member.replaces {
                swap()?;
            } else {
                sys::renameat2(slot, name, parent, target, sys::NOREPLACE)?;
            }
            return Ok(false);
        }
        Ok(true)
    }

    /// After the publishes: sets modes that could not be moved with and times that the move has changed, and syncs the folders.
    fn settle(&self, settings: &Settings) -> Result<()> {
        let mut outcome = Ok(());
        let to_set = |member: &&Member| member.later.is_some() || member.time.is_some() && member.replaces;
        for member in self.members.iter().filter(to_set) {
            let set = || -> io::Result<()> {
                let fd = sys::open_folder(self.parents[member.parent as usize].open()?.as_fd(), &member.name)?;
                if sys::stat_fd(fd.as_fd())?.ino == member.inode {
                    if let Some(time) = member.time {
                        metadata::keep_time(fd.as_fd(), time)?;
                    }
                    let Some(mode) = member.later else { return Ok(()) };
                    sys::chmod(fd.as_fd(), mode)?;
                    if settings.durability != Durability::NoSync {
                        sys::fsync(fd.as_fd())?;
                    }
                }
                Ok(())
            };
            let failed = |error| self.failed(member, "setting the new version's mode and time", error).after_publish();
            outcome = outcome.and(set().map_err(failed));
        }
        if settings.durability != Durability::Full {
            return outcome;
        }
        let mut synced = Ok(());
        for parent in &self.parents {
            let sync = || -> io::Result<()> {
                let fd = parent.open()?;
                match sys::open_folder(fd.as_fd(), OsStr::new(".")) {
                    Ok(folder) => sys::fsync(folder.as_fd()),
                    // Who may not read it syncs the filesystem; that this works was asked when the member came.
                    Err(_) => sys::syncfs(self.homes[parent.home as usize].fd()),
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

    /// Gives the slots back, with what is in them.
    fn give_back(&mut self, checkpoint: Checkpoint) -> Option<Error> {
        let mut leftover = self.leftover.take();
        for home in &mut self.homes {
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
        if self.owned().is_ok() {
            // Drop cannot report: what resists stays as an orphan for the next writer.
            drop(self.give_back(&mut checkpoint::go_on));
        }
    }
}

fn index32(index: usize) -> u32 {
    u32::try_from(index).expect("fewer than 4 thousand million folders and mounts")
}

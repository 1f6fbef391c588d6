//! The places of a group's members: the folders of their destinations, and a slot of the group on each mount.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint;
use crate::destination::Destination;
use crate::error::{Error, ErrorKind, Hint, Result};
use crate::path::split;
use crate::slot::{self, Slot};
use crate::sys::{self, Stat};
use crate::trial;

/// How many folders of destinations are kept open; the others are opened again when they are needed, and must be the same.
const MAX_OPEN_FOLDERS: usize = 64;

/// All places of a group.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) homes: Vec<Home>,
    pub(super) parents: Vec<Parent>,
    /// The parents by device, inode and home.
    by_inode: HashMap<(u64, u64, usize), u32>,
    /// The parents by path, and all folders above them.
    by_path: HashMap<PathBuf, u32>,
    above: HashSet<PathBuf>,
    /// The destinations of bodies that are running, by numbers.
    expected: HashMap<u64, PathBuf>,
}

/// Where a member is to be published.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) name: Arc<OsStr>,
    /// The path, where the caller wrote it in another way than that of the folder's first member.
    written: Option<Box<Path>>,
    pub(super) parent: u32,
}

/// The slot of the group on one mount.
#[derive(Debug)]
pub(super) struct Home {
    mount: Option<u64>,
    device: u64,
    /// Whose slot it is: the first destination here.
    pub(super) destination: Destination,
    /// Taken when nothing is left to clean up.
    pub(super) slot: Option<Slot>,
    /// Has an exchange been tried in it?
    exchanges: bool,
}

impl Home {
    /// Takes a slot for a group on a mount that has none yet.
    fn make(first: &Destination, device: u64, mount: Option<u64>) -> Result<Self> {
        let failed = |error| first.unstaged(error);
        let parent = first.parent().try_clone_to_owned().map_err(failed)?;
        let destination = Destination::known(first.path.clone(), first.name.clone(), parent, first.known_of_mount());
        let slot = Slot::take(destination.slots()).map_err(failed)?;
        let slot_fd = slot.fd.as_fd();
        if let Err(error) = destination.patiently(|| trial::try_to_move_a_file(&destination, slot_fd)) {
            // It is empty; if it resists, the next writer removes it.
            drop(slot.give_back(destination.slots(), &mut checkpoint::go_on));
            return Err(error);
        }
        Ok(Self { mount, device, destination, slot: Some(slot), exchanges: false })
    }

    fn slot(&self) -> &Slot {
        // Only the end of the group takes it, and that consumes the group.
        self.slot.as_ref().expect("a slot until the end")
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.slot().fd.as_fd()
    }
}

/// A folder of destinations.
#[derive(Debug)]
pub(super) struct Parent {
    pub(super) path: PathBuf,
    /// As the caller wrote it, up to the name.
    written: PathBuf,
    /// The names of the members here.
    names: HashSet<Arc<OsStr>>,
    device: u64,
    inode: u64,
    pub(super) home: u32,
    fd: Option<OwnedFd>,
}

impl Parent {
    /// The folder that was opened at the start, whatever has its path now.
    pub(super) fn open(&self) -> io::Result<OwnedFd> {
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

/// Where the folder of a destination is, whatever the caller calls it.
fn real_path(destination: &Destination) -> Result<PathBuf> {
    let path = sys::path_now(destination.parent()).map(PathBuf::from);
    // Without /proc; of a path that is too long to be asked for, too.
    let path = path.or_else(|_| sys::real_path(split(&destination.path).map_err(io::Error::from)?.0));
    path.map_err(|error| destination.failed("looking at the parent folder", error))
}

/// The path of a destination without its name.
fn without_name(destination: &Destination) -> PathBuf {
    let whole = destination.path.as_os_str().as_bytes();
    PathBuf::from(OsStr::from_bytes(whole.strip_suffix(destination.name.as_bytes()).unwrap_or(whole)))
}

impl Places {
    /// Refuses, before a body runs, what would be refused after it; answers a number by which to [`forget`](Self::forget) it.
    #[cfg(feature = "python")]
    pub(super) fn announce(&mut self, destination: &Destination) -> Result<u64> {
        let path = real_path(destination)?;
        self.check_alone(destination, &path)?;
        self.expect(destination)?;
        let number = self.expected.keys().max().map_or(0, |last| last + 1);
        self.expected.insert(number, path.join(&destination.name));
        Ok(number)
    }

    /// The body of a destination has ended.
    #[cfg(feature = "python")]
    pub(super) fn forget(&mut self, number: u64) {
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
        let fresh = !self.by_path.contains_key(folder);
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
        self.by_path.get(folder).is_some_and(|&parent| self.parents[parent as usize].names.contains(name))
    }

    /// Refuses, before a body runs, what would be refused after it, and makes the slot on this mount. Answers the number of
    /// the home, and what the parent is like.
    pub(super) fn expect(&mut self, destination: &Destination) -> Result<(usize, Stat)> {
        let failed = |error| destination.unstaged(error);
        let parent = sys::stat_fd(destination.parent()).map_err(failed)?;
        let mut mount = Some(parent.mount);
        if !parent.mount_is_unique {
            mount = sys::mount_id(destination.parent()).map_err(failed)?;
        }
        let here = self.homes.iter().position(|home| (home.device, home.mount) == (parent.dev, mount));
        let index = here.unwrap_or(self.homes.len());
        if here.is_none() {
            self.homes.push(Home::make(destination, parent.dev, mount)?);
        }
        if !self.by_inode.contains_key(&(parent.dev, parent.ino, index)) {
            let home = &self.homes[index];
            trial::try_to_move_from(&home.destination, home.slot(), destination)?;
        }
        let home = &mut self.homes[index];
        if !home.exchanges && destination.stat()?.is_some() {
            trial::try_to_exchange(destination, home.fd())?;
            home.exchanges = true;
        }
        Ok((index, parent))
    }

    /// Finds the folder and the mount of a destination, and refuses one that is there twice.
    pub(super) fn place(&mut self, destination: &Destination) -> Result<Place> {
        let (home, stat) = self.expect(destination)?;
        let identity = (stat.dev, stat.ino, home);
        let parent = if let Some(&parent) = self.by_inode.get(&identity) {
            self.check_alone(destination, &self.parents[parent as usize].path)?;
            parent
        } else {
            let path = real_path(destination)?;
            self.check_alone(destination, &path)?;
            let keeps_open = self.parents.len() < MAX_OPEN_FOLDERS;
            let fd = keeps_open.then(|| destination.parent().try_clone_to_owned()).transpose();
            let (fd, written) = (fd.map_err(|error| destination.unstaged(error))?, without_name(destination));
            let number = index32(self.parents.len());
            self.above.extend(path.ancestors().map(Path::to_owned));
            self.by_path.insert(path.clone(), number);
            let (device, inode, names) = (stat.dev, stat.ino, HashSet::new());
            self.parents.push(Parent { path, written, names, device, inode, home: index32(home), fd });
            self.by_inode.insert(identity, number);
            number
        };
        let folder = &mut self.parents[parent as usize];
        let name: Arc<OsStr> = destination.name.as_os_str().into();
        folder.names.insert(Arc::clone(&name));
        let usual = folder.written.join(&*name) == destination.path;
        Ok(Place { name, written: (!usual).then(|| destination.path.as_path().into()), parent })
    }

    /// Gives up a place whose member could not be added.
    pub(super) fn leave(&mut self, place: &Place) {
        self.parents[place.parent as usize].names.remove(&place.name);
    }

    pub(super) fn parent(&self, place: &Place) -> &Parent {
        &self.parents[place.parent as usize]
    }

    pub(super) fn home(&self, place: &Place) -> &Home {
        &self.homes[self.parent(place).home as usize]
    }

    /// The path as the caller wrote it.
    pub(super) fn path(&self, place: &Place) -> PathBuf {
        match &place.written {
            Some(path) => path.to_path_buf(),
            None => self.parent(place).written.join(&*place.name),
        }
    }

    pub(super) fn failed(&self, place: &Place, operation: &'static str, error: io::Error) -> Error {
        Error::new(operation, &self.path(place), error)
    }

    pub(super) fn destination(&self, place: &Place) -> Result<Destination> {
        let parent = self.parent(place).open().map_err(|error| {
            self.failed(place, "opening the parent folder", error)
                .kind_is(ErrorKind::Conflict)
                .hint(Hint::MemberFolderGone)
        })?;
        let known = self.home(place).destination.known_of_mount();
        Ok(Destination::known(self.path(place), place.name.to_os_string(), parent, known))
    }

    /// The numbers of the folders that were displaced or removed since they were opened.
    pub(super) fn gone(&self) -> Vec<u32> {
        let is_gone = |parent: &Parent, folder: BorrowedFd| {
            let home = &self.homes[parent.home as usize].destination;
            let was_inside = |slot: &Path| parent.path.starts_with(slot);
            slot::is_removed(folder) || slot::is_displaced(folder, home.beside(), was_inside)
        };
        let gone = |parent: &Parent| parent.open().is_ok_and(|folder| is_gone(parent, folder.as_fd()));
        (0..).zip(&self.parents).filter(|(_, parent)| gone(parent)).map(|(number, _)| number).collect()
    }
}

fn index32(index: usize) -> u32 {
    u32::try_from(index).expect("fewer than 4 thousand million folders and mounts")
}

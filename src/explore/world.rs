//! The world of a mix: a folder with a destination, and the processes that play the roles in it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::judge::{Broken, Promise};
use super::owners::Owners;
use super::roles::{Mix, Part, Role, Start};
use super::scheduler::{Identity, Job, Outcome, explore};
use super::strategy::Plan;
use super::{SCENE, muted, point};
use crate::slot::{Beside, Known};
use crate::sys;
use crate::{Cleanup, Committed, Durability, Entry, File, Folder, Group, Options, Result, Snapshot, Sweep};

pub(super) const NAME: &str = "data";
pub(super) const BACKUP: &str = "data.old";
pub(super) const BESIDE: &str = "beside";
pub(super) const OTHER: &str = "other";

/// A number of files for which the core starts threads: `clone::tree` and `tree::removal` do so from 64 on.
const MANY_FILES: usize = 200;

/// A version of the destination, and the process that published it.
#[derive(Clone, Debug)]
pub(super) struct Version {
    /// The text that it contains; `None` if the destination does not exist.
    pub(super) text: Option<String>,
    /// `None` if it was there in the beginning, or a process of the explorer itself has made it.
    pub(super) by: Option<usize>,
}

/// The result of one process.
#[derive(Debug)]
pub(super) enum Ending {
    Succeeded,
    Failed { error: crate::Error },
}

/// Everything that has happened in a schedule so far.
#[derive(Default)]
pub(super) struct History {
    pub(super) versions: Vec<Version>,
    pub(super) endings: BTreeMap<usize, Ending>,
    pub(super) broken: Vec<Broken>,
}

pub(super) struct World {
    pub(super) dir: PathBuf,
    pub(super) mix: Mix,
    history: Mutex<History>,
}

/// Reads the text of a version, which contains it twice. Fails if the version is incomplete, or mixed of two.
pub(super) fn read(path: &Path) -> std::result::Result<Option<String>, String> {
    let Ok(found) = path.symlink_metadata() else { return Ok(None) };
    let halves: Vec<String> = if found.is_dir() {
        let half = |name: &str| fs::read_to_string(path.join(name)).map_err(|error| format!("{name}: {error}"));
        vec![half("a")?, half("b")?]
    } else {
        let whole = fs::read_to_string(path).map_err(|error| error.to_string())?;
        whole.split('|').map(str::to_owned).collect()
    };
    match halves.as_slice() {
        [one, other] if one == other => Ok(Some(one.clone())),
        _ => Err(format!("{halves:?}")),
    }
}

fn fill_folder(path: &Path, text: &str) -> std::io::Result<()> {
    fs::create_dir_all(path)?;
    fs::write(path.join("a"), text)?;
    fs::write(path.join("b"), text)
}

/// Lets other users work in a folder and replace its entries.
fn share(dir: &Path) -> std::io::Result<()> {
    let everybody = |folder: bool| fs::Permissions::from_mode(if folder { 0o777 } else { 0o666 });
    fs::set_permissions(dir, everybody(true))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        fs::set_permissions(entry.path(), everybody(entry.file_type()?.is_dir()))?;
    }
    Ok(())
}

/// Options that replace, and sync nothing: a sync changes nothing that another process can see.
fn replacing<T>() -> Options<T> {
    Options::<T>::new().overwrite(true).durability(Durability::NoSync)
}

impl World {
    fn new(dir: &Path, mix: &Mix) -> Self {
        let world = Self { dir: dir.to_owned(), mix: mix.clone(), history: Mutex::default() };
        let make = |name: &str, text: &str| {
            let path = dir.join(name);
            if mix.of_folders() { fill_folder(&path, text) } else { fs::write(path, format!("{text}|{text}")) }
        };
        let first = if mix.start == Start::Nothing { Ok(()) } else { make(NAME, "old") };
        let many = if mix.start == Start::Big { MANY_FILES } else { 0 };
        let many = (0..many).try_for_each(|number| fs::write(dir.join(NAME).join(format!("file{number}")), ""));
        let other = if mix.has(|role| role == Role::Exchange) { make(OTHER, "other") } else { Ok(()) };
        first.and(many).and(other).expect("the scene can be set");
        if mix.parts.iter().any(|part| part.identity.user.is_some()) {
            share(dir).expect("the scene can be shared");
        }
        let text = read(&dir.join(NAME)).expect("the first version is complete");
        world.history().versions.push(Version { text, by: None });
        world
    }

    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn broken(&self, promise: Promise, text: String) {
        self.history().broken.push(Broken::new(promise, text));
    }

    /// Looks at the destination after a call of a process.
    fn observe(&self, process: usize) -> Option<Broken> {
        let text = match read(&self.dir.join(NAME)) {
            Ok(text) => text,
            Err(mixed) => {
                let text = format!("the destination is {mixed} after a call of P{process}");
                return Some(Broken::new(Promise::Complete, text));
            }
        };
        let mut history = self.history();
        if history.versions.last().is_some_and(|version| version.text == text) {
            return None;
        }
        let vanished = text.is_none();
        history.versions.push(Version { text, by: Some(process).filter(|process| *process < self.mix.parts.len()) });
        // A group takes its version back where there was none before.
        (vanished && !self.mix.has(Role::is_group))
            .then(|| Broken::new(Promise::Complete, format!("the destination has vanished by a call of P{process}")))
    }

    /// The body of a role that builds a folder: three points, between which its staging must stay as it is.
    fn build_folder(&self, path: &Path, id: usize, role: Role) {
        let lost =
            |what: &dyn std::fmt::Debug| self.broken(Promise::Staging, format!("staging of P{id} is lost: {what:?}"));
        point("body");
        let text = muted(|| {
            let is_empty = fs::read_dir(path).is_ok_and(|mut inner| inner.next().is_none());
            let before = if role.updates() && !is_empty { read(path) } else { Ok(None) };
            let before = before.unwrap_or_else(|mixed| {
                // A writer of another domain may remove the version that is being copied; then the publish is refused.
                if self.mix.is_of_one_domain() {
                    lost(&mixed);
                }
                None
            });
            let text = if role.updates() { format!("{}.{id}", before.unwrap_or_default()) } else { id.to_string() };
            let made = if role == Role::EntryFolder { fs::create_dir(path) } else { Ok(()) };
            if let Err(error) = made.and_then(|()| fs::write(path.join("a"), &text)) {
                lost(&error);
            }
            text
        });
        point("body");
        muted(|| {
            match fs::read_to_string(path.join("a")) {
                Ok(found) if found == text => {}
                other => lost(&other),
            }
            if let Err(error) = fs::write(path.join("b"), &text) {
                lost(&error);
            }
        });
        point("body");
        muted(|| match read(path) {
            Ok(Some(found)) if found == text => {}
            other => lost(&other),
        });
    }

    fn folder(&self, options: &Options<Folder>, id: usize, role: Role) -> Result<Folder> {
        let new = options.create(self.dir.join(NAME))?;
        self.build_folder(new.path(), id, role);
        Ok(new)
    }

    fn file(&self, options: &Options<File>, id: usize, role: Role) -> Result<File> {
        let mut new = options.create(self.dir.join(NAME))?;
        point("body");
        let written = muted(|| {
            let mut before = String::new();
            new.read_to_string(&mut before)?;
            let before = before.split('|').next().unwrap_or_default();
            let text = if role.updates() { format!("{before}.{id}") } else { id.to_string() };
            new.rewind()?;
            new.write_all(format!("{text}|{text}").as_bytes())
        });
        if let Err(error) = written {
            self.broken(Promise::Staging, format!("staging of P{id} cannot be written: {error}"));
        }
        point("body");
        Ok(new)
    }

    fn entry_file(&self, text: &str, id: usize) -> Result<Committed> {
        let new = replacing::<Entry>().create(self.dir.join(NAME))?;
        point("body");
        let written = muted(|| fs::write(new.path(), text));
        point("body");
        let found = muted(|| fs::read_to_string(new.path()));
        if written.is_err() || !found.as_ref().is_ok_and(|found| found == text) {
            self.broken(Promise::Staging, format!("staging of P{id} is lost: {written:?}, {found:?}"));
        }
        new.commit()
    }

    /// A group of the destination and of a file beside it; `None` if it is rolled back.
    fn group(&self, role: Role, id: usize) -> Result<Option<Committed>> {
        let (path, beside, text) = (self.dir.join(NAME), self.dir.join(BESIDE), format!("{id}|{id}"));
        let mut group = Group::new(Durability::NoSync);
        if role == Role::GroupFolderSecond {
            group.write(&replacing(), &beside, &text)?;
        }
        if role.is_of_folders() {
            group.add(self.folder(&replacing(), id, role)?)?;
        } else {
            group.write(&replacing(), &path, &text)?;
        }
        if role != Role::GroupFolderSecond {
            group.write(&replacing(), &beside, &text)?;
        }
        point("body");
        if role.is_rolled_back() { group.rollback().map(|()| None) } else { group.commit().map(Some) }
    }

    fn read_snapshot(&self, id: usize) -> Result<()> {
        let snapshot = Snapshot::open(self.dir.join(NAME))?;
        let half = |name: &str| {
            point("read");
            muted(|| fs::read_to_string(snapshot.path().join(name)))
        };
        let parts = [half("a"), half("b"), half("a")];
        let texts: Vec<&String> = parts.iter().filter_map(|part| part.as_ref().ok()).collect();
        // A writer of another domain does not see the pin.
        let whole = texts.len() == parts.len() || !self.mix.is_of_one_domain();
        if !whole || texts.iter().any(|text| *text != texts[0]) {
            self.broken(Promise::Snapshot, format!("P{id} reads {parts:?} in one snapshot"));
        }
        snapshot.close();
        Ok(())
    }

    fn play(&self, role: Role, id: usize) -> Result<Option<Committed>> {
        let (path, text) = (self.dir.join(NAME), format!("{id}|{id}"));
        let committed = match role {
            Role::Write => replacing::<File>().write(&path, &text)?,
            Role::WriteNew => replacing::<File>().overwrite(false).write(&path, &text)?,
            Role::FileNew => self.file(&replacing().overwrite(false), id, role)?.commit()?,
            Role::File => self.file(&replacing(), id, role)?.commit()?,
            Role::FileUpdate => self.file(&replacing().update(true), id, role)?.commit()?,
            Role::FileBackup => self.file(&replacing().backup(BACKUP), id, role)?.commit()?,
            Role::FileUpdateBackup => self.file(&replacing().update(true).backup(BACKUP), id, role)?.commit()?,
            Role::FileRolledBack => return self.file(&replacing(), id, role)?.rollback().map(|()| None),
            Role::EntryFile => self.entry_file(&text, id)?,
            Role::FolderNew => self.folder(&replacing().overwrite(false), id, role)?.commit()?,
            Role::Folder => self.folder(&replacing(), id, role)?.commit()?,
            Role::FolderUpdate => self.folder(&replacing().update(true), id, role)?.commit()?,
            Role::FolderBackup => self.folder(&replacing().backup(BACKUP), id, role)?.commit()?,
            Role::FolderUpdateBackup => self.folder(&replacing().update(true).backup(BACKUP), id, role)?.commit()?,
            Role::FolderBackground => {
                self.folder(&replacing::<Folder>().cleanup(Cleanup::Background), id, role)?.commit()?
            }
            Role::FolderRolledBack => return self.folder(&replacing(), id, role)?.rollback().map(|()| None),
            Role::EntryFolder => {
                let new = replacing::<Entry>().create(&path)?;
                self.build_folder(new.path(), id, role);
                new.commit()?
            }
            role if role.is_group() => return self.group(role, id),
            Role::Reader => return self.read_snapshot(id).map(|()| None),
            Role::Sweep => return Sweep::new().run(&self.dir).map(|_| None),
            _ => return crate::exchange(&path, self.dir.join(OTHER)).map(|()| None),
        };
        Ok(Some(committed))
    }

    /// One process: plays its role, and reports the result if it lives until then.
    fn process(&self, role: Role, id: usize) {
        let result = self.play(role, id);
        point("return");
        muted(|| {
            let mut broken = self.judge_ending(role, id, &result);
            let mut history = self.history();
            history.broken.append(&mut broken);
            let ending = result.map_or_else(|error| Ending::Failed { error }, |_| Ending::Succeeded);
            history.endings.insert(id, ending);
        });
    }

    /// One more plain writer of the destination, and of the file that groups publish beside it.
    fn next_writer(&self, folder: bool) {
        let result = if folder {
            replacing::<Folder>().create(self.dir.join(NAME)).and_then(|new| {
                let filled = muted(|| fill_folder(new.path(), "next"));
                new.commit().map(|committed| (committed, filled.is_ok()))
            })
        } else {
            replacing::<File>().write(self.dir.join(NAME), "next|next").map(|committed| (committed, true))
        };
        let beside =
            self.mix.has(Role::is_group).then(|| replacing::<File>().write(self.dir.join(BESIDE), "next|next"));
        muted(|| {
            if let Some(Err(error)) = beside {
                self.broken(Promise::Errors, format!("the next writer beside it: {error}"));
            }
            match result {
                Ok((committed, true)) => {
                    if let Some(leftover) = committed.leftover() {
                        self.broken(Promise::Errors, format!("the next writer leaves something: {leftover}"));
                    }
                }
                Ok((_, false)) => self.broken(Promise::Staging, "staging of the next writer is lost".into()),
                Err(error) => self.broken(Promise::Errors, format!("the next writer: {error}")),
            }
        });
    }

    /// Lets one more writer of this domain and user come when all others have ended.
    pub(super) fn let_the_next_write(
        self: &Arc<Self>,
        identity: Identity,
        owners: &Owners,
        folder: bool,
    ) -> Vec<Broken> {
        let world = Arc::clone(self);
        let work = Box::new(move || world.next_writer(folder));
        let job = Job { identity, starts_in_body: false, work };
        explore(vec![job], Plan::script(&[], &[]), owners.clone(), Box::new(|_| None), false).broken
    }
}

/// The result of a schedule, and the promises that it broke.
pub(super) struct Judged {
    pub(super) broken: Vec<Broken>,
    pub(super) outcome: Outcome,
}

/// Makes the core remember for what it asks once in a process: the type of a mount, what that can do, and whether `/proc`
/// is mounted. So every schedule makes the same calls, whether it is the first or not.
fn remember_the_mount(dir: &Path) {
    let folder = sys::open_folder(sys::CWD, dir.as_os_str()).expect("the scene's folder");
    let known = Known::default();
    let beside = Beside { dir: folder.as_fd(), destination: OsStr::new(NAME), known: &known };
    beside.folder().expect("the scene's folder");
    beside.domain();
    beside.has_done(sys::EXCHANGE | sys::NOREPLACE);
    drop(crate::Snapshot::open(dir).expect("a snapshot of the scene's folder"));
}

/// Runs a mix under a plan, in a folder of its own in `place`.
pub(super) fn run(place: &Path, mix: &Mix, plan: Plan, tracing: bool) -> Judged {
    let dir = tempfile::Builder::new().prefix(SCENE).tempdir_in(place).expect("a folder for the scene");
    remember_the_mount(dir.path());
    let world = Arc::new(World::new(dir.path(), mix));
    let job = |(id, part): (usize, &Part)| {
        let (world, role) = (Arc::clone(&world), part.role);
        let starts_in_body = mix.warm && role.has_body();
        Job { identity: part.identity, starts_in_body, work: Box::new(move || world.process(role, id)) }
    };
    let jobs = mix.parts.iter().enumerate().map(job).collect();
    let watching = Arc::clone(&world);
    let observer = Box::new(move |process| watching.observe(process));
    let mut outcome = explore(jobs, plan, Owners::default(), observer, tracing);
    let mut broken = std::mem::take(&mut outcome.broken);
    broken.extend(world.judge(&outcome));
    Judged { broken, outcome }
}

//! What the tests of faults publish: each operation in a folder of its own, which is compared as a whole.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::destination::{Check, Destination, Kind};
use crate::error::{Error, Result};
use crate::options::{Durability, Options};
use crate::publish::{Before, Displaced, Terms};
use crate::{Committed, Entry, File, Folder, publish, rename, sys};

/// Everything in a folder, by its path in it: type, mode, user xattr and content.
pub(super) type Snapshot = BTreeMap<String, String>;

/// The destination's name in the folder of a scene.
pub(super) const NAME: &str = "data";

type Run = fn(&Path, Durability) -> Result<Committed>;

/// One public way to publish, or not to.
pub(super) struct Operation {
    pub(super) name: &'static str,
    /// Makes what is there before.
    pub(super) before: fn(&Path),
    /// Runs it in a folder; the body calls the kernel by itself, and so without faults.
    pub(super) run: Run,
    /// Does it need `renameat2` with flags?
    pub(super) flags: bool,
    /// The writer that comes next, which removes what this one left.
    pub(super) next: Option<Run>,
}

pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "new file", before: nothing, run: file, flags: false, next: Some(file) },
    Operation { name: "replaced file", before: old_file, run: file, flags: false, next: Some(file) },
    Operation { name: "file that must be new", before: nothing, run: file_unasked, flags: false, next: Some(file) },
    Operation { name: "file in one call", before: old_file, run: write, flags: false, next: Some(file) },
    Operation {
        name: "file synced under its name",
        before: old_file,
        run: synced_again,
        flags: false,
        next: Some(file),
    },
    Operation { name: "file among orphans", before: file_orphans, run: file, flags: false, next: Some(file) },
    Operation { name: "folder among orphans", before: folder_orphans, run: folder, flags: true, next: Some(folder) },
    Operation { name: "new folder", before: nothing, run: folder, flags: false, next: Some(folder) },
    Operation { name: "replaced folder", before: old_folder, run: folder, flags: true, next: Some(folder) },
    Operation {
        name: "folder that must be new",
        before: nothing,
        run: folder_unasked,
        flags: true,
        next: Some(folder),
    },
    Operation { name: "read-only folder", before: old_folder, run: read_only_folder, flags: true, next: Some(folder) },
    Operation { name: "entry that is a file", before: old_file, run: entry_file, flags: false, next: Some(entry_file) },
    Operation {
        name: "entry that is a folder",
        before: old_folder,
        run: entry_folder,
        flags: true,
        next: Some(entry_folder),
    },
    Operation { name: "file rolled back", before: old_file, run: file_rolled_back, flags: false, next: Some(file) },
    Operation {
        name: "folder rolled back",
        before: old_folder,
        run: folder_rolled_back,
        flags: true,
        next: Some(folder),
    },
    Operation { name: "folder dropped", before: old_folder, run: folder_dropped, flags: true, next: Some(folder) },
    Operation { name: "rename to a new name", before: source, run: rename_unasked, flags: false, next: None },
    Operation { name: "rename over a file", before: two_files, run: rename_over, flags: false, next: None },
    Operation { name: "exchange", before: two_files, run: exchange, flags: true, next: None },
];

fn nothing(_: &Path) {}

fn old_file(dir: &Path) {
    let path = dir.join(NAME);
    fs::write(&path, "old").unwrap();
    mark(&path, 0o640);
}

fn old_folder(dir: &Path) {
    let path = dir.join(NAME);
    fs::create_dir_all(path.join("below/deeper")).unwrap();
    for name in ["kept", "below/gone", "below/deeper/gone"] {
        fs::write(path.join(name), "old").unwrap();
    }
    mark(&path, 0o750);
}

/// What killed writers left: two files that were about to be renamed.
fn file_orphans(dir: &Path) {
    old_file(dir);
    for name in slots(dir) {
        fs::write(name, "orphan").unwrap();
    }
}

/// The porch, and a slot in the room.
fn slots(dir: &Path) -> [std::path::PathBuf; 2] {
    let room = dir.join(format!(".atomik-u{}.{NAME}~", nix::unistd::geteuid()));
    fs::create_dir(&room).unwrap();
    [dir.join(format!(".atomik-0.{NAME}~")), room.join("0123456789abcdef")]
}

/// What killed writers left: a displaced version, and one that was not ready.
fn folder_orphans(dir: &Path) {
    old_folder(dir);
    for name in slots(dir) {
        let version = name.join(NAME);
        fs::create_dir_all(&version).unwrap();
        fs::write(version.join("orphan"), "").unwrap();
    }
}

fn source(dir: &Path) {
    fs::write(dir.join("source"), "new").unwrap();
}

fn two_files(dir: &Path) {
    source(dir);
    old_file(dir);
}

/// Gives the old version metadata to keep: a mode, an attribute and, as root, another owner.
fn mark(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let open = fs::File::open(path).unwrap();
    // Not on every filesystem: then there is none to keep.
    drop(sys::set_xattr(open.as_fd(), c"user.kept", b"yes"));
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(path, Some(1000), Some(1000)).unwrap();
    }
}

fn file(dir: &Path, durability: Durability) -> Result<Committed> {
    publish_file(&File::options().overwrite(true).durability(durability), dir)
}

fn file_unasked(dir: &Path, durability: Durability) -> Result<Committed> {
    publish_file(&File::options().durability(durability), dir)
}

fn publish_file(options: &Options<File>, dir: &Path) -> Result<Committed> {
    let mut new = options.create(dir.join(NAME))?;
    new.write_all(b"new").unwrap();
    new.commit()
}

fn write(dir: &Path, durability: Durability) -> Result<Committed> {
    // As the binding writes a buffer: half of it is there when the disk is full.
    let fill = |file: &fs::File, _: crate::checkpoint::Checkpoint| {
        [b"ne", &b"w"[..]].into_iter().try_for_each(|half| sys::write_all(file.as_fd(), half.into()))
    };
    let options = File::options().overwrite(true).durability(durability);
    options.write_with(sys::CWD, &dir.join(NAME), fill, &mut crate::checkpoint::go_on)
}

/// What an older btrfs needs, on whatever filesystem the tests run.
fn synced_again(dir: &Path, durability: Durability) -> Result<Committed> {
    let path = dir.join(NAME);
    let settings = File::options().overwrite(true).durability(durability).decide(&path)?;
    let (destination, _) = Destination::open(sys::CWD, &path, Kind::File, &settings, Check::AtCommit)?;
    let failed = |error| Error::new("staging", &path, error);
    let Some(file) = sys::tmpfile(destination.staging()).map_err(failed)? else {
        return Err(failed(nix::Error::EOPNOTSUPP.into()));
    };
    let mut file = fs::File::from(file);
    file.write_all(b"new").unwrap();
    publish::unnamed(
        &destination,
        file.as_fd(),
        Terms { overwrite: true, base: None, displaced: Displaced::Removed },
        true,
        Before::NameAndSync,
    )
    .map(|_| Committed::new(None))
}

fn folder(dir: &Path, durability: Durability) -> Result<Committed> {
    fill(Folder::options().overwrite(true).durability(durability).create(dir.join(NAME))?).commit()
}

fn folder_unasked(dir: &Path, durability: Durability) -> Result<Committed> {
    fill(Folder::options().durability(durability).create(dir.join(NAME))?).commit()
}

fn read_only_folder(dir: &Path, durability: Durability) -> Result<Committed> {
    let options = Folder::options().overwrite(true).permissions(0o500).durability(durability);
    fill(options.create(dir.join(NAME))?).commit()
}

fn folder_rolled_back(dir: &Path, durability: Durability) -> Result<Committed> {
    let new = fill(Folder::options().overwrite(true).durability(durability).create(dir.join(NAME))?);
    new.rollback().map(|()| Committed::new(None))
}

fn folder_dropped(dir: &Path, durability: Durability) -> Result<Committed> {
    drop(fill(Folder::options().overwrite(true).durability(durability).create(dir.join(NAME))?));
    // Drop cannot report, so whatever is left is taken for reported.
    Ok(Committed::new(Some(Error::errno("dropping", dir, 0))))
}

fn fill(new: Folder) -> Folder {
    make_tree(new.path());
    new
}

fn make_tree(path: &Path) {
    fs::create_dir_all(path.join("below")).unwrap();
    fs::write(path.join("kept"), "new").unwrap();
    fs::write(path.join("below/added"), "new").unwrap();
    std::os::unix::fs::symlink("kept", path.join("link")).unwrap();
}

fn file_rolled_back(dir: &Path, durability: Durability) -> Result<Committed> {
    let mut new = File::options().overwrite(true).durability(durability).create(dir.join(NAME))?;
    new.write_all(b"new").unwrap();
    new.rollback().map(|()| Committed::new(None))
}

fn entry_file(dir: &Path, durability: Durability) -> Result<Committed> {
    let new = Entry::options().overwrite(true).durability(durability).create(dir.join(NAME))?;
    fs::write(new.path(), "new").unwrap();
    new.commit()
}

fn entry_folder(dir: &Path, durability: Durability) -> Result<Committed> {
    let new = Entry::options().overwrite(true).durability(durability).create(dir.join(NAME))?;
    make_tree(new.path());
    new.commit()
}

fn rename_unasked(dir: &Path, _: Durability) -> Result<Committed> {
    rename::rename(dir.join("source"), dir.join(NAME), false).map(|()| Committed::new(None))
}

fn rename_over(dir: &Path, _: Durability) -> Result<Committed> {
    rename::rename(dir.join("source"), dir.join(NAME), true).map(|()| Committed::new(None))
}

fn exchange(dir: &Path, _: Durability) -> Result<Committed> {
    rename::exchange(dir.join("source"), dir.join(NAME)).map(|()| Committed::new(None))
}

/// Everything in `dir`.
pub(super) fn snapshot(dir: &Path) -> Snapshot {
    let mut found = Snapshot::new();
    look_below(dir, dir, &mut found);
    found
}

fn look_below(root: &Path, dir: &Path, found: &mut Snapshot) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = path.symlink_metadata().unwrap();
        let content = if meta.is_dir() {
            look_below(root, &path, found);
            String::new()
        } else if meta.is_symlink() {
            format!("{:?}", path.read_link().unwrap())
        } else {
            fs::read_to_string(&path).unwrap()
        };
        let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        let kept = sys::get_xattr(&name, c"user.kept").unwrap_or_default();
        let described = format!("{:o} {} {kept:?} {content}", meta.mode(), meta.uid());
        found.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), described);
    }
}

/// The part of a snapshot that is the destination.
pub(super) fn destination(whole: &Snapshot) -> Snapshot {
    let below = format!("{NAME}/");
    whole.iter().filter(|(path, _)| *path == NAME || path.starts_with(&below)).map(own).collect()
}

/// Is the destination in `found` the one in `whole`? A folder that could not be made read-only after
/// its publish is complete all the same: the error says what it lacks.
pub(super) fn is_version(found: &Snapshot, whole: &Snapshot, writable: bool) -> bool {
    let found = destination(found);
    let mut version = destination(whole);
    if found != version && writable {
        if let Some(described) = version.get_mut(NAME) {
            *described = described.replacen("40500", "40700", 1);
        }
    }
    found == version
}

/// The names that only the first of two snapshots has.
pub(super) fn more(whole: &Snapshot, than: &Snapshot) -> Vec<String> {
    whole.keys().filter(|path| !than.contains_key(*path)).cloned().collect()
}

fn own((path, described): (&String, &String)) -> (String, String) {
    (path.clone(), described.clone())
}

/// The open descriptors of this process that lead into `dir`: other tests have theirs elsewhere.
pub(super) fn descriptors(dir: &Path) -> Vec<String> {
    let open = fs::read_dir("/proc/self/fd").unwrap();
    // One that another thread has closed meanwhile is none of ours.
    let targets = open.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    targets.filter(|target| target.starts_with(dir)).map(|target| target.display().to_string()).collect()
}

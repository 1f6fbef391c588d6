//! The bare system calls that the library is compared with: the least that each durability takes.
//!
//! Lives as long as its standard input, so that no sample pays for its start. Reads lines of words between tabs, answers each
//! by `ok` and nanoseconds, or by `error` and what went wrong. What is written is one byte, the seed, again and again.
//!
//! ```text
//! file none|file|full|one PATH SIZE PIECE COUNT SEED replaces a file COUNT times; `one` is full with one flush
//! plain PATH SIZE PIECE SEED                         writes a file in place: neither atomic nor durable
//! each none|file|full FOLDER FILES SIZE SEED         replaces so many files, each by the recipe
//! batch named|unnamed FOLDER FILES SIZE SEED         the same: all are written, one syncfs, all are renamed, or linked
//! flush fdatasync|fsync|syncfs PATH SIZE COUNT SEED  overwrites a file COUNT times; answers the call's own median
//! syncfs FOLDER                                      writes what the filesystem has in memory
//! fill PATH FILES FOLDERS SIZE SEED                  makes a folder of so many files
//! publish none|walk|syncfs STAGING PATH              syncs a folder that is filled, and renames it
//! ```
#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "the kernel is called without the library: each block is one call, whose names end with NUL and whose buffers outlive it"
)]

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, BufRead as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{fdatasync, fsync, linkat, write};

const STAGING: &str = ".staging";

fn main() -> io::Result<()> {
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<_> = line.split('\t').collect();
        match answer(&words) {
            Ok(nanoseconds) => writeln!(io::stdout(), "ok\t{nanoseconds}")?,
            Err(error) => writeln!(io::stdout(), "error\t{error}")?,
        }
    }
    Ok(())
}

fn answer(words: &[&str]) -> io::Result<u128> {
    match *words {
        ["file", how, path, size, piece, count, seed] => {
            let pieces = Pieces::new(number(size)?, number(piece)?, seed)?;
            let (how, path, count) = (Sync::new(how)?, Path::new(path), number(count)?);
            let folder = open(path.parent().unwrap_or(Path::new(".")), OFlag::O_DIRECTORY)?;
            let name = name_of(path)?;
            timed(|| (0..count).try_for_each(|_| replace(&folder, &name, &pieces, how)))
        }
        ["plain", path, size, piece, seed] => {
            let pieces = Pieces::new(number(size)?, number(piece)?, seed)?;
            timed(|| pieces.write(&open(Path::new(path), OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC)?))
        }
        ["each", how, folder, files, size, seed] => {
            let (how, pieces) = (Sync::new(how)?, Pieces::new(number(size)?, number(size)?, seed)?);
            let (names, folder) = (names(number(files)?), open(Path::new(folder), OFlag::O_DIRECTORY)?);
            timed(|| names.iter().try_for_each(|name| replace(&folder, name, &pieces, how)))
        }
        ["batch", how, folder, files, size, seed] => {
            let pieces = Pieces::new(number(size)?, number(size)?, seed)?;
            let (names, folder) = (names(number(files)?), open(Path::new(folder), OFlag::O_DIRECTORY)?);
            match how {
                "named" => timed(|| batch(&folder, &names, &pieces)),
                "unnamed" => timed(|| batch_unnamed(&folder, &names, &pieces)),
                _ => Err(io::Error::other("no such way to stage")),
            }
        }
        ["flush", how, path, size, count, seed] => {
            let pieces = Pieces::new(number(size)?, number(size)?, seed)?;
            flush(how, Path::new(path), &pieces, number(count)?)
        }
        ["syncfs", folder] => {
            let folder = open(Path::new(folder), OFlag::O_DIRECTORY)?;
            timed(|| syncfs(&folder))
        }
        ["fill", path, files, folders, size, seed] => {
            let pieces = Pieces::new(number(size)?, number(size)?, seed)?;
            let (path, files, folders) = (Path::new(path), number(files)?, number(folders)?);
            timed(|| fill(path, files, folders, &pieces))
        }
        ["publish", how, staging, path] => timed(|| publish(how, Path::new(staging), Path::new(path))),
        _ => Err(io::Error::other("no such command")),
    }
}

fn timed(mut work: impl FnMut() -> io::Result<()>) -> io::Result<u128> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_nanos())
}

fn number(word: &str) -> io::Result<usize> {
    word.parse().map_err(io::Error::other)
}

/// What a replacement syncs with `fsync(2)`: nothing, the file, the file and the folder, or the folder only.
#[derive(Clone, Copy, PartialEq)]
enum Sync {
    None,
    File,
    Full,
    /// The file is written by `sync_file_range(2)`, so that the journal's commit is the only flush: ext4 and xfs.
    One,
}

impl Sync {
    fn new(word: &str) -> io::Result<Self> {
        match word {
            "none" => Ok(Self::None),
            "file" => Ok(Self::File),
            "full" => Ok(Self::Full),
            "one" => Ok(Self::One),
            _ => Err(io::Error::other("no such durability")),
        }
    }
}

/// What a file is to hold: so many bytes, written in pieces.
struct Pieces {
    piece: Vec<u8>,
    size: usize,
}

impl Pieces {
    fn new(size: usize, piece: usize, seed: &str) -> io::Result<Self> {
        Ok(Self { piece: vec![seed.parse().map_err(io::Error::other)?; piece.min(size)], size })
    }

    fn write(&self, file: &OwnedFd) -> io::Result<()> {
        let mut left = self.size;
        while left > 0 {
            left -= write(file, &self.piece[..left.min(self.piece.len())])?;
        }
        Ok(())
    }
}

fn open(path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    Ok(openat(AT_FDCWD, path, flags | OFlag::O_CLOEXEC, Mode::from_bits_truncate(0o666))?)
}

fn create(folder: &OwnedFd, name: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    Ok(openat(folder, name, flags, Mode::from_bits_truncate(0o666))?)
}

fn name_of(path: &Path) -> io::Result<PathBuf> {
    path.file_name().map(PathBuf::from).ok_or_else(|| io::Error::other("a path without a name"))
}

fn names(files: usize) -> Vec<PathBuf> {
    (0..files).map(|file| PathBuf::from(format!("file-{file:06}"))).collect()
}

fn replace(folder: &OwnedFd, name: &Path, pieces: &Pieces, how: Sync) -> io::Result<()> {
    let file = create(folder, Path::new(STAGING))?;
    pieces.write(&file)?;
    match how {
        Sync::None => {}
        Sync::File | Sync::Full => fsync(&file)?,
        Sync::One => write_back(&file)?,
    }
    renameat(folder, Path::new(STAGING), folder, name)?;
    drop(file);
    if matches!(how, Sync::Full | Sync::One) {
        fsync(folder)?;
    }
    Ok(())
}

fn batch(folder: &OwnedFd, names: &[PathBuf], pieces: &Pieces) -> io::Result<()> {
    let staged: Vec<_> = names.iter().map(|name| name.with_extension("staging")).collect();
    for name in &staged {
        pieces.write(&create(folder, name)?)?;
    }
    syncfs(folder)?;
    for (from, to) in staged.iter().zip(names) {
        renameat(folder, from, folder, to)?;
    }
    Ok(fsync(folder)?)
}

fn batch_unnamed(folder: &OwnedFd, names: &[PathBuf], pieces: &Pieces) -> io::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_TMPFILE | OFlag::O_CLOEXEC;
    let mut staged = Vec::with_capacity(names.len());
    for _ in names {
        let file = openat(folder, ".", flags, Mode::from_bits_truncate(0o666))?;
        pieces.write(&file)?;
        staged.push(file);
    }
    syncfs(folder)?;
    for (file, name) in staged.into_iter().zip(names) {
        linkat(file, "", folder, name, AtFlags::AT_EMPTY_PATH)?;
    }
    Ok(fsync(folder)?)
}

/// Overwrites a file again and again, and times only the call that writes it to the disk.
fn flush(how: &str, path: &Path, pieces: &Pieces, count: usize) -> io::Result<u128> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let file = open(path, OFlag::O_WRONLY | OFlag::O_CREAT)?;
        pieces.write(&file)?;
        times.push(timed(|| match how {
            "fdatasync" => Ok(fdatasync(&file)?),
            "fsync" => Ok(fsync(&file)?),
            "syncfs" => syncfs(&file),
            _ => Err(io::Error::other("no such call")),
        })?);
    }
    times.sort_unstable();
    times.get(count / 2).copied().ok_or_else(|| io::Error::other("nothing was timed"))
}

fn fill(path: &Path, files: usize, folders: usize, pieces: &Pieces) -> io::Result<()> {
    fs::create_dir_all(path)?;
    let below: Vec<_> = (0..folders).map(|folder| path.join(format!("folder-{folder:04}"))).collect();
    below.iter().try_for_each(fs::create_dir)?;
    let below = if below.is_empty() { vec![path.to_path_buf()] } else { below };
    for (number, folder) in below.iter().enumerate() {
        let folder = open(folder, OFlag::O_DIRECTORY)?;
        for file in (number..files).step_by(below.len()) {
            pieces.write(&create(&folder, Path::new(&format!("file-{file:06}")))?)?;
        }
    }
    Ok(())
}

fn publish(how: &str, staging: &Path, path: &Path) -> io::Result<()> {
    let parent = open(path.parent().unwrap_or(Path::new(".")), OFlag::O_DIRECTORY)?;
    match how {
        "none" => {}
        "walk" => walk(staging)?,
        "syncfs" => syncfs(&parent)?,
        _ => return Err(io::Error::other("no such way to sync")),
    }
    let there = path.exists();
    rename(staging, path, if there { libc::RENAME_EXCHANGE } else { libc::RENAME_NOREPLACE })?;
    if how != "none" {
        fsync(&parent)?;
    }
    if there { fs::remove_dir_all(staging) } else { Ok(()) }
}

/// Syncs each file and folder, the deepest first.
fn walk(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            walk(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(path)?.sync_all()
}

fn syncfs(inside: &OwnedFd) -> io::Result<()> {
    check(unsafe { libc::syncfs(inside.as_raw_fd()) }.into())
}

fn write_back(file: &OwnedFd) -> io::Result<()> {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    check(unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, flags) }.into())
}

/// By its number: glibc has a wrapper since 2.28 only, and musl has none.
fn rename(from: &Path, to: &Path, flags: libc::c_uint) -> io::Result<()> {
    let (from, to) = (CString::new(from.as_os_str().as_bytes())?, CString::new(to.as_os_str().as_bytes())?);
    let cwd = libc::AT_FDCWD;
    check(unsafe { libc::syscall(libc::SYS_renameat2, cwd, from.as_ptr(), cwd, to.as_ptr(), flags) })
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

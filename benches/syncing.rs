//! How long the ways to make a folder durable take, from which its thresholds were read:
//! `cargo bench --bench syncing -- FOLDER…`, each on a filesystem of its own, with 4 GiB free.
//!
//! Prints the median milliseconds of a sync, an exchange and the fsync of the parent folder; first by the number of files, of
//! 4 KiB each, then with unrelated data that is still to be written in the same filesystem. What a way writes stands beside
//! its name; those that rest on the journal are unsound on other filesystems than ext4 and xfs, and measured all the same.
#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "the kernel is called without the library: each block is one call, whose names end with NUL and whose buffers outlive it"
)]

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Syncs the files below a folder; `None` leaves all to the library.
type Sync = Option<fn(&Path, &[PathBuf]) -> io::Result<()>>;

const WAYS: [(&str, Sync); 10] = [
    ("fsync of each", Some(|root, files| fsync(root, files, 1, false))),
    ("…, all begun first", Some(|root, files| fsync(root, files, 1, true))),
    ("…, 2 threads", Some(|root, files| fsync(root, files, 2, true))),
    ("…, 4 threads", Some(|root, files| fsync(root, files, 4, true))),
    ("…, 8 threads", Some(|root, files| fsync(root, files, 8, true))),
    ("…, 16 threads", Some(|root, files| fsync(root, files, 16, true))),
    ("sync_file_range of each", Some(|_, files| ranges(files, 64))),
    ("…, all begun first", Some(|_, files| ranges(files, 900))),
    ("syncfs", Some(|root, _| check(unsafe { libc::syncfs(File::open(root)?.as_raw_fd()) }))),
    ("Folder::commit", None),
];
const COUNTS: [usize; 6] = [1, 10, 30, 100, 300, 2000];
const MEBIBYTES: [usize; 4] = [0, 64, 256, 1024];
const ROUNDS: usize = 7;

fn main() {
    for folder in std::env::args_os().skip(1).filter(|word| !word.to_string_lossy().starts_with('-')) {
        let place = Path::new(&folder);
        println!("{}", place.display());
        table("files", place, &WAYS, &COUNTS, |count| (count, 0));
        for count in [30, 2000] {
            let ways = [WAYS[5], WAYS[6], WAYS[8], WAYS[9]];
            table(&format!("{count} files, and MiB"), place, &ways, &MEBIBYTES, |size| (count, size));
        }
    }
}

/// Measures the ways in turn. A column says how many files there are, and how many MiB beside them.
fn table(title: &str, place: &Path, ways: &[(&str, Sync)], columns: &[usize], of: impl Fn(usize) -> (usize, usize)) {
    let mut rows: Vec<String> = ways.iter().map(|(name, _)| format!("  {name:<26}")).collect();
    for (count, unrelated) in columns.iter().copied().map(of) {
        let mut times = vec![Vec::new(); ways.len()];
        for _ in 0..ROUNDS {
            for ((_, sync), times) in ways.iter().zip(&mut times) {
                times.push(once(place, *sync, count, unrelated).expect("a sync").as_secs_f64() * 1000.0);
            }
        }
        for (times, row) in times.iter_mut().zip(&mut rows) {
            times.sort_by(f64::total_cmp);
            write!(row, "{:>9.1}", times[ROUNDS / 2]).expect("a cell");
        }
    }
    let heads = columns.iter().fold(String::new(), |heads, head| format!("{heads}{head:>9}"));
    println!("  {title:<26}{heads}\n{}", rows.join("\n"));
}

/// Replaces a folder once; writing, and removing the old one, are not counted.
fn once(place: &Path, sync: Sync, count: usize, unrelated: usize) -> io::Result<Duration> {
    let (new, old, other) = (place.join("new"), place.join("old"), place.join("unrelated"));
    fs::create_dir_all(&old)?;
    let folder = match sync {
        Some(_) => fs::create_dir_all(&new).map(|()| None)?,
        None => Some(atomik::Folder::options().overwrite(true).create(&old)?),
    };
    let new = folder.as_ref().map_or(new, |folder| folder.path().to_owned());
    check(unsafe { libc::syncfs(File::open(place)?.as_raw_fd()) })?;
    let files: Vec<_> = (0..count).map(|number| new.join(number.to_string())).collect();
    let mut file = File::create(&other)?;
    for _ in 0..unrelated {
        file.write_all(&vec![7; 1 << 20])?;
    }
    for path in &files {
        fs::write(path, [7; 4096])?;
    }
    let start = Instant::now();
    if let Some(folder) = folder {
        folder.commit()?;
    } else {
        sync.map_or(Ok(()), |sync| sync(&new, &files))?;
        atomik::exchange(&new, &old)?;
        File::open(place)?.sync_all()?;
    }
    let time = start.elapsed();
    for folder in [&new, &old].into_iter().filter(|folder| folder.exists()) {
        fs::remove_dir_all(folder)?;
    }
    fs::remove_file(other)?;
    Ok(time)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn range(file: &File, flags: u32) -> io::Result<()> {
    check(unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, flags) })
}

fn fsync(root: &Path, files: &[PathBuf], threads: usize, begin: bool) -> io::Result<()> {
    let work = |files: &[PathBuf]| -> io::Result<()> {
        for batch in files.chunks(64) {
            let open = batch.iter().map(File::open).collect::<io::Result<Vec<_>>>()?;
            for file in open.iter().filter(|_| begin) {
                range(file, libc::SYNC_FILE_RANGE_WRITE)?;
            }
            open.iter().try_for_each(File::sync_all)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let parts = files.chunks(files.len().div_ceil(threads));
        let workers: Vec<_> = parts.map(|part| scope.spawn(move || work(part))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("no panic"))
    })?;
    File::open(root)?.sync_all()
}

fn ranges(files: &[PathBuf], batch: usize) -> io::Result<()> {
    let wait = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    for batch in files.chunks(batch) {
        let open = batch.iter().map(File::open).collect::<io::Result<Vec<_>>>()?;
        open.iter().try_for_each(|file| range(file, libc::SYNC_FILE_RANGE_WRITE))?;
        open.iter().try_for_each(|file| range(file, wait))?;
    }
    Ok(())
}

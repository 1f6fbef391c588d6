//! What each system call of a replaced 4 KiB file takes, in one folder: `calls FOLDER`, a table on standard output.
//!
//! The calls of `write_bytes(overwrite=True, durability="none")` and those of create, write, close, rename are made in
//! turns, each timed by itself. The clock's own share is taken off; medians.
#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "the kernel is called without the library: each block is one call, whose names end with NUL and whose buffers outlive it"
)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::RawFd;
use std::path::Path;
use std::time::Instant;

const ROUNDS: usize = 20_000;
const CONTENT: [u8; 4096] = [b'x'; 4096];

/// The calls by their names, in the order in which they were first made, with all the times in nanoseconds.
#[derive(Default)]
struct Times(Vec<(&'static str, Vec<u64>)>);

impl Times {
    fn call(&mut self, name: &'static str, call: impl FnOnce() -> libc::c_long) -> io::Result<RawFd> {
        let start = Instant::now();
        let answer = call();
        let took = since(start);
        if !self.0.iter().any(|(known, _)| *known == name) {
            self.0.push((name, Vec::new()));
        }
        self.0.iter_mut().filter(|(known, _)| *known == name).for_each(|(_, times)| times.push(took));
        match RawFd::try_from(answer) {
            Ok(answer) if answer >= 0 => Ok(answer),
            _ if io::Error::last_os_error().raw_os_error() == Some(libc::ENOENT) => Ok(-1),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn print(&mut self, title: &str, clock: u64) {
        println!("{title}\n\n| call | ns |\n| --- | ---: |");
        let mut sum = 0;
        for (name, times) in &mut self.0 {
            // A name that comes more than once in a round counts as often.
            let often = times.len() as u64 / ROUNDS as u64;
            let took = median(times).saturating_sub(clock) * often;
            sum += took;
            println!("| {name} | {took} |");
        }
        println!("| **together** | **{sum}** |\n");
    }
}

fn since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn median(times: &mut [u64]) -> u64 {
    times.sort_unstable();
    times[times.len() / 2]
}

fn path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_encoded_bytes()).expect("a path without NUL")
}

fn statx(at: RawFd, name: &CStr) -> libc::c_long {
    let mut answer = std::mem::MaybeUninit::<[u8; 256]>::zeroed();
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT | libc::AT_EMPTY_PATH;
    // STATX_BASIC_STATS | STATX_MNT_ID
    unsafe { libc::syscall(libc::SYS_statx, at, name.as_ptr(), flags, 0x17ff, answer.as_mut_ptr()) }
}

fn write(fd: RawFd) -> libc::c_long {
    unsafe { libc::write(fd, CONTENT.as_ptr().cast(), CONTENT.len()) as libc::c_long }
}

fn close(fd: RawFd) -> libc::c_long {
    unsafe { libc::close(fd).into() }
}

fn rename(dir: RawFd, from: &CStr, to: &CStr) -> libc::c_long {
    unsafe { libc::renameat(dir, from.as_ptr(), dir, to.as_ptr()).into() }
}

/// What `src/file.rs` and `src/slot.rs` ask of the kernel.
fn atomik(times: &mut Times, folder: &CStr) -> io::Result<()> {
    let mut list = [0_u8; 256];
    let (name, slot, nothing) = (c"file", c".atomik-0.file~", c"");
    let opened = libc::O_CLOEXEC | libc::O_PATH | libc::O_DIRECTORY;
    let dir = times.call("openat parent", || unsafe { libc::open(folder.as_ptr(), opened).into() })?;
    times.call("statx destination", || statx(dir, name))?;
    times.call("statx parent", || statx(dir, nothing))?;
    let unnamed = libc::O_CLOEXEC | libc::O_RDWR | libc::O_TMPFILE;
    let new = times.call("openat O_TMPFILE", || unsafe { libc::openat(dir, c".".as_ptr(), unnamed, 0o666).into() })?;
    times.call("write", || write(new))?;
    times.call("statx new", || statx(new, nothing))?;
    let list = list.as_mut_ptr().cast();
    let how = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let old = times.call("openat old", || unsafe { libc::openat(dir, name.as_ptr(), how).into() })?;
    times.call("flistxattr of both", || unsafe { libc::flistxattr(old, list, 256) as libc::c_long })?;
    let mut flags = 0_u32;
    // A filesystem without flags refuses it.
    let get = || unsafe { libc::ioctl(old, libc::FS_IOC_GETFLAGS as _, &raw mut flags).max(0).into() };
    times.call("ioctl old", get)?;
    times.call("flistxattr of both", || unsafe { libc::flistxattr(new, list, 256) as libc::c_long })?;
    times.call("flock", || unsafe { libc::flock(new, libc::LOCK_EX | libc::LOCK_NB).into() })?;
    times.call("linkat", || unsafe {
        libc::linkat(new, nothing.as_ptr(), dir, slot.as_ptr(), libc::AT_EMPTY_PATH).into()
    })?;
    times.call("renameat", || rename(dir, slot, name))?;
    times.call("close new, old", || close(new))?;
    times.call("close new, old", || close(old))?;
    for name in [c".atomik-u0.file~", c".atomik-lock.file~"] {
        times.call("statx of two names", || statx(dir, name))?;
    }
    times.call("close parent", || close(dir))?;
    Ok(())
}

fn bare(times: &mut Times, dir: RawFd) -> io::Result<()> {
    let flags = libc::O_CLOEXEC | libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
    let new = times.call("openat O_CREAT", || unsafe { libc::openat(dir, c".new".as_ptr(), flags, 0o666).into() })?;
    times.call("write", || write(new))?;
    times.call("close", || close(new))?;
    times.call("renameat", || rename(dir, c".new", c"file"))?;
    Ok(())
}

fn main() -> io::Result<()> {
    let Some(folder) = std::env::args_os().nth(1) else { return Err(io::Error::other("which folder?")) };
    let folder = tempfile::tempdir_in(folder)?;
    let folder = path(folder.path());
    let dir = unsafe { libc::open(folder.as_ptr(), libc::O_DIRECTORY | libc::O_CLOEXEC) };
    let (mut ours, mut least) = (Times::default(), Times::default());
    let mut clock: Vec<_> = (0..ROUNDS).map(|_| since(Instant::now())).collect();
    bare(&mut Times::default(), dir)?;
    for _ in 0..ROUNDS {
        atomik(&mut ours, &folder)?;
        bare(&mut least, dir)?;
    }
    let clock = median(&mut clock);
    ours.print("write_bytes", clock);
    least.print("create, write, close, rename", clock);
    Ok(())
}

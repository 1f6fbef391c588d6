//! The explorer of interleavings: runs the real core in a real folder, and decides before every kernel call which
//! process makes the next one.
//!
//! An *actor* is a thread that stands for a process. (A lock of `flock(2)` belongs to an open file, so two threads that
//! open a folder by themselves exclude each other as two processes do.) Every actor stops before each call of
//! [`crate::sys`] and before it closes a descriptor that holds a lock. The scheduler lets one actor at a time go on.
//! The list of its decisions, a *schedule*, determines everything that happens, and can be repeated.
//!
//! ```text
//! sys::once ── call ──────┐                 ┌── strategy: random, PCT, exhaustive, a script
//! libc close ─ closing ───┼── scheduler ────┤
//! a role's body ─ point ──┘   one at a time └── kills: no call is made any more, the locks go one by one
//! ```
//!
//! `roles` lists the operations of actors, and mixes of them; `world` runs them; `judge` says which promise was broken;
//! `shrink` makes a failing schedule short; `runs` holds the tests that `tools/explore` starts. `docs/exploration.md`
//! tells how to use the explorer.
//!
//! Threads that the core starts inside of one operation (to clone, to sync, to remove a large tree) are no actors:
//! their calls are made at once. Their actor waits for them, so other actors stand still meanwhile, and the threads
//! work in a slot that the actor holds locked. The thread of background clean-up is an actor of the same process.

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;

mod closing;
mod judge;
mod locks;
mod owners;
mod roles;
mod runs;
mod scheduler;
mod shrink;
mod strategy;
mod tests;
mod world;

use scheduler::Run;
pub(crate) use strategy::Rng;

/// The beginning of the name of every scene's folder: traces leave out the path up to it.
const SCENE: &str = "atomik-explore-";

/// The payload with which a killed actor's thread unwinds.
struct Killed;

/// The run and the number by which the scheduler knows this thread.
#[derive(Clone)]
struct Me {
    run: Arc<Run>,
    actor: usize,
}

thread_local! {
    static ME: RefCell<Option<Me>> = const { RefCell::new(None) };
    static KILLED: Cell<bool> = const { Cell::new(false) };
    static MUTED: Cell<bool> = const { Cell::new(false) };
    static NOTE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// This thread as an actor; `None` for a thread that is no actor, and in code that does the explorer's own work.
fn me() -> Option<Me> {
    if MUTED.try_with(Cell::get).unwrap_or(true) {
        return None;
    }
    ME.try_with(|me| me.try_borrow().ok().and_then(|me| me.clone())).ok().flatten()
}

fn is_killed() -> bool {
    KILLED.try_with(Cell::get).unwrap_or(false)
}

/// Runs a function that does the explorer's own work: no call in it is a step.
fn muted<T>(work: impl FnOnce() -> T) -> T {
    let before = MUTED.replace(true);
    let result = work();
    MUTED.set(before);
    result
}

/// Makes a kernel call when it is this actor's turn. After its kill every call fails and has no effect.
pub(crate) fn call<T>(name: &'static str, call: impl FnOnce() -> nix::Result<T>) -> nix::Result<T> {
    let Some(me) = me() else { return call() };
    if is_killed() || !me.run.turn(me.actor, name, &NOTE.take()) {
        return Err(Errno::EIO);
    }
    let result = call();
    if !is_killed() {
        me.run.observe(me.actor, name, result.as_ref().err().copied());
    }
    result
}

/// A place in a role's body at which another actor may go on, and at which a killed actor ends.
fn point(name: &'static str) {
    let Some(me) = me() else { return };
    if is_killed() || !me.run.arrive(me.actor, name) {
        std::panic::resume_unwind(Box::new(Killed));
    }
}

/// Adds to the trace which name or file the next call is about.
pub(crate) fn note(text: impl FnOnce() -> String) {
    if me().is_some_and(|me| me.run.traces()) {
        NOTE.set(text());
    }
}

/// A name in an open folder, or the open file itself if the name is empty, from the scene's folder on.
pub(crate) fn place(at: BorrowedFd, name: &OsStr) -> String {
    let inner = if at.as_raw_fd() == libc::AT_FDCWD { String::new() } else { path_of(at.as_raw_fd()) };
    let name = path_in_scene(Path::new(name));
    match (inner.as_str(), name.as_str()) {
        ("" | ".", name) => name.to_owned(),
        (inner, "" | ".") => inner.to_owned(),
        (inner, name) => format!("{inner}/{name}"),
    }
}

fn path_of(fd: RawFd) -> String {
    path_in_scene(&std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default())
}

fn path_in_scene(path: &Path) -> String {
    let path = path.to_string_lossy();
    if path.starts_with("/proc/") {
        return "/proc/…".into();
    }
    let inner = match path.split_once(SCENE) {
        Some((_, rest)) => rest.split_once('/').map_or(".", |(_, rest)| rest),
        None => &path,
    };
    // The kernel's name of an unnamed file is its inode number, another one in every schedule.
    if inner.starts_with('#') { "(unnamed)".into() } else { inner.to_owned() }
}

/// Is this thread an actor?
pub(crate) fn is_running() -> bool {
    me().is_some()
}

/// Lets other actors go on instead of a pause; `false` if the thread is no actor and has to sleep.
pub(crate) fn sleeping() -> bool {
    let Some(me) = me() else { return false };
    me.run.pause(me.actor);
    true
}

/// Makes a call of `flock(2)`. An actor that waits for a lock tries it again each time a lock was let go.
pub(crate) fn flock(fd: BorrowedFd, how: i32, call: impl Fn(i32) -> nix::Result<i32>) -> nix::Result<i32> {
    let Some(me) = me() else { return call(how) };
    loop {
        let answer = me.run.lock(me.actor, fd, how, &call);
        if how & libc::LOCK_NB != 0 || answer != Err(Errno::EWOULDBLOCK) {
            return answer;
        }
        if !me.run.wait_for_a_lock(me.actor, &path_of(fd.as_raw_fd())) {
            return Err(Errno::EIO);
        }
    }
}

/// The lock domain that this actor is in; `None` if the kernel is to be asked.
pub(crate) fn lock_domain() -> Option<u64> {
    me().and_then(|me| me.run.identity(me.actor).domain)
}

/// The user of this actor's process; `None` for the user of the tests.
pub(crate) fn user_id() -> Option<u32> {
    me().and_then(|me| me.run.identity(me.actor).user)
}

/// The number for a random name, which is the same in every run of a schedule.
pub(crate) fn random() -> Option<u64> {
    me().map(|me| me.run.random(me.actor))
}

/// Starts a thread of the same process as an actor; gives the work back if this thread is no actor itself.
pub(crate) fn spawn<F: FnOnce() + Send + 'static>(work: F) -> Option<F> {
    let Some(me) = me() else { return Some(work) };
    if !is_killed() {
        me.run.spawn(me.actor, work);
    }
    None
}

/// The owner of an inode that an actor of another user has made.
pub(crate) fn owner(device: u64, inode: u64) -> Option<u32> {
    me().and_then(|me| me.run.owners(|owners| owners.of(device, inode)))
}

/// Opens a name, unless it belongs to another user and its mode refuses this actor's user. Notes the owner of a file
/// that the call makes.
pub(crate) fn opening(
    at: BorrowedFd,
    name: &OsStr,
    call: impl FnOnce() -> nix::Result<OwnedFd>,
) -> nix::Result<OwnedFd> {
    let Some(user) = user_id() else { return call() };
    if let Some(me) = me() {
        if me.run.owners(|owners| owners.refuses(user, at, name)) {
            return Err(Errno::EACCES);
        }
    }
    creating(at, name, call)
}

/// Makes a call that may make a name, and notes the owner of the new inode.
pub(crate) fn creating<T>(at: BorrowedFd, name: &OsStr, call: impl FnOnce() -> nix::Result<T>) -> nix::Result<T> {
    let (Some(me), Some(user)) = (me(), user_id()) else { return call() };
    let before = owners::identify(at, name.as_bytes());
    let result = call()?;
    if before.is_none() {
        me.run.owners(|owners| owners.add(owners::identify(at, name.as_bytes()), user));
    }
    Ok(result)
}

/// Notes the owner of an unnamed file.
pub(crate) fn created(file: &OwnedFd) {
    if let (Some(me), Some(user)) = (me(), user_id()) {
        me.run.owners(|owners| owners.add(owners::identify_open(file), user));
    }
}

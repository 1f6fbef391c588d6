//! Replaces the C library's `close` in the test program: letting a lock go by closing its descriptor is a step.
#![allow(
    unsafe_code,
    reason = "an OwnedFd is closed by the C library's function, and by nothing that a test could hook"
)]

use std::os::fd::RawFd;

use super::{is_killed, me, path_of};

/// Closes a descriptor in the kernel.
pub(super) fn close_now(fd: RawFd) -> i32 {
    // SAFETY: a plain system call; the caller gives up the descriptor.
    let answer = unsafe { libc::syscall(libc::SYS_close, fd) };
    i32::try_from(answer).unwrap_or(-1)
}

/// The function that `OwnedFd` calls when it is dropped.
// SAFETY: it has the C library's signature, and does the same after the step.
#[unsafe(no_mangle)]
extern "C" fn close(fd: RawFd) -> i32 {
    let Some(me) = me() else { return close_now(fd) };
    if is_killed() {
        // The scheduler closes the descriptors that held a lock at the kill, each in a step of its own.
        return if me.run.is_dying(me.actor, fd) { 0 } else { close_now(fd) };
    }
    if !me.run.holds(me.actor, fd) {
        return close_now(fd);
    }
    let about = if me.run.traces() { path_of(fd) } else { String::new() };
    if !me.run.turn(me.actor, "close", &about) {
        return 0;
    }
    let answer = close_now(fd);
    me.run.let_go(me.actor, fd);
    answer
}

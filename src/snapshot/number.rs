//! The numbers of descriptors in the paths of snapshots. The kernel gives the lowest free number, so a path that was
//! kept from one snapshot would lead into the next one. Here numbers rise, and none is used twice before all have been
//! used.
//!
//! The kernel's table of descriptors grows to the highest number and never shrinks. In a process with threads each
//! growth waits for all processors (`expand_files`, `synchronize_rcu`): from 7 ms up on a busy machine. So the first
//! number is in the upper half of the usual table of 1,024, which then grows at once to what it needs, and the last one
//! is [`END`]: a table of 128 KiB, with which `fork(2)` takes 35 µs longer while such a snapshot is open.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use crate::sys;

/// All numbers are below this one.
const END: RawFd = 16_384;
/// The usual limit of descriptors (`RLIMIT_NOFILE`), in whose lower half ordinary descriptors are.
const USUAL_LIMIT: RawFd = 1_024;

/// The next number to try; 0 before the first. There is no lock, since a child of fork(2) could inherit it locked.
static NEXT: AtomicI32 = AtomicI32::new(0);

/// Gives a descriptor a number that no snapshot has had, or the one that was free for the longest time. If there is no
/// descriptor left for that, the number stays.
pub(super) fn fresh(fd: OwnedFd) -> OwnedFd {
    // The explorer of interleavings repeats each run. There a number would depend on the runs before.
    #[cfg(test)]
    if crate::explore::is_running() {
        return fd;
    }
    let mut wrapped = false;
    loop {
        let next = NEXT.load(Ordering::Relaxed);
        let least = if next == 0 { start() } else { next };
        let copy = if least < END { sys::duplicate(fd.as_fd(), least).ok() } else { None };
        let number = copy.as_ref().map(AsRawFd::as_raw_fd).filter(|number| *number < END);
        // This fails if another thread was faster. Its number may be the same, if its snapshot is closed by now.
        let noted =
            NEXT.compare_exchange(next, number.map_or(0, |number| number + 1), Ordering::Relaxed, Ordering::Relaxed);
        match (copy, number) {
            (Some(copy), Some(_)) if noted.is_ok() => return copy,
            // All numbers have been used, or the limit is lower now.
            (_, None) if next == 0 || wrapped => return fd,
            (_, None) => wrapped = true,
            _ => {}
        }
    }
}

/// The first number.
fn start() -> RawFd {
    RawFd::try_from(sys::descriptor_limit()).unwrap_or(RawFd::MAX).min(USUAL_LIMIT) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_not_used_again_when_it_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let open = || fresh(sys::open_folder(sys::CWD, folder.path().as_os_str()).unwrap()).as_raw_fd();
        let numbers: std::collections::HashSet<_> = (0..100).map(|_| open()).collect();
        assert_eq!(numbers.len(), 100);
    }
}

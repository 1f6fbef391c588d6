//! What is known of this process, and chance.

use std::io;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use super::call::{check, retry};

static FORKS: AtomicU32 = AtomicU32::new(0);
/// How often this process, or one that it was forked from, has forked.
static FORKED: AtomicU32 = AtomicU32::new(0);

/// Changes in every child of `fork(2)`: a guard that remembers another value belongs to another
/// process. A `pthread_atfork` handler counts, since `getpid` would cost a system call each time.
pub(crate) fn fork_generation() -> u32 {
    extern "C" fn count() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    extern "C" fn count_here() {
        FORKED.fetch_add(1, Ordering::Relaxed);
    }
    static HANDLER: Once = Once::new();
    HANDLER.call_once(|| {
        // SAFETY: the handler is async-signal-safe (one atomic add) and lives as long as the program:
        // CPython never unloads an extension module, and glibc would unregister it with the library.
        let registered = unsafe { libc::pthread_atfork(None, Some(count_here), Some(count)) };
        assert_eq!(registered, 0, "no memory for a handler of forks: a child could end its parent's guards");
    });
    FORKS.load(Ordering::Relaxed)
}

/// Changes whenever this process forks: a child may hold copies of the descriptors that were open before.
pub(crate) fn forks() -> u32 {
    fork_generation();
    FORKED.load(Ordering::Relaxed)
}

/// This process's number, asked once in each process.
pub(crate) fn process_id() -> u32 {
    static KNOWN: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let generation = u64::from(fork_generation()) << 32;
    let known = KNOWN.load(Ordering::Relaxed);
    if known & !0xffff_ffff == generation && known & 0xffff_ffff != 0 {
        return u32::try_from(known & 0xffff_ffff).unwrap_or(0);
    }
    let id = std::process::id();
    KNOWN.store(generation | u64::from(id), Ordering::Relaxed);
    id
}

/// Random bytes for a name that nobody else chooses (`getrandom(2)`).
pub(crate) fn random() -> io::Result<u64> {
    #[cfg(test)]
    if let Some(number) = crate::explore::random() {
        return Ok(number);
    }
    let mut bytes = [0_u8; 8];
    // SAFETY: the kernel fills at most the eight bytes given.
    retry("getrandom", || check(unsafe { libc::syscall(libc::SYS_getrandom, bytes.as_mut_ptr(), bytes.len(), 0) }))?;
    Ok(u64::from_ne_bytes(bytes))
}

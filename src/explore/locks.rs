//! The locks that the explorer keeps by itself, for mixes of two lock domains.

use std::os::fd::RawFd;

use nix::errno::Errno;

/// The file that a lock is on: device and inode number.
pub(super) type File = (u64, u64);

struct Held {
    domain: Option<u64>,
    file: File,
    fd: RawFd,
    shared: bool,
}

/// The locks that are held in all domains, each of which stands for a kernel of its own.
#[derive(Default)]
pub(super) struct Table(Vec<Held>);

impl Table {
    /// Tries to take a lock, to change one, or lets it go.
    pub(super) fn lock(&mut self, domain: Option<u64>, file: File, fd: RawFd, how: i32) -> nix::Result<i32> {
        self.0.retain(|held| held.fd != fd || how & libc::LOCK_UN == 0);
        if how & libc::LOCK_UN != 0 {
            return Ok(0);
        }
        let shared = how & libc::LOCK_SH != 0;
        let excludes =
            |held: &Held| held.fd != fd && held.file == file && held.domain == domain && !(shared && held.shared);
        if self.0.iter().any(excludes) {
            return Err(Errno::EWOULDBLOCK);
        }
        self.close(fd);
        self.0.push(Held { domain, file, fd, shared });
        Ok(0)
    }

    /// A lock goes with its descriptor.
    pub(super) fn close(&mut self, fd: RawFd) {
        self.0.retain(|held| held.fd != fd);
    }
}

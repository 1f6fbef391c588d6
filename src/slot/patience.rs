//! How often a step is repeated, and with which pauses, where other processes change what it looks at.

use std::io;
use std::time::Duration;

use super::beside::Beside;
use super::observe::is_change;
use crate::sys::{self, errno};

/// How often a step is started over, each time since another process was faster; and after how many rounds each begins with
/// a pause, since FUSE may repeat a stale answer.
const MAX_ROUNDS: u32 = 1_000;
const EAGER_ROUNDS: u32 = 100;

/// The rounds of a step.
pub(super) fn rounds(beside: Beside) -> impl Iterator<Item = u32> {
    (0..MAX_ROUNDS).inspect(move |round| {
        if *round >= EAGER_ROUNDS && beside.domain().is_some() {
            sys::sleep(Duration::from_millis(1));
        }
    })
}

/// How often a step is repeated that a filesystem of another lock domain has failed oddly. A copy of a folder that others
/// replace all the time needs a moment without them: the pauses grow from 1 to 64 milliseconds, 0.6 seconds in all.
const MAX_ODD: u32 = 50;
/// After so many odd answers the pauses are twice as long.
const ODD_UNTIL_LONGER: u32 = 8;

/// Counts the odd answers in one step. FUSE and network filesystems say `ENOENT`, `ESTALE` or `ENOTDIR` of what is there
/// while other processes or machines work in the same folder (seen on bindfs, sshfs and mergerfs), NFS `ETXTBSY` of a rename.
#[derive(Default)]
pub(crate) struct Patience(u32);

impl Patience {
    /// Is the step to be repeated after this error? Pauses if so.
    pub(crate) fn again(&mut self, beside: Beside, error: &io::Error) -> bool {
        let odd = is_change(error) || errno(error) == libc::ETXTBSY;
        let odd = odd && self.0 < MAX_ODD && beside.domain().is_some();
        if odd {
            sys::sleep(Duration::from_millis(1 << (self.0 / ODD_UNTIL_LONGER)));
            self.0 += 1;
        }
        odd
    }
}

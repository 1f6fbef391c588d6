//! How often a step is repeated, and with which pauses, while other processes change the same names.

use std::io;
use std::time::Duration;

use super::beside::Beside;
use super::observe::is_change;
use crate::sys::{self, errno};

/// How often a step is started over, each time since another process was faster.
const MAX_ROUNDS: u32 = 1_000;
/// How many rounds begin without a pause. The later ones have a pause, since FUSE may repeat a stale answer.
const ROUNDS_WITHOUT_PAUSE: u32 = 100;

/// The rounds of a step.
pub(super) fn rounds(beside: Beside) -> impl Iterator<Item = u32> {
    (0..MAX_ROUNDS).inspect(move |round| {
        if *round >= ROUNDS_WITHOUT_PAUSE && beside.domain().is_some() {
            sys::sleep(Duration::from_millis(1));
        }
    })
}

/// How often a step is repeated after odd answers of a FUSE or network filesystem. A copy of a folder that other
/// processes replace all the time needs a moment without them. So the pauses grow from 1 to 64 milliseconds, 0.6
/// seconds in all.
const MAX_ODD_ANSWERS: u32 = 50;
/// After how many odd answers the pauses double.
const ODD_ANSWERS_PER_DOUBLING: u32 = 8;

/// Counts the odd answers in one step. FUSE and network filesystems say `ENOENT`, `ESTALE` or `ENOTDIR` of what is
/// there while other processes or machines work in the same folder (seen on bindfs, sshfs and mergerfs), NFS `ETXTBSY`
/// of a rename.
#[derive(Default)]
pub(crate) struct Patience(u32);

impl Patience {
    /// Is the step to be repeated after this error? Pauses if so.
    pub(crate) fn again(&mut self, beside: Beside, error: &io::Error) -> bool {
        let odd = is_change(error) || errno(error) == libc::ETXTBSY;
        let odd = odd && self.0 < MAX_ODD_ANSWERS && beside.domain().is_some();
        if odd {
            sys::sleep(Duration::from_millis(1 << (self.0 / ODD_ANSWERS_PER_DOUBLING)));
            self.0 += 1;
        }
        odd
    }
}

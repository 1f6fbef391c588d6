//! Which faults are tried: all where `ATOMIK_FAULTS=all` says so, as in `make test-rust`, else a share, chosen by a seed.
//! `ATOMIK_FAULTS_SEED` repeats a choice.

use std::cell::RefCell;
use std::env;
use std::fmt;

use crate::explore::Rng;

/// A plain `cargo test` tries one of so many.
const SHARE: usize = 8;

pub(super) struct Sample {
    seed: u64,
    share: usize,
    rng: RefCell<Rng>,
}

impl Sample {
    /// As the environment says.
    pub(super) fn new() -> Self {
        let seed =
            env::var("ATOMIK_FAULTS_SEED").map_or_else(|_| crate::sys::random().unwrap(), |text| text.parse().unwrap());
        let share = match env::var("ATOMIK_FAULTS").as_deref() {
            Ok("all") => 1,
            Ok(other) => panic!("ATOMIK_FAULTS={other}: there is only `all`"),
            Err(_) => SHARE,
        };
        Self { seed, share, rng: RefCell::new(Rng(seed)) }
    }

    /// Is the next fault tried?
    pub(super) fn takes_next(&self) -> bool {
        self.rng.borrow_mut().below(self.share) == 0
    }

    /// The share of so many.
    pub(super) fn of(&self, most: usize) -> usize {
        most.div_ceil(self.share)
    }

    /// Puts things in the order in which they are tried.
    pub(super) fn shuffled<T>(&self, mut things: Vec<T>) -> Vec<T> {
        let mut rng = self.rng.borrow_mut();
        things.sort_by_cached_key(|_| rng.next());
        things
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.share > 1 {
            write!(f, "one of {}, ", self.share)?;
        }
        write!(f, "ATOMIK_FAULTS_SEED={}", self.seed)
    }
}

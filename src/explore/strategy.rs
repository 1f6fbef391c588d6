//! Strategies choose the next step, and the calls at which processes are killed.

use std::collections::BTreeMap;

/// A small generator of random numbers (SplitMix64): the first number determines all that follow.
#[derive(Clone, Debug)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `count - 1`.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.next() % count.max(1) as u64).unwrap_or(0)
    }

    pub(super) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// One step of a schedule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Step {
    /// An actor makes its next call.
    Go(usize),
    /// The kernel closes a descriptor that held a lock of a killed process: number `nth` of those that are left.
    Close { process: usize, nth: usize },
}

impl Step {
    /// Do both belong to the same actor, or to the death of the same process?
    fn continues(self, other: Step) -> bool {
        match (self, other) {
            (Step::Go(one), Step::Go(other))
            | (Step::Close { process: one, .. }, Step::Close { process: other, .. }) => one == other,
            _ => false,
        }
    }
}

/// The options that a search has at one step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fork {
    taken: usize,
    options: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Strategy {
    /// The same actor goes on in so many of a hundred steps.
    Random { rng: Rng, stickiness: usize },
    /// Probabilistic concurrency testing: the actor of the highest priority goes on, and gets the lowest at some steps.
    Pct { rng: Rng, priorities: BTreeMap<Step, u64>, changes: Vec<usize>, lowest: u64 },
    /// These steps are made; where one cannot be made, the same actor goes on.
    Script { steps: Vec<Step>, at: usize },
    /// One schedule of all that have at most `bound` preemptions.
    Exhaustive { forks: Vec<Fork>, at: usize, bound: usize, preemptions: usize },
}

impl Strategy {
    /// Chooses one of `options`, which is never empty; `last` is the step before, `number` counts the steps.
    pub(super) fn choose(&mut self, options: &[Step], last: Option<Step>, number: usize) -> Step {
        let continues = |option: Step| last.is_some_and(|last| option.continues(last));
        let same = options.iter().copied().find(|option| continues(*option));
        match self {
            Self::Random { rng, stickiness } => match same {
                Some(Step::Go(actor)) if rng.below(100) < *stickiness => Step::Go(actor),
                _ => rng.one_of(options),
            },
            Self::Pct { rng, priorities, changes, lowest } => {
                for option in options {
                    priorities.entry(*option).or_insert_with(|| 1_000_000 + rng.next() % 1_000_000);
                }
                if let (Some(same), true) = (same, changes.contains(&number)) {
                    *lowest -= 1;
                    priorities.insert(same, *lowest);
                }
                let highest = options.iter().copied().max_by_key(|option| priorities[option]);
                highest.unwrap_or(options[0])
            }
            Self::Script { steps, at } => {
                let wanted = steps.get(*at).copied();
                *at += 1;
                wanted.filter(|wanted| options.contains(wanted)).or(same).unwrap_or(options[0])
            }
            Self::Exhaustive { forks, at, bound, preemptions } => {
                let (mut order, others): (Vec<Step>, Vec<Step>) =
                    options.iter().partition(|option| continues(**option));
                let free = order.len();
                if free == 0 || preemptions < bound {
                    order.extend(others);
                }
                if forks.len() == *at {
                    forks.push(Fork { taken: 0, options: order.len() });
                }
                let taken = forks[*at].taken.min(order.len() - 1);
                *at += 1;
                *preemptions += usize::from(free > 0 && taken >= free);
                order[taken]
            }
        }
    }

    /// Counts a step that the strategy was not asked for, since it had not begun.
    pub(super) fn skip(&mut self) {
        if let Self::Script { at, .. } = self {
            *at += 1;
        }
    }

    pub(super) fn script(steps: &[Step]) -> Self {
        Self::Script { steps: steps.to_vec(), at: 0 }
    }

    pub(super) fn exhaustive(forks: Vec<Fork>, bound: usize) -> Self {
        Self::Exhaustive { forks, at: 0, bound, preemptions: 0 }
    }

    /// The way to the next schedule of a search; `None` at its end.
    pub(super) fn advance(mut forks: Vec<Fork>) -> Option<Vec<Fork>> {
        while let Some(Fork { taken, options }) = forks.pop() {
            if taken + 1 < options {
                forks.push(Fork { taken: taken + 1, options });
                return Some(forks);
            }
        }
        None
    }
}

/// A process that may be killed at one of its calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct Victim {
    process: usize,
    /// The chance at each call is one in so many.
    one_in: usize,
    /// Only while it holds so many locks.
    locks: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Kills {
    /// Processes and the numbers of their calls.
    At(Vec<(usize, usize)>),
    Chance {
        rng: Rng,
        victims: Vec<Victim>,
    },
}

impl Kills {
    pub(super) fn none() -> Self {
        Self::At(Vec::new())
    }

    /// Is `process` killed at this call, which it makes with `locks` locks held?
    pub(super) fn strike(&mut self, process: usize, call: usize, locks: usize) -> bool {
        match self {
            Self::At(kills) => kills.contains(&(process, call)),
            Self::Chance { rng, victims } => victims
                .iter()
                .filter(|victim| victim.process == process && locks >= victim.locks)
                .any(|victim| rng.below(victim.one_in) == 0),
        }
    }
}

/// The strategy and the kills, which together determine a schedule of a mix.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) strategy: Strategy,
    pub(super) kills: Kills,
}

impl Plan {
    /// Derives everything from one number, for so many processes of which at most `kills` die.
    pub(super) fn of(seed: u64, processes: usize, kills: usize) -> Self {
        let mut rng = Rng(seed);
        let stickiness = rng.one_of(&[Some(30), Some(80), Some(92), Some(97), None]);
        let strategy = if let Some(stickiness) = stickiness {
            Strategy::Random { rng: Rng(rng.next()), stickiness }
        } else {
            let changes = (0..=rng.below(6)).map(|_| rng.below(50 * processes)).collect();
            Strategy::Pct { rng: Rng(rng.next()), priorities: BTreeMap::new(), changes, lowest: 1_000 }
        };
        let dying = rng.one_of(&[0, 1, 1, 1, 2]).min(kills);
        let mut victims: Vec<Victim> = Vec::new();
        for _ in 0..dying {
            let process = rng.below(processes);
            let (one_in, locks) = rng.one_of(&[(10, 0), (30, 0), (60, 0), (10, 1), (4, 2), (10, 2)]);
            if victims.iter().all(|victim| victim.process != process) {
                victims.push(Victim { process, one_in, locks });
            }
        }
        Self { strategy, kills: Kills::Chance { rng: Rng(rng.next()), victims } }
    }

    pub(super) fn script(steps: &[Step], kills: &[(usize, usize)]) -> Self {
        Self { strategy: Strategy::script(steps), kills: Kills::At(kills.to_vec()) }
    }
}

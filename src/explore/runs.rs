//! The tests that `tools/explore` starts. `cargo test` leaves them out by default. The environment controls them:
//!
//! | `ATOMIK_EXPLORE…` | |
//! | --- | --- |
//! | (nothing more) | mixes, separated by `;`; `pairs`: every pair of roles |
//! | `_SEED` | replays the one schedule of this seed, and shows its trace |
//! | `_SCRIPT` | replays the one schedule of these steps |
//! | `_RUN` | the seed from which the seeds of a run's schedules are derived; by default a fresh one |
//! | `_SECONDS`, `_SCHEDULES` | how long a run is; for `exhaustive`, how long each mix may take |
//! | `_KILLS` | how many processes die at most in one schedule; 2 by default |
//! | `_BOUND` | preemptions of an exhaustive search; 2 by default |
//! | `_VICTIM` | `exhaustive` kills this process at each of its calls in turn; `each`: one process after the other |
//! | `_SHARD` | `0/2`: the first half of the work |
//! | `_DIR` | where the scenes are; `/dev/shm` by default, and `TMPDIR` where that is missing |

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::judge::{Broken, Promise};
use super::roles::Mix;
use super::shrink::{Script, shrink};
use super::strategy::{Kills, Plan, Rng, Strategy};
use super::world::{Judged, run};

/// An option of a run, read from the environment.
fn option(name: &str) -> Option<String> {
    std::env::var(format!("ATOMIK_EXPLORE{name}")).ok().filter(|text| !text.is_empty())
}

fn number(name: &str) -> Option<u64> {
    let text = option(name)?;
    Some(text.parse().unwrap_or_else(|_| panic!("ATOMIK_EXPLORE{name}={text} is no number")))
}

fn count(name: &str) -> Option<usize> {
    number(name).and_then(|number| usize::try_from(number).ok())
}

pub(super) fn place() -> PathBuf {
    let memory = || Some(PathBuf::from("/dev/shm")).filter(|memory| memory.is_dir());
    option("_DIR").map(PathBuf::from).or_else(memory).unwrap_or_else(std::env::temp_dir)
}

fn mixes() -> Vec<Mix> {
    match option("").as_deref() {
        None => panic!("ATOMIK_EXPLORE says what to explore, as in \"Folder: Folder Reader; File: Write FileBackup\""),
        Some("pairs") => Mix::pairs(),
        Some(text) => text.split(';').map(|mix| Mix::parse(mix).unwrap_or_else(|wrong| panic!("{wrong}"))).collect(),
    }
}

/// The part of the work that this process does: its number, and the number of parts.
fn shard() -> (u64, u64) {
    let Some(text) = option("_SHARD") else { return (0, 1) };
    let parts = text.split_once('/').and_then(|(this, of)| Some((this.parse().ok()?, of.parse().ok()?)));
    parts.filter(|(this, of)| this < of).unwrap_or_else(|| panic!("ATOMIK_EXPLORE_SHARD={text} is not as in 0/2"))
}

/// When a run ends.
struct Budget {
    until: Option<Instant>,
    schedules: usize,
}

impl Budget {
    fn of(seconds: Option<u64>, schedules: Option<usize>) -> Self {
        let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        Self { until, schedules: schedules.unwrap_or(usize::MAX) }
    }

    fn allows(&self, schedules: usize) -> bool {
        schedules < self.schedules && self.until.is_none_or(|until| Instant::now() < until)
    }
}

/// How the first schedule that broke a promise can be repeated.
#[derive(Clone)]
enum Origin {
    Seed(u64),
    Script,
}

/// A broken promise of a mix: how often it was broken, and the first schedule that broke it.
struct Found {
    times: usize,
    broken: Broken,
    origin: Origin,
    script: Script,
}

/// The counts of a run.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) schedules: usize,
    pub(super) kills: usize,
    pub(super) steps: usize,
    failures: usize,
    found: BTreeMap<Kind, Found>,
}

/// Failures of one kind: of one mix, one promise and one text but for the numbers and the scene's name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    mix: String,
    promise: Promise,
    text: String,
}

impl Kind {
    fn of(mix: &Mix, broken: &Broken) -> Self {
        Self { mix: mix.to_string(), promise: broken.promise, text: broken.shape() }
    }
}

/// How many schedules are shrunk and shown at most, each of another promise and text.
const MAX_SHOWN: usize = 12;

impl Tally {
    fn add(&mut self, mix: &Mix, origin: &Origin, judged: Judged) {
        let Judged { broken, outcome } = judged;
        self.schedules += 1;
        self.kills += outcome.kills.len();
        self.steps += outcome.steps.len();
        self.failures += usize::from(!broken.is_empty());
        let mut kinds: Vec<Kind> = Vec::new();
        for broken in broken {
            let kind = Kind::of(mix, &broken);
            if kinds.contains(&kind) {
                continue;
            }
            kinds.push(kind.clone());
            let script = || Script { steps: outcome.steps.clone(), kills: outcome.kills.clone() };
            let new = || Found { times: 0, broken, origin: origin.clone(), script: script() };
            self.found.entry(kind).or_insert_with(new).times += 1;
        }
    }

    /// Prints all failures, the first of each promise and text as a short schedule with its trace. Panics if there is
    /// one.
    fn report(&self, seed: Option<u64>) {
        let mut shown: Vec<(Promise, &str)> = Vec::new();
        let kills = option("_KILLS").map(|kills| format!("ATOMIK_EXPLORE_KILLS={kills} ")).unwrap_or_default();
        for (Kind { mix, promise, text }, found) in &self.found {
            let origin = match found.origin {
                Origin::Seed(seed) => format!("{kills}ATOMIK_EXPLORE_SEED={seed}"),
                Origin::Script => format!("ATOMIK_EXPLORE_SCRIPT={:?}", found.script.to_string()),
            };
            println!("{mix} | {} x {}\n    replay: {origin} ATOMIK_EXPLORE={mix:?}", found.times, found.broken);
            if !shown.contains(&(*promise, text)) && shown.len() < MAX_SHOWN {
                shown.push((*promise, text));
                let mix = Mix::parse(mix).expect("a mix that was run");
                let short = shrink(&place(), &mix, &found.script, &found.broken);
                println!("    shrunk: ATOMIK_EXPLORE_SCRIPT=\"{short}\"");
                show(&run(&place(), &mix, short.plan(), true));
            }
        }
        let seed = seed.map(|seed| format!(" (seed {seed})")).unwrap_or_default();
        let Self { schedules, kills, steps, failures, .. } = &self;
        println!("{schedules} schedules, {kills} kills, {steps} steps, {failures} failures{seed}");
        assert!(*failures == 0, "{failures} of {schedules} schedules have broken a promise");
    }
}

/// Prints a trace: the calls of one process that follow each other in one line.
fn show(judged: &Judged) {
    let mut lines: Vec<String> = Vec::new();
    let mut last = "";
    for line in &judged.outcome.trace {
        let (who, what) = line.split_once(' ').unwrap_or((line, ""));
        match lines.last_mut() {
            Some(line) if last == who && line.len() + what.len() < 150 => line.extend(["; ", what]),
            _ => lines.push(line.clone()),
        }
        last = who;
    }
    for line in lines {
        println!("        {line}");
    }
    for broken in &judged.broken {
        println!("        => {broken}");
    }
}

/// The seed of one schedule of a run.
fn seed_of(run: u64, schedule: u64) -> u64 {
    Rng(run ^ Rng(schedule).next()).next()
}

/// Runs the schedule of a seed.
pub(super) fn by_seed(mix: &Mix, seed: u64, tracing: bool) -> Judged {
    let kills = count("_KILLS").unwrap_or(2);
    run(&place(), mix, Plan::of(seed, mix.parts.len(), kills), tracing)
}

/// If the environment names one schedule, runs that, shows it, and answers `true`.
fn replay() -> bool {
    let script = option("_SCRIPT").map(|text| Script::parse(&text).unwrap_or_else(|| panic!("{text:?} is no script")));
    let plan = |mix: &Mix| match (&script, number("_SEED")) {
        (Some(script), _) => Some(script.plan()),
        (None, Some(seed)) => Some(Plan::of(seed, mix.parts.len(), count("_KILLS").unwrap_or(2))),
        (None, None) => None,
    };
    let mixes = mixes();
    let Some(plan) = mixes.first().and_then(plan) else { return false };
    let judged = run(&place(), &mixes[0], plan, true);
    println!("{}", mixes[0]);
    show(&judged);
    assert!(judged.broken.is_empty(), "the schedule breaks a promise");
    true
}

/// A seed for a run, which is printed with its result.
fn fresh_seed() -> u64 {
    number("_RUN").unwrap_or_else(|| crate::sys::random().map_or(1, |seed| seed % 1_000_000_000))
}

/// Random walks and priorities with random kills, for each of the mixes in turn.
#[test]
#[ignore = "explores for as long as it is told"]
fn random() {
    if replay() {
        return;
    }
    let (mixes, (this, of), run) = (mixes(), shard(), fresh_seed());
    let budget = Budget::of(number("_SECONDS").or(Some(10)), count("_SCHEDULES"));
    let mut tally = Tally::default();
    for number in (this..).step_by(usize::try_from(of).expect("a few shards")) {
        if !budget.allows(tally.schedules) {
            break;
        }
        let mix = &mixes[usize::try_from(number / of).expect("an index") % mixes.len()];
        let seed = seed_of(run, number);
        tally.add(mix, &Origin::Seed(seed), by_seed(mix, seed, false));
    }
    tally.report(Some(run));
}

/// The same for mixes of two to four roles, drawn by chance.
#[test]
#[ignore = "explores for as long as it is told"]
fn all() {
    let ((this, of), run) = (shard(), fresh_seed());
    let budget = Budget::of(number("_SECONDS"), count("_SCHEDULES").or(Some(10_000)));
    let mut tally = Tally::default();
    for number in (this..).step_by(usize::try_from(of).expect("a few shards")) {
        if !budget.allows(tally.schedules) {
            break;
        }
        let seed = seed_of(run, number);
        let mix = Mix::sample(&mut Rng(seed ^ 0x006d_6978_6573));
        tally.add(&mix, &Origin::Seed(seed), by_seed(&mix, seed, false));
    }
    tally.report(Some(run));
}

/// All schedules of a mix with so many preemptions, and a kill of `victim` at each of its calls in turn. Answers
/// whether the budget was enough.
pub(super) fn search(mix: &Mix, bound: usize, victim: Option<usize>, seconds: Option<u64>, tally: &mut Tally) -> bool {
    let budget = Budget::of(seconds, None);
    for call in 0.. {
        let kills = || victim.map_or(Kills::none(), |victim| Kills::At(vec![(victim, call)]));
        let (mut forks, mut killed) = (Vec::new(), false);
        loop {
            let plan = Plan { strategy: Strategy::exhaustive(forks, bound), kills: kills() };
            let mut judged = run(&place(), mix, plan, false);
            let taken = std::mem::take(&mut judged.outcome.forks);
            killed |= !judged.outcome.kills.is_empty();
            tally.add(mix, &Origin::Script, judged);
            let Some(next) = Strategy::advance(taken) else { break };
            if !budget.allows(0) {
                return false;
            }
            forks = next;
        }
        if !killed {
            // The victim ends before its call of this number, or there is none.
            break;
        }
    }
    true
}

/// All schedules with a bounded number of preemptions.
#[test]
#[ignore = "explores for as long as it is told"]
fn exhaustive() {
    if replay() {
        return;
    }
    let (this, of) = shard();
    let bound = count("_BOUND").unwrap_or(2);
    let mut tally = Tally::default();
    let mut cut = 0;
    for (number_of_mix, mix) in (0..).zip(mixes()) {
        if number_of_mix % of != this {
            continue;
        }
        let victims: Vec<Option<usize>> = match option("_VICTIM").as_deref() {
            None => vec![None],
            Some("each") => (0..mix.parts.len()).map(Some).collect(),
            Some(victim) => vec![Some(victim.parse().expect("the number of a process, or `each`"))],
        };
        for victim in victims {
            let before = tally.schedules;
            let complete = search(&mix, bound, victim, number("_SECONDS"), &mut tally);
            cut += usize::from(!complete);
            let killed = victim.map(|victim| format!(", P{victim} killed at each call")).unwrap_or_default();
            let end = if complete { "" } else { ", cut short" };
            println!("{mix} | {} schedules of {bound} preemptions{killed}{end}", tally.schedules - before);
        }
    }
    if cut > 0 {
        println!("{cut} searches were cut short by ATOMIK_EXPLORE_SECONDS");
    }
    tally.report(None);
}

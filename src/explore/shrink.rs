//! Shrinks a failing schedule to one with fewer kills and fewer switches that shows the same fault.

use std::fmt::Write;
use std::path::Path;

use super::judge::Broken;
use super::roles::Mix;
use super::strategy::{Plan, Step};
use super::world::run;

/// The steps of a schedule and its kills.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) steps: Vec<Step>,
    pub(super) kills: Vec<(usize, usize)>,
}

impl Script {
    fn switches(&self) -> usize {
        self.steps.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }

    pub(super) fn plan(&self) -> Plan {
        Plan::script(&self.steps, &self.kills)
    }

    /// Reads the text that `Display` writes.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut script = Self { steps: Vec::new(), kills: Vec::new() };
        for word in text.split_whitespace() {
            let numbers = |text: &str| -> Option<(usize, usize)> {
                let (one, other) = text.split_once('.')?;
                Some((one.parse().ok()?, other.parse().ok()?))
            };
            if let Some(kill) = word.strip_prefix('k') {
                script.kills.push(numbers(kill)?);
            } else if let Some(close) = word.strip_prefix('c') {
                let (process, nth) = numbers(close)?;
                script.steps.push(Step::Close { process, nth });
            } else {
                let (actor, times) = word.split_once('x').unwrap_or((word, "1"));
                let step = Step::Go(actor.parse().ok()?);
                script.steps.extend(std::iter::repeat_n(step, times.parse().ok()?));
            }
        }
        Some(script)
    }
}

impl std::fmt::Display for Script {
    /// Kills as `kPROCESS.CALL`, then steps as `ACTORxTIMES`, and `cPROCESS.NTH` where a descriptor of the dead is
    /// closed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::new();
        for (process, call) in &self.kills {
            write!(text, "k{process}.{call} ")?;
        }
        for same in self.steps.chunk_by(|one, other| one == other) {
            match same[0] {
                Step::Go(actor) => write!(text, "{actor}x{} ", same.len())?,
                Step::Close { process, nth } => (0..same.len()).try_for_each(|_| write!(text, "c{process}.{nth} "))?,
            }
        }
        f.write_str(text.trim_end())
    }
}

/// Tries scripts of a mix for one fault, as long as its budget lasts.
struct Shrinker<'a> {
    place: &'a Path,
    mix: &'a Mix,
    broken: &'a Broken,
    tries: usize,
}

impl Shrinker<'_> {
    /// The steps that a run of the script really made, if it still shows the fault.
    fn fails(&mut self, script: &Script) -> Option<Script> {
        self.tries = self.tries.checked_sub(1)?;
        let judged = run(self.place, self.mix, script.plan(), false);
        let same = judged
            .broken
            .iter()
            .any(|broken| broken.promise == self.broken.promise && broken.shape() == self.broken.shape());
        same.then_some(Script { steps: judged.outcome.steps, kills: judged.outcome.kills })
    }

    fn without_a_kill(&mut self, script: &Script) -> Option<Script> {
        (0..script.kills.len()).find_map(|index| {
            let mut fewer = script.clone();
            fewer.kills.remove(index);
            self.fails(&fewer)
        })
    }

    /// Leaves out a run of steps of one actor, or the first of them: the steps that are left move up.
    fn without_a_switch(&mut self, script: &Script) -> Option<Script> {
        let mut at = 0;
        while at < script.steps.len() && self.tries > 0 {
            let same = script.steps[at..].iter().take_while(|step| **step == script.steps[at]).count();
            for cut in [at..at + same, at..at + 1] {
                let mut fewer = script.clone();
                fewer.steps.drain(cut);
                if let Some(found) = self.fails(&fewer).filter(|found| found.switches() < script.switches()) {
                    return Some(found);
                }
            }
            at += same;
        }
        None
    }
}

/// A script of fewer kills and fewer switches that shows the same fault.
pub(super) fn shrink(place: &Path, mix: &Mix, script: &Script, broken: &Broken) -> Script {
    let mut shrinker = Shrinker { place, mix, broken, tries: 600 };
    let mut best = script.clone();
    while let Some(better) = shrinker.without_a_kill(&best).or_else(|| shrinker.without_a_switch(&best)) {
        best = better;
    }
    best
}

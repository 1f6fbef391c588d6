//! The judge finds the promises that a schedule has broken.

use std::fmt;
use std::sync::Arc;

use super::SCENE;
use super::roles::{Mix, Role, Start};
use super::scheduler::{Identity, Outcome};
use super::world::{BACKUP, Ending, History, NAME, Version, World, read};
use crate::{Committed, ErrorKind, Result};

/// A promise of the contract that every schedule has to keep.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Promise {
    /// The destination is complete, old or new, at every instant.
    Complete,
    /// No living process loses its staging, or the backup that it has made.
    Staging,
    /// No update is lost, and nothing is replaced unasked.
    Updates,
    /// After all have ended, one further plain writer leaves no name of the library.
    Orphans,
    /// If no process was killed, nothing is left at all.
    Litter,
    /// A snapshot shows one version.
    Snapshot,
    /// No process waits for ever, and none keeps a lock.
    Waiting,
    /// There is no error but those that the contract names, and a process has published if, and only if, it succeeded.
    Errors,
    /// No backup is older than one that a returned commit has made, and a backup whose commit returned is there.
    Backup,
    /// Until the next writer comes, one orphan stays for each process that was killed, of an update two.
    Bounds,
}

impl Promise {
    /// The letter that stands for it in `docs/exploration.md`.
    pub(super) fn letter(self) -> char {
        match self {
            Self::Complete => 'a',
            Self::Staging => 'b',
            Self::Updates => 'c',
            Self::Orphans => 'd',
            Self::Litter => 'e',
            Self::Snapshot => 'f',
            Self::Waiting => 'g',
            Self::Errors => 'h',
            Self::Backup => 'i',
            Self::Bounds => 'j',
        }
    }
}

/// A broken promise, and a text that says how it was broken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Broken {
    pub(super) promise: Promise,
    pub(super) text: String,
}

impl Broken {
    pub(super) fn new(promise: Promise, text: String) -> Self {
        Self { promise, text }
    }

    /// The text but for its numbers and the scene's name: two schedules that have it in common show the same fault.
    pub(super) fn shape(&self) -> String {
        let words = self.text.split(' ').filter(|word| !word.contains(SCENE));
        words.collect::<Vec<_>>().join(" ").replace(|letter: char| letter.is_ascii_digit(), "")
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}) {:?}: {}", self.promise.letter(), self.promise, self.text)
    }
}

/// Has process `id` written this version? Texts end with the number of the process.
fn is_by(version: &Version, id: usize) -> bool {
    let last = version.text.as_ref().and_then(|text| text.split('.').next_back());
    version.by == Some(id) && last == Some(id.to_string().as_str())
}

/// Has a process taken back the version with this index at once? It may do so under the publish lock, if it has
/// displaced another version than the one that it started from.
fn is_taken_back(versions: &[Version], index: usize) -> bool {
    let (before, own, after) = (index.checked_sub(1), &versions[index], versions.get(index + 1));
    let before = before.and_then(|before| versions.get(before));
    before.zip(after).is_some_and(|(before, after)| own.by.is_some() && own.by == after.by && before.text == after.text)
}

/// A version that a publish with a backup has displaced.
struct Displaced {
    text: String,
    by: usize,
}

/// All versions that are to be a backup, in the order in which they were displaced.
fn displaced_for_a_backup(mix: &Mix, versions: &[Version]) -> Vec<Displaced> {
    let all = (1..versions.len()).filter(|index| !is_taken_back(versions, *index)).filter_map(|index| {
        let version = &versions[index];
        let by = version.by.filter(|by| is_by(version, *by) && mix.parts[*by].role.backs_up())?;
        Some(Displaced { text: versions[index - 1].text.clone()?, by })
    });
    all.collect()
}

impl World {
    /// Judges the result of a process at the moment at which it returns.
    pub(super) fn judge_ending(&self, role: Role, id: usize, result: &Result<Option<Committed>>) -> Vec<Broken> {
        let mut broken = Vec::new();
        let mut found = |promise, text| broken.push(Broken::new(promise, text));
        match result {
            Ok(committed) => {
                if let Some(leftover) = committed.as_ref().and_then(Committed::leftover) {
                    found(Promise::Errors, format!("P{id} leaves something: {leftover}"));
                }
                if role.backs_up() && !self.mix.has_domains() {
                    if let Err(text) = self.backup_is_there(id) {
                        found(Promise::Backup, text);
                    }
                }
            }
            Err(error) => {
                // There was no version in the beginning, or a group has taken its version back.
                let absent = self.mix.start == Start::Nothing && crate::sys::errno(error.io()) == libc::ENOENT;
                // A killed process of another user may have left its publish lock; the error says what to do.
                let busy = self.mix.has_users() && error.kind() == ErrorKind::Busy;
                let allowed = match role {
                    _ if busy => true,
                    role if role.refuses_to_replace() => error.kind() == ErrorKind::AlreadyExists,
                    role if role.updates() => error.kind() == ErrorKind::Conflict,
                    Role::Reader | Role::Exchange => absent,
                    _ => false,
                };
                if !allowed {
                    found(Promise::Errors, format!("P{id} {role:?}: {error}"));
                }
                if error.committed() && !busy {
                    found(Promise::Errors, format!("P{id} {role:?} fails after its publish: {error}"));
                }
            }
        }
        broken
    }

    /// Has the backup the version that this process displaced, or that a later one displaced?
    fn backup_is_there(&self, id: usize) -> std::result::Result<(), String> {
        let displaced = displaced_for_a_backup(&self.mix, &self.history().versions);
        let Some(own) = displaced.iter().rposition(|displaced| displaced.by == id) else { return Ok(()) };
        let now = read(&self.dir.join(BACKUP)).map_err(|mixed| format!("the backup is {mixed}"))?;
        let good = displaced[own..].iter().any(|displaced| Some(&displaced.text) == now.as_ref());
        let wanted = &displaced[own].text;
        if good {
            Ok(())
        } else {
            Err(format!("P{id} returns, and the backup is {now:?} instead of {wanted:?} or a newer one"))
        }
    }

    /// Judges the folder after all processes have ended, and again after one further writer.
    pub(super) fn judge(self: &Arc<Self>, outcome: &Outcome) -> Vec<Broken> {
        let mut broken = std::mem::take(&mut self.history().broken);
        broken.extend(self.judge_versions());
        if outcome.stuck {
            return broken;
        }
        broken.extend(self.judge_names(outcome));
        broken.extend(self.judge_backup(outcome, Moment::AllHaveEnded));
        let (before, folder) = (self.tree(), self.is_folder());
        if self.mix.has_users() {
            // Each user's next writer removes the orphans of that user. Until then they may fail another user's commit.
            self.let_all_write(outcome, folder);
            self.history().broken.clear();
        }
        broken.extend(self.let_all_write(outcome, folder));
        broken.append(&mut self.history().broken);
        if read(&self.dir.join(NAME)) != Ok(Some("next".into())) {
            let text = format!("the next writer's version is {:?}", read(&self.dir.join(NAME)));
            broken.push(Broken::new(Promise::Complete, text));
        }
        if !self.names().is_empty() {
            let text = format!("after the next writer there is {}; before it there was {before}", self.tree());
            broken.push(Broken::new(Promise::Orphans, text));
        }
        broken.extend(self.judge_backup(outcome, Moment::AfterTheNextWriter));
        broken
    }

    /// Lets one more writer of each domain and user come.
    fn let_all_write(self: &Arc<Self>, outcome: &Outcome, folder: bool) -> Vec<Broken> {
        let identities = self.identities().into_iter();
        identities.flat_map(|identity| self.let_the_next_write(identity, &outcome.owners, folder)).collect()
    }

    /// Each pair of a domain and a user, once.
    fn identities(&self) -> Vec<Identity> {
        let mut identities: Vec<_> = self.mix.parts.iter().map(|part| part.identity).collect();
        identities.sort();
        identities.dedup();
        identities
    }

    fn is_folder(&self) -> bool {
        let path = self.dir.join(NAME);
        if path.symlink_metadata().is_ok() { path.is_dir() } else { self.mix.of_folders() }
    }

    /// Were the versions of the destination published as promised?
    fn judge_versions(&self) -> Vec<Broken> {
        let mut broken = Vec::new();
        let history = self.history();
        for index in 1..history.versions.len() {
            broken.extend(self.judge_publish(&history.versions, index));
        }
        broken.extend(self.judge_claims(&history));
        let last = history.versions.last().and_then(|version| version.text.clone());
        let now = read(&self.dir.join(NAME));
        if now.as_ref() != Ok(&last) {
            let text = format!("the destination is {now:?} though the last version published was {last:?}");
            broken.push(Broken::new(Promise::Complete, text));
        }
        broken
    }

    fn judge_publish(&self, versions: &[Version], index: usize) -> Option<Broken> {
        let (before, after) = (&versions[index - 1], &versions[index]);
        let by = after.by?;
        let part = self.mix.parts[by];
        let broken = |text| Some(Broken::new(Promise::Updates, text));
        if is_taken_back(versions, index) || part.role == Role::Exchange {
            return None;
        }
        // The locks of another domain are not seen.
        let elsewhere = before.by.is_some_and(|before| self.mix.parts[before].identity.domain != part.identity.domain);
        if !is_by(after, by) {
            let back = is_taken_back(versions, index - 1) || elsewhere;
            let text = format!("P{by} {:?} brings {:?} back over {:?}", part.role, after.text, before.text);
            return if back { None } else { broken(text) };
        }
        if part.role.refuses_to_replace() && before.text.is_some() {
            return broken(format!("P{by} {:?} has replaced {:?} unasked", part.role, before.text));
        }
        let expected = format!("{}.{by}", before.text.clone().unwrap_or_default());
        // A plain replacing file takes no lock.
        let excused = elsewhere || before.by.is_some_and(|before| self.mix.parts[before].role.replaces_without_lock());
        let lost = part.role.updates() && after.text.as_ref() != Some(&expected) && !excused;
        if lost {
            broken(format!("{:?} of P{by} {:?} has replaced {:?}", after.text, part.role, before.text))
        } else {
            None
        }
    }

    /// Has every process that succeeded published, and has no process published that failed?
    fn judge_claims(&self, history: &History) -> Vec<Broken> {
        let mut broken = Vec::new();
        let unlocked = self.mix.has_domains() || self.mix.has(Role::replaces_without_lock);
        for (id, part) in self.mix.parts.iter().enumerate().filter(|(_, part)| part.role.publishes()) {
            let versions = &history.versions;
            let stands = |index: usize| is_by(&versions[index], id) && !is_taken_back(versions, index);
            let published = (0..versions.len()).any(stands);
            let text = match history.endings.get(&id) {
                Some(Ending::Succeeded) if !published => "has succeeded, but has not published".to_owned(),
                // A plain rename or exchange, which takes no lock, and a writer of another domain may displace a
                // version before it is taken back.
                Some(Ending::Failed { error }) if published && !part.role.is_group() && !unlocked => {
                    format!("has published, but has failed: {error}")
                }
                _ => continue,
            };
            broken.push(Broken::new(Promise::Errors, format!("P{id} {:?} {text}", part.role)));
        }
        broken
    }

    /// The library's names beside the destination.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| name.starts_with(".atomik")).collect();
        names.sort();
        names
    }

    /// The library's names, each with the names in it.
    fn tree(&self) -> String {
        let names = self.names();
        let inner = |name: &String| {
            let entries = std::fs::read_dir(self.dir.join(name)).into_iter().flatten().flatten();
            let mut inner: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            inner.sort();
            if inner.is_empty() { name.clone() } else { format!("{name} [{}]", inner.join(" ")) }
        };
        names.iter().map(inner).collect::<Vec<_>>().join(", ")
    }

    /// How many slots with contents a name of the library stands for. A room has many, a file counts as one.
    fn full_slots(&self, name: &str) -> usize {
        let is_full = |path: &std::path::Path| std::fs::read_dir(path).map_or(true, |mut inner| inner.next().is_some());
        let path = self.dir.join(name);
        if name.starts_with(".atomik-u") {
            let slots = std::fs::read_dir(&path).into_iter().flatten().flatten();
            return slots.filter(|slot| is_full(&slot.path())).count();
        }
        usize::from(!name.starts_with(".atomik-lock") && is_full(&path))
    }

    /// Are no more names left than may stay until the next writer comes?
    fn judge_names(&self, outcome: &Outcome) -> Vec<Broken> {
        let names = self.names();
        // A version pinned by another user's reader stays until the next writer of the user that displaced it.
        let pins = self.mix.has_users() && self.mix.has(|role| role == Role::Reader || role.updates());
        if outcome.kills.is_empty() && !pins {
            let litter = format!("no process was killed, and there is {}", self.tree());
            return if names.is_empty() { Vec::new() } else { vec![Broken::new(Promise::Litter, litter)] };
        }
        // A killed update leaves two: its own slot, and the version that it held in another slot. So may a killed
        // group. A killed reader leaves the version that it held.
        let orphans = |(process, _): &(usize, usize)| {
            let role = self.mix.parts[*process].role;
            if role.updates() || role.is_group() { 2 } else { 1 }
        };
        let pinned = if pins { self.mix.parts.len() } else { 0 };
        let allowed: usize = pinned + outcome.kills.iter().map(orphans).sum::<usize>();
        let full: usize = names.iter().map(|name| self.full_slots(name)).sum();
        let many = format!("{full} orphans are left of {} killed: {}", outcome.kills.len(), self.tree());
        if full > allowed { vec![Broken::new(Promise::Bounds, many)] } else { Vec::new() }
    }

    /// Is the backup the newest version that was to become a backup?
    fn judge_backup(&self, outcome: &Outcome, moment: Moment) -> Vec<Broken> {
        // Writers of two domains do not see each other's publish lock.
        if !self.mix.has(Role::backs_up) || self.mix.has_domains() {
            return Vec::new();
        }
        let history = self.history();
        let displaced = displaced_for_a_backup(&self.mix, &history.versions);
        // A killed process has returned nothing; the next writer completes its backup.
        let counts = |displaced: &Displaced| {
            let living = !outcome.kills.iter().any(|(process, _)| *process == displaced.by);
            living || moment == Moment::AfterTheNextWriter
        };
        let first = displaced.iter().rposition(counts);
        let now = match read(&self.dir.join(BACKUP)) {
            Ok(now) => now,
            Err(mixed) => return vec![Broken::new(Promise::Backup, format!("{moment:?} the backup is {mixed}"))],
        };
        let good = match (&now, first) {
            (None, first) => first.is_none(),
            (Some(now), first) => displaced[first.unwrap_or(0)..].iter().any(|displaced| displaced.text == *now),
        };
        let wanted: Vec<_> = displaced.iter().map(|displaced| displaced.text.as_str()).collect();
        let text = format!(
            "{moment:?} the backup is {now:?}; displaced for a backup were {wanted:?}, of which number {first:?} is due"
        );
        if good { Vec::new() } else { vec![Broken::new(Promise::Backup, text)] }
    }
}

/// The moment at which the backup is judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Moment {
    AllHaveEnded,
    AfterTheNextWriter,
}

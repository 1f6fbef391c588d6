//! The scheduler lets one of the actors go on that wait before a call.

use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::closing::close_now;
use super::judge::{Broken, Promise};
use super::locks::Table;
use super::owners::Owners;
use super::strategy::{Fork, Plan, Step, Strategy};
use super::{Killed, ME, MUTED, Me};

mod turns;

/// How many steps a schedule may have. A schedule with more makes no progress.
const MAX_STEPS: usize = 8_000;

/// The first step of every thread, before its first call.
const FIRST_STEP: &str = "start";

/// The calls after which the destination may be another one than before.
const CALLS_THAT_CHANGE_NAMES: &[&str] =
    &["renameat", "renameat2", "linkat", "unlinkat", "rmdir", "mkdirat", "symlinkat"];

/// The lock domain and the user of a process; `None`: those of the tests' own process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Identity {
    pub(super) domain: Option<u64>,
    pub(super) user: Option<u32>,
}

/// A process that the explorer is to run.
pub(super) struct Job {
    pub(super) identity: Identity,
    /// Does it run to its first `point` before the plan begins?
    pub(super) starts_in_body: bool,
    pub(super) work: Box<dyn FnOnce() + Send>,
}

/// Looks at the destination after a call of a process.
pub(super) type Observer = Box<dyn Fn(usize) -> Option<Broken> + Send + Sync>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Status {
    Waiting,
    Running,
    Ended,
    /// Its process was killed, and its thread has not yet ended.
    Dying,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Gate {
    Shut,
    Open,
    Killed,
}

struct Actor {
    process: usize,
    status: Status,
    gate: Arc<(Mutex<Gate>, Condvar)>,
    /// The number of locks that had been let go when it was refused the lock that it waits for.
    refused: Option<u64>,
    /// The number of steps when it began to pause. It pauses until another actor has made a step.
    paused: Option<usize>,
    randoms: u64,
}

#[derive(Default)]
struct Process {
    identity: Identity,
    /// Has it still to come to its body before the plan begins?
    cold: bool,
    /// Descriptors that hold locks, the oldest first.
    locks: Vec<RawFd>,
    /// After a kill: the descriptors with locks that are still to be closed.
    dying: Vec<RawFd>,
    killed: bool,
    calls: usize,
}

struct State {
    actors: Vec<Actor>,
    processes: Vec<Process>,
    threads: Vec<JoinHandle<()>>,
    plan: Plan,
    last: Option<Step>,
    /// How many locks have been let go.
    releases: u64,
    table: Table,
    owners: Owners,
    outcome: Outcome,
    over: bool,
}

/// The result of a schedule.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) owners: Owners,
    pub(super) broken: Vec<Broken>,
    pub(super) steps: Vec<Step>,
    /// Processes and the calls at which they were killed.
    pub(super) kills: Vec<(usize, usize)>,
    pub(super) calls: Vec<usize>,
    pub(super) trace: Vec<String>,
    pub(super) forks: Vec<Fork>,
    /// Did it come to no end by itself?
    pub(super) stuck: bool,
}

/// One schedule on its way.
pub(super) struct Run {
    state: Mutex<State>,
    ended: Condvar,
    observer: Observer,
    tracing: bool,
    domains: bool,
    users: bool,
}

impl State {
    /// The steps that can be made now.
    fn options(&self) -> Vec<Step> {
        let ready = |pausing_too: bool| {
            let waits = |actor: &Actor| {
                actor.refused == Some(self.releases)
                    || actor.paused == Some(self.outcome.steps.len()) && !pausing_too
                    || actor.status != Status::Waiting
            };
            let living = self.actors.iter().enumerate().filter(|(_, actor)| !waits(actor)).map(|(id, _)| Step::Go(id));
            let dying = self.processes.iter().enumerate().flat_map(|(process, Process { dying, .. })| {
                (0..dying.len()).map(move |nth| Step::Close { process, nth })
            });
            living.chain(dying).collect::<Vec<_>>()
        };
        let options = ready(false);
        if options.is_empty() { ready(true) } else { options }
    }

    fn open_gate(&self, actor: usize, to: Gate) {
        let (gate, changed) = &*self.actors[actor].gate;
        *gate.lock().unwrap_or_else(PoisonError::into_inner) = to;
        changed.notify_one();
    }

    /// Ends the threads of these actors: from now on none of their calls has an effect.
    fn end_threads(&mut self, those: impl Fn(&Actor) -> bool) {
        for actor in 0..self.actors.len() {
            if self.actors[actor].status == Status::Waiting && those(&self.actors[actor]) {
                self.actors[actor].status = Status::Dying;
                self.open_gate(actor, Gate::Killed);
            }
        }
    }

    fn kill(&mut self, number: usize, tracing: bool) {
        let process = &mut self.processes[number];
        process.killed = true;
        process.dying = std::mem::take(&mut process.locks);
        self.outcome.kills.push((number, process.calls));
        if tracing {
            let held: Vec<_> = process.dying.iter().map(|fd| super::path_of(*fd)).collect();
            self.outcome.trace.push(format!("P{number} is killed, holding locks of [{}]", held.join(", ")));
        }
        self.last = Some(Step::Close { process: number, nth: 0 });
        self.end_threads(|actor| actor.process == number);
    }

    fn next(&mut self, options: &[Step]) -> Step {
        let cold = |step: &Step| matches!(step, Step::Go(actor) if self.processes.get(*actor).is_some_and(|process| process.cold));
        let number = self.outcome.steps.len();
        if let Some(step) = options.iter().copied().find(cold) {
            self.plan.strategy.skip();
            return step;
        }
        self.plan.strategy.choose(options, self.last, number)
    }

    /// Makes the steps of killed processes until an actor can go on. Ends the run if there is none.
    fn go_on(&mut self, run: &Run) {
        loop {
            let options = self.options();
            if options.is_empty() || self.outcome.steps.len() >= MAX_STEPS {
                let stuck = self.actors.iter().any(|actor| actor.status == Status::Waiting);
                if stuck {
                    let what = if options.is_empty() { "a deadlock" } else { "no end" };
                    let text = format!("{what} after {} steps", self.outcome.steps.len());
                    self.outcome.broken.push(Broken::new(Promise::Waiting, text));
                    self.outcome.stuck = true;
                    self.end_threads(|_| true);
                }
                self.over = true;
                run.ended.notify_all();
                return;
            }
            let step = self.next(&options);
            self.outcome.steps.push(step);
            self.last = Some(step);
            match step {
                Step::Close { process, nth } => {
                    let fd = self.processes[process].dying.remove(nth);
                    if run.tracing {
                        self.outcome.trace.push(format!("P{process} is dead: close {}", super::path_of(fd)));
                    }
                    close_now(fd);
                    self.table.close(fd);
                    self.releases += 1;
                }
                Step::Go(actor) => {
                    let number = self.actors[actor].process;
                    let process = &mut self.processes[number];
                    if self.plan.kills.strike(number, process.calls, process.locks.len()) {
                        self.kill(number, run.tracing);
                        // The last of its threads that ends goes on.
                        return;
                    }
                    process.calls += 1;
                    let actor_state = &mut self.actors[actor];
                    (actor_state.status, actor_state.refused, actor_state.paused) = (Status::Running, None, None);
                    self.open_gate(actor, Gate::Open);
                    return;
                }
            }
        }
    }
}

impl Run {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a thread in the process of an actor.
    pub(super) fn spawn(self: &Arc<Self>, actor: usize, work: impl FnOnce() + Send + 'static) {
        let process = self.state().actors[actor].process;
        self.start(process, Box::new(work));
    }

    fn start(self: &Arc<Self>, process: usize, work: Box<dyn FnOnce() + Send>) {
        let gate = Arc::new((Mutex::new(Gate::Shut), Condvar::new()));
        let mut state = self.state();
        let id = state.actors.len();
        let status = Status::Waiting;
        state.actors.push(Actor { process, status, gate, refused: None, paused: None, randoms: 0 });
        let run = Arc::clone(self);
        let body = move || {
            ME.set(Some(Me { run: Arc::clone(&run), actor: id }));
            let result = catch_unwind(AssertUnwindSafe(|| {
                if run.turn(id, FIRST_STEP, "") {
                    work();
                }
            }));
            MUTED.set(true);
            ME.set(None);
            run.end(id, result.err());
        };
        let thread = std::thread::Builder::new().stack_size(512 * 1024).spawn(body).expect("a thread for an actor");
        state.threads.push(thread);
    }

    /// The thread of an actor has ended, by itself or after a kill.
    fn end(&self, id: usize, panic: Option<Box<dyn std::any::Any + Send>>) {
        let mut state = self.state();
        let (number, was) = (state.actors[id].process, state.actors[id].status);
        state.actors[id].status = Status::Ended;
        if was == Status::Dying {
            let last = state.actors.iter().all(|actor| actor.status != Status::Dying);
            if last && !state.over {
                state.go_on(self);
            }
            return;
        }
        if let Some(panic) = panic.filter(|panic| !panic.is::<Killed>()) {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("something else than a text");
            state.outcome.broken.push(Broken::new(Promise::Errors, format!("P{number} panics: {text}")));
        }
        let ended = state.actors.iter().all(|actor| actor.process != number || actor.status == Status::Ended);
        if ended && !state.processes[number].locks.is_empty() {
            let text = format!("P{number} has ended and holds {} locks", state.processes[number].locks.len());
            state.outcome.broken.push(Broken::new(Promise::Waiting, text));
        }
        if self.tracing {
            state.outcome.trace.push(format!("P{number}{} ends", if id == number { "" } else { "'" }));
        }
        state.go_on(self);
    }
}

/// Runs these processes to their ends, as a plan says. `owners` has the owners of the inodes that exist already.
pub(super) fn explore(jobs: Vec<Job>, plan: Plan, owners: Owners, observer: Observer, tracing: bool) -> Outcome {
    let process = |job: &Job| Process { identity: job.identity, cold: job.starts_in_body, ..Process::default() };
    let users = jobs.iter().any(|job| job.identity.user.is_some()) || !owners.is_empty();
    let state = State {
        actors: Vec::new(),
        processes: jobs.iter().map(process).collect(),
        threads: Vec::new(),
        plan,
        last: None,
        releases: 0,
        table: Table::default(),
        owners,
        outcome: Outcome::default(),
        over: false,
    };
    let domains = jobs.iter().any(|job| job.identity.domain.is_some());
    let run = Arc::new(Run { state: Mutex::new(state), ended: Condvar::new(), observer, tracing, domains, users });
    for (process, job) in jobs.into_iter().enumerate() {
        run.start(process, job.work);
    }
    let mut state = run.state();
    state.go_on(&run);
    while !state.over {
        state = run.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    let threads = std::mem::take(&mut state.threads);
    drop(state);
    for thread in threads {
        thread.join().expect("an actor's thread catches its panic");
    }
    let mut state = run.state();
    let mut outcome = std::mem::take(&mut state.outcome);
    outcome.owners = std::mem::take(&mut state.owners);
    for process in &state.processes {
        outcome.calls.push(process.calls);
        for fd in &process.dying {
            close_now(*fd);
        }
    }
    if let Strategy::Exhaustive { forks, .. } = &mut state.plan.strategy {
        outcome.forks = std::mem::take(forks);
    }
    outcome
}

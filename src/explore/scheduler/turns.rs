//! The calls of an actor to the scheduler: it asks for its turn, for a lock, for its lock domain and user.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, PoisonError};

use nix::errno::Errno;

use super::{CALLS_THAT_CHANGE_NAMES, FIRST_STEP, Gate, Identity, Run, Status};
use crate::explore::owners::{Owners, identify_locked};
use crate::explore::strategy::Rng;
use crate::explore::{KILLED, muted};

impl Run {
    /// Waits for this actor's turn to make a call; `false` if it was killed.
    pub(in crate::explore) fn turn(&self, actor: usize, name: &str, about: &str) -> bool {
        let mut state = self.state();
        // The gate may be open before the thread comes here for the first time.
        if name != FIRST_STEP && state.actors[actor].status == Status::Running {
            state.actors[actor].status = Status::Waiting;
            state.go_on(self);
        }
        let gate = Arc::clone(&state.actors[actor].gate);
        drop(state);
        let (gate, changed) = &*gate;
        let mut now = gate.lock().unwrap_or_else(PoisonError::into_inner);
        while *now == Gate::Shut {
            now = changed.wait(now).unwrap_or_else(PoisonError::into_inner);
        }
        if *now == Gate::Killed {
            KILLED.set(true);
            return false;
        }
        *now = Gate::Shut;
        drop(now);
        if self.tracing && name != FIRST_STEP {
            let mut state = self.state();
            let process = state.actors[actor].process;
            let prime = if actor == process { "" } else { "'" };
            state.outcome.trace.push(format!("P{process}{prime} {name} {about}").trim_end().to_owned());
        }
        true
    }

    /// Waits for this actor's turn at a point of a role's body.
    pub(in crate::explore) fn arrive(&self, actor: usize, name: &str) -> bool {
        if let Some(process) = self.state().processes.get_mut(actor) {
            process.cold = false;
        }
        self.turn(actor, name, "")
    }

    /// Lets the observer look at the destination after a call, if the call can have changed it.
    pub(in crate::explore) fn observe(&self, actor: usize, name: &str, error: Option<Errno>) {
        if let (Some(error), true) = (error, self.tracing) {
            if let Some(last) = self.state().outcome.trace.last_mut() {
                last.extend([" = ", &format!("{error:?}")]);
            }
        }
        if CALLS_THAT_CHANGE_NAMES.contains(&name) {
            let process = self.state().actors[actor].process;
            if let Some(broken) = muted(|| (self.observer)(process)) {
                let mut state = self.state();
                if self.tracing {
                    state.outcome.trace.push(format!("    ! {broken}"));
                }
                state.outcome.broken.push(broken);
            }
        }
    }

    /// Tries to take a lock, or lets it go.
    pub(in crate::explore) fn lock(
        &self,
        actor: usize,
        fd: BorrowedFd,
        how: i32,
        call: &impl Fn(i32) -> nix::Result<i32>,
    ) -> nix::Result<i32> {
        let mut state = self.state();
        let (process, raw) = (state.actors[actor].process, fd.as_raw_fd());
        let answer = if self.domains {
            let domain = state.processes[process].identity.domain;
            state.table.lock(domain, identify_locked(fd), raw, how)
        } else {
            call(how | libc::LOCK_NB)
        };
        let locks = &mut state.processes[process].locks;
        if answer.is_ok() && how & libc::LOCK_UN != 0 {
            locks.retain(|lock| *lock != raw);
            state.releases += 1;
        } else if answer.is_ok() && !locks.contains(&raw) {
            locks.push(raw);
        }
        answer
    }

    /// Lets others go on until one of them has let a lock go; `false` if the actor was killed meanwhile.
    pub(in crate::explore) fn wait_for_a_lock(&self, actor: usize, about: &str) -> bool {
        let mut state = self.state();
        state.actors[actor].refused = Some(state.releases);
        drop(state);
        self.turn(actor, "flock, again", about)
    }

    pub(in crate::explore) fn pause(&self, actor: usize) {
        let mut state = self.state();
        state.actors[actor].paused = Some(state.outcome.steps.len());
    }

    /// Does this descriptor hold a lock of the actor's process?
    pub(in crate::explore) fn holds(&self, actor: usize, fd: RawFd) -> bool {
        let state = self.state();
        state.processes[state.actors[actor].process].locks.contains(&fd)
    }

    pub(in crate::explore) fn is_dying(&self, actor: usize, fd: RawFd) -> bool {
        let state = self.state();
        state.processes[state.actors[actor].process].dying.contains(&fd)
    }

    /// A descriptor that held a lock is closed.
    pub(in crate::explore) fn let_go(&self, actor: usize, fd: RawFd) {
        let mut state = self.state();
        let process = state.actors[actor].process;
        state.processes[process].locks.retain(|lock| *lock != fd);
        state.table.close(fd);
        state.releases += 1;
    }

    pub(in crate::explore) fn traces(&self) -> bool {
        self.tracing
    }

    pub(in crate::explore) fn identity(&self, actor: usize) -> Identity {
        if !self.domains && !self.users {
            return Identity::default();
        }
        let state = self.state();
        state.processes[state.actors[actor].process].identity
    }

    pub(in crate::explore) fn random(&self, actor: usize) -> u64 {
        let mut state = self.state();
        state.actors[actor].randoms += 1;
        Rng(actor as u64 * 1_000 + state.actors[actor].randoms).next()
    }

    pub(in crate::explore) fn owners<T: Default>(&self, ask: impl FnOnce(&mut Owners) -> T) -> T {
        if self.users { ask(&mut self.state().owners) } else { T::default() }
    }
}

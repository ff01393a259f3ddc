//! Who runs next. Actors are threads, and only the one whose turn it is runs: before each operation on the
//! disk it asks, and a seed decides who goes on. So the same seed gives the same interleaving, whatever the
//! machine does.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::seeded::Choices;

#[derive(Debug)]
struct State {
    choices: Choices,
    /// Actors that are not done.
    alive: BTreeSet<usize>,
    /// Actors that have not started yet: nobody runs before all have.
    awaited: usize,
    running: Option<usize>,
    turns: u64,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// A schedule for a fixed number of actors.
#[derive(Clone, Debug)]
pub struct Schedule {
    shared: Arc<Shared>,
}

/// One actor's place in a schedule. Clones are the same actor.
#[derive(Clone)]
pub struct Turn {
    shared: Arc<Shared>,
    actor: usize,
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Turn(of actor {})", self.actor)
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn pass_on(&mut self) {
        let count = self.alive.len() as u64;
        self.turns += 1;
        self.running = match count {
            0 => None,
            _ => self.alive.iter().nth(self.choices.below(count) as usize).copied(),
        };
    }
}

impl Schedule {
    /// A schedule that a seed decides.
    #[must_use]
    pub fn new(seed: u64, actors: usize) -> Self {
        let state = State {
            choices: Choices::new(seed),
            alive: (0..actors).collect(),
            awaited: actors,
            running: None,
            turns: 0,
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }) }
    }

    /// Turns taken so far.
    #[must_use]
    pub fn turns(&self) -> u64 {
        lock(&self.shared).turns
    }

    /// Runs actors until all are done; a panic of one is passed on when the others are done.
    pub fn run<'a>(&self, actors: Vec<Box<dyn FnOnce(Turn) + Send + 'a>>) {
        std::thread::scope(|scope| {
            for (actor, act) in actors.into_iter().enumerate() {
                let turn = Turn { shared: Arc::clone(&self.shared), actor };
                scope.spawn(move || {
                    let _leaving = Leaving(turn.clone());
                    turn.begin();
                    act(turn.clone());
                });
            }
        });
    }
}

impl Turn {
    fn begin(&self) {
        let mut state = lock(&self.shared);
        state.awaited -= 1;
        if state.awaited == 0 {
            state.pass_on();
            self.shared.changed.notify_all();
        }
        self.until_running(state);
    }

    /// Lets the seed decide who goes on, and waits until it is this one.
    pub fn wait(&self) {
        let mut state = lock(&self.shared);
        // Files that are closed after the actor has left, or that it never was in, have no turn to take.
        if state.running != Some(self.actor) {
            return;
        }
        state.pass_on();
        if state.running == Some(self.actor) {
            return;
        }
        self.shared.changed.notify_all();
        self.until_running(state);
    }

    fn until_running(&self, mut state: MutexGuard<'_, State>) {
        while state.running != Some(self.actor) {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Passes the turn on when an actor is done, also by a panic.
struct Leaving(Turn);

impl Drop for Leaving {
    fn drop(&mut self) {
        let mut state = lock(&self.0.shared);
        state.alive.remove(&self.0.actor);
        state.pass_on();
        self.0.shared.changed.notify_all();
    }
}

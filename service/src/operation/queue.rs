//! The queues: one line for each application, first come first served, and a bound on how many lines move at
//! once.
//!
//! Invariants: the front of a line is the only one of it that runs; a name that a waiting operation will
//! bring into being is taken; nothing starts before its record is durable; nobody is told of an end before
//! that is durable too.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Semaphore, watch};

use crate::metrics::Metrics;
use crate::operation::journal::Record;
use crate::operation::{Journal, Operation, ProgressView, Secret, State, Task, Work};
use crate::problem::{Problem, Result};

/// Operations that wait for one application; more are refused: a queue that only grows helps nobody.
const WAITING_MAX: usize = 1000;
/// Ended operations that are remembered.
const HISTORY_MAX: usize = 1000;
/// How often an operation that a restart has cut off is begun again.
const ATTEMPTS_MAX: u32 = 5;

/// Does what tasks say. Called on threads that may block.
pub trait Performer: Send + Sync + 'static {
    /// Does it; the value is the operation's result.
    fn perform(&self, app: &str, task: &Task, secret: Option<&Secret>, work: &Work) -> Result<Value>;
    /// What becomes of a task that a daemon before this one has begun and not ended: `Ok(Some)` when it was
    /// done in fact, `Ok(None)` to do it again, or why it failed.
    fn resolve(&self, app: &str, task: &Task) -> Result<Option<Value>>;
    /// The task has come to its end, or was not taken at all: what was kept for it outside goes.
    fn ended(&self, _task: &Task) {}
}

/// What is asked for.
#[derive(Debug)]
pub struct Order {
    /// Application; empty for the repository as a whole.
    pub app: String,
    /// What to do.
    pub task: Task,
    /// A passphrase, for the tasks that need one.
    pub secret: Option<Secret>,
    /// Who asks.
    pub actor: String,
    /// How long it may take, waiting included.
    pub deadline: Duration,
}

/// Hears of every change of one operation.
pub type Watch = watch::Receiver<Operation>;

type Job = Box<dyn FnOnce(&Work) -> Result<Value> + Send>;

/// All operations of the daemon.
#[derive(Clone)]
pub struct Operations {
    shared: Arc<Shared>,
}

struct Shared {
    performer: Arc<dyn Performer>,
    journal: Journal,
    metrics: Arc<Metrics>,
    lines: Mutex<Lines>,
    /// How many may run at once, over all applications.
    slots: Arc<Semaphore>,
    slots_total: usize,
}

#[derive(Default)]
struct Lines {
    entries: BTreeMap<String, Entry>,
    /// Application → ids; the first runs.
    waiting: HashMap<String, VecDeque<String>>,
    closing: bool,
}

struct Entry {
    view: watch::Sender<Operation>,
    task: Task,
    secret: Option<Secret>,
    /// Instead of the performer, for work that belongs to one request.
    job: Option<Job>,
    interrupt: Arc<AtomicBool>,
    stop: Option<Stop>,
    /// Its record is durable: it may start.
    ready: bool,
    deadline: tokio::time::Instant,
}

/// Why an operation was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Canceled,
    Deadline,
    /// The daemon ends; the next one goes on with it.
    Shutdown,
}

impl Operations {
    /// With an empty history; [`Self::restore`] reads the one on disk.
    #[must_use]
    pub fn new(performer: Arc<dyn Performer>, journal: Journal, metrics: Arc<Metrics>, at_once: usize) -> Self {
        let slots_total = at_once.max(1);
        let slots = Arc::new(Semaphore::new(slots_total));
        Self { shared: Arc::new(Shared { performer, journal, metrics, lines: Mutex::default(), slots, slots_total }) }
    }

    /// Reads the journal; what was waiting waits again, what was cut off is done again, or taken back.
    /// Returns sentences for the log.
    pub fn restore(&self) -> Result<Vec<String>> {
        let (records, mut sentences) = self.shared.journal.read()?;
        for record in records {
            let Record { mut operation, task } = record;
            if operation.state == State::Running {
                let name = format!("{} {}", operation.verb, operation.subject);
                let resolved = if operation.attempts >= ATTEMPTS_MAX {
                    Err(Problem::interrupted(format!(
                        "the daemon ended {} times in the middle of it",
                        operation.attempts
                    )))
                } else {
                    self.shared.performer.resolve(&operation.app, &task)
                };
                match resolved {
                    Ok(None) => {
                        operation.state = State::Queued;
                        sentences.push(format!("{name} was cut off and is begun again"));
                    }
                    Ok(Some(result)) => {
                        (operation.state, operation.result) = (State::Succeeded, Some(result));
                        sentences.push(format!("{name} had been done"));
                    }
                    Err(problem) => {
                        (operation.state, operation.error) = (State::Failed, Some((*problem).clone()));
                        sentences.push(format!("{name} was cut off: {}", problem.detail));
                    }
                }
            } else if operation.state == State::Queued && matches!(task, Task::Import { .. }) {
                let problem = Problem::interrupted("the daemon ended before the bundle was read; send it again");
                (operation.state, operation.error) = (State::Failed, Some((*problem).clone()));
            }
            if operation.state.is_final() && operation.ended.is_none() {
                operation.ended = Some(now());
                self.shared.journal.write(&Record { operation: operation.clone(), task: task.clone() })?;
            }
            self.put_back(operation, task);
        }
        let lines: Vec<String> = self.shared.lines().waiting.keys().cloned().collect();
        for app in lines {
            self.shared.advance(&app);
        }
        self.shared.forget_old();
        Ok(sentences)
    }

    fn put_back(&self, operation: Operation, task: Task) {
        let left = operation
            .deadline
            .parse::<jiff::Timestamp>()
            .ok()
            .and_then(|deadline| Duration::try_from(deadline - jiff::Timestamp::now()).ok())
            .unwrap_or(Duration::ZERO);
        let (id, app, is_final) = (operation.id.clone(), operation.app.clone(), operation.state.is_final());
        let mut entry = Entry::new(operation, task, None, None, left);
        entry.ready = true;
        let mut lines = self.shared.lines();
        lines.entries.insert(id.clone(), entry);
        if !is_final {
            lines.waiting.entry(app).or_default().push_back(id);
        }
    }

    /// Puts work at the end of its application's line. The operation is durable when this returns.
    pub async fn submit(&self, order: Order) -> Result<Watch> {
        let shared = Arc::clone(&self.shared);
        // A client who goes away must not leave half an operation behind.
        let submitted = tokio::spawn(async move {
            let task = order.task.clone();
            let (id, watch, record) = shared.enqueue(order, None).inspect_err(|_| shared.performer.ended(&task))?;
            let journal = shared.journal.clone();
            let written = tokio::task::spawn_blocking(move || journal.write(&record)).await;
            match written.map_err(|error| Problem::internal(error.to_string())).and_then(|written| Ok(written?)) {
                Ok(()) => {
                    shared.make_ready(&id);
                    Ok(watch)
                }
                Err(problem) => {
                    shared.withdraw(&id);
                    shared.performer.ended(&task);
                    Err(problem)
                }
            }
        });
        submitted.await.map_err(|error| Problem::internal(error.to_string()))?
    }

    /// Runs work that belongs to one request, at once and beside everything else. It is listed and can be
    /// canceled; it is not on disk, because it cannot outlive the request.
    pub fn run_beside(&self, order: Order, job: impl FnOnce(&Work) -> Result<Value> + Send + 'static) -> Result<Watch> {
        let (id, watch, _) = self.shared.enqueue(order, Some(Box::new(job)))?;
        self.shared.start(&id);
        Ok(watch)
    }

    /// Hears of one operation.
    #[must_use]
    pub fn watch(&self, id: &str) -> Option<Watch> {
        self.shared.lines().entries.get(id).map(|entry| entry.view.subscribe())
    }

    /// All that are remembered, newest first.
    #[must_use]
    pub fn list(&self) -> Vec<Operation> {
        self.shared.lines().entries.values().rev().map(|entry| entry.view.borrow().clone()).collect()
    }

    /// Those that have not ended, oldest first.
    #[must_use]
    pub fn active(&self) -> Vec<Operation> {
        let lines = self.shared.lines();
        // Of a thousand that are remembered some two have not ended: only these are copied.
        let active = lines.entries.values().filter(|entry| !entry.view.borrow().state.is_final());
        active.map(|entry| entry.view.borrow().clone()).collect()
    }

    /// Asks an operation to stop: one that waits ends at once, one that runs at its next safe point.
    pub fn cancel(&self, id: &str) -> Result<Operation> {
        let view = {
            let mut lines = self.shared.lines();
            let entry = lines.entries.get_mut(id);
            let entry = entry.ok_or_else(|| Problem::not_found("no-such-operation", format!("no operation {id}")))?;
            let view = entry.view.borrow().clone();
            if view.state.is_final() {
                let detail = format!("the operation has {} already", view.state.name());
                return Err(Problem::conflict("not-running", detail, "nothing is left to cancel"));
            }
            entry.stop.get_or_insert(Stop::Canceled);
            entry.interrupt.store(true, Ordering::Relaxed);
            view
        };
        if view.state == State::Queued {
            self.shared.end(id, Err(Problem::canceled()));
        }
        Ok(self.watch(id).map_or(view, |watch| watch.borrow().clone()))
    }

    /// Takes no more work, gives what runs some time, then has it stop; what did not end goes on with the
    /// next daemon.
    pub async fn close(&self, grace: Duration) {
        self.shared.lines().closing = true;
        let running = || self.active().into_iter().filter(|view| view.state == State::Running).count();
        let deadline = tokio::time::Instant::now() + grace;
        while running() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for entry in self.shared.lines().entries.values_mut() {
            entry.stop.get_or_insert(Stop::Shutdown);
            entry.interrupt.store(true, Ordering::Relaxed);
        }
        // The engine looks at the interrupt many times a second; a hook that hangs has its own deadline.
        let limit = tokio::time::Instant::now() + Duration::from_secs(60);
        while self.shared.slots.available_permits() < self.shared.slots_total && tokio::time::Instant::now() < limit {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Waits for the end of an operation, at most so long.
pub async fn wait(watch: &mut Watch, limit: Option<Duration>) -> Operation {
    let ended = async {
        // The sender lives as long as the operation is remembered: longer than anybody waits.
        let _ = watch.wait_for(|operation| operation.state.is_final()).await;
    };
    match limit {
        Some(limit) => drop(tokio::time::timeout(limit, ended).await),
        None => ended.await,
    }
    watch.borrow().clone()
}

impl Entry {
    fn new(operation: Operation, task: Task, secret: Option<Secret>, job: Option<Job>, left: Duration) -> Self {
        Self {
            view: watch::Sender::new(operation),
            task,
            secret,
            job,
            interrupt: Arc::default(),
            stop: None,
            ready: false,
            deadline: tokio::time::Instant::now() + left,
        }
    }
}

impl Shared {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place in the line. With a job of its own it has no line.
    fn enqueue(&self, order: Order, job: Option<Job>) -> Result<(String, Watch, Record)> {
        let Order { app, task, secret, actor, deadline } = order;
        let now = jiff::Timestamp::now();
        let mut lines = self.lines();
        if lines.closing {
            return Err(Problem::unavailable("the daemon is about to end"));
        }
        if let Some(name) = task.new_name()
            && lines.is_promised(&app, name)
        {
            return Err(Problem::name_promised(name));
        }
        let waiting = lines.waiting.get(&app).map_or(0, VecDeque::len);
        if job.is_none() && waiting >= WAITING_MAX {
            return Err(Problem::too_many(format!("{waiting} operations wait already")));
        }
        let operation = Operation {
            id: uuid::Uuid::now_v7().to_string(),
            verb: task.verb().into(),
            app: app.clone(),
            subject: task.subject().into(),
            state: State::Queued,
            position: if job.is_some() { 0 } else { waiting as u64 },
            progress: ProgressView::default(),
            actor,
            created: now.to_string(),
            started: None,
            ended: None,
            deadline: now.checked_add(deadline).unwrap_or(jiff::Timestamp::MAX).to_string(),
            attempts: 0,
            notices: Vec::new(),
            result: None,
            error: None,
        };
        let id = operation.id.clone();
        let record = Record { operation: operation.clone(), task: task.clone() };
        let has_line = job.is_none();
        let entry = Entry::new(operation, task, secret, job, deadline);
        let watch = entry.view.subscribe();
        lines.entries.insert(id.clone(), entry);
        if has_line {
            lines.waiting.entry(app).or_default().push_back(id.clone());
        }
        Ok((id, watch, record))
    }

    fn make_ready(self: &Arc<Self>, id: &str) {
        let app = {
            let mut lines = self.lines();
            let Some(entry) = lines.entries.get_mut(id) else { return };
            entry.ready = true;
            entry.view.borrow().app.clone()
        };
        self.advance(&app);
    }

    /// It was never durable: it never was.
    fn withdraw(self: &Arc<Self>, id: &str) {
        let mut lines = self.lines();
        let Some(entry) = lines.entries.remove(id) else { return };
        let app = entry.view.borrow().app.clone();
        lines.leave(&app, id);
        drop(lines);
        self.advance(&app);
    }

    /// Starts the front of a line when it can start, and says to the others where they stand.
    fn advance(self: &Arc<Self>, app: &str) {
        let start = {
            let lines = self.lines();
            let Some(line) = lines.waiting.get(app) else { return };
            for (position, id) in (0u64..).zip(line) {
                if let Some(entry) = lines.entries.get(id) {
                    entry.view.send_if_modified(|view| {
                        let moved = view.position != position;
                        view.position = position;
                        moved
                    });
                }
            }
            let front = line.front().and_then(|id| lines.entries.get(id).map(|entry| (id, entry)));
            front
                .filter(|(_, entry)| !lines.closing && entry.ready && entry.view.borrow().state == State::Queued)
                .map(|(id, _)| id.clone())
        };
        if let Some(id) = start {
            self.start(&id);
        }
    }

    fn start(self: &Arc<Self>, id: &str) {
        let deadline = {
            let mut lines = self.lines();
            let Some(entry) = lines.entries.get_mut(id) else { return };
            let mut begins = false;
            entry.view.send_if_modified(|view| {
                begins = view.state == State::Queued;
                if begins {
                    view.state = State::Running;
                    view.started = Some(now());
                    view.attempts += 1;
                }
                begins
            });
            if !begins {
                return;
            }
            entry.deadline
        };
        let (shared, id) = (Arc::clone(self), id.to_owned());
        tokio::spawn(async move {
            let watchdog = tokio::spawn(Arc::clone(&shared).stop_at(id.clone(), deadline));
            let permit = Arc::clone(&shared.slots).acquire_owned().await;
            let worker = Arc::clone(&shared);
            let done = tokio::task::spawn_blocking(move || worker.run(&id)).await;
            watchdog.abort();
            drop(permit);
            if let Err(error) = done {
                tracing::error!(%error, "a worker of an operation died");
            }
        });
    }

    async fn stop_at(self: Arc<Self>, id: String, deadline: tokio::time::Instant) {
        tokio::time::sleep_until(deadline).await;
        if let Some(entry) = self.lines().entries.get_mut(&id) {
            entry.stop.get_or_insert(Stop::Deadline);
            entry.interrupt.store(true, Ordering::Relaxed);
        }
    }

    /// On a thread that may block: the record, the work, the end.
    fn run(self: &Arc<Self>, id: &str) {
        let (task, app, secret, job, work, record) = {
            let mut lines = self.lines();
            let Some(entry) = lines.entries.get_mut(id) else { return };
            let work = Work::new(Arc::clone(&entry.interrupt), entry.view.clone());
            let operation = entry.view.borrow().clone();
            let app = operation.app.clone();
            let record = Record { operation, task: entry.task.clone() };
            (entry.task.clone(), app, entry.secret.take(), entry.job.take(), work, record)
        };
        let durable = job.is_none();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            if work.is_interrupted() {
                return Err(Problem::canceled());
            }
            match job {
                Some(job) => job(&work),
                None => {
                    self.journal.write(&record)?;
                    self.performer.perform(&app, &task, secret.as_ref(), &work)
                }
            }
        }));
        let outcome = outcome.unwrap_or_else(|panic| Err(Problem::internal(panic_text(&*panic))));
        if durable { self.end(id, outcome) } else { self.end_beside(id, outcome) }
    }

    fn end_beside(self: &Arc<Self>, id: &str, outcome: Result<Value>) {
        let Some((view, stop)) = self.stop_of(id) else { return };
        let ended = ended(view, outcome, stop);
        self.publish(id, ended);
        self.forget_old();
    }

    fn end(self: &Arc<Self>, id: &str, outcome: Result<Value>) {
        let Some((view, stop)) = self.stop_of(id) else { return };
        let app = view.app.clone();
        if outcome.is_err() && stop == Some(Stop::Shutdown) {
            // Its record says that it runs: the next daemon goes on with it.
            return;
        }
        let ended = ended(view, outcome, stop);
        let task = self.lines().entries.get(id).map(|entry| entry.task.clone());
        if let Some(task) = task {
            self.performer.ended(&task);
            if let Err(error) = self.journal.write(&Record { operation: ended.clone(), task }) {
                tracing::error!(%error, operation = id, "the end of an operation could not be kept");
            }
        }
        // Who hears of the end may ask for the same name again at once.
        self.lines().leave(&app, id);
        self.publish(id, ended);
        self.advance(&app);
        self.forget_old();
    }

    fn stop_of(&self, id: &str) -> Option<(Operation, Option<Stop>)> {
        let lines = self.lines();
        let entry = lines.entries.get(id)?;
        let view = entry.view.borrow().clone();
        if view.state.is_final() { None } else { Some((view, entry.stop)) }
    }

    fn publish(&self, id: &str, ended: Operation) {
        self.metrics.operation_ended(&ended);
        tracing::info!(
            operation = %ended.id, verb = %ended.verb, app = %ended.app, subject = %ended.subject, actor = %ended.actor,
            state = ended.state.name(), code = ended.error.as_ref().map(|error| error.code.as_str()), "an operation ended"
        );
        if let Some(entry) = self.lines().entries.get(id) {
            entry.view.send_replace(ended);
        }
    }

    fn forget_old(&self) {
        let forgotten: Vec<String> = {
            let mut lines = self.lines();
            let ended: Vec<String> = lines
                .entries
                .iter()
                .filter(|(_, entry)| entry.view.borrow().state.is_final())
                .map(|(id, _)| id.clone())
                .collect();
            let surplus = ended.len().saturating_sub(HISTORY_MAX);
            ended.into_iter().take(surplus).inspect(|id| drop(lines.entries.remove(id))).collect()
        };
        for id in forgotten {
            if let Err(error) = self.journal.remove(&id) {
                tracing::warn!(%error, operation = id, "an old operation could not be forgotten");
            }
        }
    }
}

impl Lines {
    /// Whether an operation that has not ended will bring this name into being.
    fn is_promised(&self, app: &str, name: &str) -> bool {
        self.waiting.get(app).is_some_and(|line| {
            line.iter().any(|id| self.entries.get(id).is_some_and(|entry| entry.task.new_name() == Some(name)))
        })
    }

    fn leave(&mut self, app: &str, id: &str) {
        if let Some(line) = self.waiting.get_mut(app) {
            line.retain(|waiting| waiting != id);
            if line.is_empty() {
                self.waiting.remove(app);
            }
        }
    }
}

fn ended(mut view: Operation, outcome: Result<Value>, stop: Option<Stop>) -> Operation {
    view.ended = Some(now());
    view.position = 0;
    match outcome {
        Ok(result) => {
            view.state = State::Succeeded;
            view.result = Some(result);
        }
        Err(problem) => {
            let (state, problem) = match stop {
                Some(Stop::Canceled) if problem.exit == "interrupted" => (State::Canceled, Problem::canceled()),
                Some(Stop::Deadline) if problem.exit == "interrupted" => {
                    (State::Failed, Problem::deadline(format!("it was not done by its deadline, {}", view.deadline)))
                }
                _ => (State::Failed, problem),
            };
            view.state = state;
            view.error = Some((*problem).clone());
        }
    }
    view
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without words".into())
}

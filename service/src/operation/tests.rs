//! Goal: the queues keep their order, their promises and their records. Method: a performer whose work ends
//! when the test says so, over a journal on the real disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Journal, Operation, Operations, Order, Performer, Secret, State, Task, Watch, Work, wait};
use crate::metrics::Metrics;
use crate::problem::{Problem, Result};

/// Work that goes on until its name is let go, or it is interrupted.
#[derive(Default)]
struct Gate {
    open: Mutex<BTreeMap<String, bool>>,
    opened: Condvar,
    running: AtomicUsize,
    most_running: AtomicUsize,
}

impl Gate {
    fn let_go(&self, name: &str) {
        self.open.lock().unwrap().insert(name.to_owned(), true);
        self.opened.notify_all();
    }
}

impl Performer for Gate {
    fn perform(&self, _app: &str, task: &Task, _secret: Option<&Secret>, work: &Work) -> Result<Value> {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_running.fetch_max(running, Ordering::SeqCst);
        // A test that fails lets go of nothing, and its runtime waits for this thread.
        let limit = Instant::now() + Duration::from_secs(30);
        let mut open = self.open.lock().unwrap();
        while Instant::now() < limit && !open.get(task.subject()).copied().unwrap_or(false) && !work.is_interrupted() {
            open = self.opened.wait_timeout(open, Duration::from_millis(5)).unwrap().0;
        }
        drop(open);
        self.running.fetch_sub(1, Ordering::SeqCst);
        match task.subject() {
            _ if work.is_interrupted() => Err(copal_engine::Error::Interrupted.into()),
            "panics" => panic!("as asked for"),
            "fails" => Err(Problem::bad_request("as asked for")),
            name => Ok(json!({ "did": name })),
        }
    }

    fn resolve(&self, _app: &str, task: &Task) -> Result<Option<Value>> {
        match task.subject() {
            "was done" => Ok(Some(json!({}))),
            "cannot go on" => Err(Problem::interrupted("it cannot go on")),
            _ => Ok(None),
        }
    }
}

fn operations(folder: &Path, gate: &Arc<Gate>, at_once: usize) -> Operations {
    let performer: Arc<dyn Performer> = Arc::clone(gate) as Arc<dyn Performer>;
    Operations::new(performer, Journal::open(folder).unwrap(), Arc::new(Metrics::default()), at_once)
}

fn create(name: &str) -> Task {
    Task::Create { name: name.into(), tags: BTreeMap::new(), pinned: false }
}

fn order(app: &str, task: Task) -> Order {
    Order { app: app.into(), task, secret: None, actor: "test".into(), deadline: Duration::from_secs(60) }
}

async fn submit(operations: &Operations, app: &str, name: &str) -> Watch {
    operations.submit(order(app, create(name))).await.map_err(|problem| problem.detail.clone()).unwrap()
}

async fn reach(watch: &mut Watch, state: State) -> Operation {
    let reached = tokio::time::timeout(Duration::from_secs(10), watch.wait_for(|view| view.state == state)).await;
    reached.expect("the state is reached in time").unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_at_a_time_in_an_application_and_others_beside_it() {
    let (folder, gate) = (TempDir::new().unwrap(), Arc::new(Gate::default()));
    let operations = operations(folder.path(), &gate, 4);
    let mut a1 = submit(&operations, "a", "a1").await;
    let mut a2 = submit(&operations, "a", "a2").await;
    let mut a3 = submit(&operations, "a", "a3").await;
    let mut b1 = submit(&operations, "b", "b1").await;
    reach(&mut a1, State::Running).await;
    reach(&mut b1, State::Running).await;
    while gate.running.load(Ordering::SeqCst) < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((a2.borrow().state, a2.borrow().position), (State::Queued, 1));
    assert_eq!((a3.borrow().state, a3.borrow().position), (State::Queued, 2));
    gate.let_go("a1");
    reach(&mut a2, State::Running).await;
    assert_eq!(reach(&mut a1, State::Succeeded).await.result, Some(json!({ "did": "a1" })));
    tokio::time::timeout(Duration::from_secs(5), a3.wait_for(|view| view.position == 1)).await.unwrap().unwrap();
    for name in ["a3", "a2", "b1"] {
        gate.let_go(name);
    }
    for watch in [&mut a2, &mut a3, &mut b1] {
        reach(watch, State::Succeeded).await;
    }
    assert_eq!(gate.most_running.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_run_at_once_than_are_allowed() {
    let (folder, gate) = (TempDir::new().unwrap(), Arc::new(Gate::default()));
    let operations = operations(folder.path(), &gate, 2);
    let mut watches = Vec::new();
    for app in 0..6 {
        watches.push(submit(&operations, &format!("app{app}"), &format!("s{app}")).await);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    (0..6).for_each(|app| gate.let_go(&format!("s{app}")));
    for watch in &mut watches {
        reach(watch, State::Succeeded).await;
    }
    assert_eq!(gate.most_running.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promised_name_is_taken_until_its_operation_ends() {
    let (folder, gate) = (TempDir::new().unwrap(), Arc::new(Gate::default()));
    let operations = operations(folder.path(), &gate, 4);
    let mut first = submit(&operations, "a", "fails").await;
    assert_eq!(operations.submit(order("a", create("fails"))).await.unwrap_err().code, "name-taken");
    submit(&operations, "b", "fails").await;
    gate.let_go("fails");
    assert_eq!(reach(&mut first, State::Failed).await.error.unwrap().code, "usage");
    // It was never made: the name is free again.
    let mut again = submit(&operations, "a", "fails").await;
    reach(&mut again, State::Failed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn canceled_deadlines_and_panics_end_what_they_should() {
    let (folder, gate) = (TempDir::new().unwrap(), Arc::new(Gate::default()));
    let operations = operations(folder.path(), &gate, 4);
    let mut runs = submit(&operations, "a", "runs").await;
    let mut waits = submit(&operations, "a", "waits").await;
    reach(&mut runs, State::Running).await;
    let id = waits.borrow().id.clone();
    assert_eq!(operations.cancel(&id).unwrap().state, State::Canceled);
    assert_eq!(reach(&mut waits, State::Canceled).await.error.unwrap().exit_code, 130);
    let id = runs.borrow().id.clone();
    operations.cancel(&id).unwrap();
    reach(&mut runs, State::Canceled).await;
    assert_eq!(operations.cancel(&id).unwrap_err().code, "not-running");
    assert_eq!(operations.cancel("nothing").unwrap_err().status, 404);

    let hasty = Order { deadline: Duration::from_millis(50), ..order("a", create("late")) };
    let mut late = operations.submit(hasty).await.unwrap();
    let error = reach(&mut late, State::Failed).await.error.unwrap();
    assert_eq!((error.code.as_str(), error.exit_code), ("deadline", 78));

    gate.let_go("panics");
    let mut panics = submit(&operations, "a", "panics").await;
    assert_eq!(reach(&mut panics, State::Failed).await.error.unwrap().detail, "as asked for");
    gate.let_go("fine");
    let mut fine = submit(&operations, "a", "fine").await;
    reach(&mut fine, State::Succeeded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_of_one_request_runs_beside_the_queues_and_leaves_no_record() {
    let (folder, gate) = (TempDir::new().unwrap(), Arc::new(Gate::default()));
    let operations = operations(folder.path(), &gate, 4);
    let mut blocks = submit(&operations, "a", "blocks").await;
    reach(&mut blocks, State::Running).await;
    let task = Task::Export { id: "x".into(), name: "x".into() };
    let mut watch = operations.run_beside(order("a", task), |_| Ok(json!({ "bytes": 1 }))).unwrap();
    assert_eq!(wait(&mut watch, Some(Duration::from_secs(5))).await.state, State::Succeeded);
    assert_eq!(blocks.borrow().state, State::Running);
    // Beside a record stands the one that is about to replace it.
    let is_record = |path: &Path| path.extension().is_some_and(|extension| extension == "json");
    let files = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(files.filter(|path| is_record(path)).count(), 1);
    gate.let_go("blocks");
    reach(&mut blocks, State::Succeeded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h12_a_daemon_that_starts_again_goes_on_where_the_one_before_was_killed() {
    let folder = TempDir::new().unwrap();
    let names = ["runs", "waits first", "waits second"];
    let before = Arc::new(Gate::default());
    {
        let operations = operations(folder.path(), &before, 4);
        let mut watches = Vec::new();
        for name in names {
            watches.push(submit(&operations, "a", name).await);
        }
        for (app, name) in [("b", "was done"), ("c", "cannot go on")] {
            let mut watch = submit(&operations, app, name).await;
            reach(&mut watch, State::Running).await;
        }
        reach(&mut watches[0], State::Running).await;
        // A kill: nothing is written any more, what is on disk stays as it is.
    }
    let copy = TempDir::new().unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    std::fs::write(copy.path().join("half.new"), b"{").unwrap();
    std::fs::write(copy.path().join("damaged.json"), b"{").unwrap();

    let after = Arc::new(Gate::default());
    let operations = operations(copy.path(), &after, 4);
    let sentences = operations.restore().unwrap();
    assert!(sentences.iter().any(|sentence| sentence.contains("damaged.json")), "{sentences:?}");
    let by_name = |name: &str| operations.list().into_iter().find(|view| view.subject == name).unwrap();
    assert_eq!(by_name("was done").state, State::Succeeded);
    assert_eq!(by_name("cannot go on").error.unwrap().code, "interrupted");
    for (position, name) in names.iter().enumerate() {
        let id = by_name(name).id;
        let mut watch = operations.watch(&id).unwrap();
        reach(&mut watch, State::Running).await;
        assert_eq!(watch.borrow().attempts, if position == 0 { 2 } else { 1 });
        after.let_go(name);
        reach(&mut watch, State::Succeeded).await;
    }
    assert!(!copy.path().join("half.new").exists());
    names.iter().for_each(|name| before.let_go(name));
    ["was done", "cannot go on"].iter().for_each(|name| before.let_go(name));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_end_takes_no_more_work_and_keeps_what_is_left() {
    let (folder, gate) = (TempDir::new().unwrap(), Arc::new(Gate::default()));
    let operations = operations(folder.path(), &gate, 4);
    let mut short = submit(&operations, "a", "short").await;
    let mut long = submit(&operations, "b", "long").await;
    reach(&mut short, State::Running).await;
    reach(&mut long, State::Running).await;
    let closing = tokio::spawn({
        let operations = operations.clone();
        async move { operations.close(Duration::from_millis(300)).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(operations.submit(order("c", create("x"))).await.unwrap_err().code, "unavailable");
    gate.let_go("short");
    reach(&mut short, State::Succeeded).await;
    closing.await.unwrap();
    let (records, unreadable) = Journal::open(folder.path()).unwrap().read().unwrap();
    assert!(unreadable.is_empty());
    let states: Vec<State> = records.iter().map(|record| record.operation.state).collect();
    assert_eq!(states, [State::Succeeded, State::Running], "the long one goes on with the next daemon");
}

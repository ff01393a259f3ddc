//! What the daemon does by itself: snapshots and verifications of applications at the times of their
//! schedules.
//!
//! Runs missed while the daemon is down are skipped: the next one comes soon enough, and a machine that wakes
//! up has better things to do.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use copal_application::Application;
use croner::Cron;
use jiff::Zoned;

use crate::access::AuditLine;
use crate::daemon::Daemon;
use crate::operation::Task;
use crate::platform::Applications;
use crate::problem::{Problem, Result};

/// The longest sleep: a clock that is set, or a machine that slept, is noticed after it.
const LOOK_EACH: Duration = Duration::from_secs(30);

/// One line of a schedule.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    app: String,
    kind: Kind,
    when: Cron,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Create,
    Verify,
    Collect,
}

/// Reads the schedules of all applications; one that cannot be read stops the start.
pub(crate) fn plan(applications: &Applications) -> Result<Vec<Planned>> {
    let mut planned = Vec::new();
    for application in applications.iter() {
        let Application { schedule, verify_schedule, .. } = application;
        for (text, kind) in [(schedule, Kind::Create), (verify_schedule, Kind::Verify)] {
            if let Some(text) = text {
                let of = format!("the application {:?}", application.name);
                planned.push(Planned { app: application.name.clone(), kind, when: parsed(&of, text)? });
            }
        }
    }
    if let Some(text) = applications.gc_schedule() {
        planned.push(Planned { app: String::new(), kind: Kind::Collect, when: parsed("the collection", text)? });
    }
    Ok(planned)
}

fn parsed(of: &str, text: &str) -> Result<Cron> {
    Cron::from_str(text)
        .map_err(|error| Problem::bad_request(format!("the schedule {text:?} of {of} cannot be read: {error}")))
}

/// Runs until the daemon ends.
pub(crate) async fn run(daemon: Arc<Daemon>, planned: Vec<Planned>) {
    let mut reached = Zoned::now();
    while !planned.is_empty() {
        let next = planned.iter().filter_map(|one| one.when.find_next_occurrence(&reached, false).ok()).min();
        let Some(next) = next else { return };
        let now = Zoned::now();
        if next > now {
            let left = Duration::try_from(now.duration_until(&next)).unwrap_or(LOOK_EACH);
            tokio::time::sleep(left.min(LOOK_EACH)).await;
            continue;
        }
        let due: Vec<&Planned> = planned
            .iter()
            .filter(|one| one.when.find_next_occurrence(&reached, false).is_ok_and(|at| at <= now))
            .collect();
        for one in due {
            begin(&daemon, one, &now).await;
        }
        // Several that were missed are one.
        reached = now;
    }
}

async fn begin(daemon: &Arc<Daemon>, planned: &Planned, now: &Zoned) {
    let app = planned.app.clone();
    let (method, task) = match planned.kind {
        Kind::Create => {
            let made = daemon.platform.scheduled_name(now.timestamp());
            ("create", made.map(|name| Task::Create { name, tags: BTreeMap::new(), pinned: false }))
        }
        Kind::Collect => ("collect", Ok(Task::Collect { retention: true })),
        Kind::Verify => {
            ("verify", snapshots_of(daemon, &app).await.map(|snapshots| Task::Verify { snapshots, quick: false }))
        }
    };
    // One that waits, or runs, does what this one would.
    if planned.kind == Kind::Collect && daemon.operations.active().iter().any(|operation| operation.verb == "collect") {
        return;
    }
    let begun = match task {
        Ok(Task::Verify { snapshots, .. }) if snapshots.is_empty() => return,
        Ok(task) => daemon.submit(&app, task, None, "schedule").await,
        Err(problem) => Err(problem),
    };
    if let Err(problem) = &begun {
        tracing::error!(app, verb = method, detail = problem.detail, "a scheduled operation could not begin");
    }
    daemon.audit.write(&AuditLine {
        skipped: 0,
        time: jiff::Timestamp::now().to_string(),
        actor: "schedule".into(),
        token: None,
        peer: String::new(),
        method: method.into(),
        path: if app.is_empty() { "/repository/collect".into() } else { format!("/apps/{app}/snapshots") },
        status: begun.as_ref().map_or_else(|problem| problem.status, |_| 202),
        operation: begun.as_ref().ok().map(|watch| watch.borrow().id.clone()),
        code: begun.err().map(|problem| problem.code.clone()),
    });
}

async fn snapshots_of(daemon: &Arc<Daemon>, app: &str) -> Result<Vec<String>> {
    let app = app.to_owned();
    daemon
        .ask(move |platform| {
            let shelf = platform.shelf()?;
            let of_app = shelf.snapshots().filter(|snapshot| snapshot.app == app);
            Ok(of_app.map(|snapshot| snapshot.id.clone()).collect())
        })
        .await
}

#[cfg(test)]
mod tests {
    //! Goal: schedules are read as cron has them, and nonsense stops the start. Method: examples.

    use copal_application::{Tools, parse};

    use super::*;

    fn planned(schedule: &str) -> Result<Vec<Planned>> {
        let text = format!(
            "[app.a]\nschedule = \"{schedule}\"\n[[app.a.source]]\nkind = \"tree\"\nlabel = \"x\"\npath = \"/x\"\n"
        );
        plan(&Applications::new(parse("copal.toml".as_ref(), &text).unwrap(), Tools::default()))
    }

    #[test]
    fn schedules_are_cron_lines() {
        let planned = planned("30 3 * * 1-5").unwrap();
        let from: Zoned = "2026-11-20T12:00:00+00:00[UTC]".parse().unwrap();
        let next = planned[0].when.find_next_occurrence(&from, false).unwrap();
        assert_eq!(next.to_string(), "2026-11-23T03:30:00+00:00[UTC]", "Friday noon to Monday");
    }

    #[test]
    fn the_collection_has_a_schedule_of_its_own() {
        let read = |schedule: &str| {
            let text = format!("gc_schedule = \"{schedule}\"\n");
            plan(&Applications::new(parse("copal.toml".as_ref(), &text).unwrap(), Tools::default()))
        };
        let planned = read("30 4 * * *").unwrap();
        assert_eq!((planned.len(), planned[0].kind, planned[0].app.as_str()), (1, Kind::Collect, ""));
        let problem = read("every day").unwrap_err();
        assert!(problem.detail.contains("every day") && problem.detail.contains("collection"), "{}", problem.detail);
    }

    #[test]
    fn nonsense_is_named() {
        let problem = planned("at night").unwrap_err();
        assert!(problem.detail.contains("at night") && problem.detail.contains("\"a\""), "{}", problem.detail);
    }
}

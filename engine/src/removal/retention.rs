//! Retention: a pure plan of what rules keep.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::PathBuf;

use copal_manifest::entry::Timestamp;
use copal_manifest::snapshot::{Origin, Snapshot, SourceRecord};
use copal_store::signing::SignerId;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::catalogue::{Listed, is_of_the_future, plain_path};

/// Rules of retention: a snapshot that any rule keeps stays. All zero keeps everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct KeepRules {
    /// The newest N.
    pub last: u32,
    /// The newest of each of the last N hours that have one (UTC).
    pub hourly: u32,
    /// Days.
    pub daily: u32,
    /// ISO weeks.
    pub weekly: u32,
    /// Months.
    pub monthly: u32,
    /// Years.
    pub yearly: u32,
    /// All that are at most so many seconds older than the newest of their group: no clock is asked.
    pub within_seconds: u64,
}

/// What tells groups apart, beside the application and the key that signed. Each group is counted by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupBy {
    /// The host that took it.
    pub host: bool,
    /// The paths of its sources. Those of an application are its sources, wherever they are at the time.
    pub paths: bool,
    /// Its tags.
    pub tags: bool,
}

impl Default for GroupBy {
    fn default() -> Self {
        Self { host: true, paths: true, tags: false }
    }
}

/// Snapshots that are counted together. What is not asked for by [`GroupBy`] is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// Their application; empty for none.
    pub app: String,
    /// Taken before a deploy: counted apart from those that were asked for.
    pub safety: bool,
    /// Brought by a bundle or a copy: what they say of themselves is the word of whoever made that.
    pub imported: bool,
    /// Their host.
    pub host: String,
    /// The paths of their sources, sorted; of a source without one, its kind and label.
    pub paths: Vec<PathBuf>,
    /// Their tags.
    pub tags: Vec<(String, String)>,
    history: History,
}

/// What retention decided of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupReport {
    /// Which.
    pub group: Group,
    /// Kept, each with the rules that keep it (`last`, `daily`, `pinned` …), newest first.
    pub kept: Vec<(Listed, Vec<&'static str>)>,
    /// Removed, or to be removed, newest first.
    pub removed: Vec<Listed>,
}

/// What retention decided.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ForgetReport {
    /// Group by group.
    pub groups: Vec<GroupReport>,
}

impl ForgetReport {
    /// All that stay.
    pub fn kept(&self) -> impl Iterator<Item = &(Listed, Vec<&'static str>)> {
        self.groups.iter().flat_map(|group| &group.kept)
    }

    /// All that go.
    pub fn removed(&self) -> impl Iterator<Item = &Listed> {
        self.groups.iter().flat_map(|group| &group.removed)
    }
}

impl Group {
    fn of(listed: &Listed, by: GroupBy, history: History) -> Self {
        let snapshot = &listed.snapshot;
        let path = |source: &SourceRecord| match plain_path(&source.path) {
            path if path.as_os_str().is_empty() => PathBuf::from(format!("{}:{}", source.kind.name(), source.label)),
            path => path,
        };
        let mut paths: Vec<PathBuf> = Vec::new();
        if by.paths && snapshot.app.is_empty() {
            paths.extend(snapshot.sources.iter().map(path));
            paths.sort();
            paths.dedup();
        }
        Self {
            app: snapshot.app.clone(),
            safety: is_safety(snapshot),
            imported: snapshot.origin == Origin::Imported,
            host: if by.host { snapshot.host.clone() } else { String::new() },
            paths,
            tags: if by.tags { snapshot.tags.clone() } else { Vec::new() },
            history,
        }
    }
}

/// Whether it was taken before a deploy, by itself.
#[must_use]
pub fn is_safety(snapshot: &Snapshot) -> bool {
    snapshot.is_safety()
}

/// Whose snapshots are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum History {
    /// Owners', and all of a repository whose snapshots nobody signs.
    Owners,
    /// Of one other key.
    Key(SignerId),
    /// Of owners whose keys were removed or changed. Rules go on with them as with owners', but they push
    /// nothing out, not even each other: whoever still has such a key can sign as many as he likes.
    FormerOwners,
    /// Of nobody who may create now, and why: only a person removes it.
    Nobody(&'static str),
}

/// A calendar period, as a number that differs between periods.
type Period = fn(&DateTime) -> i64;

fn hour(at: &DateTime) -> i64 {
    day(at) * 24 + i64::from(at.hour())
}

fn day(at: &DateTime) -> i64 {
    i64::from(at.year()) * 366 + i64::from(at.date().day_of_year())
}

fn week(at: &DateTime) -> i64 {
    let week = at.date().iso_week_date();
    i64::from(week.year()) * 54 + i64::from(week.week())
}

fn month(at: &DateTime) -> i64 {
    i64::from(at.year()) * 12 + i64::from(at.month())
}

fn year(at: &DateTime) -> i64 {
    i64::from(at.year())
}

/// By what retention decides.
pub(super) struct Plan<'p> {
    /// Of a group; safety snapshots may have rules of their own.
    pub(super) rules: &'p dyn Fn(&Group) -> KeepRules,
    pub(super) group_by: GroupBy,
    pub(super) history_of: &'p dyn Fn(&Listed) -> History,
    /// Why one stays whatever the rules say; it takes its place by the rules all the same.
    pub(super) protected_by: &'p dyn Fn(&Listed) -> Option<&'static str>,
    pub(super) now: Timestamp,
}

/// Decides for each group apart. The application and the key that signed always tell groups apart: whoever
/// may create snapshots pushes out none of another's. What owners signed is one history, whoever of them it
/// was; what was imported is another, because its author says when it was taken, and where.
///
/// A snapshot of the future stays and counts for nothing: whoever's clock was wrong pushes out none of the
/// others, and no time is counted back from it. The clock that says so can only keep more: if it is slow
/// itself, nothing is removed for it.
pub(super) fn plan(candidates: Vec<Listed>, plan: &Plan<'_>) -> ForgetReport {
    let mut groups: BTreeMap<Group, Vec<(Listed, Counts)>> = BTreeMap::new();
    for listed in candidates {
        let is_future = is_of_the_future(&listed.snapshot, plan.now);
        let (history, counts) = match (plan.history_of)(&listed) {
            History::FormerOwners => (History::Owners, Counts::No),
            history => (history, Counts::Yes),
        };
        let counts = if is_future { Counts::Future } else { counts };
        groups.entry(Group::of(&listed, plan.group_by, history)).or_default().push((listed, counts));
    }
    let mut report = ForgetReport::default();
    for (group, mut members) in groups {
        members.sort_by_key(|(listed, _)| Reverse((listed.snapshot.created, listed.snapshot.id)));
        let reasons = match group.history {
            History::Nobody(why) => vec![vec![why]; members.len()],
            _ => reasons(&members, (plan.rules)(&group)),
        };
        let protected = members.iter().map(|(listed, _)| (plan.protected_by)(listed));
        let with_why = |(mut reasons, why): (Vec<&'static str>, Option<&'static str>)| {
            reasons.extend(why);
            reasons
        };
        let reasons: Vec<_> = reasons.into_iter().zip(protected).map(with_why).collect();
        let mut decided = GroupReport { kept: Vec::new(), removed: Vec::new(), group };
        for ((listed, _), reasons) in members.into_iter().zip(reasons) {
            if reasons.is_empty() {
                decided.removed.push(listed);
            } else {
                decided.kept.push((listed, reasons));
            }
        }
        report.groups.push(decided);
    }
    report
}

/// Whether a snapshot takes a place that a rule gives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counts {
    Yes,
    /// It is kept when it would have had a place, and takes none.
    No,
    /// It is kept, and takes none.
    Future,
}

/// For each snapshot of one group, newest first, the rules that keep it.
fn reasons(newest_first: &[(Listed, Counts)], rules: KeepRules) -> Vec<Vec<&'static str>> {
    let mut reasons: Vec<Vec<&'static str>> = vec![Vec::new(); newest_first.len()];
    if rules == KeepRules::default() {
        return vec![vec!["no rule"]; newest_first.len()];
    }
    for ((_, counts), kept) in newest_first.iter().zip(&mut reasons) {
        if *counts == Counts::Future {
            kept.push("future");
        }
    }
    let mut left = rules.last;
    for ((_, counts), kept) in newest_first.iter().zip(&mut reasons) {
        if left > 0 && *counts != Counts::Future {
            kept.push("last");
            left -= u32::from(*counts == Counts::Yes);
        }
    }
    let periods: [(&'static str, u32, Period); 5] = [
        ("hourly", rules.hourly, hour),
        ("daily", rules.daily, day),
        ("weekly", rules.weekly, week),
        ("monthly", rules.monthly, month),
        ("yearly", rules.yearly, year),
    ];
    for (name, count, period) in periods {
        let mut left = count;
        let mut before = None;
        for ((listed, counts), kept) in newest_first.iter().zip(&mut reasons) {
            let now = Some(period(&civil(listed.snapshot.created)));
            let is_first = now != before;
            if left > 0 && is_first && *counts != Counts::Future {
                kept.push(name);
            }
            if *counts == Counts::Yes {
                left -= u32::from(left > 0 && is_first);
                before = now;
            }
        }
    }
    let newest = newest_first.iter().find(|(_, counts)| *counts == Counts::Yes);
    let newest = newest.map(|(listed, _)| listed.snapshot.created.seconds);
    for ((listed, counts), kept) in newest_first.iter().zip(&mut reasons) {
        let at = listed.snapshot.created.seconds;
        // What is newer than all that count is not too old.
        let is_within = newest.is_none_or(|newest| at >= newest || newest.abs_diff(at) <= rules.within_seconds);
        if rules.within_seconds > 0 && is_within && *counts != Counts::Future {
            kept.push("within");
        }
        if listed.snapshot.pinned {
            kept.push("pinned");
        }
    }
    reasons
}

/// In UTC; a time that no calendar has is its earliest.
fn civil(at: Timestamp) -> DateTime {
    jiff::Timestamp::from_second(at.seconds).unwrap_or(jiff::Timestamp::MIN).to_zoned(TimeZone::UTC).datetime()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use copal_manifest::snapshot::Phase;
    use copal_store::SnapshotId;
    use copal_store::repository::RootName;

    use super::*;

    /// All of one history.
    fn plan_all(candidates: Vec<Listed>, rules: KeepRules) -> ForgetReport {
        planned(candidates, rules, &|_| History::Owners)
    }

    fn planned(candidates: Vec<Listed>, rules: KeepRules, history_of: &dyn Fn(&Listed) -> History) -> ForgetReport {
        let now = Timestamp { seconds: i64::MAX, nanoseconds: 0 };
        let plan_of =
            Plan { rules: &|_| rules, group_by: GroupBy::default(), history_of, protected_by: &|_| None, now };
        plan(candidates, &plan_of)
    }

    #[test]
    fn a_key_pushes_out_none_of_another() {
        let mut all = vec![listed("a", 1, false), listed("a", 2, false), listed("a", 3, false)];
        all[1].signer = Some(SignerId([1; 32]));
        all[2].signer = Some(SignerId([1; 32]));
        let history_of = |listed: &Listed| listed.signer.map_or(History::Owners, History::Key);
        let report = planned(all, KeepRules { last: 1, ..KeepRules::default() }, &history_of);
        let removed: Vec<i64> = report.removed().map(|listed| listed.snapshot.created.seconds).collect();
        assert_eq!(removed, [2]);
    }

    #[test]
    fn a_former_owner_pushes_nothing_out_and_his_own_go_when_owners_have_newer_ones() {
        let former = Some(SignerId([1; 32]));
        let history_of = |listed: &Listed| listed.signer.map_or(History::Owners, |_| History::FormerOwners);
        let check = |times: &[(i64, bool)], rules: KeepRules, removed: &[i64]| {
            let of = |&(at, is_former): &(i64, bool)| Listed {
                signer: former.filter(|_| is_former),
                ..listed("a", at, false)
            };
            let report = planned(times.iter().map(of).collect(), rules, &history_of);
            let mut found: Vec<i64> = report.removed().map(|listed| listed.snapshot.created.seconds).collect();
            found.sort_unstable();
            assert_eq!(found, removed);
        };
        let last = KeepRules { last: 2, ..KeepRules::default() };
        check(&[(1, true), (2, true), (3, true), (4, true)], last, &[]);
        check(&[(1, true), (2, true), (3, false), (4, false)], last, &[1, 2]);
        check(&[(1, false), (2, false), (9, true), (10, true), (11, true)], last, &[]);
        let daily = KeepRules { daily: 2, ..KeepRules::default() };
        check(&[(DAY, true), (2 * DAY, true), (9 * DAY, true), (9 * DAY + 5, false)], daily, &[9 * DAY]);
        check(&[(DAY, true), (8 * DAY, false), (9 * DAY, false), (90 * DAY, true)], daily, &[DAY]);
        let within = KeepRules { within_seconds: 5, ..KeepRules::default() };
        check(&[(1, true), (2, true)], within, &[]);
        check(&[(1, true), (7, true), (10, false), (99, true)], within, &[1]);
    }

    const HOUR: i64 = 3600;
    const DAY: i64 = 24 * HOUR;

    fn listed(app: &str, seconds: i64, pinned: bool) -> Listed {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&seconds.to_be_bytes());
        let id = SnapshotId(id);
        let created = Timestamp { seconds, nanoseconds: 0 };
        let snapshot = Snapshot {
            version: 1,
            id,
            name: format!("s{seconds}"),
            app: app.into(),
            created,
            completed: created,
            phase: Phase::Completed,
            origin: Origin::Created,
            host: String::new(),
            program: String::new(),
            parent: None,
            sources: Vec::new(),
            tags: Vec::new(),
            pinned,
            bytes_read: 0,
            bytes_new: 0,
            stored_new: 0,
            chunks_new: 0,
            warnings: Vec::new(),
            live: None,
            rules: Vec::new(),
            user: String::new(),
        };
        Listed {
            root: RootName { tag: [0; 16], snapshot: id },
            digest: String::new(),
            signer: None,
            snapshot: snapshot.into(),
        }
    }

    /// Kept times, oldest first, of snapshots at the given times.
    fn check(times: &[i64], rules: KeepRules, expected: &[i64]) {
        let report = plan_all(times.iter().map(|&at| listed("", at, false)).collect(), rules);
        let mut kept: Vec<i64> = report.kept().map(|(listed, _)| listed.snapshot.created.seconds).collect();
        kept.sort_unstable();
        assert_eq!(kept, expected);
        assert_eq!(report.kept().count() + report.removed().count(), times.len());
    }

    #[test]
    fn no_rule_keeps_everything() {
        check(&[1, 2, 3], KeepRules::default(), &[1, 2, 3]);
    }

    #[test]
    fn the_last_are_the_newest() {
        check(&[5, 1, 4, 2, 3], KeepRules { last: 2, ..KeepRules::default() }, &[4, 5]);
    }

    #[test]
    fn a_day_keeps_its_newest_and_empty_days_do_not_count() {
        let times = [10 * DAY, 10 * DAY + HOUR, 12 * DAY, 12 * DAY + 5 * HOUR, 40 * DAY];
        check(&times, KeepRules { daily: 2, ..KeepRules::default() }, &[12 * DAY + 5 * HOUR, 40 * DAY]);
        check(
            &times,
            KeepRules { daily: 9, ..KeepRules::default() },
            &[10 * DAY + HOUR, 12 * DAY + 5 * HOUR, 40 * DAY],
        );
    }

    #[test]
    fn a_time_is_counted_back_from_the_newest() {
        let times = [DAY, 8 * DAY, 8 * DAY - 1, 9 * DAY, 10 * DAY];
        check(
            &times,
            KeepRules { within_seconds: 2 * DAY as u64, ..KeepRules::default() },
            &[8 * DAY, 9 * DAY, 10 * DAY],
        );
    }

    #[test]
    fn weeks_are_iso_weeks_across_the_turn_of_a_year() {
        // 2024-12-30 (Monday) and 2025-01-05 (Sunday) are one ISO week, 2025-01-06 the next.
        let monday = 20_087 * DAY;
        let times = [monday, monday + 6 * DAY, monday + 7 * DAY];
        check(&times, KeepRules { weekly: 5, ..KeepRules::default() }, &[monday + 6 * DAY, monday + 7 * DAY]);
    }

    #[test]
    fn pinned_ones_stay_and_applications_count_apart() {
        let all = vec![listed("a", 1, true), listed("a", 2, false), listed("a", 3, false), listed("b", 1, false)];
        let report = plan_all(all, KeepRules { last: 1, ..KeepRules::default() });
        let removed: Vec<_> = report.removed().map(|l| (l.snapshot.app.as_str(), l.snapshot.created.seconds)).collect();
        assert_eq!(removed, [("a", 2)]);
    }

    /// Periods computed in another way than by a calendar of fields.
    fn naive_period(name: &str, seconds: i64) -> i64 {
        let days = seconds.div_euclid(DAY);
        let date = || civil(Timestamp { seconds, nanoseconds: 0 }).strftime("%Y %m").to_string();
        match name {
            "hourly" => seconds.div_euclid(HOUR),
            "daily" => days,
            // The first of January 1970 was a Thursday.
            "weekly" => (days + 3).div_euclid(7),
            "monthly" => date().replace(' ', "").parse().unwrap(),
            "yearly" => date()[..4].parse().unwrap(),
            other => panic!("{other} is no period"),
        }
    }

    /// The rules, read one snapshot at a time: is there a rule that keeps this one?
    fn naively_kept(all: &[Listed], one: &Listed, rules: KeepRules) -> bool {
        let time = |listed: &Listed| (listed.snapshot.created, listed.snapshot.id);
        let group: Vec<&Listed> = all.iter().filter(|other| other.snapshot.app == one.snapshot.app).collect();
        let newer: Vec<&&Listed> = group.iter().filter(|other| time(other) > time(one)).collect();
        let periods = [
            ("hourly", rules.hourly),
            ("daily", rules.daily),
            ("weekly", rules.weekly),
            ("monthly", rules.monthly),
            ("yearly", rules.yearly),
        ];
        let kept_by_period = periods.iter().any(|(name, count)| {
            let mine = naive_period(name, one.snapshot.created.seconds);
            let of_newer: std::collections::BTreeSet<i64> =
                newer.iter().map(|other| naive_period(name, other.snapshot.created.seconds)).collect();
            !of_newer.contains(&mine) && of_newer.len() < *count as usize
        });
        let newest = group.iter().map(|other| other.snapshot.created.seconds).max().unwrap();
        rules == KeepRules::default()
            || one.snapshot.pinned
            || newer.len() < rules.last as usize
            || kept_by_period
            || (rules.within_seconds > 0 && (newest - one.snapshot.created.seconds) as u64 <= rules.within_seconds)
    }

    fn histories() -> impl Strategy<Value = Vec<Listed>> {
        let gap = prop_oneof![0..3 * HOUR, 0..3 * DAY, 0..100 * DAY];
        let one = (prop_oneof![Just("a"), Just("b"), Just("")], gap, proptest::bool::weighted(0.1));
        (-40_000 * DAY..40_000 * DAY, proptest::collection::vec(one, 0..60)).prop_map(|(first, steps)| {
            let mut at = first;
            let place = |(number, (app, gap, pinned)): (usize, (&str, i64, bool))| {
                at += gap;
                let mut listed = listed(app, at, pinned);
                std::sync::Arc::make_mut(&mut listed.snapshot).id.0[15] = number as u8;
                listed
            };
            steps.into_iter().enumerate().map(place).collect()
        })
    }

    fn rules() -> impl Strategy<Value = KeepRules> {
        let count = || prop_oneof![3 => Just(0u32), 2 => 1..8u32, 1 => Just(u32::MAX)];
        let within = prop_oneof![2 => Just(0u64), 1 => 1..30 * DAY as u64];
        (count(), count(), count(), count(), count(), count(), within).prop_map(
            |(last, hourly, daily, weekly, monthly, yearly, within_seconds)| KeepRules {
                last,
                hourly,
                daily,
                weekly,
                monthly,
                yearly,
                within_seconds,
            },
        )
    }

    proptest! {
        #[test]
        fn a_plan_is_what_the_rules_say_of_each_snapshot(all in histories(), rules in rules(), turn in 0..60usize) {
            let mut shuffled = all.clone();
            shuffled.rotate_left(turn.min(all.len()));
            let report = plan_all(shuffled, rules);
            prop_assert_eq!(report.kept().count() + report.removed().count(), all.len());
            for one in &all {
                let kept = report.kept().any(|(listed, _)| listed == one);
                let removed = report.removed().any(|other| other == one);
                prop_assert!(kept != removed);
                prop_assert_eq!(kept, naively_kept(&all, one, rules), "{} {}", one.snapshot.app, one.snapshot.name);
                prop_assert!(!(removed && one.snapshot.pinned));
            }
            prop_assert!(report.kept().all(|(_, reasons)| !reasons.is_empty()));
        }

        #[test]
        fn what_was_kept_is_kept_again(all in histories(), rules in rules()) {
            let kept: Vec<Listed> = plan_all(all, rules).kept().map(|(listed, _)| listed.clone()).collect();
            prop_assert_eq!(plan_all(kept, rules).removed().count(), 0);
        }

        #[test]
        fn the_newest_of_each_application_stays_under_any_rule(all in histories(), rules in rules()) {
            let report = plan_all(all.clone(), rules);
            for removed in report.removed() {
                let newer = |(kept, _): &(Listed, Vec<&str>)| {
                    kept.snapshot.app == removed.snapshot.app && kept.snapshot.created >= removed.snapshot.created
                };
                prop_assert!(report.kept().any(newer));
            }
        }
    }
}

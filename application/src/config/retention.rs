//! What of an application stays: from what is written to rules.

use std::time::Duration;

use copal_engine::removal::KeepRules;
use copal_engine::timespan;
use toml::Spanned;

use super::problem::{Problem, Resolved, problem};
use super::{Retention, raw};

/// A rule that keeps nothing, or a table without a rule, is a mistake rather than a wish.
pub(super) fn resolve(written: Spanned<raw::Retention>) -> Resolved<Retention> {
    let span = written.span();
    let raw = written.into_inner();
    let count = |number: Option<Spanned<u32>>| match number {
        Some(zero) if *zero.get_ref() == 0 => Err(problem(&zero, "it is at least 1; leave it away for no such rule")),
        number => Ok(number.map_or(0, Spanned::into_inner)),
    };
    let seconds = |time: Option<Spanned<String>>| -> Resolved<u64> {
        let Some(time) = time else { return Ok(0) };
        let within = Duration::from_secs(1)..=timespan::LONGEST;
        let read = timespan::parse(time.get_ref(), within).map_err(|message| problem(&time, message))?;
        Ok(read.as_secs())
    };
    let tag = |written: Spanned<String>| match written.get_ref().split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(problem(&written, "a tag is written KEY=VALUE")),
    };
    let rules = KeepRules {
        last: count(raw.keep_last)?,
        hourly: count(raw.keep_hourly)?,
        daily: count(raw.keep_daily)?,
        weekly: count(raw.keep_weekly)?,
        monthly: count(raw.keep_monthly)?,
        yearly: count(raw.keep_yearly)?,
        within_seconds: seconds(raw.keep_within)?,
    };
    let safety = KeepRules {
        last: count(raw.safety_keep)?,
        within_seconds: seconds(raw.safety_within)?,
        ..KeepRules::default()
    };
    let keep_tags = raw.keep_tags.into_iter().map(tag).collect::<Resolved<Vec<_>>>()?;
    if rules == KeepRules::default() && safety == KeepRules::default() {
        let message =
            "no rule says what to keep, so all stays: write keep_last = 10, for example, or leave the table away";
        return Err(Problem { span, message: message.into() });
    }
    Ok(Retention { rules, safety, keep_tags })
}

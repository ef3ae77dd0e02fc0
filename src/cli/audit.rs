//! `audit`: what operators did, when and why.

mod words;

use serde::Serialize;
use serde_json::Value;

use super::backend;
use super::exit::Exit;
use super::inspect::SCAN_TIMEOUT;
use super::operator::{Target, ago_ms};
use super::output::{self, Output};
use crate::config::Config;
use crate::outcome::rfc3339;
use crate::postgres::{AuditFilter, Audited};

/// What operators did, when and why
///
/// Every change that an operator makes is kept, with who made it and the reason given: newest last.
/// What the owner of a partition has to do (redrive, discard) is shown with what became of it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  solewriter audit --since 2h
  solewriter audit accounts.commands:3 --action resume
  solewriter audit --since 2026-01-31T00:00:00Z -o json")]
pub(super) struct Args {
    /// Of this command topic, or of one partition of it
    #[arg(value_name = "TOPIC[:PARTITION]")]
    target: Option<Target>,
    /// By those whose name contains this
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
    /// Of this kind, such as halt, resume, redrive, discard, withdraw
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// Within this time, such as 2h or 3d, or since a time such as 2026-01-31T00:00:00Z
    #[arg(long, value_name = "DURATION|TIME", value_parser = since_ms)]
    since: Option<i64>,
    /// At most so many: the newest
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

/// A duration before now or an RFC 3339 time, as milliseconds since 1970.
fn since_ms(text: &str) -> Result<i64, &'static str> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time.as_millisecond());
    }
    let ago = humantime::parse_duration(text)
        .map_err(|_| "neither a duration such as 2h nor a time such as 2026-01-31T00:00:00Z")?;
    Ok(ago_ms(ago))
}

#[derive(Debug, Serialize)]
struct Audit {
    actions: Vec<Action>,
    /// There are older ones than were asked for.
    more: bool,
}

/// One thing that an operator did.
#[derive(Debug, Serialize)]
struct Action {
    action_id: i64,
    at: String,
    actor: String,
    action: String,
    topic: Option<String>,
    partition: Option<i32>,
    reason: String,
    /// The detail and what became of it, in words.
    summary: String,
    detail: Value,
    /// What became of its requests; `None`: it was done at once.
    requests: Option<Requests>,
}

/// What became of the requests that an action made.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Requests {
    requested: i64,
    open: i64,
    done: i64,
    refused: i64,
    /// Taken back before they were done.
    withdrawn: i64,
    /// Why, of one of the refused.
    why: Option<String>,
}

pub(super) async fn run(args: &Args, output: Output, config: &Config) -> anyhow::Result<Exit> {
    let store = backend::fitting_store(config).await?;
    let mut rows = store.audited(&args.filter(), i64::from(args.limit) + 1, SCAN_TIMEOUT).await?;
    let more = rows.len() > args.limit as usize;
    if more {
        rows.remove(0);
    }
    let audit = Audit { actions: rows.into_iter().map(Action::from).collect(), more };
    output.print(&audit, Audit::table)?;
    Ok(Exit::Done)
}

impl Args {
    fn filter(&self) -> AuditFilter {
        AuditFilter {
            topic: self.target.as_ref().map(|target| target.topic.clone()),
            partition: self.target.as_ref().and_then(|target| target.partition),
            actor: self.actor.clone(),
            action: self.action.clone(),
            since_ms: self.since,
        }
    }
}

impl From<Audited> for Action {
    fn from(row: Audited) -> Self {
        let Audited { requested, open, done, refused, withdrawn, why, .. } = row;
        let requests = (requested > 0).then_some(Requests { requested, open, done, refused, withdrawn, why });
        Self {
            action_id: row.action_id,
            at: rfc3339(row.at_ms),
            actor: row.actor,
            summary: words::summary(&row.action, &row.detail, requests.as_ref()),
            action: row.action,
            topic: row.topic,
            partition: row.partition,
            reason: row.reason,
            detail: row.detail,
            requests,
        }
    }
}

impl Action {
    fn place(&self) -> String {
        let topic = output::or_dash(self.topic.as_ref());
        self.partition.map_or_else(|| topic.clone(), |partition| format!("{topic}:{partition}"))
    }
}

impl Audit {
    fn table(&self) -> String {
        if self.actions.is_empty() {
            return "no operator has changed anything\n".to_owned();
        }
        let mut table = output::table(&["AT", "ACTOR", "ACTION", "PARTITION", "WHAT", "REASON"]);
        for action in &self.actions {
            let (at, place) = (output::time(&action.at), action.place());
            table.add_row([&at, &action.actor, &action.action, &place, &action.summary, &action.reason]);
        }
        output::keep_whole(&mut table, &[2, 3]);
        let more = if self.more { "\nthere are older ones: --limit, or a filter\n" } else { "" };
        output::drawn(&table) + more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_duration_or_a_time() {
        assert_eq!(since_ms("1970-01-01T00:00:02Z"), Ok(2_000));
        let (before, after) = (since_ms("2h").expect("a duration"), since_ms("1h").expect("a duration"));
        assert!(after - before >= 3_500_000 && after - before < 3_700_000, "{before} {after}");
        assert_eq!(since_ms("100000y"), Ok(0), "before 1970 is all of it");
        assert!(since_ms("yesterday").is_err());
    }
}

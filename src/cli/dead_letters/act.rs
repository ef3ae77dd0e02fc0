//! `dead-letters redrive` and `discard`: preview, request, and wait for what the owner makes of it.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::filter::Change;
use super::plan::Plan;
use super::reproduce;
use crate::cli::backend;
use crate::cli::exit::{Exit, Problem};
use crate::cli::output::{self, Output};
use crate::config::Config;
use crate::postgres::{OperatorAction, RequestsEnded, Store};
use crate::record::TopicPartition;
use crate::steps::decide::Action;

/// The most letters that one call takes on: it can be called again.
pub(super) const LETTERS_MAX: i64 = 100_000;

/// How often the requests are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What `redrive` and `discard` share.
#[derive(Debug, clap::Args)]
pub(super) struct Common {
    #[command(flatten)]
    change: Change,
    /// So many keys or letters a second at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// How long to wait while the owner makes no progress, such as 30s
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    pub(super) timeout: Duration,
    /// Leave out what has failed so often
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(i32).range(1..))]
    attempts_max: i32,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  solewriter dead-letters redrive --topic accounts.commands --key acct-42
  solewriter dead-letters redrive --letter 17 --edit corrected.json --reason 'amount was a text' --execute")]
pub(super) struct RedriveArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// Also run ids older than the horizon: a corrected copy may have run and been forgotten
    #[arg(long)]
    pub(super) accept_expired: bool,
    /// Run one letter with the value in this file (- for standard input) in place of its own
    #[arg(long, value_name = "FILE")]
    pub(super) edit: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  solewriter dead-letters discard --letter 17 --reason 'the customer has cancelled' --execute")]
pub(super) struct DiscardArgs {
    #[command(flatten)]
    pub(super) common: Common,
}

impl Common {
    /// So many go at once, of which there are so many.
    pub(super) fn at_once(&self, count: usize) -> usize {
        self.rate.map_or(count, |rate| rate as usize).max(1)
    }

    /// Waits before the next go, if there is a rate.
    pub(super) async fn pace(&self, is_first: bool) {
        if self.rate.is_some() && !is_first {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

pub(super) fn read_edit(file: &str) -> anyhow::Result<Vec<u8>> {
    let mut value = Vec::new();
    match file {
        "-" => std::io::stdin().read_to_end(&mut value).map(|_| ()),
        _ => std::fs::read(file).map(|read| value = read),
    }
    .with_context(|| format!("reading {file}"))?;
    Ok(value)
}

/// What was found, and what became of it.
#[derive(Debug, Serialize)]
struct Acted {
    #[serde(flatten)]
    plan: Plan,
    executed: bool,
    /// Requests: one for each parked key, and for each letter that parks nothing.
    requested: usize,
    done: u64,
    open: u64,
    refused: Vec<Refused>,
}

#[derive(Debug, Serialize)]
struct Refused {
    request_id: i64,
    why: String,
}

/// What is wanted of letters.
pub(super) struct Wanted {
    pub(super) action: Action,
    pub(super) accept_expired: bool,
    /// The value of one letter, corrected.
    pub(super) edit: Option<Vec<u8>>,
}

pub(super) async fn run(wanted: Wanted, common: &Common, output: Output, config: &Config) -> anyhow::Result<Exit> {
    let Wanted { action, accept_expired, edit } = wanted;
    let store = backend::fitting_store(config).await?;
    let letters = common.change.letters(&store, LETTERS_MAX).await?;
    let are_all = letters.len() < LETTERS_MAX as usize;
    if edit.is_some() && letters.len() != 1 {
        let why = format!("--edit corrects one letter, and {} are meant: name it with --letter", letters.len());
        return Err(Problem::usage(why).into());
    }
    let edited = letters.first().map(|letter| letter.dead_letter_id).zip(edit);
    let mut plan = Plan::of(&store, action, letters, common.attempts_max).await?;
    if !are_all {
        plan.cut_at = Some(LETTERS_MAX);
    }
    if let Some((id, value)) = edited {
        let Some(request) = plan.requests.values_mut().flatten().next() else {
            let why = format!(
                "letter {id} does not run here, so its value can't be corrected with --edit: {}",
                plan.text(action).trim_end()
            );
            return Err(Problem::usage(why).into());
        };
        request.dead_letter_id = Some(id);
        request.edited_value = Some(value);
    }
    if !common.change.execute {
        let preview = Acted { plan, executed: false, requested: 0, done: 0, open: 0, refused: Vec::new() };
        output.print(&preview, |preview| {
            preview.plan.text(action) + "nothing is changed: add --execute and --reason '…' to do it\n"
        })?;
        return Ok(Exit::Done);
    }
    let reason = common.change.reason()?;
    if output == Output::Table {
        output::print(&plan.text(action))?;
    }
    let mut ids = request(&store, action, &plan, common, reason, accept_expired).await?;
    ids.extend(reproduce::all(&store, config, &plan.misrouted, common, reason).await?);
    let ended = wait(&store, &ids, common.timeout).await?;
    let RequestsEnded { open, done, refused, .. } = ended;
    let refused: Vec<Refused> = refused.into_iter().map(|(request_id, why)| Refused { request_id, why }).collect();
    let exit = match (open, refused.is_empty()) {
        (0, true) => Exit::Done,
        (0, false) => Exit::Failed,
        _ => Exit::Unreachable,
    };
    let acted = Acted { plan, executed: true, requested: ids.len(), done, open, refused };
    output.print(&acted, Acted::text)?;
    Ok(exit)
}

async fn request(
    store: &Store,
    action: Action,
    plan: &Plan,
    common: &Common,
    reason: &str,
    accept_expired: bool,
) -> anyhow::Result<Vec<i64>> {
    let actor = backend::actor();
    let mut ids = Vec::new();
    for ((topic, partition), requests) in &plan.requests {
        let source = TopicPartition::new(topic.as_str(), *partition);
        let by = OperatorAction { source: &source, actor: &actor, reason };
        for requests in requests.chunks(common.at_once(requests.len())) {
            common.pace(ids.is_empty()).await;
            ids.extend(store.request(&by, action, accept_expired, requests).await?);
        }
    }
    Ok(ids)
}

/// Until all are done or refused, or nothing happens for `timeout`.
async fn wait(store: &Store, ids: &[i64], timeout: Duration) -> anyhow::Result<RequestsEnded> {
    // hidden unless stderr is a terminal
    let progress = ProgressBar::with_draw_target(Some(ids.len() as u64), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} requests, {elapsed}");
    progress.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut before = RequestsEnded::default();
    let mut since = Instant::now();
    loop {
        let ended = store.requests_ended(ids).await?;
        progress.set_position(ids.len() as u64 - ended.open);
        if ended.open == 0 || since.elapsed() >= timeout {
            progress.finish_and_clear();
            return Ok(ended);
        }
        if ended != before {
            (before, since) = (ended, Instant::now());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Acted {
    fn text(&self) -> String {
        let mut text = format!("{} of {} requests done\n", self.done, self.requested);
        let mut reasons: BTreeMap<&str, (u64, i64)> = BTreeMap::new();
        for Refused { request_id, why } in &self.refused {
            reasons.entry(why).or_insert((0, *request_id)).0 += 1;
        }
        for (why, (count, first)) in reasons {
            text += &match count {
                1 => format!("request {first} is refused: {why}\n"),
                _ => format!("{count} requests, the first of them {first}, are refused: {why}\n"),
            };
        }
        if self.open > 0 {
            text += &format!(
                "{} are not done yet, and stay requested (solewriter dead-letters withdraw takes them back): a worker \
                 has to own the partition, and the partition may not be halted; type: solewriter status\n",
                self.open
            );
        }
        text
    }
}

//! What became of each line, in the order of the input.

use std::io;
use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::cli::exit::{Exit, message};
use crate::cli::output;
use crate::cli::output::Output;
use crate::client::{Client, Command, Delivery, Outcome, OutcomeRecord, Published, Watch};

/// A line that was read, and sent if it could be.
pub(super) struct InFlight {
    number: u64,
    state: anyhow::Result<Box<Sent>>,
}

struct Sent {
    command: Command,
    delivery: Delivery,
    watch: Option<Watch>,
    deadline: Instant,
}

impl InFlight {
    pub(super) fn sent(
        number: u64,
        command: Command,
        delivery: Delivery,
        watch: Option<Watch>,
        deadline: Instant,
    ) -> Self {
        Self { number, state: Ok(Box::new(Sent { command, delivery, watch, deadline })) }
    }

    pub(super) fn refused(number: u64, why: anyhow::Error) -> Self {
        Self { number, state: Err(why) }
    }
}

/// What is printed of a command.
#[derive(Debug, Serialize)]
struct Row {
    command_id: Uuid,
    topic: String,
    partition: i32,
    offset: i64,
    /// Left out unless somebody waits; null when it did not come.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Option<Box<RawValue>>>,
    #[serde(skip)]
    summary: String,
}

/// Prints as results come in.
pub(super) struct Report {
    client: Client,
    output: Output,
    waits: bool,
    timeout: Duration,
    progress: ProgressBar,
    published: u64,
    failed: u64,
    exit: Exit,
}

impl Report {
    pub(super) fn new(client: Client, output: Output, waits: bool, timeout: Duration) -> Self {
        // hidden unless stderr is a terminal
        let progress = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{spinner} {pos} published, {per_sec}, {elapsed} {msg}");
        progress.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        Self { client, output, waits, timeout, progress, published: 0, failed: 0, exit: Exit::Done }
    }

    /// Until the input ends, or the broker does not take what is sent: then what is in flight is
    /// reported and nothing more is read.
    pub(super) async fn all(mut self, mut in_flight: mpsc::Receiver<InFlight>) -> anyhow::Result<Exit> {
        if self.output == Output::Table {
            self.print(&header(self.waits))?;
        }
        while let Some(InFlight { number, state }) = in_flight.recv().await {
            let row = match state {
                Ok(sent) => self.row(number, *sent).await,
                Err(why) => Err(why),
            };
            match row {
                Ok(row) => self.row_is_there(&row)?,
                Err(why) => {
                    self.complain(number, &why);
                    if matches!(self.exit, Exit::Unreachable | Exit::Fatal) {
                        in_flight.close();
                    }
                }
            }
        }
        self.progress.finish_and_clear();
        if self.output == Output::Table {
            eprintln!("{} published, {} not", self.published, self.failed);
        }
        Ok(self.exit)
    }

    async fn row(&mut self, number: u64, sent: Sent) -> anyhow::Result<Row> {
        let Sent { command, delivery, watch, deadline } = sent;
        let published = delivery.delivered().await?;
        let record = match watch {
            None => None,
            Some(mut watch) => Some(match timeout_at(deadline, watch.outcome(&published)).await {
                Ok(Ok(record)) => Some(record),
                Ok(Err(error)) => self.without_outcome(number, error),
                Err(_) => self.without_outcome(number, self.client.no_outcome(&command, self.timeout)),
            }),
        };
        Ok(Row::of(&command, &published, record))
    }

    /// The command is in the log all the same, so its row is printed.
    fn without_outcome(&mut self, number: u64, error: crate::client::Error) -> Option<OutcomeRecord> {
        self.say(number, &error.into());
        self.exit = worse(self.exit, Exit::Failed);
        None
    }

    fn row_is_there(&mut self, row: &Row) -> anyhow::Result<()> {
        self.published += 1;
        self.progress.inc(1);
        match self.output {
            Output::Table => self.print(&row.line(self.waits)),
            Output::Json => self.print(&serde_json::to_string(row)?),
        }
    }

    fn complain(&mut self, number: u64, why: &anyhow::Error) {
        self.failed += 1;
        self.progress.set_message(format!("({} not)", self.failed));
        self.say(number, why);
        self.exit = worse(self.exit, Exit::of(why));
    }

    fn say(&self, number: u64, why: &anyhow::Error) {
        self.progress.suspend(|| eprintln!("line {number}: {}", message(why)));
    }

    fn print(&self, line: &str) -> anyhow::Result<()> {
        if io::stdout().is_terminal() {
            return self.progress.suspend(|| output::print(line));
        }
        output::print(line)
    }
}

/// A fatal error outweighs an unreachable broker, and that a line of its own fault.
fn worse(one: Exit, other: Exit) -> Exit {
    let weight = |exit| match exit {
        Exit::Done => 0,
        Exit::Failed | Exit::Usage | Exit::Difference => 1,
        Exit::Unreachable => 2,
        Exit::Fatal => 3,
    };
    if weight(other) > weight(one) { other } else { one }
}

/// Rows come one by one, so widths are fixed: that of an id, and of numbers that grow.
fn header(waits: bool) -> String {
    let outcome = if waits { "  OUTCOME" } else { "" };
    format!("{:<36}  {:>9}  {:>12}{outcome}", "COMMAND ID", "PARTITION", "OFFSET")
}

impl Row {
    fn of(command: &Command, published: &Published, outcome: Option<Option<OutcomeRecord>>) -> Self {
        Self {
            command_id: command.id(),
            topic: published.topic.to_string(),
            partition: published.partition,
            offset: published.offset,
            summary: outcome.as_ref().map_or_else(String::new, |record| summary(record.as_ref())),
            outcome: outcome.map(|record| record.map(|record| record.json)),
        }
    }

    fn line(&self, waits: bool) -> String {
        let (id, partition, offset) = (self.command_id, self.partition, self.offset);
        let outcome = if waits { format!("  {}", self.summary) } else { String::new() };
        format!("{id}  {partition:>9}  {offset:>12}{outcome}")
    }
}

/// The outcome in a few words.
fn summary(record: Option<&OutcomeRecord>) -> String {
    match record.map(|record| &record.outcome) {
        Some(Outcome::Applied { reply, version }) => format!("applied, version {version}: {}", reply.get()),
        Some(Outcome::Rejected { code, detail }) => format!("rejected, {}", output::reason(code, detail.as_deref())),
        Some(Outcome::Dead { code, detail }) => format!("dead, {}", output::reason(code, detail.as_deref())),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(outcome: Option<Option<OutcomeRecord>>) -> serde_json::Value {
        let command = Command::new("t", "k", &serde_json::json!({})).expect("a command");
        let command = command.with_id(Uuid::from_u128(7)).expect("an id");
        let published = Published { topic: "accounts".into(), partition: 3, offset: 8_412 };
        serde_json::to_value(Row::of(&command, &published, outcome)).expect("a document")
    }

    #[test]
    fn a_row_has_the_shape_of_the_interface() {
        let id = "00000000-0000-0000-0000-000000000007";
        let bare = serde_json::json!({"command_id": id, "topic": "accounts", "partition": 3, "offset": 8412});
        assert_eq!(row(None), bare);
        assert!(row(Some(None))["outcome"].is_null() && row(Some(None)).as_object().is_some_and(|row| row.len() == 5));
        let json = RawValue::from_string(r#"{"outcome":"rejected"}"#.into()).expect("JSON");
        let outcome = Outcome::Rejected { code: "no".into(), detail: None };
        assert_eq!(row(Some(Some(OutcomeRecord { outcome, json })))["outcome"]["outcome"], "rejected");
    }

    #[test]
    fn the_worst_failure_decides_the_exit_code() {
        assert_eq!(worse(Exit::Failed, Exit::Done), Exit::Failed);
        assert_eq!(worse(Exit::Failed, Exit::Unreachable), Exit::Unreachable);
        assert_eq!(worse(Exit::Fatal, Exit::Unreachable), Exit::Fatal);
    }
}

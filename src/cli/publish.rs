//! `publish`: commands from standard input to their topic.

mod ids;
mod lines;
mod report;

use std::io;
use std::io::IsTerminal as _;
use std::num::NonZeroU32;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use self::ids::NamedIds;
use self::lines::Line;
use self::report::{InFlight, Report};
use super::exit::{Exit, Problem};
use super::output::Output;
use crate::client::line::Given;
use crate::client::{self, Client, Command, Options};
use crate::config::Config;
use crate::kafka;
use crate::pace::Pace;

/// Commands that are sent and whose result is not printed yet.
const IN_FLIGHT_MAX: usize = 10_000;

/// Publish commands from standard input
///
/// Reads JSON Lines: {"key": …, "type": …, "data": {…}} and, to repeat an earlier command, "id".
/// Prints where each was stored, in the order of the input. A line that is no command, or has the id
/// of an earlier line for another command, goes to stderr with its number; the others are sent, and
/// the exit code is 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  echo '{\"key\":\"acct-42\",\"type\":\"account.open\",\"data\":{\"initial\":100}}' |
    solewriter publish --topic accounts.commands --wait
  solewriter publish --topic accounts.commands --rate 500 -o json < commands.jsonl > published.jsonl")]
pub(super) struct Args {
    /// The command topic; it has to exist
    #[arg(long, value_name = "TOPIC")]
    topic: String,
    /// Wait for the outcome of each command
    #[arg(long)]
    wait: bool,
    /// How long a command may take from when it is sent, such as 30s: to be in the log and, with
    /// --wait, to have its outcome
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Commands per second at most
    #[arg(long, value_name = "N")]
    rate: Option<NonZeroU32>,
}

pub(super) async fn run(args: Args, output: Output, config: Config) -> anyhow::Result<Exit> {
    let client = connect(&args, &config).await?;
    if io::stdin().is_terminal() {
        eprintln!("reading one JSON object per line; end with Ctrl-D");
    }
    let (sent, in_flight) = mpsc::channel(IN_FLIGHT_MAX);
    let report = Report::new(client.clone(), output, args.wait, args.timeout);
    let ((), exit) = tokio::join!(send_all(&client, &args, lines::of_stdin(), sent), report.all(in_flight));
    exit
}

async fn connect(args: &Args, config: &Config) -> anyhow::Result<Client> {
    let mut options = Options::new(&args.topic).with_source("/solewriter/publish").with_delivery_timeout(args.timeout);
    if let Some(topic) = config.topics.iter().find(|topic| topic.name == args.topic) {
        options = options.with_outcomes_topic(topic.outcomes_topic()).with_partitioner(topic.partitioner);
    }
    let settings = kafka::Client::new(&config.kafka, "solewriter-publish")?;
    Client::connect_with(settings, options).await.map_err(|error| match error {
        client::Error::NoTopic { .. } => Problem::usage(error.to_string()).into(),
        error => error.into(),
    })
}

/// Ends with the input, or when nobody takes what is sent.
async fn send_all(client: &Client, args: &Args, mut lines: mpsc::Receiver<Line>, sent: mpsc::Sender<InFlight>) {
    let mut pace = Pace::new(args.rate);
    let mut ids = NamedIds::default();
    loop {
        let line = tokio::select! {
            line = lines.recv() => line,
            // the input may never end
            () = sent.closed() => return,
        };
        let Some(Line { number, given }) = line else { return };
        let in_flight = match given.and_then(|given| command_of(number, given, &mut ids)) {
            Ok(command) => {
                pace.turn().await;
                send(client, args, number, command).await
            }
            Err(why) => InFlight::refused(number, anyhow::anyhow!(why)),
        };
        if sent.send(in_flight).await.is_err() {
            return;
        }
    }
}

/// The command of a line, unless an earlier one has used up its id.
fn command_of(number: u64, Given { command, names_id }: Given, ids: &mut NamedIds) -> Result<Command, String> {
    if names_id {
        ids.name(number, &command)?;
    }
    Ok(command)
}

async fn send(client: &Client, args: &Args, number: u64, command: Command) -> InFlight {
    let handed_over = async {
        // before it is published: its outcome may come at once
        let watch = if args.wait { Some(client.watch(&command).await?) } else { None };
        Ok((client.enqueue(&command).await?, watch))
    };
    match handed_over.await {
        Ok((delivery, watch)) => InFlight::sent(number, command, delivery, watch, Instant::now() + args.timeout),
        Err(error) => InFlight::refused(number, client::Error::into(error)),
    }
}

//! `inspect`: what became of a command, an entity, a record.

mod command;
mod entity;
pub(super) mod letter;
mod record;
mod timeline;

use std::str::FromStr;
use std::time::Duration;

use clap::Subcommand;
use uuid::Uuid;

use super::exit::Exit;
use super::output::Output;
use crate::config::Config;
use crate::record::TopicPartition;
use crate::steps::receive::parse_id;

/// How long one look through a table without a fitting index may take.
pub(super) const SCAN_TIMEOUT: Duration = Duration::from_secs(20);

/// Say what became of a command, an entity or a record
///
/// Asks the tables, and for a record the log. There is no index for most of these questions, as it
/// would cost every command; so a look through large tables takes its time, and is bounded.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  solewriter inspect command 01990000-0000-7000-8000-000000000001
  solewriter inspect entity account acct-42 --since 2d
  solewriter inspect record accounts.commands:3:8412")]
pub(super) struct Args {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Debug, Subcommand)]
enum Subject {
    /// Settled, dead, unknown, or too old to be remembered
    ///
    /// `expired`: the id is older than the horizon and not found, so it may have run and been
    /// forgotten. An id that is unknown is an answer, too: the exit code is 0.
    #[command(after_help = "\
Example:
  solewriter inspect command 01990000-0000-7000-8000-000000000001 -o json")]
    Command {
        /// The command id
        #[arg(value_name = "ID", value_parser = parse_id)]
        id: Uuid,
    },
    /// Its version, its state and its newest commands with their outcomes
    Entity(entity::Args),
    /// What stands at an offset, and how it was settled
    #[command(after_help = "\
Example:
  solewriter inspect record accounts.commands:3:8412")]
    Record {
        /// Topic, partition and offset
        #[arg(value_name = "TOPIC:PARTITION:OFFSET")]
        place: Place,
    },
}

/// `TOPIC:PARTITION:OFFSET`. A topic's name has no colon.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    source: TopicPartition,
    offset: i64,
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "write TOPIC:PARTITION:OFFSET, such as accounts.commands:3:8412";
        let (rest, offset) = text.rsplit_once(':').ok_or(FORM)?;
        let (topic, partition) = rest.rsplit_once(':').ok_or(FORM)?;
        let partition: i32 = partition.parse().ok().filter(|number| *number >= 0).ok_or(FORM)?;
        let offset: i64 = offset.parse().ok().filter(|number| *number >= 0).ok_or(FORM)?;
        if topic.is_empty() || topic.contains(':') {
            return Err(FORM);
        }
        Ok(Self { source: TopicPartition::new(topic, partition), offset })
    }
}

pub(super) async fn run(args: Args, output: Output, config: Config) -> anyhow::Result<Exit> {
    match args.subject {
        Subject::Command { id } => {
            output.print(&command::inspect(&config, id).await?, command::CommandReport::text)?;
        }
        Subject::Entity(args) => {
            output.print(&entity::inspect(&config, &args).await?, entity::EntityReport::text)?;
        }
        Subject::Record { place } => {
            output.print(&record::inspect(&config, &place).await?, record::RecordReport::text)?;
        }
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_topic_a_partition_and_an_offset() {
        let place: Place = "accounts.commands:3:8412".parse().expect("a place");
        assert_eq!((place.source.to_string(), place.offset), ("accounts.commands:3".to_owned(), 8_412));
        for wrong in ["", "accounts", "accounts:3", ":3:1", "accounts:x:1", "accounts:3:-1", "a:b:3:1"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}

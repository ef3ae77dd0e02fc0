//! `dead-letters list`

use serde::Serialize;

use super::filter::Filter;
use crate::cli::backend;
use crate::cli::exit::Exit;
use crate::cli::inspect::SCAN_TIMEOUT;
use crate::cli::inspect::letter::{self, Letter};
use crate::cli::output::Output;
use crate::config::Config;
use crate::dead_letter::LetterState;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  solewriter dead-letters list --topic accounts.commands --state parked")]
pub(super) struct Args {
    #[command(flatten)]
    filter: Filter,
    /// In this state: dead, parked, waiting, redriven, discarded; may be given several times
    #[arg(long = "state", value_name = "STATE", value_parser = state)]
    states: Vec<LetterState>,
    /// At most so many: the oldest
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

fn state(name: &str) -> Result<LetterState, &'static str> {
    LetterState::parse(name).ok_or("one of dead, parked, waiting, redriven, discarded")
}

#[derive(Debug, Serialize)]
struct Letters {
    dead_letters: Vec<Letter>,
    /// There are more than were asked for.
    more: bool,
}

pub(super) async fn run(args: &Args, output: Output, config: &Config) -> anyhow::Result<Exit> {
    let store = backend::fitting_store(config).await?;
    let limit = i64::from(args.limit);
    let mut letters = store.letters(&args.filter.of(&args.states), limit + 1, SCAN_TIMEOUT).await?;
    let more = letters.len() > args.limit as usize;
    letters.truncate(args.limit as usize);
    let letters = Letters { dead_letters: letters.into_iter().map(Letter::from).collect(), more };
    output.print(&letters, Letters::table)?;
    Ok(Exit::Done)
}

impl Letters {
    fn table(&self) -> String {
        if self.dead_letters.is_empty() {
            return "no dead letters\n".to_owned();
        }
        let more = if self.more { "\nthere are more: --limit, or a filter\n" } else { "" };
        letter::numbered(&self.dead_letters) + more
    }
}

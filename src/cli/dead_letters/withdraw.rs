//! `dead-letters withdraw`: take back what was requested and is not done yet.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use super::act::LETTERS_MAX;
use super::filter::Change;
use super::requested::{Requested, key_of};
use crate::cli::backend;
use crate::cli::exit::Exit;
use crate::cli::output::Output;
use crate::config::Config;
use crate::postgres::{OperatorAction, StoredLetter};
use crate::record::TopicPartition;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  solewriter dead-letters withdraw --key acct-42 --reason 'the fix is not deployed yet' --execute")]
pub(super) struct Args {
    #[command(flatten)]
    change: Change,
}

/// What was found, and what became of it.
#[derive(Debug, Serialize)]
struct Withdrawn {
    /// Letters that something is requested of, by themselves or with their key.
    letters: u64,
    executed: bool,
    /// Requests taken back.
    withdrawn: u64,
}

pub(super) async fn run(args: &Args, output: Output, config: &Config) -> anyhow::Result<Exit> {
    let store = backend::fitting_store(config).await?;
    let letters = args.change.letters(&store, LETTERS_MAX).await?;
    let requested = Requested::now(&store).await?;
    let is_requested =
        |letter: &StoredLetter| requested.has_letter(letter) || requested.has_key(key_of(letter).as_ref());
    let mut found = Withdrawn { letters: 0, executed: args.change.execute, withdrawn: 0 };
    let mut by_home: BTreeMap<(String, i32), Vec<StoredLetter>> = BTreeMap::new();
    for letter in letters.into_iter().filter(is_requested) {
        found.letters += 1;
        by_home.entry((letter.topic.clone(), letter.home)).or_default().push(letter);
    }
    if args.change.execute {
        let reason = args.change.reason()?;
        let actor = backend::actor();
        for ((topic, home), letters) in by_home {
            let source = TopicPartition::new(topic, home);
            let by = OperatorAction { source: &source, actor: &actor, reason };
            let ids: Vec<i64> = letters.iter().map(|letter| letter.dead_letter_id).collect();
            let keys: HashSet<String> = letters.iter().filter_map(key_of).map(|(.., key)| key).collect();
            found.withdrawn += store.withdraw(&by, &ids, &Vec::from_iter(keys)).await?;
        }
    }
    output.print(&found, Withdrawn::text)?;
    Ok(Exit::Done)
}

impl Withdrawn {
    fn text(&self) -> String {
        let Self { letters, withdrawn, .. } = self;
        match self.executed {
            true => format!("{withdrawn} requests taken back; what was being done with a letter may still be done\n"),
            false => format!(
                "something is requested of {letters} letters; nothing is changed: add --execute and --reason '…' to \
                 take it back\n"
            ),
        }
    }
}

//! `dead-letters show`

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::cli::backend;
use crate::cli::exit::Exit;
use crate::cli::inspect::SCAN_TIMEOUT;
use crate::cli::inspect::letter::Letter;
use crate::cli::output::{self, Output, Tone};
use crate::config::Config;
use crate::dead_letter::text_or_base64;
use crate::postgres::{LetterFilter, RawLetter};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  solewriter dead-letters show 17 -o json")]
pub(super) struct Args {
    /// The letter's number, as `list` shows it
    #[arg(value_name = "NUMBER")]
    dead_letter_id: i64,
}

/// A letter, and what a producer sent: text, or base64 where it is none.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    letter: Letter,
    key: Value,
    headers: Box<RawValue>,
    value: Value,
    edited_value: Value,
}

pub(super) async fn run(args: &Args, output: Output, config: &Config) -> anyhow::Result<Exit> {
    let store = backend::fitting_store(config).await?;
    let id = args.dead_letter_id;
    let filter = LetterFilter { ids: vec![id], ..LetterFilter::default() };
    let stored = store.letters(&filter, 1, SCAN_TIMEOUT).await?.pop();
    let (Some(stored), Some(raw)) = (stored, store.raw_letter(id).await?) else {
        anyhow::bail!("there is no dead letter {id}; type: solewriter dead-letters list");
    };
    output.print(&Shown::of(stored.into(), raw)?, Shown::table)?;
    Ok(Exit::Done)
}

impl Shown {
    fn of(letter: Letter, raw: RawLetter) -> anyhow::Result<Self> {
        let shown = |bytes: Option<Vec<u8>>| bytes.map_or(Value::Null, |bytes| text_or_base64(&bytes));
        Ok(Self {
            letter,
            key: shown(raw.key),
            headers: RawValue::from_string(raw.headers)?,
            value: shown(raw.value),
            edited_value: shown(raw.edited_value),
        })
    }

    fn table(&self) -> String {
        let text = |value: &Value| match value {
            Value::Null => None,
            Value::String(text) => Some(text.as_str().into()),
            other => Some(other.to_string().into()),
        };
        let letter = &self.letter;
        output::facts([
            ("letter", Some(letter.dead_letter_id.into())),
            ("record", Some(letter.place().into())),
            ("state", Some((&letter.state).into())),
            ("code", Some(output::toned(&letter.code, Tone::Bad))),
            ("detail", letter.detail.as_ref().map(Into::into)),
            ("attempts", Some(letter.attempts.into())),
            ("command", letter.command_id.map(Into::into)),
            ("type", letter.command_type.as_ref().map(Into::into)),
            ("recorded", Some(output::time(&letter.record_time).into())),
            ("dead", Some(output::time(&letter.at).into())),
            ("key", text(&self.key)),
            ("headers", Some(self.headers.get().into())),
            ("value", text(&self.value)),
            ("edited", text(&self.edited_value)),
        ])
    }
}

//! A range of the log on the command line.

use std::sync::Arc;
use std::time::Duration;

use crate::cli::exit::Problem;
use crate::cli::operator::ago_ms;
use crate::config::Config;
use crate::kafka::Inspector;
use crate::replay::range::{self, Bound, Only, Place, Range};
use crate::replay::resolve::{self, ResolveError, Stretch};

/// Which part of the log is meant; with nothing given, all of every configured topic.
#[derive(Clone, Debug, clap::Args)]
pub(in crate::cli) struct RangeArgs {
    /// Topics, partitions or offsets; TO is the offset behind the last. Default: every topic
    #[arg(value_name = "TOPIC[:PARTITION[:FROM-TO]]")]
    places: Vec<Place>,
    /// The same from a file, one a line, as replay plan --export writes it
    #[arg(long, value_name = "FILE", value_parser = read_places)]
    from_file: Option<Places>,
    /// From this offset on
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    from_offset: Option<i64>,
    /// Up to the offset before this one
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
    /// From the first record as new as this on, such as 2026-01-31T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = range::time_ms, conflicts_with = "from_offset")]
    from_datetime: Option<i64>,
    /// Up to the record before the first that is as new as this
    #[arg(long, value_name = "TIME", value_parser = range::time_ms, conflicts_with = "to_offset")]
    to_datetime: Option<i64>,
    /// From so long ago on, such as 2h, 3d or PT2H
    #[arg(long, visible_alias = "by-duration", value_name = "DURATION", value_parser = range::duration,
          conflicts_with_all = ["from_offset", "from_datetime"])]
    since: Option<Duration>,
    /// Only commands of this entity: its id, as in the records' keys
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Only commands of this type
    #[arg(long = "type", value_name = "TYPE")]
    command_type: Option<String>,
}

impl RangeArgs {
    /// Those of the command line, then those of the file.
    fn places(&self) -> Vec<Place> {
        let in_file = self.from_file.iter().flat_map(|places| &places.0);
        self.places.iter().chain(in_file).cloned().collect()
    }

    /// The range as it was written, times included: the same text for the same command.
    pub(in crate::cli) fn as_written(&self) -> String {
        let Self { from_offset, to_offset, from_datetime, to_datetime, since, key, command_type, .. } = self;
        let places: Vec<String> = self.places().iter().map(ToString::to_string).collect();
        let since = since.map(|since| since.as_millis());
        format!(
            "{places:?} {from_offset:?} {to_offset:?} {from_datetime:?} {to_datetime:?} {since:?} {key:?} {command_type:?}"
        )
    }

    /// The range as it was written; `--since` counts from now.
    pub(in crate::cli) fn range(&self) -> anyhow::Result<Range> {
        let time = self.from_datetime.or_else(|| self.since.map(ago_ms));
        let range = Range {
            places: self.places(),
            from: self.from_offset.map(Bound::Offset).or(time.map(Bound::TimeMs)),
            to: self.to_offset.map(Bound::Offset).or(self.to_datetime.map(Bound::TimeMs)),
            only: Only { entity_id: self.key.clone(), command_type: self.command_type.clone() },
        };
        range.checked().map_err(|error| Problem::usage(error.to_string()).into())
    }
}

/// The places of a file.
#[derive(Clone, Debug)]
struct Places(Vec<Place>);

/// Reads a file of places; `#` begins a comment.
fn read_places(file: &str) -> Result<Places, String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let lines = text.lines().enumerate().map(|(n, line)| (n + 1, line.split('#').next().unwrap_or_default().trim()));
    let places = lines.filter(|(_, line)| !line.is_empty());
    let places = places.map(|(n, line)| line.parse::<Place>().map_err(|error| format!("line {n}: {error}")));
    match places.collect::<Result<Vec<_>, _>>()? {
        // without a place, everything would be meant
        none if none.is_empty() => Err("the file names no partition".to_owned()),
        places => Ok(Places(places)),
    }
}

/// The stretches of a range on the logs as they are now.
pub(in crate::cli) async fn resolved(
    config: &Config,
    inspector: &Arc<Inspector>,
    range: &Range,
) -> anyhow::Result<Vec<Stretch>> {
    config.require_topics()?;
    let known = |topic: &str| config.topics.iter().any(|known| known.name == topic);
    if let Some(place) = range.places.iter().find(|place| !known(&place.topic)) {
        let known: Vec<&str> = config.topics.iter().map(|topic| &*topic.name).collect();
        let why = format!("topic {} is not in the configuration, which has {}", place.topic, known.join(", "));
        return Err(Problem::usage(why).into());
    }
    let (inspector, range) = (inspector.clone(), range.clone());
    let topics: Vec<String> = config.topics.iter().map(|topic| topic.name.clone()).collect();
    let resolved = tokio::task::spawn_blocking(move || {
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        resolve::resolve(&inspector, &range, &topics)
    });
    resolved.await?.map_err(|error| match error {
        ResolveError::NoPartition(_) => Problem::usage(error.to_string()).into(),
        error => Problem::unreachable(error.to_string()).into(),
    })
}

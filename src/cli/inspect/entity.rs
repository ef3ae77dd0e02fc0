//! `inspect entity`: where it stands, and its commands as a timeline.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use super::letter::Letter;
use super::timeline::{self, Timeline};
use crate::cli::backend;
use crate::cli::exit::Problem;
use crate::cli::output::{self, Tone, or_dash};
use crate::config::{Config, nearest};
use crate::outcome::{Body, Ending, FinalOutcome, rfc3339};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  solewriter inspect entity account acct-42 --limit 20 --since 2d

No index leads from an entity to its commands, so the days of the idempotency table are looked
through, the newest first, for 20 s at most. What is missing from the answer is said on stderr.")]
pub(super) struct Args {
    /// The entity type, such as account
    #[arg(value_name = "TYPE")]
    entity_type: String,
    /// The entity's id: the key of its commands
    #[arg(value_name = "ID")]
    entity_id: String,
    /// The newest so many commands
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Only records as new as this, such as 2h or 3d; the shorter, the quicker
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
}

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct EntityReport {
    entity_type: String,
    entity_id: String,
    /// 0: no command was applied to it.
    version: i64,
    state: Option<Box<RawValue>>,
    /// In the order of the log.
    commands: Vec<Entry>,
}

/// A command of the timeline: an outcome's fields, and the record's time.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Entry {
    #[serde(serialize_with = "with_time")]
    Final(Box<FinalOutcome>),
    Dead(Box<Letter>),
}

fn with_time<S: serde::Serializer>(outcome: &FinalOutcome, to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Timed<'a> {
        #[serde(flatten)]
        body: Body<'a>,
        record_time: String,
    }
    Timed { body: outcome.body(), record_time: rfc3339(outcome.delivery.record_time_ms) }.serialize(to)
}

pub(super) async fn inspect(config: &Config, args: &Args) -> anyhow::Result<EntityReport> {
    let store = backend::fitting_store(config).await?;
    let Args { entity_type, entity_id, limit, since } = args;
    let entity = store.entity(entity_type, entity_id).await?;
    let Timeline { outcomes, letters, mut cut } =
        timeline::search(&store, entity_type, entity_id, *since, *limit).await?;
    // a type that has left the configuration is still remembered
    if entity.is_none() && outcomes.is_empty() && letters.is_empty() {
        known(config, entity_type)?;
    }
    let mut commands: Vec<Entry> = outcomes.into_iter().map(|outcome| Entry::Final(Box::new(outcome))).collect();
    commands.extend(letters.into_iter().map(|letter| Entry::Dead(Box::new(letter.into()))));
    let more = in_order(&mut commands, *limit as usize);
    if more && cut.is_none() {
        cut = Some(format!("only the newest {limit} are shown: there are older ones (--limit)"));
    }
    if let Some(cut) = cut {
        eprintln!("note: {cut}");
    }
    Ok(EntityReport {
        entity_type: entity_type.clone(),
        entity_id: entity_id.clone(),
        version: entity.as_ref().map_or(0, |entity| entity.version),
        state: entity.and_then(|entity| entity.state).map(RawValue::from_string).transpose()?,
        commands,
    })
}

/// Nothing is remembered of a type that no topic carries: its name is the mistake.
fn known(config: &Config, entity_type: &str) -> Result<(), Problem> {
    let types: Vec<&str> = config.topics.iter().map(|topic| topic.entity.as_str()).collect();
    if types.is_empty() || types.contains(&entity_type) {
        return Ok(());
    }
    let meant = nearest(entity_type, &types).map(|nearest| format!("; did you mean {nearest}?")).unwrap_or_default();
    let there = types.join(", ");
    Err(Problem::usage(format!(
        "no topic of the configuration carries the entity {entity_type}{meant} (there are: {there})"
    )))
}

/// Sorts as the log has them and keeps the newest; whether some had to go. All that took effect is
/// on one partition; a misrouted record may be on another, and comes first.
fn in_order(commands: &mut Vec<Entry>, commands_max: usize) -> bool {
    let home = commands.iter().find(|entry| matches!(entry, Entry::Final(_))).map(|entry| entry.place().0);
    commands.sort_by_key(|entry| {
        let (partition, offset) = entry.place();
        (home == Some(partition), partition, offset)
    });
    let surplus = commands.len().saturating_sub(commands_max);
    commands.drain(..surplus);
    surplus > 0
}

impl Entry {
    fn place(&self) -> (i32, i64) {
        match self {
            Self::Final(outcome) => (outcome.delivery.source.partition, outcome.delivery.offset),
            Self::Dead(letter) => (letter.partition, letter.offset),
        }
    }

    fn row(&self) -> [comfy_table::Cell; 6] {
        match self {
            Self::Final(outcome) => {
                let (ending, tone, result) = match &outcome.ending {
                    Ending::Applied { reply, .. } => ("applied", Tone::Good, reply.get().to_owned()),
                    Ending::Rejected { code, detail } => {
                        ("rejected", Tone::Warning, output::reason(code, detail.as_deref()))
                    }
                };
                [
                    output::time(&rfc3339(outcome.delivery.record_time_ms)).into(),
                    format!("{}:{}", outcome.delivery.source.partition, outcome.delivery.offset).into(),
                    (&*outcome.delivery.command_type).into(),
                    output::toned(ending, tone),
                    outcome.version.into(),
                    result.into(),
                ]
            }
            Self::Dead(letter) => [
                output::time(&letter.record_time).into(),
                format!("{}:{}", letter.partition, letter.offset).into(),
                or_dash(letter.command_type.as_deref()).into(),
                output::toned("dead", Tone::Bad),
                "-".into(),
                output::reason(&letter.code, letter.detail.as_deref()).into(),
            ],
        }
    }
}

impl EntityReport {
    pub(super) fn text(&self) -> String {
        let head = output::facts([
            ("entity", Some(format!("{} {}", self.entity_type, self.entity_id).into())),
            ("version", Some(self.version.into())),
            ("state", self.state.as_ref().map(|state| state.get().into())),
        ]);
        if self.commands.is_empty() {
            return head + "\nno commands of it are remembered\n";
        }
        let mut table = output::table(&["TIME", "RECORD", "TYPE", "OUTCOME", "VERSION", "REPLY OR REASON"]);
        for entry in &self.commands {
            table.add_row(entry.row());
        }
        output::keep_whole(&mut table, &[1, 2, 3, 4]);
        format!("{head}\n{}", output::drawn(&table))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::command::Fingerprint;
    use crate::config::Topic;
    use crate::outcome::{Delivery, ENCODING};
    use crate::postgres::StoredLetter;
    use crate::record::TopicPartition;

    fn applied(offset: i64) -> Entry {
        let delivery = Delivery {
            command_id: Uuid::from_u128(7),
            command_type: "account.open".into(),
            entity_type: "account".into(),
            entity_id: "a".into(),
            fingerprint: Fingerprint([0; 16]),
            source: TopicPartition::new("accounts", 1),
            offset,
            record_time_ms: 0,
            traceparent: None,
        };
        let ending = Ending::Applied { reply: RawValue::NULL.to_owned(), events: Vec::new() };
        Entry::Final(Box::new(FinalOutcome { delivery, version: 1, ending, encoding: ENCODING }))
    }

    fn dead(partition: i32, offset: i64) -> Entry {
        let stored = StoredLetter {
            dead_letter_id: 1,
            topic: "accounts".into(),
            partition,
            home: partition,
            log_offset: offset,
            code: "misrouted".into(),
            detail: None,
            attempts: 1,
            state: "dead".into(),
            at_ms: 0,
            record_time_ms: 0,
            command_id: None,
            command_type: None,
            entity_type: "account".into(),
            entity_id: Some("a".into()),
        };
        Entry::Dead(Box::new(stored.into()))
    }

    #[test]
    fn the_timeline_is_in_the_order_of_the_log_and_keeps_the_newest() {
        let mut commands = vec![applied(9), applied(5), dead(1, 7), dead(2, 100)];
        assert!(!in_order(&mut commands, 4));
        let places: Vec<_> = commands.iter().map(Entry::place).collect();
        assert_eq!(places, [(2, 100), (1, 5), (1, 7), (1, 9)]);
        assert!(in_order(&mut commands, 2));
        assert_eq!(commands.iter().map(Entry::place).collect::<Vec<_>>(), [(1, 7), (1, 9)]);
    }

    #[test]
    fn a_type_that_no_topic_carries_is_told_with_the_one_that_is_meant() {
        let topics = ["product", "customer"].map(|entity| Topic::new(format!("{entity}.commands"), entity));
        let config = Config { topics: topics.into(), ..Config::default() };
        let refused = known(&config, "produkt").expect_err("no such type").to_string();
        assert!(refused.ends_with("carries the entity produkt; did you mean product? (there are: product, customer)"));
        assert!(known(&config, "customer").is_ok() && known(&Config::default(), "produkt").is_ok());
    }

    #[test]
    fn the_answer_has_the_shape_of_the_interface() {
        let report = EntityReport {
            entity_type: "account".into(),
            entity_id: "a".into(),
            version: 1,
            state: Some(RawValue::from_string(r#"{"balance":1}"#.into()).expect("JSON")),
            commands: vec![applied(9), dead(1, 10)],
        };
        let json = serde_json::to_value(&report).expect("a document");
        assert_eq!(json["state"]["balance"], 1);
        assert_eq!((&json["commands"][0]["outcome"], &json["commands"][0]["offset"]), (&"applied".into(), &9.into()));
        assert_eq!(json["commands"][0]["record_time"], "1970-01-01T00:00:00.000Z");
        assert_eq!(
            (&json["commands"][1]["outcome"], &json["commands"][1]["code"]),
            (&"dead".into(), &"misrouted".into())
        );
        let text = report.text();
        assert!(text.contains("account.open") && text.contains("misrouted"), "{text}");
    }
}

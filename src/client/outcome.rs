//! What a worker says of a command, read from the outcomes topic.

use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::Published;

/// How a command, or this delivery of it, ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The business rule said yes. Final: every repeat of the command gets the same.
    Applied {
        /// What the handler answered: `serde_json::from_str(reply.get())`.
        reply: Box<RawValue>,
        /// How many commands have been applied to the entity, this one included.
        version: i64,
    },
    /// The business rule said no. Final, too.
    Rejected {
        /// The rule's code, kebab-case.
        code: String,
        /// Why, for a person.
        detail: Option<String>,
    },
    /// This delivery had no effect. Not final: an operator may run it again, and after `expired` or
    /// `misrouted` an earlier delivery may have had its effect. Never compensate on those.
    Dead {
        /// One of the interface's codes.
        code: String,
        /// What is wrong with it, for a person.
        detail: Option<String>,
    },
}

/// An outcome with all that was published of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OutcomeRecord {
    /// How the command ended.
    pub outcome: Outcome,
    /// The record's value, as it was published.
    pub json: Box<RawValue>,
}

/// Only whose outcome it is: most are for others.
#[derive(Deserialize)]
struct Whose {
    command_id: Uuid,
}

/// The command that an outcome speaks of. `None`: what is no outcome is not for us.
pub(super) fn command_id(value: &[u8]) -> Option<Uuid> {
    serde_json::from_slice(value).ok().map(|Whose { command_id }| command_id)
}

#[derive(Deserialize)]
struct Body {
    command_type: Option<String>,
    entity_id: Option<String>,
    outcome: String,
    code: Option<String>,
    detail: Option<String>,
    version: Option<i64>,
    reply: Option<Box<RawValue>>,
    topic: String,
    partition: i32,
    offset: i64,
}

/// Whether a record answers a command.
#[derive(Debug)]
pub(super) enum Answer {
    /// It does.
    Outcome(Box<OutcomeRecord>),
    /// It speaks of another delivery, or cannot be read: wait on.
    Another,
    /// The id is another command's: its type and entity.
    IdReuse { command_type: String, entity_id: String },
}

/// What a record with the command's id means for one delivery of it. A final outcome is that of
/// every delivery; a dead one speaks of its own only.
pub(super) fn judge(value: &[u8], command_type: &str, key: &str, published: &Published) -> Answer {
    let (Ok(body), Ok(json)) = (serde_json::from_slice::<Body>(value), serde_json::from_slice::<Box<RawValue>>(value))
    else {
        return Answer::Another;
    };
    let of = (body.topic.as_str(), body.partition, body.offset);
    if body.outcome == "dead" && of != (&*published.topic, published.partition, published.offset) {
        return Answer::Another;
    }
    if body.outcome != "dead"
        && (body.command_type.as_deref(), body.entity_id.as_deref()) != (Some(command_type), Some(key))
    {
        let (command_type, entity_id) = (body.command_type.unwrap_or_default(), body.entity_id.unwrap_or_default());
        return Answer::IdReuse { command_type, entity_id };
    }
    let code = body.code.unwrap_or_default();
    let outcome = match body.outcome.as_str() {
        // an option reads a null as nothing, and a handler may reply with it
        "applied" => Outcome::Applied {
            reply: body.reply.unwrap_or_else(|| RawValue::NULL.to_owned()),
            version: body.version.unwrap_or_default(),
        },
        "rejected" => Outcome::Rejected { code, detail: body.detail },
        "dead" => Outcome::Dead { code, detail: body.detail },
        _ => return Answer::Another,
    };
    Answer::Outcome(Box::new(OutcomeRecord { outcome, json }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(fields: &str) -> Answer {
        let value = format!(
            r#"{{"command_id":"01990000-0000-7000-8000-000000000001","command_type":"account.open",
                "entity_type":"account","entity_id":"a","detail":null,"topic":"t","partition":3,{fields}}}"#
        );
        assert!(command_id(value.as_bytes()).is_some());
        let published = Published { topic: "t".into(), partition: 3, offset: 7 };
        judge(value.as_bytes(), "account.open", "a", &published)
    }

    fn outcome(fields: &str) -> Option<Outcome> {
        match judged(fields) {
            Answer::Outcome(record) => Some(record.outcome),
            _ => None,
        }
    }

    #[test]
    fn a_final_outcome_is_that_of_every_delivery() {
        let applied = outcome(r#""outcome":"applied","code":null,"version":2,"reply":{"n":1.0},"offset":1"#);
        assert!(matches!(applied, Some(Outcome::Applied { reply, version: 2 }) if reply.get() == r#"{"n":1.0}"#));
        let rejected = outcome(r#""outcome":"rejected","code":"no","version":2,"reply":null,"offset":1"#);
        assert!(matches!(rejected, Some(Outcome::Rejected { code, .. }) if code == "no"));
        let null = outcome(r#""outcome":"applied","code":null,"version":2,"reply":null,"offset":1"#);
        assert!(matches!(null, Some(Outcome::Applied { reply, .. }) if reply.get() == "null"));
    }

    #[test]
    fn a_dead_one_speaks_of_its_own_delivery() {
        let dead =
            |offset| format!(r#""outcome":"dead","code":"expired","version":null,"reply":null,"offset":{offset}"#);
        assert!(outcome(&dead(6)).is_none());
        assert!(matches!(outcome(&dead(7)), Some(Outcome::Dead { code, .. }) if code == "expired"));
    }

    #[test]
    fn an_outcome_of_another_command_under_this_id_says_so() {
        let value = br#"{"command_id":"01990000-0000-7000-8000-000000000001","command_type":"account.open",
            "entity_id":"b","outcome":"rejected","code":"no","topic":"t","partition":3,"offset":1}"#;
        let published = Published { topic: "t".into(), partition: 3, offset: 7 };
        assert!(
            matches!(judge(value, "account.open", "a", &published), Answer::IdReuse { entity_id, .. } if entity_id == "b")
        );
    }

    #[test]
    fn what_is_no_outcome_is_passed_over() {
        assert!(command_id(b"{").is_none() && command_id(b"{}").is_none());
        assert!(outcome(r#""outcome":"postponed","code":null,"offset":7"#).is_none());
    }
}

//! A command as an upstream makes it: checked, and encoded once.

use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::dead_letter::entity_id;

/// What cannot be a command; sent anyway, it would be a dead letter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidCommand {
    /// Would be dead `malformed-key`.
    #[error("the key {key:?} is no entity id: it has to have 1 to 512 bytes without U+0000")]
    Key {
        /// The key, cut short.
        key: String,
    },
    /// Would be dead `unknown-type`.
    #[error("the command type is empty: name the one that the worker's handler has, such as account.withdraw")]
    Type,
    /// Would be dead `malformed-id`.
    #[error("{id} is no command id: use one that is neither nil nor max, best of version 7")]
    Id {
        /// The id.
        id: Uuid,
    },
    /// Would be dead `malformed-payload`.
    #[error("the data of a command is a JSON object, such as {{\"amount\":30}}, and this is {found}")]
    NoObject {
        /// What it is.
        found: &'static str,
    },
    /// The payload's own `Serialize` failed.
    #[error("the data of the command cannot be written as JSON")]
    Data(#[from] serde_json::Error),
}

/// How much of a key stands in a message: characters.
const KEY_SHOWN_MAX: usize = 40;

/// A command with its id. Whoever repeats it repeats the id and the exact bytes, so it is known
/// again.
#[derive(Clone, Debug)]
pub struct Command {
    id: Uuid,
    command_type: String,
    key: String,
    data: Box<RawValue>,
    traceparent: Option<String>,
}

impl Command {
    /// A command of `command_type` for the entity `key`, under a fresh UUIDv7.
    ///
    /// # Errors
    /// What a worker would refuse whatever its handlers are.
    pub fn new<T: Serialize + ?Sized>(
        command_type: impl Into<String>,
        key: impl Into<String>,
        payload: &T,
    ) -> Result<Self, InvalidCommand> {
        Self::from_json(command_type, key, serde_json::value::to_raw_value(payload)?)
    }

    /// The same with data that is JSON already; it is sent byte for byte.
    ///
    /// # Errors
    /// What a worker would refuse whatever its handlers are.
    pub fn from_json(
        command_type: impl Into<String>,
        key: impl Into<String>,
        data: Box<RawValue>,
    ) -> Result<Self, InvalidCommand> {
        let (command_type, key) = (command_type.into(), key.into());
        if entity_id(Some(key.as_bytes())).is_none() {
            return Err(InvalidCommand::Key { key: key.chars().take(KEY_SHOWN_MAX).collect() });
        }
        if command_type.is_empty() {
            return Err(InvalidCommand::Type);
        }
        match kind(&data) {
            OBJECT => Ok(Self { id: Uuid::now_v7(), command_type, key, data, traceparent: None }),
            found => Err(InvalidCommand::NoObject { found }),
        }
    }

    /// The same command under an id that was made earlier: the one that was kept across a restart.
    ///
    /// # Errors
    /// [`InvalidCommand::Id`] for nil and max.
    pub fn with_id(mut self, id: Uuid) -> Result<Self, InvalidCommand> {
        if id.is_nil() || id.is_max() {
            return Err(InvalidCommand::Id { id });
        }
        self.id = id;
        Ok(self)
    }

    /// Carries a W3C trace context over to the outcome.
    #[must_use]
    pub fn with_traceparent(mut self, traceparent: impl Into<String>) -> Self {
        self.traceparent = Some(traceparent.into());
        self
    }

    /// The command id: made once, kept across retries.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The command type.
    #[must_use]
    pub fn command_type(&self) -> &str {
        &self.command_type
    }

    /// The entity id; the record's key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The data, as it is sent.
    #[must_use]
    pub fn data(&self) -> &RawValue {
        &self.data
    }

    pub(super) fn id_text(&self) -> String {
        self.id.hyphenated().to_string()
    }

    /// CloudEvents' Kafka binding, binary mode.
    pub(super) fn headers<'a>(&'a self, id: &'a str, source: &'a str) -> Vec<(&'a str, &'a str)> {
        let mut headers = vec![
            ("ce_specversion", "1.0"),
            ("ce_id", id),
            ("ce_type", &self.command_type),
            ("ce_source", source),
            ("content-type", "application/json"),
        ];
        headers.extend(self.traceparent.as_deref().map(|traceparent| ("traceparent", traceparent)));
        headers
    }
}

const OBJECT: &str = "an object";

/// What a value is. Valid JSON tells by its first byte.
pub(super) fn kind(value: &RawValue) -> &'static str {
    match value.get().trim_ascii_start().bytes().next() {
        Some(b'{') => OBJECT,
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "true or false",
        Some(b'n') | None => "null",
        Some(_) => "a number",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused<T: Serialize>(command_type: &str, key: &str, payload: &T) -> InvalidCommand {
        Command::new(command_type, key, payload).expect_err("no command")
    }

    #[test]
    fn a_command_keeps_its_id_and_bytes() {
        let command = Command::new("account.open", "acct-1", &json!({"initial": 1})).expect("a command");
        assert_eq!(command.id().get_version_num(), 7);
        assert_eq!((command.clone().id(), command.data().get()), (command.id(), r#"{"initial":1}"#));
        let kept = Uuid::now_v7();
        assert_eq!(command.with_id(kept).expect("a command").id(), kept);
    }

    #[test]
    fn what_a_worker_would_refuse_is_refused_here() {
        let object = json!({});
        for key in ["", "a\0b", &"k".repeat(513)] {
            assert!(matches!(refused("t", key, &object), InvalidCommand::Key { .. }), "{key}");
        }
        assert!(matches!(refused("", "k", &object), InvalidCommand::Type));
        for no_object in [json!(null), json!([1]), json!(1), json!("a"), json!(true)] {
            assert!(matches!(refused("t", "k", &no_object), InvalidCommand::NoObject { .. }), "{no_object}");
        }
        let command = Command::new("t", "k", &object).expect("a command");
        assert!(command.clone().with_id(Uuid::nil()).is_err() && command.with_id(Uuid::max()).is_err());
    }

    #[test]
    fn the_envelope_is_that_of_cloudevents() {
        let command = Command::new("account.open", "acct-1", &json!({})).expect("a command").with_traceparent("00-1");
        let id = command.id_text();
        let headers = command.headers(&id, "orders");
        let value = |name| headers.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
        assert_eq!((value("ce_specversion"), value("ce_id")), (Some("1.0"), Some(&*id)));
        assert_eq!((value("ce_type"), value("ce_source")), (Some("account.open"), Some("orders")));
        assert_eq!(value("traceparent"), Some("00-1"));
    }
}

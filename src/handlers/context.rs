//! What a handler may know beside its state and its payload: nothing that could
//! differ when the same command is run again.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use uuid::Uuid;

use super::derived_uuid::nth_uuid;
use super::sql::{Write, Writes};
use crate::outcome::Event;

/// What a handler may know and do beside changing its state.
#[derive(Debug)]
pub struct Context<'a> {
    entity_id: &'a str,
    command_id: Uuid,
    record_time_ms: i64,
    version: i64,
    uuids: u32,
    events: Vec<Event>,
    declared: &'a Writes,
    writes: Vec<Write>,
    failed: Option<String>,
}

impl<'a> Context<'a> {
    /// The context of one command on one entity. `record_time_ms` counts from 1970.
    /// `declared` are the writes that it may name.
    pub fn new(entity_id: &'a str, command_id: Uuid, record_time_ms: i64, version: i64, declared: &'a Writes) -> Self {
        let (events, writes, failed) = (Vec::new(), Vec::new(), None);
        Self { entity_id, command_id, record_time_ms, version, uuids: 0, events, declared, writes, failed }
    }

    /// The entity's id: the record's key.
    pub fn entity_id(&self) -> &str {
        self.entity_id
    }

    /// The command's id.
    pub fn command_id(&self) -> Uuid {
        self.command_id
    }

    /// The record's time. The only clock there is: it reads the same at a replay.
    pub fn record_time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.record_time_ms.unsigned_abs())
    }

    /// How many commands have been applied to the entity before this one.
    pub fn version(&self) -> i64 {
        self.version
    }

    /// A UUID that is the same whenever this command is run: version 5 of the
    /// command id, another one at each call.
    pub fn new_uuid(&mut self) -> Uuid {
        self.uuids += 1;
        nth_uuid(&self.command_id, self.uuids)
    }

    /// Publishes an event on the topic's events topic, after the commit, if the
    /// command is applied. Data that JSON cannot hold fails the command.
    pub fn emit(&mut self, event_type: impl Into<Cow<'static, str>>, data: &impl Serialize) {
        let event_type = event_type.into();
        match serde_json::value::to_raw_value(data) {
            Ok(data) => self.events.push(Event { event_type, data }),
            Err(error) => self.failed = Some(format!("event {event_type} cannot be encoded: {error}")),
        }
    }

    /// Runs a declared SQL step (`[[write]]` in a file of `commands`) inside the commit of this
    /// command, if it is applied. `params` is an object with the step's fields. Nothing happens
    /// now: a write is a value, so handlers stay pure. A name or a field that the declaration does
    /// not know fails the command; a violated constraint rejects it, and its effects are undone.
    pub fn write(&mut self, name: &str, params: &impl Serialize) {
        match self.declared.get(name).ok_or("no file of `commands` declares it".to_owned()).and_then(|call| {
            let params = serde_json::to_vec(params).map_err(|error| error.to_string())?;
            Ok(Write { function: call.function, arguments: call.fields.arguments(&params)? })
        }) {
            Ok(write) => self.writes.push(write),
            Err(why) => self.failed = Some(format!("write {name}: {why}")),
        }
    }

    pub(crate) fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    pub(crate) fn into_effects(self) -> (Vec<Event>, Vec<Write>) {
        (self.events, self.writes)
    }
}

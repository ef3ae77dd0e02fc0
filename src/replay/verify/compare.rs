//! Sets every ending of a rebuilt partition against what the tables say of it.

use std::collections::HashMap;

use serde_json::{Value, json};
use uuid::Uuid;

use super::change::Example;
use super::ended::{Ended, alike};
use super::guide::Expected;
use super::rebuild::{Place, Rebuild};
use super::report::{After, Difference, What};
use crate::horizon;
use crate::outcome::FinalOutcome;
use crate::steps::commit::Durable;

/// The day of an id, in days since 1970; `None` for ids without a time.
fn day_of(id: &Uuid) -> Option<i64> {
    horizon::id_time_ms(id).map(|time_ms| time_ms / horizon::DAY_MS)
}

impl Rebuild {
    /// An outcome of the live tables has a record.
    pub fn meets(&mut self, live: &FinalOutcome) {
        *self.met.entry(day_of(&live.delivery.command_id)).or_default() += 1;
    }

    /// Sets every ending against what the tables say.
    pub fn compare(
        &mut self,
        durable: &Durable,
        expected: &mut HashMap<Uuid, Expected>,
        places: &HashMap<Uuid, usize>,
    ) {
        let place = |id: &Uuid| (places.get(id).copied().unwrap_or(usize::MAX), true);
        for rebuilt in durable.outcomes() {
            let expected = expected.remove(&rebuilt.delivery.command_id);
            self.compare_outcome(expected, place(&rebuilt.delivery.command_id), rebuilt);
        }
        for dead in &durable.decision().dead {
            let Some(known) = dead.command_id.and_then(|id| expected.remove(&id)) else { continue };
            let key = dead.entity_id().map(str::to_owned);
            let place = dead.command_id.as_ref().map_or((usize::MAX, true), place);
            let rebuilt = (dead.code.as_str(), Some(dead.detail.as_str()));
            self.compare_dead(&known, place, dead.record.offset, key, dead.command_id, rebuilt);
        }
    }

    /// What is left has repeated a command that is settled in the shadow.
    pub fn repeated(&mut self, expected: HashMap<Uuid, Expected>, places: &HashMap<Uuid, usize>) {
        let place = |id: &Uuid| (places.get(id).copied().unwrap_or(usize::MAX), true);
        for live in expected.into_values() {
            if let Expected::Outcome(live) = live {
                self.meets(&live);
                self.report.compared += 1;
                let (ended, place) = (json!(Ended::of(&live)), place(&live.delivery.command_id));
                self.differs(
                    What::Outcome,
                    place,
                    &live,
                    ended,
                    json!("a repeat of a command that was settled before it"),
                );
            }
        }
    }

    /// Sets the ending of a command against what the tables say of it.
    pub fn compare_outcome(&mut self, expected: Option<Expected>, place: Place, rebuilt: &FinalOutcome) {
        match expected {
            Some(Expected::Outcome(live)) => {
                self.meets(&live);
                self.report.compared += 1;
                if !alike(&live, rebuilt) {
                    self.changed(&live, Ended::of(rebuilt));
                    self.differs(What::Outcome, place, rebuilt, json!(Ended::of(&live)), json!(Ended::of(rebuilt)));
                }
            }
            Some(Expected::Nothing) => {
                self.differs(What::OutcomeMissing, place, rebuilt, Value::Null, json!(Ended::of(rebuilt)));
            }
            Some(Expected::Forgotten) | None => self.report.forgotten += 1,
        }
    }

    /// A command is dead (why: code and detail) that the tables say has ended.
    pub fn compare_dead(
        &mut self,
        known: &Expected,
        place: Place,
        offset: i64,
        key: Option<String>,
        command_id: Option<Uuid>,
        (code, detail): (&str, Option<&str>),
    ) {
        let (what, live) = match known {
            Expected::Outcome(live) => (What::Outcome, json!(Ended::of(live))),
            Expected::Forgotten => (What::Outcome, json!("no longer kept, and final")),
            Expected::Nothing => (What::LetterMissing, Value::Null),
        };
        if let Expected::Outcome(live) = known {
            self.meets(live);
            self.report.compared += 1;
            self.changed(live, Ended::dead(code));
        }
        let rebuilt = json!({ "outcome": "dead", "code": code, "detail": detail });
        let difference = self.unread(what, offset, key, command_id, live, rebuilt);
        self.found.push((place, difference));
    }

    /// The first difference of a key that is a command's ending.
    fn differs(&mut self, what: What, place: Place, outcome: &FinalOutcome, live: Value, rebuilt: Value) {
        let delivery = &outcome.delivery;
        let after = After {
            command_id: Some(delivery.command_id),
            command_type: Some(delivery.command_type.to_string()),
            ..After::at(&self.partition.rules.source, delivery.offset)
        };
        let entity_id = Some(delivery.entity_id.to_string());
        let (entity_type, after) = (self.entity_type(), Some(after));
        self.found.push((place, Difference { entity_id, after, ..Difference::of(what, entity_type, live, rebuilt) }));
    }

    /// A difference of a record that did not become a command.
    pub fn unread(
        &self,
        what: What,
        offset: i64,
        entity_id: Option<String>,
        command_id: Option<Uuid>,
        live: Value,
        rebuilt: Value,
    ) -> Difference {
        let after = Some(After { command_id, ..After::at(&self.partition.rules.source, offset) });
        Difference { entity_id, after, ..Difference::of(what, self.entity_type(), live, rebuilt) }
    }

    /// A command that ends otherwise, if it does.
    pub fn changed(&mut self, live: &FinalOutcome, rebuilt: Ended) {
        let delivery = &live.delivery;
        if delivery.record_time_ms < self.changes_since_ms {
            return;
        }
        let example = Example {
            topic: delivery.source.topic.to_string(),
            partition: delivery.source.partition,
            offset: delivery.offset,
            command_id: delivery.command_id,
            entity_id: delivery.entity_id.to_string(),
            live: Ended::of(live),
            rebuilt,
        };
        self.differences.changes.add(&delivery.command_type, example);
    }

    fn entity_type(&self) -> String {
        self.partition.rules.handlers.entity_type.to_string()
    }
}

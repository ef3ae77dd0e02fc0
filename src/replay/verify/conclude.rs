//! What is known only when all partitions are rebuilt: entities, the team's tables, and what could not be proven.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

use super::cut::Snapshot;
use super::rebuild::Rebuilt;
use super::report::{After, DIFFERENCES_MAX, Difference, Differences, Report, TableReport, What};
use super::run::Verification;
use crate::horizon;
use crate::postgres::{CutTable, EntityDifference, RowDifference};
use crate::record::TopicPartition;
use crate::replay::ReplayError;

impl Verification<'_> {
    /// What is known only when all partitions are rebuilt.
    pub async fn conclude(
        &self,
        snapshot: &Snapshot,
        rebuilt: Vec<Rebuilt>,
        report: &mut Report,
    ) -> Result<Differences, ReplayError> {
        let mut differences = Differences::default();
        let horizon_ms = self.live.horizon().await?.at_ms;
        let mut met_of = BTreeMap::new();
        for Rebuilt { report: partition, differences: its, met, sometime } in rebuilt {
            differences.merge(its);
            let place = (partition.topic.clone(), partition.partition);
            if sometime > 0 {
                report.unproven.push(format!(
                    "{}:{}: {sometime} redriven letters are older than the horizon and held no key: when they ran is not \
                     known, they were run where their records are",
                    place.0, place.1
                ));
            }
            if self.kept.is_some() && partition.forgotten > 0 {
                report.unproven.push(format!(
                    "{}:{}: of {} commands older than the horizon nobody knows whether they repeat some that were settled \
                     before the checkpoint: they were run",
                    place.0, place.1, partition.forgotten
                ));
            }
            met_of.insert(place, met);
            report.partitions.push(partition);
        }
        for (topic, partition, day, count) in &snapshot.outcomes {
            let met = met_of.get(&(topic.clone(), *partition));
            let met = met.and_then(|met| met.get(day)).copied().unwrap_or(0);
            // a day below the horizon may have been dropped meanwhile
            let is_kept = day.is_none_or(|day| day * horizon::DAY_MS >= horizon_ms);
            if *count > met && is_kept {
                differences.add(unexplained((topic, *partition), *day, *count, met));
            }
        }
        self.entities(&mut differences, report).await?;
        for table in &snapshot.tables {
            self.table(table, &mut differences, report).await?;
        }
        Ok(differences)
    }

    /// Rows of a table that commands write.
    async fn table(
        &self,
        cut: &CutTable,
        differences: &mut Differences,
        report: &mut Report,
    ) -> Result<(), ReplayError> {
        let name = format!("{}.{}", cut.table.schema, cut.table.name);
        let found = self.shadow.table_differences(cut, DIFFERENCES_MAX as i64).await.map_err(ReplayError::Shadow)?;
        for (columns, why) in [
            (&cut.only_live, "which no script makes"),
            (&cut.only_scripts, "which the live table does not have"),
            (&found.not_compared, "which draws from a sequence, the clock or chance by default, and differs"),
        ] {
            let line = |column: &String| format!("{name}: column {column} is not compared, {why}");
            report.unproven.extend(columns.iter().map(line));
        }
        report.tables.push(TableReport {
            table: name.clone(),
            rows: found.rows.unsigned_abs(),
            differing: found.differing.unsigned_abs(),
        });
        differences.count(found.differing.unsigned_abs().saturating_sub(found.examples.len() as u64));
        for RowDifference { key, live, rebuilt } in found.examples {
            let after = self.named_in(live.as_deref().or(rebuilt.as_deref())).await?;
            let key = key.map(|key| json_of(Some(key)));
            let difference = Difference::of(What::Table, String::new(), json_of(live), json_of(rebuilt));
            differences.add(Difference { table: Some(name.clone()), key, after, ..difference });
        }
        Ok(())
    }

    /// The command whose id stands in a row, if there is one.
    async fn named_in(&self, row: Option<&str>) -> Result<Option<After>, ReplayError> {
        let row: serde_json::Map<String, Value> =
            row.and_then(|row| serde_json::from_str(row).ok()).unwrap_or_default();
        let ids = row.values().filter_map(Value::as_str).filter_map(|text| text.parse().ok());
        let ids: Vec<Uuid> = ids.collect();
        let named = self.shadow.outcomes_of(&ids).await.map_err(ReplayError::Shadow)?;
        let Some(delivery) = ids.iter().find_map(|id| named.get(id)).map(|outcome| &outcome.delivery) else {
            return Ok(None);
        };
        Ok(Some(After {
            command_id: Some(delivery.command_id),
            command_type: Some(delivery.command_type.to_string()),
            ..After::at(&delivery.source, delivery.offset)
        }))
    }

    /// Entities whose version or state differs, unless a command of theirs has told already.
    async fn entities(&self, differences: &mut Differences, report: &mut Report) -> Result<(), ReplayError> {
        let rows_max = DIFFERENCES_MAX as i64;
        let (count, rows) = self.shadow.entity_differences(rows_max).await.map_err(ReplayError::Shadow)?;
        report.entities_differing = count.unsigned_abs();
        let mut last = BTreeMap::new();
        for topic in &self.config.topics {
            let of_type = rows.iter().filter(|row| row.entity_type == topic.entity);
            let ids: Vec<String> = of_type.map(|row| row.entity_id.clone()).collect();
            if ids.is_empty() {
                continue;
            }
            for command in self.shadow.last_commands(&topic.entity, &ids).await.map_err(ReplayError::Shadow)? {
                let place = TopicPartition::new(&*command.topic, command.partition);
                let after = After {
                    command_id: Some(command.command_id),
                    command_type: Some(command.command_type),
                    ..After::at(&place, command.log_offset)
                };
                last.insert((topic.entity.clone(), command.entity_id), after);
            }
        }
        for row in rows.into_iter().filter(|row| !differences.has(&row.entity_type, &row.entity_id)).collect::<Vec<_>>()
        {
            let EntityDifference { entity_type, entity_id, live_version, live_state, rebuilt_version, rebuilt_state } =
                row;
            let after = last.remove(&(entity_type.clone(), entity_id.clone()));
            let (live, rebuilt) = (entity(live_version, live_state), entity(rebuilt_version, rebuilt_state));
            let difference = Difference::of(What::Entity, entity_type, live, rebuilt);
            differences.add(Difference { after, entity_id: Some(entity_id), ..difference });
        }
        Ok(())
    }

    /// Why tables may differ although commands did what they should.
    pub fn doubts(&self, report: &Report) -> Vec<String> {
        let mut doubts = Vec::new();
        for name in &self.ready.nondeterministic {
            doubts.push(format!(
                "{name} says nondeterministic = true: it may end otherwise, and leave other rows, each time"
            ));
        }
        for table in &self.ready.read {
            doubts.push(format!(
                "{}.{} is read by commands and written by none: what was changed in it is in no log, so it is as {} it",
                table.schema,
                table.name,
                if self.kept.is_some_and(|kept| kept.tables.contains(table)) {
                    "the checkpoint has"
                } else {
                    "the scripts make"
                }
            ));
        }
        if self.kept.is_none() && report.tables.iter().any(|table| table.differing > 0) {
            doubts.push(
                "the tables that commands write began as their scripts leave them: a row that something else has put there \
                 differs; begin from a checkpoint (--from NAME)"
                    .to_owned(),
            );
        }
        doubts
    }
}

/// More outcomes of one day than records lead to.
fn unexplained(place: (&String, i32), day: Option<i64>, live: i64, rebuilt: i64) -> Difference {
    let (topic, partition) = place;
    let day = day.map(|day| crate::outcome::rfc3339(day * horizon::DAY_MS));
    let outcomes =
        |count: i64| json!({ "topic": topic, "partition": partition, "ids_of_day_from": day, "outcomes": count });
    Difference::of(What::OutcomeUnexplained, String::new(), outcomes(live), outcomes(rebuilt))
}

/// JSON that the database has made.
fn json_of(text: Option<String>) -> Value {
    text.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn entity(version: Option<i64>, state: Option<String>) -> Value {
    version.map_or(Value::Null, |version| json!({ "version": version, "state": json_of(state) }))
}

//! What `try` prints.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{Args, Candidate};
use crate::cli::output::{self, Tone};
use crate::outcome::{Ending, Event, escaped_detail, rfc3339};
use crate::postgres::{ChangedRow, Changes, TrialEnding, Tried};

/// What would have become of the command. Its version is not told: only a worker counts it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    command_type: Arc<str>,
    entity_type: Arc<str>,
    entity_id: String,
    command_id: Uuid,
    outcome: &'static str,
    code: Option<String>,
    detail: Option<String>,
    reply: Option<Box<RawValue>>,
    events: Vec<Event>,
    rows: Vec<Row>,
    /// The rows by table, for people.
    #[serde(skip)]
    tables: Vec<Table>,
    #[serde(skip)]
    time_ms: i64,
}

/// A row that was inserted or updated, as it would be now.
#[derive(Debug, Serialize)]
struct Row {
    table: String,
    row: Box<RawValue>,
}

#[derive(Debug)]
struct Table {
    name: String,
    rows: Vec<ChangedRow>,
    deleted: i64,
    /// Why not all rows are there.
    incomplete: Option<String>,
}

impl Report {
    /// `tables_schema`: tables in it are named without.
    pub(super) fn new(
        candidate: &Candidate<'_>,
        args: &Args,
        tried: Tried,
        tables_schema: &str,
    ) -> serde_json::Result<Self> {
        let declaration = &candidate.command.declaration;
        let mut report = Self {
            command_type: declaration.command_type.clone(),
            entity_type: declaration.entity.clone(),
            entity_id: args.key.clone(),
            command_id: candidate.id,
            outcome: "applied",
            code: None,
            detail: None,
            reply: None,
            events: Vec::new(),
            rows: Vec::new(),
            tables: tried.changes.into_iter().map(|changes| Table::of(changes, tables_schema)).collect(),
            time_ms: candidate.time_ms,
        };
        match tried.ending {
            TrialEnding::Final(Ending::Applied { reply, events }) => {
                report.reply = Some(reply);
                report.events = events;
            }
            TrialEnding::Final(Ending::Rejected { code, detail }) => {
                report.outcome = "rejected";
                report.code = Some(code.into_owned());
                report.detail = detail;
            }
            TrialEnding::Dead { code, why, .. } => {
                report.outcome = "dead";
                report.code = Some(code.as_str().to_owned());
                report.detail = Some(escaped_detail(&why));
            }
        }
        for table in &report.tables {
            for row in &table.rows {
                let json = RawValue::from_string(row.json.clone())?;
                report.rows.push(Row { table: table.name.clone(), row: json });
            }
            if let Some(why) = &table.incomplete {
                tracing::warn!(table = table.name, why, "not all changed rows are shown");
            }
        }
        Ok(report)
    }

    pub(super) fn text(&self) -> String {
        let tone = match self.outcome {
            "applied" => Tone::Good,
            "rejected" => Tone::Warning,
            _ => Tone::Bad,
        };
        let head = output::facts([
            ("outcome", Some(output::toned(self.outcome, tone))),
            ("code", self.code.as_deref().map(Into::into)),
            ("detail", self.detail.as_deref().map(Into::into)),
            ("reply", self.reply.as_ref().map(|reply| reply.get().into())),
            ("type", Some((&*self.command_type).into())),
            ("entity", Some(format!("{} {}", self.entity_type, self.entity_id).into())),
            ("command", Some(self.command_id.to_string().into())),
            ("time", Some(rfc3339(self.time_ms).into())),
        ]);
        let tables = self.tables.iter().map(Table::text).collect::<String>();
        format!("{head}{}{tables}\nrolled back: nothing of this was kept\n", self.events_text())
    }

    fn events_text(&self) -> String {
        if self.events.is_empty() {
            return String::new();
        }
        let mut table = output::table(&["EVENT", "DATA"]);
        for event in &self.events {
            table.add_row([&*event.event_type, event.data.get()]);
        }
        format!("\n{}", output::drawn(&table))
    }
}

impl Table {
    fn of(changes: Changes, tables_schema: &str) -> Self {
        let Changes { table, rows, more, deleted } = changes;
        let name = match table.schema == tables_schema {
            true => table.name,
            false => format!("{}.{}", table.schema, table.name),
        };
        let (rows, incomplete) = match rows {
            Ok(rows) => (rows, None),
            Err(why) => (Vec::new(), Some(why)),
        };
        let incomplete = incomplete.or_else(|| more.then(|| "there are too many".to_owned()));
        Self { name, rows, deleted, incomplete }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if let Some(first) = self.rows.first() {
            let columns: Vec<&str> = first.columns.iter().map(String::as_str).collect();
            let mut table = output::table(&columns);
            for row in &self.rows {
                table.add_row(row.values.iter().map(|value| output::or_dash(value.as_deref().map(escaped_detail))));
            }
            text += &output::drawn(&table);
        }
        if self.deleted > 0 {
            text += &format!("deleted: {}\n", self.deleted);
        }
        if text.is_empty() { text } else { format!("\n{}:\n{text}", self.name) }
    }
}

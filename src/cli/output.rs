//! Results on stdout: a table for people, one JSON document for programs.

use std::io;
use std::io::{IsTerminal as _, Write as _};

use anyhow::Context as _;
use clap::ValueEnum;
use comfy_table::{Cell, Color, ColumnConstraint, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::telemetry::logging::colours_wanted;

/// The form of a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
}

impl Output {
    /// Prints `result`, as `table` draws it or as JSON.
    pub(super) fn print<T: Serialize>(self, result: &T, table: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        match self {
            Self::Table => print(&table(result)),
            Self::Json => print(&serde_json::to_string_pretty(result)?),
        }
    }
}

/// Prints `text` and ends its last line.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    let printed = write!(stdout, "{text}{newline}").and_then(|()| stdout.flush());
    match printed {
        // `| head` has seen enough: that is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.context("the result could not be printed"),
    }
}

/// An empty table that fits the terminal; in a pipe every row is one line.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(header);
    // Colour the word and not the padding around it.
    table.style_text_only();
    table
}

/// On a narrow terminal these columns keep their width, and the others wrap.
pub(super) fn keep_whole(table: &mut Table, columns: &[usize]) {
    for column in columns {
        if let Some(column) = table.column_mut(*column) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
}

/// Removes the padding that a table without borders leaves at the edges.
pub(super) fn drawn(table: &Table) -> String {
    let lines = table.lines();
    let trimmed = lines.map(|line| {
        let line = line.trim_end();
        line.strip_prefix(' ').unwrap_or(line).to_owned() + "\n"
    });
    trimmed.collect()
}

/// Names and values below each other; those without a value are left out.
pub(super) fn facts<const N: usize>(facts: [(&str, Option<Cell>); N]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.style_text_only();
    for (name, value) in facts {
        if let Some(value) = value {
            table.add_row([Cell::new(name), value]);
        }
    }
    keep_whole(&mut table, &[0]);
    drawn(&table)
}

/// How loudly a cell speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// As it should be.
    Good,
    /// Somebody should look.
    Warning,
    /// Somebody has to act.
    Bad,
}

/// A cell that stands out on a terminal that wants colours.
pub(super) fn toned(text: &str, tone: Tone) -> Cell {
    let cell = Cell::new(text);
    if !(colours_wanted() && io::stdout().is_terminal()) {
        return cell;
    }
    cell.fg(match tone {
        Tone::Good => Color::Green,
        Tone::Warning => Color::Yellow,
        Tone::Bad => Color::Red,
    })
}

/// A number or word that may be unknown.
pub(super) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A time for people: on a narrow terminal it wraps behind the day.
pub(super) fn time(rfc3339: &str) -> String {
    rfc3339.replacen('T', " ", 1)
}

/// A code with its detail.
pub(super) fn reason(code: &str, detail: Option<&str>) -> String {
    match detail {
        Some(detail) => format!("{code}: {detail}"),
        None => code.to_owned(),
    }
}

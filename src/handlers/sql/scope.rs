//! Which parameters a command uses, and whether what they name is there.

use super::diagnostic::Place;
use super::parameter::Parameter;
use super::reader::{Reader, Text};
use crate::config::nearest;

/// A use of a parameter in SQL, in a reply, an event or a detail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterUse {
    /// The parameter.
    pub parameter: Parameter,
    /// Where it stands; in a template, where its string does.
    pub place: Place,
}

/// The rows that have been taken so far, and every use.
#[derive(Default)]
pub(super) struct Scope {
    rows: Vec<Row>,
    /// The names of all rows that some step takes.
    taken_somewhere: Vec<String>,
    pub(super) uses: Vec<ParameterUse>,
    /// A statement or a text could not be read, so nobody knows what is used in it.
    pub(super) incomplete: bool,
    /// An `into` could not be read, so nobody knows which rows there are.
    pub(super) lacks_rows: bool,
}

struct Row {
    name: String,
    place: Place,
    used: bool,
}

impl Scope {
    /// `taken_somewhere`: the names of all rows, so that a use before the row is there can be told
    /// from a typo.
    pub(super) fn new(taken_somewhere: Vec<String>) -> Self {
        Self { taken_somewhere, ..Self::default() }
    }

    /// A row can be used from here on.
    pub(super) fn take(&mut self, reader: &mut Reader, into: Text) {
        let name = into.value;
        let problem = match Parameter::named(&name) {
            Some(Parameter::Field(_)) if self.rows.iter().any(|row| row.name == name) => {
                Some(format!("into = {name:?} is used twice"))
            }
            Some(Parameter::Field(_)) => None,
            Some(built_in) if built_in.is_built_in() => Some(format!("{built_in} is a parameter of every command")),
            _ => Some(format!("{name:?} is no name for a row")),
        };
        if let Some(problem) = problem {
            return reader.refuse_at(into.place, problem, "choose another name: letters, digits and underscores");
        }
        self.rows.push(Row { name, place: into.place, used: false });
    }

    /// The rows after the first `count` can be used no longer, and have to have been used.
    pub(super) fn drop_rows_after(&mut self, reader: &mut Reader, count: usize) {
        let incomplete = self.incomplete;
        for row in self.rows.drain(count..).filter(|row| !row.used && !incomplete) {
            let problem = format!("into = {:?} is never used", row.name);
            reader.refuse_at(row.place, problem, format!("remove it, or use a column of it: :{}.column", row.name));
        }
    }

    pub(super) fn row_count(&self) -> usize {
        self.rows.len()
    }

    /// Remembers a use; what it names has to be there.
    pub(super) fn record(&mut self, reader: &mut Reader, parameter: &Parameter, place: Place) {
        if let Parameter::Row { row, .. } = parameter {
            match self.rows.iter_mut().find(|known| known.name == *row) {
                Some(known) => known.used = true,
                None => self.unknown_row(reader, row, parameter, place.clone()),
            }
        }
        self.uses.push(ParameterUse { parameter: parameter.clone(), place });
    }

    fn unknown_row(&mut self, reader: &mut Reader, row: &str, parameter: &Parameter, place: Place) {
        if self.lacks_rows {
            return;
        }
        if self.taken_somewhere.iter().any(|name| name == row) {
            let problem = format!("{parameter}: the row {row} is not there yet");
            return reader.refuse_at(place, problem, "use it in what follows the step that takes it");
        }
        let names: Vec<&str> = self.rows.iter().map(|row| row.name.as_str()).collect();
        let meant = nearest(row, &names).map(str::to_owned);
        if let Some(known) = meant.as_ref().and_then(|meant| self.rows.iter_mut().find(|known| known.name == *meant)) {
            // one slip, one mistake: the row is not also unused
            known.used = true;
        }
        let cure = match meant {
            Some(meant) => format!("did you mean {meant}?"),
            None => format!("take it in an earlier step, with into = {row:?}"),
        };
        reader.refuse_at(place, format!("{parameter}: there is no row {row}"), cure);
    }
}

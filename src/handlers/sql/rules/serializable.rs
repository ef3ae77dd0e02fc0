//! Serializable is a promise among those who make it: whoever writes what a serializable command
//! reads must be serializable too, or the command can miss the change.

use std::collections::BTreeSet;

use super::super::diagnostic::Diagnostic;
use super::super::typed::Relation;
use super::{Declared, Examined, listed};

/// A declaration with all its statements.
pub(in super::super) type Whole<'d, 's> = (Declared<'d>, &'s [Examined<'d>]);

/// For each that breaks the promise: its number, and what to say. The first serializable command
/// that it betrays is named, with the tables.
pub(in super::super) fn check(all: &[Whole<'_, '_>]) -> Vec<(usize, Diagnostic)> {
    let others = all.iter().enumerate().filter(|(_, (declared, _))| !declared.serializable());
    others.filter_map(|(nth, other)| Some((nth, betrayal(other, all)?))).collect()
}

fn betrayal((other, statements): &Whole<'_, '_>, all: &[Whole<'_, '_>]) -> Option<Diagnostic> {
    let written = tables(statements, false);
    let serializable = all.iter().filter(|(declared, _)| declared.serializable());
    let mut shared = serializable.map(|(declared, statements)| {
        let reads = tables(statements, true);
        (declared.name(), written.intersection(&reads).map(|table| table.name.as_str()).collect::<Vec<_>>())
    });
    let (name, tables) = shared.find(|(_, tables)| !tables.is_empty())?;
    let tables = listed(tables);
    let cure = match other {
        Declared::Command(_) => format!("add isolation = \"serializable\" to {}", other.name()),
        Declared::Write(_) => {
            format!("write {tables} by a command in SQL that is serializable, or take isolation away from {name}")
        }
    };
    Some(Diagnostic {
        place: other.place().clone(),
        problem: format!(
            "{} writes {tables} and is not serializable: {name}, which is and reads {tables}, could miss it",
            other.name()
        ),
        cure,
    })
}

/// What is written, and perhaps what is read too.
fn tables<'s>(statements: &'s [Examined<'_>], reads: bool) -> BTreeSet<&'s Relation> {
    let written = statements.iter().flat_map(|statement| &statement.typed.writes);
    let read = statements.iter().filter(|_| reads).flat_map(|statement| &statement.typed.reads);
    written.chain(read).collect()
}

#[cfg(test)]
mod tests {
    use super::super::support::{command, examined, write};
    use super::*;

    #[test]
    fn whoever_writes_what_a_serializable_command_reads_is_named_with_the_table() {
        let mut strict = command("shift.leave", "select 1");
        strict.serializable = true;
        let lax = command("shift.join", "select 1");
        let aside = command("audit.note", "select 1");
        let ledger = write("roster", "select 1");
        let reads = [examined(&strict.steps[0].statement, &["duty"], &[])];
        let writes = [examined(&lax.steps[0].statement, &[], &["duty", "log"])];
        let notes = [examined(&aside.steps[0].statement, &["duty"], &["log"])];
        let rows = [examined(&ledger.statement, &[], &["duty"])];
        let all: [Whole<'_, '_>; 4] = [
            (Declared::Command(&strict), &reads),
            (Declared::Command(&lax), &writes),
            (Declared::Command(&aside), &notes),
            (Declared::Write(&ledger), &rows),
        ];
        let found = check(&all);
        assert_eq!(found.iter().map(|(nth, _)| *nth).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(
            found[0].1.problem,
            "shift.join writes duty and is not serializable: shift.leave, which is and reads duty, could miss it"
        );
        assert_eq!(found[0].1.cure, "add isolation = \"serializable\" to shift.join");
        assert!(found[1].1.cure.contains("take isolation away from shift.leave"), "{found:?}");
    }
}

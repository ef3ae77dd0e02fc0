//! An insert gives a value to each column that takes no null: otherwise it can only raise.

use super::super::diagnostic::Diagnostic;
use super::{Catalog, Examined};

/// Columns that take no null, have no default, and are left out.
pub(in super::super) fn check(examined: &Examined<'_>, catalog: &Catalog) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (table, number) in &examined.left_null {
        // a trigger may fill it in
        let written = catalog.written.get(table).filter(|written| !written.triggers.iter().any(|t| t.on_insert));
        let columns = written.into_iter().flat_map(|written| &written.not_null);
        found.extend(columns.filter(|(of_table, _)| of_table == number).map(|(_, column)| Diagnostic {
            place: examined.statement.place_of(0),
            problem: format!("column {column} of {} takes no null, and this insert gives it no value", table.name),
            cure: format!("insert {column} too, or give the column a default"),
        }));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::support::{examined, relation, statement};
    use super::*;
    use crate::postgres::{Trigger, WrittenTable};

    fn problems(left_null: usize, triggers: Vec<Trigger>) -> Vec<String> {
        let table =
            WrittenTable { not_null: vec![(1, "id".into()), (3, "at".into())], triggers, ..WrittenTable::default() };
        let catalog = Catalog { written: [(relation("ledger"), table)].into(), ..Catalog::default() };
        let statement = statement("insert into ledger (id) values (:entity_id)");
        let mut examined = examined(&statement, &[], &["ledger"]);
        examined.left_null = vec![(relation("ledger"), left_null)];
        check(&examined, &catalog).into_iter().map(|diagnostic| diagnostic.problem).collect()
    }

    #[test]
    fn a_column_that_takes_no_null_and_is_left_out_is_a_mistake() {
        let expected = "column at of ledger takes no null, and this insert gives it no value";
        assert_eq!(problems(3, Vec::new()), [expected]);
        assert_eq!(problems(2, Vec::new()), [""; 0]);
        let fills = Trigger { name: "fills".into(), on_insert: true, on_update: false, on_delete: false };
        assert_eq!(problems(3, vec![fills]), [""; 0]);
    }
}

//! A rejection code belongs to a constraint that a command can violate.

use std::collections::BTreeSet;

use super::super::diagnostic::Diagnostic;
use super::{Catalog, Declared, Examined, listed};
use crate::config::nearest;

/// Names under `constraints` that no written table has.
pub(in super::super) fn check(
    declared: Declared<'_>,
    statements: &[Examined<'_>],
    catalog: &Catalog,
) -> Vec<Diagnostic> {
    let tables: BTreeSet<_> = statements.iter().flat_map(|statement| &statement.typed.writes).collect();
    let written: Vec<_> = tables.iter().filter_map(|table| catalog.written.get(*table)).collect();
    // what a trigger violates is anybody's guess
    if written.iter().any(|table| !table.triggers.is_empty()) {
        return Vec::new();
    }
    let known: BTreeSet<_> = written.iter().flat_map(|table| &table.constraints).map(String::as_str).collect();
    let names: Vec<_> = known.iter().copied().collect();
    let unknown = declared.constraints().keys().filter(|name| !known.contains(name.as_str()));
    let name = declared.name();
    let tables = listed(tables.iter().map(|table| &table.name));
    unknown
        .map(|constraint| Diagnostic {
            place: declared.place_of(constraint),
            problem: match tables.is_empty() {
                true => format!("{name} writes no table, and violates no constraint {constraint}"),
                false => format!("no table that {name} writes has a constraint {constraint} ({tables})"),
            },
            cure: match nearest(constraint, &names) {
                Some(meant) => format!("did you mean {meant}?"),
                None if names.is_empty() => "remove it".to_owned(),
                None => format!("name one of {}, or remove it", listed(&names)),
            },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::support::{command, examined, relation};
    use super::*;
    use crate::postgres::WrittenTable;

    #[test]
    fn a_constraint_that_no_written_table_has_is_a_mistake() {
        let mut command = command("account.open", "insert into account values (:entity_id)");
        let codes = [("account_balance_check", "broke"), ("account_balanc_check", "broke")];
        command.constraints = codes.into_iter().map(|(name, code)| (name.into(), code.into())).collect();
        let table = WrittenTable { constraints: ["account_balance_check".into()].into(), ..WrittenTable::default() };
        let catalog = Catalog { written: [(relation("account"), table)].into(), ..Catalog::default() };
        let statements = [examined(&command.steps[0].statement, &[], &["account"])];
        let found = check(Declared::Command(&command), &statements, &catalog);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].cure, "did you mean account_balance_check?");
        let problem = "no table that account.open writes has a constraint account_balanc_check (account)";
        assert_eq!(found[0].problem, problem);
    }
}

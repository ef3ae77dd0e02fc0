//! What `check` says of commands in SQL: each that is in order, and everything that is not.

use super::check::Check;
use crate::config::Config;
use crate::declared::Compiled;
use crate::handlers::sql::declaration::Declarations;
use crate::handlers::sql::diagnostic::{Diagnostic, Place};
use crate::handlers::sql::examine::{Examination, examine};
use crate::handlers::sql::rules::entities;
use crate::handlers::sql::typed::{Field, Relation, TypedCommand, TypedWrite};
use crate::postgres::{Deferrable, Store};
use crate::worker::Worker;

/// What the files declare, or a line for each mistake that needs no database to be found.
pub(super) fn declarations(config: &Config) -> Result<Declarations, Vec<Check>> {
    Declarations::load(config).map_err(|mistakes| mistakes.0.iter().map(failed).collect())
}

/// The database takes what is declared, and it keeps to the rules. The database has been reached.
pub(super) async fn checks(
    worker: &Worker,
    config: &Config,
    declarations: &Declarations,
) -> anyhow::Result<Vec<Check>> {
    if declarations.commands.is_empty() && declarations.writes.is_empty() {
        return Ok(Vec::new());
    }
    let store = Store::new(&config.database, "solewriter check")?;
    let examination = examine(&store, &config.database.tables_schema, declarations).await?;
    let functions = functions(config, &store, &examination).await?;
    store.close().await;
    let topics: Vec<_> = config.topics.iter().map(|topic| topic.entity.as_str()).collect();
    let rust: Vec<_> = worker.entity_types().collect();
    let mut checks = said(&examination, &entities::check(declarations, &topics, &rust));
    checks.extend(functions);
    Ok(checks)
}

/// What `migrate` has made is what the files say. Nothing is said while the files have mistakes.
async fn functions(config: &Config, store: &Store, examination: &Examination) -> anyhow::Result<Option<Check>> {
    const NAME: &str = "functions of commands in SQL";
    if !examination.problems.is_empty() {
        return Ok(None);
    }
    let compiled = Compiled::of(&config.database, &examination.typed);
    let absent = compiled.absent(store).await?;
    Ok(Some(match absent.as_slice() {
        [] => Check::ok(NAME, format!("{} in the database, as the files say", compiled.functions().len())),
        absent => {
            let detail = format!("missing, or not what the files say: {}", absent.join(", "));
            Check::failed(NAME, detail, "type: solewriter migrate")
        }
    }))
}

fn said(examination: &Examination, misplaced: &[Diagnostic]) -> Vec<Check> {
    // a command that the database takes may still be at home in no topic
    let at_home = |place: &Place| !misplaced.iter().any(|diagnostic| diagnostic.place == *place);
    let commands = examination.typed.commands.iter().filter(|command| at_home(&command.declaration.place));
    let writes = examination.typed.writes.iter().filter(|write| at_home(&write.declaration.place));
    let mut checks: Vec<_> = commands.map(command).chain(writes.map(write)).collect();
    checks.extend(deferrable(&examination.deferrable));
    checks.extend(misplaced.iter().chain(&examination.problems).map(failed));
    checks
}

fn failed(diagnostic: &Diagnostic) -> Check {
    let detail = format!("{}: {}", diagnostic.place, diagnostic.problem);
    Check { shown: Some(diagnostic.to_string()), ..Check::failed("commands", detail, &diagnostic.cure) }
}

fn command(command: &TypedCommand) -> Check {
    let steps = command.steps.len();
    let plural = if steps == 1 { "" } else { "s" };
    let tables = tables(&command.reads(), &command.writes());
    let detail = format!("{steps} step{plural}, {}; {tables}", fields(&command.fields));
    Check::ok(format!("command {}", command.declaration.command_type), detail)
}

fn write(write: &TypedWrite) -> Check {
    let (reads, writes) =
        (write.statement.reads.iter().collect::<Vec<_>>(), write.statement.writes.iter().collect::<Vec<_>>());
    let detail = format!("{}; {}", fields(&write.fields), tables(&reads, &writes));
    Check::ok(format!("write {}", write.declaration.name), detail)
}

fn fields(fields: &[Field]) -> String {
    match fields {
        [] => "no fields".to_owned(),
        fields => {
            format!("fields {}", listed(fields.iter().map(|field| format!("{} {}", field.name, field.data_type))))
        }
    }
}

fn tables(reads: &[&Relation], writes: &[&Relation]) -> String {
    let names = |verb: &str, tables: &[&Relation]| match tables {
        [] => format!("{verb} nothing"),
        tables => format!("{verb} {}", listed(tables.iter().map(|table| table.name.clone()))),
    };
    format!("{}, {}", names("reads", reads), names("writes", writes))
}

/// Nobody needs to change them: only that their name says otherwise.
fn deferrable(constraints: &[Deferrable]) -> Option<Check> {
    if constraints.is_empty() {
        return None;
    }
    let names = constraints.iter().map(|constraint| format!("{} of {}", constraint.name, constraint.table.name));
    Some(Check::ok("deferrable constraints", format!("checked at once: {}", listed(names))))
}

fn listed(names: impl Iterator<Item = String>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relation(name: &str) -> Relation {
        Relation { schema: "public".into(), name: name.into() }
    }

    #[test]
    fn fields_and_tables_are_named_and_so_is_their_absence() {
        let amount = Field { name: "amount".into(), data_type: "bigint".into() };
        assert_eq!(fields(&[amount]), "fields amount bigint");
        assert_eq!(fields(&[]), "no fields");
        assert_eq!(tables(&[&relation("account")], &[]), "reads account, writes nothing");
    }

    #[test]
    fn a_deferrable_constraint_is_in_order_and_named() {
        assert_eq!(deferrable(&[]), None);
        let (name, table) = ("ledger_account_fkey".into(), relation("ledger"));
        let check = deferrable(&[Deferrable { table, name, initially_deferred: true }]);
        let expected = "checked at once: ledger_account_fkey of ledger";
        assert_eq!(check, Some(Check::ok("deferrable constraints", expected)));
    }
}

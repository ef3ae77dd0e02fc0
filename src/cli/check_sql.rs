//! What `check` says of commands in SQL: each that is in order, and everything that is not.

use super::check::Check;
use crate::config::Config;
use crate::declared::{Compiled, Declared, scripts};
use crate::handlers::sql::declaration::TablesScript;
use crate::handlers::sql::diagnostic::{Diagnostic, Place};
use crate::handlers::sql::examine::Examination;
use crate::handlers::sql::typed::{Field, Relation, TypedCommand, TypedWrite};
use crate::postgres::{Deferrable, Store};

const TABLES: &str = "tables";
const MIGRATE: &str = "type: solewriter migrate";

/// The database takes what is declared, and it keeps to the rules; `mistakes` were found without the
/// database. It has been reached. Also the functions, if nothing at all is wrong.
pub(super) async fn checks(
    declared: &Declared,
    mistakes: &[Diagnostic],
    config: &Config,
) -> anyhow::Result<(Vec<Check>, Compiled)> {
    if declared.is_empty() {
        return Ok((Vec::new(), Compiled::default()));
    }
    let store = Store::new(&config.database, "solewriter check")?;
    let mut checks: Vec<_> = declared.parse_scripts(&store).await?.iter().map(failed).collect();
    let mut compiled = Compiled::default();
    if !store.has_schema(&config.database.tables_schema).await? {
        // no statement finds anything: that would be said of each
        checks.push(without_schema(declared, &config.database.tables_schema));
        store.close().await;
        return Ok((checks, compiled));
    }
    let examination = declared.examine(&store).await?;
    checks.extend(said(&examination, mistakes, &declared.declarations().tables));
    if mistakes.is_empty() && examination.problems.is_empty() {
        compiled = Compiled::of(&config.database, &examination.typed);
        checks.push(functions(&compiled, &store).await?);
    }
    store.close().await;
    Ok((checks, compiled))
}

/// What `migrate` has made is what the files say.
async fn functions(compiled: &Compiled, store: &Store) -> anyhow::Result<Check> {
    const NAME: &str = "functions of commands in SQL";
    let absent = compiled.absent(store).await?;
    Ok(match absent.as_slice() {
        [] => Check::ok(NAME, format!("{} in the database, as the files say", compiled.functions().len())),
        absent => {
            let detail = format!("missing, or not what the files say: {}", absent.join(", "));
            Check::failed(NAME, detail, MIGRATE)
        }
    })
}

/// There is no schema for the tables.
fn without_schema(declared: &Declared, schema: &str) -> Check {
    let scripts: Vec<_> = declared.declarations().tables.iter().map(scripts::path).collect();
    match scripts.as_slice() {
        [] => {
            let cure = "make it with its tables, or correct database.tables_schema";
            Check::failed(TABLES, format!("there is no schema {schema}"), cure)
        }
        scripts => {
            let detail = format!("there is no schema {schema}: {} not been run", have(scripts));
            Check::failed(TABLES, detail, MIGRATE)
        }
    }
}

/// Tables are missing that a script makes.
fn not_run((script, tables): &(&TablesScript, Vec<String>)) -> Check {
    let there = if tables.len() == 1 { "is no table" } else { "are no tables" };
    let script = have(&[scripts::path(script)]);
    Check::failed(TABLES, format!("there {there} {}: {script} not been run", tables.join(", ")), MIGRATE)
}

fn have(scripts: &[String]) -> String {
    format!("{} {}", scripts.join(", "), if scripts.len() == 1 { "has" } else { "have" })
}

fn said(examination: &Examination, mistakes: &[Diagnostic], scripts: &[TablesScript]) -> Vec<Check> {
    // a command that the database takes may still have handlers in Rust beside it
    let at_home = |place: &Place| !mistakes.iter().any(|diagnostic| diagnostic.place == *place);
    let commands = examination.typed.commands.iter().filter(|command| at_home(&command.declaration.place));
    let writes = examination.typed.writes.iter().filter(|write| at_home(&write.declaration.place));
    let mut checks: Vec<_> = commands.map(command).chain(writes.map(write)).collect();
    checks.extend(deferrable(&examination.deferrable));
    checks.extend(examination.warnings.iter().map(warned));
    let (problems, awaited) = scripts::not_run(examination.problems.clone(), scripts);
    checks.extend(awaited.iter().map(not_run));
    checks.extend(problems.iter().map(failed));
    checks
}

/// A mistake.
pub(super) fn failed(diagnostic: &Diagnostic) -> Check {
    shown(diagnostic, Check::failed("commands", detail(diagnostic), &diagnostic.cure))
}

/// What is in order, and hardly meant.
fn warned(diagnostic: &Diagnostic) -> Check {
    shown(diagnostic, Check::warning("commands", detail(diagnostic), &diagnostic.cure))
}

fn detail(diagnostic: &Diagnostic) -> String {
    format!("{}: {}", diagnostic.place, diagnostic.problem)
}

fn shown(diagnostic: &Diagnostic, check: Check) -> Check {
    Check { shown: Some(diagnostic.to_string()), ..check }
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
        let amount = Field { name: "amount".into(), data_type: "bigint".into(), base_type: "bigint".into() };
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

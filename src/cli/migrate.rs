//! `migrate`: create or upgrade the schema.

use serde::Serialize;

use super::backend;
use super::exit::Exit;
use super::output::Output;
use crate::config::Config;
use crate::worker::Worker;

/// Create or upgrade the schema in Postgres
///
/// Migrations only add within a major version: migrate first, then roll the workers. Running it
/// again changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  DATABASE_URL=postgres://localhost/app solewriter migrate
  solewriter migrate --print > solewriter.sql    # for a DBA to read and run")]
pub(super) struct Args {
    /// Print the statements and touch no database
    #[arg(long)]
    print: bool,
}

/// What a migration did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Migrated {
    /// The schema.
    pub(super) schema: String,
    /// Version of the schema now.
    pub(super) version: i64,
    /// The schemas that were made now.
    pub(super) made_schemas: Vec<String>,
    /// Names of the migrations that were applied now, in order.
    pub(super) applied: Vec<String>,
    /// The scripts of `tables` that were run.
    pub(super) scripts: Vec<String>,
    /// Names of the functions of commands in SQL that were made now.
    pub(super) functions: Vec<String>,
}

/// What a migration would do.
#[derive(Serialize)]
struct Printed {
    sql: String,
}

pub(super) async fn run(args: &Args, output: Output, worker: &Worker, config: &Config) -> anyhow::Result<Exit> {
    if args.print {
        let sql = backend::migration_sql(config)?;
        output.print(&Printed { sql }, |printed| printed.sql.clone())?;
        return Ok(Exit::Done);
    }
    let migrated = backend::migrate(worker, config).await?;
    output.print(&migrated, Migrated::text)?;
    Ok(Exit::Done)
}

impl Migrated {
    fn text(&self) -> String {
        let lines =
            |what: &str, names: &[String]| -> String { names.iter().map(|name| format!("{what} {name}\n")).collect() };
        let mut text = lines("made schema", &self.made_schemas) + &lines("applied", &self.applied);
        text += &lines("ran", &self.scripts);
        text += &lines("made function", &self.functions);
        let nothing_new = self.applied.is_empty() && self.functions.is_empty();
        let end = if nothing_new { "already up to date" } else { "up to date" };
        text += &format!("schema {} is {end} (version {})\n", self.schema, self.version);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_and_run_is_said_in_its_order() {
        let named = |name: &str| vec![name.to_owned()];
        let first = Migrated {
            schema: "solewriter".into(),
            version: 3,
            made_schemas: vec!["solewriter".into(), "stock".into()],
            applied: named("functions"),
            scripts: named("sql/stock.sql"),
            functions: named("command_1"),
        };
        let said = "made schema solewriter\nmade schema stock\napplied functions\nran sql/stock.sql\n\
                    made function command_1\nschema solewriter is up to date (version 3)\n";
        assert_eq!(first.text(), said);
        let none = Vec::new;
        let again = Migrated { made_schemas: none(), applied: none(), functions: none(), ..first };
        assert_eq!(again.text(), "ran sql/stock.sql\nschema solewriter is already up to date (version 3)\n");
    }
}

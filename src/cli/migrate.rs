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
    /// Names of the migrations that were applied now, in order.
    pub(super) applied: Vec<String>,
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
        let mut text: String = self.applied.iter().map(|name| format!("applied {name}\n")).collect();
        text.extend(self.functions.iter().map(|name| format!("made function {name}\n")));
        let end =
            if self.applied.is_empty() && self.functions.is_empty() { "already up to date" } else { "up to date" };
        text += &format!("schema {} is {end} (version {})\n", self.schema, self.version);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_it_again_says_that_nothing_changed() {
        let again = Migrated { schema: "solewriter".into(), version: 3, applied: Vec::new(), functions: Vec::new() };
        assert_eq!(again.text(), "schema solewriter is already up to date (version 3)\n");
    }
}

//! A schema of its own in somebody else's database, and one for the team's tables, gone with this
//! process.
//!
//! Who drops them is a second process, which waits for the end of its input: a pipe that only this
//! process holds open. So the schemas go whatever ends this process, `kill -9` included.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::{env, io};

use super::Error;
use crate::config::{Database, DatabaseUrl};
use crate::postgres::Store;

/// Every schema that `dev` makes begins so, with twelve hexadecimal digits behind; it drops no other.
const PREFIX: &str = "solewriter_dev_";
const DIGITS: usize = 12;
/// Behind the name: the schema of the tables that commands in SQL write.
const TABLES: &str = "_tables";
/// The hidden flag of `dev` that makes a process the one who waits and drops.
pub(crate) const FLAG: &str = "--drop-schema-at-end-of-input";

/// The name, and the process that drops it.
#[derive(Debug)]
pub(super) struct OwnSchema {
    pub(super) name: String,
    dropper: Child,
    /// That it closes is the message.
    lifeline: Option<ChildStdin>,
}

impl OwnSchema {
    /// Chooses a name; its dropper waits before the schema is made.
    pub(super) fn begin() -> Result<Self, Error> {
        let name = format!("{PREFIX}{:0DIGITS$x}", fastrand::u64(..1 << 48));
        let doing = || Error::io("start the process that drops the schema at the end");
        let mut command = Command::new(env::current_exe().map_err(doing())?);
        // a group of its own: Ctrl-C in the terminal reaches this process, and through it the dropper
        command.args(["dev", FLAG, &name]).stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
        let mut dropper = command.spawn().map_err(doing())?;
        let lifeline = dropper.stdin.take();
        Ok(Self { name, dropper, lifeline })
    }

    /// Has it dropped, and waits until it is.
    pub(super) async fn end(mut self) -> Result<(), Error> {
        drop(self.lifeline.take());
        let name = self.name.clone();
        let names = schemas(&name).join(", ");
        let doing = format!("drop the schemas {names}; type: drop schema if exists {names} cascade");
        let waited = tokio::task::spawn_blocking(move || self.dropper.wait()).await;
        match waited.map_err(io::Error::other).flatten() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Error::io(doing)(io::Error::other(status.to_string()))),
            Err(error) => Err(Error::io(doing)(error)),
        }
    }
}

/// The dropper's life: waits for the end of standard input, then drops the schema, and that of the
/// tables beside it, in the database that `DATABASE_URL` names.
///
/// # Errors
/// If the schema is not one of `dev`'s, or could not be dropped.
pub async fn drop_at_end_of_input(schema: String) -> Result<(), Error> {
    if !is_of_dev(&schema) {
        return Err(Error::NothingToRun(format!("{schema} is no schema that dev has made")));
    }
    let waiting = || io::stdin().read_to_end(&mut Vec::new());
    let waited = tokio::task::spawn_blocking(waiting).await;
    waited.map_err(io::Error::other).flatten().map_err(Error::io("wait for the end of input"))?;
    let schemas = schemas(&schema);
    let store = Store::new(&database(schema)?, "solewriter dev")?;
    store.drop_schemas(&schemas).await?;
    store.close().await;
    Ok(())
}

fn is_of_dev(name: &str) -> bool {
    let is_digit = |c: char| matches!(c, '0'..='9' | 'a'..='f');
    name.strip_prefix(PREFIX).is_some_and(|digits| digits.len() == DIGITS && digits.chars().all(is_digit))
}

/// The schema, and that of the tables.
fn schemas(name: &str) -> [String; 2] {
    [name.to_owned(), format!("{name}{TABLES}")]
}

/// The database that the user has named, with this schema and the one beside it.
pub(super) fn database(name: String) -> Result<Database, Error> {
    let url = named_database().unwrap_or_default();
    let [schema, tables_schema] = schemas(&name);
    Ok(Database { url: Some(url.parse::<DatabaseUrl>()?), schema, tables_schema, ..Database::default() })
}

/// `DATABASE_URL`, unless it is empty.
pub(super) fn named_database() -> Option<String> {
    env::var("DATABASE_URL").ok().filter(|url| !url.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_dev_has_made_is_dropped() {
        assert!(is_of_dev("solewriter_dev_0123456789ab"));
        let others =
            ["solewriter", "solewriter_dev_", "solewriter_dev_0123456789ab_tables", "solewriter_dev_\"; drop x"];
        assert!(!others.into_iter().any(is_of_dev));
        assert_eq!(schemas("solewriter_dev_0123456789ab")[1], "solewriter_dev_0123456789ab_tables");
    }
}

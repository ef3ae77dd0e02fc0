//! A schema of its own in somebody else's database, and one for the team's tables, gone with this
//! process.
//!
//! Who drops them is a second process, which waits for the end of its input: a pipe that only this
//! process holds open. So the schemas go whatever ends this process, `kill -9` included.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::{env, io};

use crate::config::{Database, DatabaseUrl, DatabaseUrlError};
use crate::postgres::{self, ConnectError, Store};

const DIGITS: usize = 12;
/// Behind the name: the schema of the tables that commands in SQL write.
const TABLES: &str = "_tables";
/// The hidden flag of `dev` that makes a process the one who waits and drops.
pub(crate) const FLAG: &str = "--drop-schema-at-end-of-input";

/// Who makes a schema. Its name begins so, with twelve hexadecimal digits behind; no other is dropped.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    Dev,
    #[cfg(feature = "bench")]
    Bench,
}

impl Purpose {
    fn prefix(self) -> &'static str {
        match self {
            Self::Dev => DEV,
            #[cfg(feature = "bench")]
            Self::Bench => BENCH,
        }
    }
}

const DEV: &str = "solewriter_dev_";
const BENCH: &str = "solewriter_bench_";

/// The schemas were not dropped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DropError {
    /// Somebody else's.
    #[error("{0} is no schema that dev or bench has made")]
    NotOurs(String),
    /// This machine refused something ordinary.
    #[error("wait for the end of input: {0}")]
    Io(#[from] io::Error),
    /// The address is none.
    #[error("the database's address cannot be used: {0}")]
    Url(#[from] DatabaseUrlError),
    /// There is no way to the database.
    #[error("the database cannot be used: {0}")]
    Connect(#[from] ConnectError),
    /// The database refuses.
    #[error("the database refuses: {0}")]
    Database(#[from] postgres::Error),
}

/// The name, and the process that drops it.
#[derive(Debug)]
pub(crate) struct OwnSchema {
    pub(crate) name: String,
    dropper: Child,
    /// That it closes is the message.
    lifeline: Option<ChildStdin>,
}

impl OwnSchema {
    /// Chooses a name; its dropper waits before the schema is made.
    pub(crate) fn begin(purpose: Purpose, database_url: &str) -> io::Result<Self> {
        let name = format!("{}{:0DIGITS$x}", purpose.prefix(), fastrand::u64(..1 << 48));
        let mut command = Command::new(env::current_exe()?);
        // a group of its own: Ctrl-C in the terminal reaches this process, and through it the dropper
        command.args(["dev", FLAG, &name]).stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
        let mut dropper = command.env("DATABASE_URL", database_url).spawn()?;
        let lifeline = dropper.stdin.take();
        Ok(Self { name, dropper, lifeline })
    }

    /// The schema, and that of the tables.
    pub(crate) fn schemas(&self) -> [String; 2] {
        schemas(&self.name)
    }

    /// Has them dropped, and waits until they are.
    pub(crate) async fn end(mut self) -> io::Result<()> {
        drop(self.lifeline.take());
        let names = self.schemas().join(", ");
        let waited = tokio::task::spawn_blocking(move || self.dropper.wait()).await;
        match waited.map_err(io::Error::other).flatten()? {
            status if status.success() => Ok(()),
            status => Err(io::Error::other(format!("{status}; type: drop schema if exists {names} cascade"))),
        }
    }
}

/// The dropper's life: waits for the end of standard input, then drops the schema, and that of the
/// tables beside it, in the database that `DATABASE_URL` names.
///
/// # Errors
/// If the schema is not one of these, or could not be dropped.
pub async fn drop_at_end_of_input(schema: String) -> Result<(), DropError> {
    if !is_ours(&schema) {
        return Err(DropError::NotOurs(schema));
    }
    let waiting = || io::stdin().read_to_end(&mut Vec::new());
    tokio::task::spawn_blocking(waiting).await.map_err(io::Error::other).flatten()?;
    let schemas = schemas(&schema);
    let store = Store::new(&database(schema)?, "solewriter dev")?;
    store.drop_schemas(&schemas).await?;
    store.close().await;
    Ok(())
}

fn is_ours(name: &str) -> bool {
    let is_digit = |c: char| matches!(c, '0'..='9' | 'a'..='f');
    let digits = [DEV, BENCH].into_iter().find_map(|prefix| name.strip_prefix(prefix));
    digits.is_some_and(|digits| digits.len() == DIGITS && digits.chars().all(is_digit))
}

fn schemas(name: &str) -> [String; 2] {
    [name.to_owned(), format!("{name}{TABLES}")]
}

/// The database that the user has named, with this schema and the one beside it.
pub(crate) fn database(name: String) -> Result<Database, DatabaseUrlError> {
    let url = named_database().unwrap_or_default();
    let [schema, tables_schema] = schemas(&name);
    Ok(Database { url: Some(url.parse::<DatabaseUrl>()?), schema, tables_schema, ..Database::default() })
}

/// `DATABASE_URL`, unless it is empty.
pub(crate) fn named_database() -> Option<String> {
    env::var("DATABASE_URL").ok().filter(|url| !url.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_made_here_is_dropped() {
        assert!(is_ours("solewriter_dev_0123456789ab") && is_ours("solewriter_bench_0123456789ab"));
        let others =
            ["solewriter", "solewriter_dev_", "solewriter_dev_0123456789ab_tables", "solewriter_dev_\"; drop x"];
        assert!(!others.into_iter().any(is_ours));
        assert_eq!(schemas("solewriter_dev_0123456789ab")[1], "solewriter_dev_0123456789ab_tables");
    }
}

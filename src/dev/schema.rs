//! A schema of its own in somebody else's database, gone with this process.
//!
//! Who drops it is a second process, which waits for the end of its input: a pipe that only this
//! process holds open. So the schema goes whatever ends this process, `kill -9` included.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::{env, io};

use super::Error;
use crate::config::{Database, DatabaseUrl};
use crate::postgres::Store;

/// Every schema that `dev` makes begins so, and it drops no other.
const PREFIX: &str = "solewriter_dev_";
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
        let name = format!("{PREFIX}{:012x}", fastrand::u64(..1 << 48));
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
        let doing = format!("drop the schema {name}; type: drop schema {name} cascade");
        let waited = tokio::task::spawn_blocking(move || self.dropper.wait()).await;
        match waited.map_err(io::Error::other).flatten() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Error::io(doing)(io::Error::other(status.to_string()))),
            Err(error) => Err(Error::io(doing)(error)),
        }
    }
}

/// The dropper's life: waits for the end of standard input, then drops the schema in the database
/// that `DATABASE_URL` names.
///
/// # Errors
/// If the schema is not one of `dev`'s, or could not be dropped.
pub async fn drop_at_end_of_input(schema: String) -> Result<(), Error> {
    if !schema.starts_with(PREFIX) {
        return Err(Error::NothingToRun(format!("{schema} is no schema that dev has made")));
    }
    let waiting = || io::stdin().read_to_end(&mut Vec::new());
    let waited = tokio::task::spawn_blocking(waiting).await;
    waited.map_err(io::Error::other).flatten().map_err(Error::io("wait for the end of input"))?;
    let store = Store::new(&database(schema)?, "solewriter dev")?;
    store.drop_schema().await?;
    store.close().await;
    Ok(())
}

/// The database that the user has named, with this schema.
pub(super) fn database(schema: String) -> Result<Database, Error> {
    let url = named_database().unwrap_or_default();
    Ok(Database { url: Some(url.parse::<DatabaseUrl>()?), schema, ..Database::default() })
}

/// `DATABASE_URL`, unless it is empty.
pub(super) fn named_database() -> Option<String> {
    env::var("DATABASE_URL").ok().filter(|url| !url.is_empty())
}

//! A worker in a process of its own, which can be halted by the operating system.

use std::num::NonZeroUsize;
use std::{fmt, io};

use rustix::process::Signal;
use tokio::task::spawn_blocking;

use super::Error;
use super::project::absolute_commands;
use crate::config::Config;
use crate::local::itself::{Copy, Itself};

/// What the log says of a write that the fence has refused.
const FENCED: &str = "fenced: nothing was written";

/// Running, or ended. Dropping it kills it and removes its directory, as its guard does when there is
/// nobody to drop it.
pub(super) struct Process(Itself);

/// A write that the fence has refused, as the log has it.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Refusal {
    message: String,
    /// Topic and partition.
    source: String,
    /// The writer's token.
    token: String,
    /// The partition's.
    held: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, token, held, .. } = self;
        write!(f, "{source} has token {held}, not {token}")
    }
}

impl Process {
    /// Starts `run` with this configuration, these files of `commands` instead of its own if there are
    /// any, and this database.
    pub(super) async fn start(
        config: &Config,
        files: &'static [(&'static str, &'static str)],
        database_url: &str,
    ) -> Result<Self, Error> {
        let (config, database_url) = (config.clone(), database_url.to_owned());
        let started = spawn_blocking(move || start(&config, files, &database_url)).await;
        let started = started.map_err(io::Error::other).flatten();
        started.map(Self).map_err(Error::io("start a worker in a process of its own"))
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.0.guarded.id()
    }

    /// Sends a signal; nothing happens when it has ended.
    pub(super) fn signal(&mut self, signal: Signal) -> Result<(), Error> {
        self.0.guarded.signal(signal).map_err(Error::io("send a signal to the third worker"))
    }

    /// Whether it has not ended.
    pub(super) fn is_running(&mut self) -> Result<bool, Error> {
        let status = self.0.guarded.exit_status().map_err(Error::io("wait for the third worker"))?;
        Ok(status.is_none())
    }

    /// Its writes that the fence has refused so far.
    pub(super) fn refusals(&self) -> Vec<Refusal> {
        refusals(&self.0.log_text())
    }
}

/// One JSON object a line; the last line may be half written.
fn refusals(log: &str) -> Vec<Refusal> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Refusal>(line).ok());
    lines.filter(|refusal| refusal.message == FENCED).collect()
}

fn start(config: &Config, files: &[(&str, &str)], database_url: &str) -> io::Result<Itself> {
    // files that come along are beside the configuration
    let commands = if files.is_empty() { absolute_commands(config)? } else { config.commands.clone() };
    let mut config = Config { commands, ..config.clone() };
    // a commit for each command: whenever it is halted in a backlog, it has something left to write
    config.worker.batch_commands_max = NonZeroUsize::MIN;
    let (purpose, arguments, log_directives) = ("zombie", &["run"], "warn");
    Itself::start(Copy { purpose, arguments, config, files, database_url, log_directives })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_writes_are_found_in_the_log() {
        let line = r#"{"timestamp":"2026-01-31T00:00:00Z","level":"WARN","message":"fenced: nothing was written","source":"account.commands:3","token":"5","held":"6","target":"t"}"#;
        let log = format!("{line}\n{{\"message\":\"claimed\"}}\nno JSON\n{}", &line[..40]);
        let found: Vec<String> = refusals(&log).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["account.commands:3 has token 6, not 5"]);
    }
}

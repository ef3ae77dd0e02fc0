//! This program once more, as a worker in a process of its own, with its configuration and its log
//! in a directory that goes with it.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::{env, fmt, fs, io};

use rustix::process::Signal;
use tokio::task::spawn_blocking;

use super::Error;
use super::directory::Directory;
use super::project::absolute_commands;
use crate::config::{Config, Database};
use crate::local::guarded::{Guarded, Program};

/// What the log says of a write that the fence has refused.
const FENCED: &str = "fenced: nothing was written";

/// Running, or ended. Dropping it kills it and removes its directory, as its guard does when there is
/// nobody to drop it.
pub(super) struct Process {
    guarded: Guarded,
    directory: Directory,
}

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
        started.map_err(io::Error::other).flatten().map_err(Error::io("start a worker in a process of its own"))
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.guarded.id()
    }

    /// Sends a signal; nothing happens when it has ended.
    pub(super) fn signal(&mut self, signal: Signal) -> Result<(), Error> {
        self.guarded.signal(signal).map_err(Error::io("send a signal to the third worker"))
    }

    /// Whether it has not ended.
    pub(super) fn is_running(&mut self) -> Result<bool, Error> {
        let status = self.guarded.exit_status().map_err(Error::io("wait for the third worker"))?;
        Ok(status.is_none())
    }

    /// Its writes that the fence has refused so far.
    pub(super) fn refusals(&self) -> Vec<Refusal> {
        refusals(&fs::read_to_string(log(&self.directory)).unwrap_or_default())
    }
}

/// One JSON object a line; the last line may be half written.
fn refusals(log: &str) -> Vec<Refusal> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Refusal>(line).ok());
    lines.filter(|refusal| refusal.message == FENCED).collect()
}

fn log(directory: &Directory) -> PathBuf {
    directory.path().join("log")
}

fn start(config: &Config, files: &[(&str, &str)], database_url: &str) -> io::Result<Process> {
    let directory = Directory::make("zombie")?.with(files)?;
    let file = directory.path().join("solewriter.toml");
    // files that come along are beside the configuration
    let commands = if files.is_empty() { absolute_commands(config)? } else { config.commands.clone() };
    fs::write(&file, written(config, commands)?)?;
    let command = [env::current_exe()?.into(), "run".into(), "--config".into(), file.into_os_string()];
    let program = Program {
        // the file and this are all that it is told
        environment: vec![("DATABASE_URL".into(), database_url.into()), ("RUST_LOG".into(), "warn".into())],
        environment_without: env::vars_os().map(|(name, _)| name).filter(|name| is_a_setting(name)).collect(),
        stderr: log(&directory),
        remove_when_orphaned: Some(directory.path().to_owned()),
        ..Program::new::<_, std::ffi::OsString>(command)
    };
    Ok(Process { guarded: program.spawn()?, directory })
}

/// The whole configuration but the database's address, which may hold a password, and with a commit
/// for each command: whenever it is halted in a backlog, it has something left to write.
fn written(config: &Config, commands: Vec<String>) -> io::Result<String> {
    let mut config = Config { commands, ..config.clone() };
    config.worker.batch_commands_max = NonZeroUsize::MIN;
    config.database = Database { url: None, ..config.database };
    // any free port: two workers of one machine cannot serve the same
    config.http.listen.set_port(0);
    toml::to_string(&config).map_err(io::Error::other)
}

fn is_a_setting(variable: &std::ffi::OsStr) -> bool {
    let name = variable.to_string_lossy();
    name.starts_with("SOLEWRITER_") || name == "KAFKA_BOOTSTRAP_SERVERS"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DatabaseUrl, Sources};

    #[test]
    fn refused_writes_are_found_in_the_log() {
        let line = r#"{"timestamp":"2026-01-31T00:00:00Z","level":"WARN","message":"fenced: nothing was written","source":"account.commands:3","token":"5","held":"6","target":"t"}"#;
        let log = format!("{line}\n{{\"message\":\"claimed\"}}\nno JSON\n{}", &line[..40]);
        let found: Vec<String> = refusals(&log).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["account.commands:3 has token 6, not 5"]);
    }

    #[test]
    fn the_file_can_be_loaded_again_and_holds_no_password() {
        let url: DatabaseUrl = "postgres://me:secret@localhost/app".parse().expect("a URL");
        let mut config = Config { topics: vec![crate::config::Topic::new("a", "account")], ..Config::default() };
        config.database.url = Some(url);
        config.kafka.properties = [("session.timeout.ms", "3000")].into_iter().collect();
        let text = written(&config, Vec::new()).expect("TOML");
        assert!(!text.contains("secret"), "{text}");
        let directory = Directory::make("test").expect("a directory");
        let file = directory.path().join("solewriter.toml");
        fs::write(&file, &text).expect("a file");
        let loaded = Config::from_sources(&Sources::of_file(Some(file))).expect("a configuration");
        assert_eq!(loaded.kafka.properties, config.kafka.properties);
        assert_eq!(loaded.http.listen.port(), 0);
    }
}

//! This program once more, in a process of its own: with a configuration file and a log in a directory
//! that goes with it.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::{env, fs, io};

use super::directory::Directory;
use super::guarded::{Guarded, Program};
use crate::config::{Config, Database};

/// What the copy is told. Of this process's settings it sees none.
pub(crate) struct Copy<'a> {
    /// Names its directory.
    pub(crate) purpose: &'a str,
    /// Its verb with arguments; `--config FILE` is added.
    pub(crate) arguments: &'a [&'a str],
    /// Written down for this user's eyes only, but for the database's address. With any free HTTP
    /// port: two workers of one machine cannot serve the same.
    pub(crate) config: Config,
    /// Laid beside the configuration.
    pub(crate) files: &'a [(&'a str, &'a str)],
    pub(crate) database_url: &'a str,
    /// As `RUST_LOG` takes it.
    pub(crate) log_directives: &'a str,
}

/// A copy, running or ended. Dropping it kills it and removes its directory, as its guard does when
/// there is nobody to drop it.
pub(crate) struct Itself {
    pub(crate) guarded: Guarded,
    directory: Directory,
}

impl Itself {
    /// Starts a copy.
    pub(crate) fn start(copy: Copy<'_>) -> io::Result<Self> {
        let directory = Directory::make(copy.purpose)?.with(copy.files)?;
        let file = directory.path().join("solewriter.toml");
        // a client's password stands in it
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file)?
            .write_all(written(copy.config)?.as_bytes())?;
        let mut command = vec![OsString::from(env::current_exe()?)];
        command.extend(copy.arguments.iter().map(OsString::from));
        command.extend(["--config".into(), file.into_os_string()]);
        let program = Program {
            // the file and this are all that it is told
            environment: vec![
                ("DATABASE_URL".into(), copy.database_url.into()),
                ("RUST_LOG".into(), copy.log_directives.into()),
            ],
            environment_without: env::vars_os().map(|(name, _)| name).filter(|name| is_a_setting(name)).collect(),
            // paths in the configuration may be relative to it
            directory: env::current_dir()?,
            stderr: directory.path().join("log"),
            remove_when_orphaned: Some(directory.path().to_owned()),
            ..Program::new(command)
        };
        Ok(Self { guarded: program.spawn()?, directory })
    }

    /// What it has logged so far.
    pub(crate) fn log_text(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }
}

/// What serializing hides of Kafka's properties is written, too: no variable can have their names.
fn written(mut config: Config) -> io::Result<String> {
    config.database = Database { url: None, ..config.database };
    config.http.listen.set_port(0);
    let properties: toml::Table =
        config.kafka.properties.iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    let mut table = toml::Table::try_from(&config).map_err(io::Error::other)?;
    if let Some(toml::Value::Table(kafka)) = table.get_mut("kafka") {
        kafka.insert("properties".to_owned(), properties.into());
    }
    toml::to_string(&table).map_err(io::Error::other)
}

fn is_a_setting(variable: &OsStr) -> bool {
    let name = variable.to_string_lossy();
    name.starts_with("SOLEWRITER_") || name == "KAFKA_BOOTSTRAP_SERVERS"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DatabaseUrl, Sources, Topic};

    #[test]
    fn the_file_can_be_loaded_again_and_holds_the_client_s_password_but_not_the_database_s() {
        let url: DatabaseUrl = "postgres://me:secret@localhost/app".parse().expect("a URL");
        let mut config = Config { topics: vec![Topic::new("a", "account")], ..Config::default() };
        config.database.url = Some(url);
        config.kafka.properties = [("session.timeout.ms", "3000"), ("sasl.password", "told")].into_iter().collect();
        let text = written(config.clone()).expect("TOML");
        assert!(!text.contains("secret"), "{text}");
        let directory = Directory::make("test").expect("a directory");
        let file = directory.path().join("solewriter.toml");
        fs::write(&file, &text).expect("a file");
        let loaded = Config::from_sources(&Sources::of_file(Some(file))).expect("a configuration");
        assert_eq!(loaded.kafka.properties, config.kafka.properties);
        assert_eq!(loaded.http.listen.port(), 0);
    }
}

//! What `dev` runs: a program's own handlers with their samples, the project of the configuration, or
//! the bank that is part of this program.

use std::path::absolute;

use super::commands::Commands;
use super::script::{Script, types};
use super::{Error, bank};
use crate::config::{Config, Database, Topic};
use crate::declared::DeclaredError;
use crate::local::directory::Directory;
use crate::worker::Worker;

/// Whose commands are run, and what is sent.
pub(super) struct Project {
    /// Holds what is declared, so that a file that is edited meanwhile changes nothing.
    pub(super) worker: Worker,
    /// With its topics.
    pub(super) config: Config,
    pub(super) commands: Commands,
    /// The files of `commands` that no disk has: another process gets them beside its configuration.
    pub(super) files: &'static [(&'static str, &'static str)],
}

impl Project {
    /// The one that this program and this configuration mean.
    pub(super) fn of(worker: Worker, config: Config) -> Result<Self, Error> {
        match () {
            () if !worker.samples.is_empty() => Self::of_program(worker, config),
            () if !config.commands.is_empty() => Self::of_files(worker, config),
            () if worker.entity_types().next().is_some() => {
                let why = "this program has no sample traffic: Worker::sample registers it";
                Err(Error::NothingToRun(why.to_owned()))
            }
            () => Self::of_bank(worker, config),
        }
    }

    /// Handlers in Rust, on topics that are called after them.
    fn of_program(worker: Worker, mut config: Config) -> Result<Self, Error> {
        let is_own = |topic: &Topic| worker.handlers(&topic.entity).is_some();
        let mut topics: Vec<Topic> =
            worker.entity_types().map(|entity| Topic::new(format!("{entity}.commands"), entity)).collect();
        if !config.commands.is_empty() {
            topics.extend(config.topics.iter().filter(|topic| !is_own(topic)).cloned());
        }
        config.topics = topics;
        let commands = Commands::made(&worker.samples);
        Self { worker, config, commands, files: &[] }.declared()
    }

    fn of_files(worker: Worker, config: Config) -> Result<Self, Error> {
        let nothing = Commands::Made(Vec::new());
        let project = Self { worker, config, commands: nothing, files: &[] }.declared()?;
        let script = Script::of_project(&project.config, &types(&project.worker))?;
        Ok(Self { commands: Commands::Read(script), ..project })
    }

    fn of_bank(mut worker: Worker, mut config: Config) -> Result<Self, Error> {
        worker.samples.push(bank::traffic());
        config.topics = vec![Topic::new(format!("{}.commands", bank::ENTITY), bank::ENTITY)];
        config.commands = vec![bank::FILES[0].0.to_owned()];
        let directory = Directory::make("bank").and_then(|directory| directory.with(&bank::FILES));
        let directory = directory.map_err(Error::io("write the bank's files"))?;
        config.directory = directory.path().to_owned();
        let commands = Commands::made(&worker.samples);
        Self { worker, config, commands, files: &bank::FILES }.declared()
    }

    /// Reads what is declared.
    fn declared(mut self) -> Result<Self, Error> {
        let declared = self.worker.declared(&self.config).map_err(DeclaredError::from)?;
        self.worker.declared = Some(declared);
        Ok(self)
    }

    /// From now on this is its database.
    pub(super) fn move_to(&mut self, database: &Database) {
        let declared = self.worker.declared.take();
        self.worker.declared = declared.map(|declared| declared.in_database(database));
    }
}

/// Files of `commands` as they are found from everywhere.
pub(super) fn absolute_commands(config: &Config) -> std::io::Result<Vec<String>> {
    let directory = match config.directory.as_os_str().is_empty() {
        true => std::env::current_dir()?,
        false => absolute(&config.directory)?,
    };
    // the directory is a name, whatever characters it has
    let directory = glob::Pattern::escape(&directory.to_string_lossy());
    let path = |pattern: &String| std::path::Path::new(&directory).join(pattern).display().to_string();
    Ok(config.commands.iter().map(path).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_without_anything_runs_the_bank() {
        let config = Config { commands: Vec::new(), ..Config::default() };
        let project = Project::of(Worker::new(), config).expect("the bank");
        assert_eq!(project.config.topics[0].name, "account.commands");
        let declared = project.worker.declared.as_ref().expect("declared");
        assert_eq!(declared.declarations().commands.len(), 4);
        assert!(!project.config.directory.exists(), "nothing is left behind");
    }

    #[test]
    fn patterns_are_found_from_everywhere() {
        let commands = vec!["commands/*.toml".to_owned(), "/etc/a.toml".to_owned()];
        let config = Config { commands, directory: "/a[1]/config".into(), ..Config::default() };
        let absolute = absolute_commands(&config).expect("a working directory");
        assert_eq!(absolute, ["/a[[]1[]]/config/commands/*.toml", "/etc/a.toml"]);
    }
}

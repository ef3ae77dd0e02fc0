//! `new`: a starter project that runs as it is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use super::exit::{Exit, Problem};
use super::output::Output;

/// Write a starter project that runs as it is
///
/// Gift cards: two commands in SQL, their table, sample commands, the configuration and a
/// docker-compose.yml, each with comments. The consumer group is called after the directory, which
/// has to be new or empty; the README says what else to rename to make the project one's own.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  solewriter new cards && cd cards && solewriter dev --for 10s")]
pub(super) struct Args {
    /// Where to write it
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Paths and texts, which are part of this program.
const FILES: [(&str, &str); 7] = [
    ("README.md", include_str!("../../templates/new/README.md")),
    ("config/solewriter.toml", include_str!("../../templates/new/config/solewriter.toml")),
    ("config/commands/card.toml", include_str!("../../templates/new/config/commands/card.toml")),
    ("sql/card.sql", include_str!("../../templates/new/sql/card.sql")),
    ("dev.jsonl", include_str!("../../templates/new/dev.jsonl")),
    ("docker-compose.yml", include_str!("../../templates/new/docker-compose.yml")),
    // without the dot it does not hide anything in this repository
    (".gitignore", include_str!("../../templates/new/gitignore")),
];

/// What is called after the directory: the pieces of the templates that become another with its name.
const NAMED: [(&str, &str); 3] = [
    ("# Gift cards\n", "# NAME\n"),
    ("group_id = \"cards\"", "group_id = \"NAME\""),
    ("GROUP_ID=cards", "GROUP_ID=NAME"),
];

/// The files of a project of this name.
fn files(name: &str) -> impl Iterator<Item = (&'static str, String)> {
    FILES.into_iter().map(move |(path, text)| {
        let called = |text: String, (from, to): (&str, &str)| text.replace(from, &to.replace("NAME", name));
        (path, NAMED.into_iter().fold(text.to_owned(), called))
    })
}

/// The directory's name, as far as a configuration and a shell take it without quotes.
fn name_of(directory: &Path) -> String {
    let named = std::path::absolute(directory).ok().and_then(|path| Some(path.file_name()?.to_owned()));
    let named = named.unwrap_or_default().to_string_lossy().into_owned();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = named.chars().map(plain).collect();
    if name.is_empty() { "cards".to_owned() } else { name }
}

/// What was written.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Written {
    directory: String,
    files: Vec<&'static str>,
}

pub(super) fn run(args: &Args, output: Output) -> anyhow::Result<Exit> {
    let written = write(&args.directory)?;
    output.print(&written, Written::text)?;
    Ok(Exit::Done)
}

impl Written {
    fn text(&self) -> String {
        let Self { directory, files } = self;
        let files: String = files.iter().map(|file| format!("wrote {directory}/{file}\n")).collect();
        let enter = if directory == "." { String::new() } else { format!("  cd {directory}\n") };
        format!("{files}\ntype next:\n{enter}  solewriter dev\nREADME.md goes on from there\n")
    }
}

fn write(directory: &Path) -> anyhow::Result<Written> {
    let doing = || format!("could not write {}", directory.display());
    let name = name_of(directory);
    if is_there(directory)? {
        fill(directory, &name).with_context(doing)?;
    } else {
        make(directory, &name).with_context(doing)?;
    }
    Ok(Written { directory: directory.display().to_string(), files: FILES.map(|(path, _)| path).to_vec() })
}

/// Whether the directory is there already, and empty. Nobody's files are mixed with these.
fn is_there(directory: &Path) -> anyhow::Result<bool> {
    match fs::read_dir(directory).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(true),
        Ok(false) => {
            let why = format!("{} is not empty: name a directory that is new or empty", directory.display());
            Err(Problem::usage(why).into())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => {
            let why = format!("{} cannot be a new project: {error}", directory.display());
            Err(Problem::usage(why).into())
        }
    }
}

/// Beside it first: the directory gets its name when everything is in it.
fn make(directory: &Path, name: &str) -> io::Result<()> {
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    let unfinished = Unfinished::write_in(parent, name)?;
    fs::rename(&unfinished.0, directory)
}

/// Inside it first: a shell may be in the directory, which therefore stays the one that it is.
fn fill(directory: &Path, name: &str) -> io::Result<()> {
    let unfinished = Unfinished::write_in(directory, name)?;
    let mut moved: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(&unfinished.0)? {
        let entry = entry?;
        let to = directory.join(entry.file_name());
        if let Err(error) = fs::rename(entry.path(), &to) {
            moved.iter().for_each(|path| remove(path));
            return Err(error);
        }
        moved.push(to);
    }
    Ok(())
}

/// Files that nobody has seen yet. Removed when dropped, unless it has got another name.
struct Unfinished(PathBuf);

impl Unfinished {
    fn write_in(parent: &Path, name: &str) -> io::Result<Self> {
        let unfinished = Self(parent.join(format!(".solewriter-new-{:08x}", fastrand::u32(..))));
        fs::create_dir(&unfinished.0)?;
        for (path, text) in files(name) {
            let path = unfinished.0.join(path);
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(path, text)?;
        }
        Ok(unfinished)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// The error that made it necessary is the one to report.
fn remove(path: &Path) {
    let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};
    use crate::declared::Declared;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("solewriter-test-new-{:016x}", fastrand::u64(..)));
            fs::create_dir(&path).expect("a directory");
            Self(path)
        }

        fn entries(&self) -> usize {
            fs::read_dir(&self.0).expect("a directory").count()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            remove(&self.0);
        }
    }

    #[test]
    fn the_project_s_configuration_and_commands_are_sound() {
        let scratch = Scratch::new();
        let directory = scratch.0.join("a/cards");
        assert_eq!(write(&directory).expect("written").files.len(), FILES.len());
        assert_eq!(fs::read_dir(scratch.0.join("a")).expect("a directory").count(), 1, "nothing is beside it");
        let sources = Sources::of_file(Some(directory.join("config/solewriter.toml")));
        let config = Config::from_sources(&sources).expect("a configuration");
        let declared = Declared::load(&config, &[]).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let types: Vec<&str> = declared.declarations().commands.iter().map(|c| &*c.command_type).collect();
        assert_eq!(types, ["card.issue", "card.redeem"]);
        assert_eq!(config.kafka.group_id, "cards");
    }

    #[test]
    fn a_project_is_called_after_its_directory() {
        for (piece, _) in NAMED {
            assert!(FILES.iter().any(|(_, text)| text.contains(piece)), "{piece}");
        }
        let scratch = Scratch::new();
        write(&scratch.0.join("my \"stock\"")).expect("written");
        let read = |path: &str| fs::read_to_string(scratch.0.join("my \"stock\"").join(path)).expect("a file");
        assert!(read("README.md").starts_with("# my--stock-\n"), "{}", read("README.md"));
        assert!(read("config/solewriter.toml").contains("\ngroup_id = \"my--stock-\"\n"));
        assert_eq!((name_of(Path::new("a/b.c/.")).as_str(), name_of(Path::new("/")).as_str()), ("b.c", "cards"));
    }

    #[test]
    fn an_empty_directory_is_filled_and_stays_the_same() {
        let scratch = Scratch::new();
        write(&scratch.0).expect("written");
        assert!(scratch.0.join("config/commands/card.toml").is_file() && scratch.0.join(".gitignore").is_file());
        assert_eq!(scratch.entries(), 6, "and nothing else");
    }

    #[test]
    fn what_is_there_is_not_touched() {
        let scratch = Scratch::new();
        fs::write(scratch.0.join("mine"), "mine").expect("a file");
        for refused in [scratch.0.clone(), scratch.0.join("mine")] {
            let error = write(&refused).expect_err("refused");
            assert_eq!(Exit::of(&error), Exit::Usage);
            assert!(error.to_string().contains(&refused.display().to_string()), "{error}");
        }
        assert_eq!(scratch.entries(), 1);
    }

    #[test]
    fn whoever_is_in_the_directory_need_not_enter_it() {
        let written = |directory: &str| Written { directory: directory.into(), files: vec!["README.md"] }.text();
        assert_eq!(written("."), "wrote ./README.md\n\ntype next:\n  solewriter dev\nREADME.md goes on from there\n");
        assert!(written("cards").contains("\n  cd cards\n  solewriter dev\n"));
    }
}

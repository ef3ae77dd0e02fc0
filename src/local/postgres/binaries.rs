//! Where the server's programs are, on the systems that people have.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use super::{BINARIES_VARIABLE, Error};
use crate::local::fetched;

/// Folders with one sub-folder per version: `(parent, what stands before the version, what follows
/// it)`.
const VERSIONED: [(&str, &str, &str); 6] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql@", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];

/// The folder that holds both programs.
#[derive(Debug, Clone)]
pub(super) struct Binaries {
    directory: PathBuf,
}

impl Binaries {
    pub fn initdb(&self) -> PathBuf {
        self.directory.join("initdb")
    }

    pub fn postgres(&self) -> PathBuf {
        self.directory.join("postgres")
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn in_directory(directory: PathBuf) -> Option<Self> {
        let found = Self { directory };
        (found.initdb().is_file() && found.postgres().is_file()).then_some(found)
    }
}

/// What the user named; otherwise the first place that has both programs (a client package alone
/// has neither).
pub(super) fn find() -> Result<Binaries, Error> {
    if let Some(directory) = env::var_os(BINARIES_VARIABLE).filter(|value| !value.is_empty()) {
        let directory = PathBuf::from(directory);
        return Binaries::in_directory(directory.clone()).ok_or(Error::NotThere { directory });
    }
    let places = places();
    let looked = places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(", ");
    places.into_iter().find_map(Binaries::in_directory).ok_or(Error::NotFound { looked })
}

fn places() -> Vec<PathBuf> {
    let mut places: Vec<_> = pg_config().into_iter().collect();
    for (parent, before, after) in VERSIONED {
        places.extend(newest_first(Path::new(parent), before).map(|version| version.join(after)));
    }
    places.push(PathBuf::from("/usr/bin"));
    places.push(fetched::path("postgres/bin"));
    places
}

/// Asks the installation that is first on the path.
fn pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let directory = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(directory.trim()))
}

/// The sub-folders named `<before><major version>`.
fn newest_first(parent: &Path, before: &str) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some((name.strip_prefix(before)?.parse().ok()?, entry.path()))
        })
        .collect();
    versions.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    versions.into_iter().map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_comes_first_by_number_not_by_text() {
        let parent = env::temp_dir().join(format!("solewriter-versions-{}", std::process::id()));
        for name in ["v9", "v15", "v18", "other", "v"] {
            fs::create_dir_all(parent.join(name)).expect("makes a folder");
        }
        let found: Vec<_> = newest_first(&parent, "v").collect();
        fs::remove_dir_all(&parent).expect("removes the folder");
        assert_eq!(found, [parent.join("v18"), parent.join("v15"), parent.join("v9")]);
    }
}

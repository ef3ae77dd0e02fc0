//! The directory of one private Postgres: the cluster, its log and the lock that keeps a second
//! process out.

use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::{env, fs};

use super::Error;
use super::account::Account;

/// As much of a log as fits a screen.
const LOG_TAIL_LINES: usize = 20;

#[derive(Debug)]
pub(super) struct Home {
    pub directory: PathBuf,
    pub cluster: PathBuf,
    pub log: PathBuf,
    /// Removed when this value is dropped.
    pub temporary: bool,
    /// Held as long as this value lives; the kernel gives it back when the process dies.
    _lock: File,
}

impl Home {
    /// Makes the directory where it is missing, reachable for the account that the server runs as.
    pub fn open(wanted: Option<&Path>, account: Option<&Account>) -> Result<Self, Error> {
        let temporary = wanted.is_none();
        let directory = match wanted {
            Some(directory) => make(directory)?,
            None => make(&temporary_directory(account.is_some()))?,
        };
        if let Some(account) = account {
            chown(&directory, Some(account.user), Some(account.group))
                .map_err(Error::io(format!("give {directory:?} to the account of Postgres")))?;
        }
        let lock = lock(&directory)?;
        Ok(Self {
            cluster: directory.join("cluster"),
            log: directory.join("postgres.log"),
            directory,
            temporary,
            _lock: lock,
        })
    }

    pub fn failed(&self, program: &'static str, log: &Path) -> Error {
        Error::Failed { program, log: log.to_owned(), tail: tail(log) }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.temporary {
            // What stays behind lies in a temporary directory; there is nobody to tell.
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

fn make(directory: &Path) -> Result<PathBuf, Error> {
    let doing = || format!("make the directory {directory:?}");
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(Error::io(doing()))?;
    directory.canonicalize().map_err(Error::io(doing()))
}

/// Root's own temporary directory may be closed to the account that the server runs as; `/var/tmp`
/// is open to all.
fn temporary_directory(root: bool) -> PathBuf {
    let parent = if root { PathBuf::from("/var/tmp") } else { env::temp_dir() };
    parent.join(format!("solewriter-postgres-{}-{:08x}", std::process::id(), fastrand::u32(..)))
}

fn lock(directory: &Path) -> Result<File, Error> {
    let path = directory.join("lock");
    let file = File::create(&path).map_err(Error::io(format!("write {path:?}")))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse { directory: directory.to_owned() }),
        Err(TryLockError::Error(source)) => Err(Error::Io { doing: format!("lock {path:?}"), source }),
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = text.unwrap_or_else(|error| format!("(not readable: {error})"));
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}

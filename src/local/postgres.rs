//! A private Postgres: its own data, its own port, gone with this process.
//!
//! Needs only the server's own programs, wherever they come from; no service, no sudo, no Docker.
//! Everybody on this machine may connect (no password, loopback interface): not for data that
//! matters.

mod account;
mod binaries;
mod home;
mod server;

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{io, thread};

use account::Account;
use binaries::Binaries;
use home::Home;
use rustix::process::Signal;

use crate::local::guarded::Guarded;
use crate::local::port;

/// Names the folder that holds `initdb` and `postgres`, before every other place.
pub const BINARIES_VARIABLE: &str = "SOLEWRITER_POSTGRES_BIN";

/// A start can lose its port to another program, or meet a predecessor that is still shutting down:
/// both pass.
const LAUNCH_ATTEMPTS: u32 = 5;
const LAUNCH_PAUSE: Duration = Duration::from_millis(300);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// How the private Postgres shall be; the default is quick, temporary and forgetful.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Write to disk before reporting a commit. Off, a crash of Postgres still loses nothing, a
    /// crash of the machine may.
    pub durable: bool,
    /// Keeps the data here, from one start to the next; `None` is a temporary directory that `Drop`
    /// removes.
    pub data_dir: Option<PathBuf>,
    /// Server settings, `(name, value)`; they win over the ones chosen here.
    pub settings: Vec<(String, String)>,
}

/// A Postgres that could not be had; what to do about it stands in the message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing to run: the user installs Postgres or names its folder.
    #[error(
        "no Postgres server programs (initdb, postgres) found in {looked}\n\
         install them (Debian, Ubuntu: apt-get install postgresql; Fedora: dnf install postgresql-server; \
         macOS: brew install postgresql), or name their folder in {BINARIES_VARIABLE}, \
         or set DATABASE_URL to a Postgres that runs"
    )]
    NotFound {
        /// Where they were looked for.
        looked: String,
    },
    /// The user named a folder that is not the right one.
    #[error("{BINARIES_VARIABLE} is {directory:?}, but there is no initdb and postgres in it")]
    NotThere {
        /// The folder that the variable names.
        directory: PathBuf,
    },
    /// Postgres refuses to run as root, and there is nobody else to run it as.
    #[error(
        "Postgres refuses to run as root, and neither a user `postgres` nor `nobody` exists: run this as another user"
    )]
    NoAccount,
    /// Two processes cannot share one data directory.
    #[error("{directory:?} is in use by another process: stop that one, or choose another directory")]
    InUse {
        /// The directory asked for.
        directory: PathBuf,
    },
    /// `initdb` or `postgres` ended, or was not ready in time.
    #[error("{program} failed; the end of {log:?}:\n{tail}")]
    Failed {
        /// The program that failed.
        program: &'static str,
        /// Its whole output, as long as the directory lives.
        log: PathBuf,
        /// The last lines of its output.
        tail: String,
    },
    /// This machine refused something ordinary.
    #[error("could not {doing}: {source}")]
    Io {
        /// What was tried.
        doing: String,
        /// What the operating system says.
        source: io::Error,
    },
}

impl Error {
    fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}

/// A private Postgres, running or stopped.
#[derive(Debug)]
pub struct Postgres {
    binaries: Binaries,
    account: Option<Account>,
    options: Options,
    /// Chosen at the first start and kept, so that `url` stays true over a restart.
    port: u16,
    /// `None` while stopped. Stands before `home`, whose drop removes the directory of a server
    /// that has ended.
    server: Option<Guarded>,
    home: Home,
}

impl Postgres {
    /// Finds Postgres on this machine, makes a cluster where there is none, and starts it; accepts
    /// connections on return.
    pub fn start(options: Options) -> Result<Self, Error> {
        let binaries = binaries::find()?;
        let account = account::to_run_as()?;
        let home = Home::open(options.data_dir.as_deref(), account.as_ref())?;
        let mut postgres = Self { binaries, account, options, port: 0, server: None, home };
        postgres.initialize()?;
        postgres.launch(|_| port::free())?;
        Ok(postgres)
    }

    /// The folder of the server's programs, where `pg_dump` and `pg_basebackup` are too.
    pub fn programs(&self) -> &Path {
        self.binaries.directory()
    }

    /// Where to connect, as the superuser.
    pub fn url(&self) -> String {
        format!("postgres://{}@127.0.0.1:{}/postgres", server::SUPERUSER, self.port)
    }

    /// The cluster's own directory (`PGDATA`).
    pub fn data_dir(&self) -> &Path {
        &self.home.cluster
    }

    /// What the server has logged.
    pub fn log_file(&self) -> &Path {
        &self.home.log
    }

    /// Stops as a crash does: no checkpoint, sessions cut. The next start recovers from the
    /// write-ahead log.
    pub fn stop_immediate(&mut self) -> Result<(), Error> {
        self.stop(Signal::QUIT)
    }

    /// Stops in order: sessions are cut, their transactions rolled back, everything is written.
    pub fn stop_fast(&mut self) -> Result<(), Error> {
        self.stop(Signal::INT)
    }

    /// Starts a stopped server on the same port and data; does nothing while it runs.
    pub fn start_again(&mut self) -> Result<(), Error> {
        match self.server {
            Some(_) => Ok(()),
            None => self.launch(Ok),
        }
    }

    /// Starts the server on the port that `port` makes of the last one.
    fn launch(&mut self, port: impl Fn(u16) -> io::Result<u16>) -> Result<(), Error> {
        let mut attempt = 1;
        loop {
            self.port = port(self.port).map_err(Error::io("find a free port"))?;
            match self.launch_once() {
                Err(Error::Failed { .. }) if attempt < LAUNCH_ATTEMPTS => thread::sleep(LAUNCH_PAUSE),
                result => return result,
            }
            attempt += 1;
        }
    }

    fn stop(&mut self, signal: Signal) -> Result<(), Error> {
        let Some(mut server) = self.server.take() else {
            return Ok(());
        };
        server.signal(signal).map_err(Error::io("signal Postgres"))?;
        match server.wait(STOP_TIMEOUT).map_err(Error::io("wait for Postgres"))? {
            Some(_) => Ok(()),
            None => Err(self.home.failed("postgres", &self.home.log)),
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Nobody will read temporary data again, so it need not be written. An error here has
        // nobody to go to.
        let _ = if self.home.temporary { self.stop_immediate() } else { self.stop_fast() };
    }
}

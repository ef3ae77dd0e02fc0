//! Running the two programs: `initdb` once, then `postgres`.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, thread};

use super::{Error, Postgres};
use crate::local::guarded::{Guarded, Program};

pub(super) const SUPERUSER: &str = "solewriter";

/// Generous: an ordinary start takes a second, one after a crash under load on a busy machine many.
const READY_TIMEOUT: Duration = Duration::from_secs(90);
const READY_POLL: Duration = Duration::from_millis(10);
/// The address of a unix socket has room for about a hundred bytes, the file's name included.
const SOCKET_DIRECTORY_BYTES_MAX: usize = 80;

impl Postgres {
    /// Makes the cluster where there is none: beside its place, then moved there, so that half a
    /// cluster is never taken for one.
    pub(super) fn initialize(&self) -> Result<(), Error> {
        if self.home.cluster.exists() {
            return Ok(());
        }
        let unfinished = self.home.directory.join("cluster.unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).map_err(Error::io(format!("remove {unfinished:?}")))?;
        }
        let mut command = vec![self.binaries.initdb().into(), "-D".into(), unfinished.clone().into()];
        let arguments = ["-U", SUPERUSER, "-A", "trust", "--locale=C", "-E", "UTF8"];
        command.extend(arguments.map(OsString::from));
        if !self.options.durable {
            command.push("--no-sync".into());
        }
        let log = self.home.directory.join("initdb.log");
        let mut initdb = self.spawn(command, &log)?;
        let status = initdb.wait(READY_TIMEOUT).map_err(Error::io("wait for initdb"))?;
        if !status.is_some_and(|status| status.success()) {
            return Err(self.home.failed("initdb", &log));
        }
        fs::rename(&unfinished, &self.home.cluster).map_err(Error::io("move the new cluster to its place"))
    }

    /// Starts the server and waits until it accepts connections.
    pub(super) fn launch_once(&mut self) -> Result<(), Error> {
        let mut command = vec![self.binaries.postgres().into(), "-D".into(), self.home.cluster.clone().into()];
        for (name, value) in self.settings() {
            command.push("-c".into());
            command.push(format!("{name}={value}").into());
        }
        let mut server = self.spawn(command, &self.home.log)?;
        let deadline = Instant::now() + READY_TIMEOUT;
        while !is_ready(&self.home.cluster, server.id()) {
            let ended = server.exit_status().map_err(Error::io("look after Postgres"))?.is_some();
            if ended || Instant::now() > deadline {
                return Err(self.home.failed("postgres", &self.home.log));
            }
            thread::sleep(READY_POLL);
        }
        self.server = Some(server);
        Ok(())
    }

    /// The last setting of a name counts, so the caller's stand last.
    fn settings(&self) -> Vec<(String, String)> {
        let socket = self.home.directory.to_string_lossy();
        let socket = if socket.len() <= SOCKET_DIRECTORY_BYTES_MAX { &*socket } else { "" };
        let disk = if self.options.durable { "on" } else { "off" };
        let port = self.port.to_string();
        let ours = [
            ("listen_addresses", "127.0.0.1"),
            ("port", &port),
            ("unix_socket_directories", socket),
            ("fsync", disk),
            ("full_page_writes", disk),
            // Without fsync it costs nothing, and a connection that asks for it must not be refused
            // here only.
            ("synchronous_commit", "on"),
        ];
        let ours = ours.map(|(name, value)| (name.to_owned(), value.to_owned()));
        ours.into_iter().chain(self.options.settings.iter().cloned()).collect()
    }

    fn spawn(&self, command: Vec<OsString>, log: &Path) -> Result<Guarded, Error> {
        let doing = format!("run {:?}", command.first());
        let program = Program {
            user: self.account.map(|account| (account.user, account.group)),
            directory: self.home.directory.clone(),
            stdout: log.to_owned(),
            stderr: log.to_owned(),
            // A fast shutdown: to kill the postmaster alone would leave its children and its shared
            // memory.
            signal_when_orphaned: "INT",
            remove_when_orphaned: self.home.temporary.then(|| self.home.directory.clone()),
            ..Program::new(command)
        };
        program.spawn().map_err(Error::io(doing))
    }
}

/// `postmaster.pid`: the first line is the process id (a stale file names another), the eighth the
/// state.
fn is_ready(cluster: &Path, process: u32) -> bool {
    let Ok(text) = fs::read_to_string(cluster.join("postmaster.pid")) else {
        return false;
    };
    let line = |number: usize| text.lines().nth(number - 1).map(str::trim);
    line(1).and_then(|pid| pid.parse().ok()) == Some(process) && line(8) == Some("ready")
}

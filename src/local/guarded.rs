//! A child process that cannot outlive this one.
//!
//! `PR_SET_PDEATHSIG` would be shorter, but it fires when the *thread* that spawned the child ends,
//! and the threads of an async runtime or a test harness come and go. So a small shell stands
//! between: it holds the read end of a pipe whose write end only this process has. However this
//! process ends, `kill -9` included, the shell reads end of file, signals the program and removes
//! its directory.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{io, thread};

use rustix::process::{Pid, Signal};

/// How often a wait looks again. Waiting for a child with a deadline has no portable blocking call.
const POLL: Duration = Duration::from_millis(5);

/// What to run, and what happens to it when this process is gone.
#[derive(Debug, Clone)]
pub struct Program {
    /// Program and arguments.
    pub command: Vec<OsString>,
    /// Added to the environment of this process.
    pub environment: Vec<(OsString, OsString)>,
    /// Variables of this process that the program does not see.
    pub environment_without: Vec<OsString>,
    /// Runs as this user and group; needs root.
    pub user: Option<(u32, u32)>,
    /// Working directory; must be reachable for `user`.
    pub directory: PathBuf,
    /// Where the program reads from; `/dev/null` by default.
    pub stdin: PathBuf,
    /// Output is appended to this file.
    pub stdout: PathBuf,
    /// May be the same file as `stdout`.
    pub stderr: PathBuf,
    /// Sent to the program when this process is gone: a signal name as the shell knows it (`INT`,
    /// `KILL`).
    pub signal_when_orphaned: &'static str,
    /// Removed, with all that is in it, when this process is gone.
    pub remove_when_orphaned: Option<PathBuf>,
}

impl Program {
    /// A program that is killed when this process is gone and whose output goes nowhere.
    pub fn new<I, S>(command: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        let nowhere = PathBuf::from("/dev/null");
        Self {
            command: command.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
            environment_without: Vec::new(),
            user: None,
            directory: PathBuf::from("/"),
            stdin: nowhere.clone(),
            stdout: nowhere.clone(),
            stderr: nowhere,
            signal_when_orphaned: "KILL",
            remove_when_orphaned: None,
        }
    }

    /// Starts the program; it is running, not yet ready, when this returns.
    pub fn spawn(&self) -> io::Result<Guarded> {
        let mut command = self.shell_command();
        let mut shell = command.spawn()?;
        let lifeline = shell.stdin.take();
        let mut line = String::new();
        if let Some(stdout) = shell.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let pid = line.trim().parse().ok().and_then(Pid::from_raw);
        match pid {
            Some(pid) => Ok(Guarded { shell, pid, lifeline }),
            None => Err(io::Error::other(format!("could not start {:?}", self.command))),
        }
    }

    fn shell_command(&self) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", include_str!("guard.sh"), "guard.sh", self.signal_when_orphaned]);
        command.arg(self.remove_when_orphaned.clone().unwrap_or_default());
        command.args([&self.stdin, &self.stdout, &self.stderr]).args(&self.command);
        for variable in &self.environment_without {
            command.env_remove(variable);
        }
        command.envs(self.environment.iter().cloned()).current_dir(&self.directory);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        // A group of its own: Ctrl-C in the terminal reaches this process only, which then ends the
        // program in its own way.
        command.process_group(0);
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }
}

/// A running (or ended) program. Dropping it kills the program.
#[derive(Debug)]
pub struct Guarded {
    /// The shell between; it ends with the program, with the program's exit status.
    shell: Child,
    /// The program itself. May be signalled only while the shell, its parent, has not been waited
    /// for.
    pid: Pid,
    /// The write end of the pipe. Never written to: that it closes is the message.
    lifeline: Option<ChildStdin>,
}

impl Guarded {
    /// Process id of the program, not of the shell between.
    pub fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Sends a signal; nothing happens when the program has already ended.
    pub fn signal(&mut self, signal: Signal) -> io::Result<()> {
        // A pid whose parent was waited for may belong to somebody else by now.
        if self.exit_status()?.is_some() {
            return Ok(());
        }
        match rustix::process::kill_process(self.pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// How the program ended, or `None` while it runs.
    pub fn exit_status(&mut self) -> io::Result<Option<ExitStatus>> {
        Ok(self.shell.try_wait()?.map(seen_through_the_shell))
    }

    /// Waits until the program has ended; `None` when it still runs after `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.exit_status()? {
                None if Instant::now() < deadline => thread::sleep(POLL),
                ended => return Ok(ended),
            }
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SIGKILL also ends a stopped program. Errors have nobody to go to; the closing pipe says
        // the same once more.
        let _ = self.signal(Signal::KILL);
        drop(self.lifeline.take());
        let _ = self.shell.wait();
    }
}

/// A shell reports a child that a signal killed as 128 + the signal's number; told again as what it
/// was.
fn seen_through_the_shell(status: ExitStatus) -> ExitStatus {
    match status.code() {
        Some(code) if code > 128 => ExitStatus::from_raw(code - 128),
        _ => status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Guarded {
        Program::new(["/bin/sh", "-c", script]).spawn().expect("a shell starts")
    }

    #[test]
    fn the_exit_code_of_the_program_is_reported() {
        let status = shell("exit 7").wait(Duration::from_secs(20)).expect("waits");
        assert_eq!(status.and_then(|status| status.code()), Some(7));
    }

    #[test]
    fn the_signal_that_ended_the_program_is_reported() {
        let mut sleeper = shell("exec sleep 600");
        sleeper.signal(Signal::TERM).expect("signals");
        let status = sleeper.wait(Duration::from_secs(20)).expect("waits");
        assert_eq!(status.and_then(|status| status.signal()), Some(15));
    }

    #[test]
    fn a_program_ends_when_the_write_end_of_its_pipe_closes() {
        let mut sleeper = shell("exec sleep 600");
        // What the kernel does for us when this process dies.
        drop(sleeper.lifeline.take());
        let status = sleeper.wait(Duration::from_secs(20)).expect("waits");
        assert_eq!(status.and_then(|status| status.signal()), Some(9));
    }

    #[test]
    fn a_variable_that_is_taken_away_is_not_seen() {
        let unset = ["/bin/sh", "-c", "test -z \"${HOME+set}\""];
        let program = Program { environment_without: vec!["HOME".into()], ..Program::new(unset) };
        let status = program.spawn().expect("a shell starts").wait(Duration::from_secs(20)).expect("waits");
        assert_eq!(status.and_then(|status| status.code()), Some(0));
    }

    #[test]
    fn a_program_that_cannot_be_started_ends_with_the_shell_s_code() {
        let mut missing = Program::new(["/no/such/program"]).spawn().expect("the shell starts");
        let status = missing.wait(Duration::from_secs(20)).expect("waits");
        assert_eq!(status.and_then(|status| status.code()), Some(127));
    }
}

//! What `dev` says: a live picture on a terminal, else plain lines; on stdout for people, on stderr
//! where stdout is for a program.

mod invariant;
mod live;
mod opening;
mod plain;
mod summary;
mod words;

use std::fmt::Display;
use std::io::{self, Write as _};
use std::time::Duration;

use self::live::Live;
use super::Verdict;
use super::board::Board;
use super::commands::Commands;
use super::services::Services;

/// How often a picture is drawn, and so how often the cheap numbers are gathered.
pub(super) const FRAME_EVERY: Duration = Duration::from_millis(1_000 / live::FRAMES_PER_SECOND as u64);

/// Where it goes.
pub struct View(Kind);

enum Kind {
    Live(Live),
    Lines { to_stderr: bool },
}

impl View {
    /// On stdout: a live picture if that is a terminal.
    #[must_use]
    pub fn for_people() -> Self {
        Self(Live::on_stdout().map_or(Kind::Lines { to_stderr: false }, Kind::Live))
    }

    /// Lines on stderr: a program reads stdout.
    #[must_use]
    pub fn beside_a_program() -> Self {
        Self(Kind::Lines { to_stderr: true })
    }

    fn say(&self, line: impl Display) {
        // whoever has closed the output has seen enough; the exit code still says it
        let _ = match self.0 {
            Kind::Lines { to_stderr: true } => writeln!(io::stderr(), "{line}"),
            Kind::Lines { to_stderr: false } | Kind::Live(_) => writeln!(io::stdout(), "{line}"),
        };
    }

    pub(super) fn opening(&self, services: &Services, commands: &Commands) {
        opening::lines(services, commands).iter().for_each(|line| self.say(line));
        self.say("");
        if matches!(self.0, Kind::Lines { .. }) {
            self.say(plain::HEADER);
        }
    }

    /// Four times a second.
    pub(super) fn frame(&mut self, board: &Board) {
        if let Kind::Live(live) = &mut self.0 {
            live.show(board);
        }
    }

    /// Once a second, with what the tables say.
    pub(super) fn second(&mut self, board: &Board) {
        match &mut self.0 {
            Kind::Live(live) => live.show(board),
            Kind::Lines { .. } => self.say(plain::line(board)),
        }
    }

    pub(super) fn first_effect(&mut self, after: Duration) {
        self.note(format!("the first effect, {:.1} s after the start", after.as_secs_f64()));
    }

    /// Something has happened.
    pub(super) fn note(&mut self, note: impl Into<String>) {
        match &mut self.0 {
            Kind::Live(live) => live.note(note.into()),
            Kind::Lines { .. } => self.say(format_args!("       {}", note.into())),
        }
    }

    /// The last picture stays.
    pub(super) fn end(&mut self) {
        if let Kind::Live(live) = &mut self.0 {
            live.end();
            self.say("");
        }
    }

    /// The end, for people.
    pub fn verdict(&self, verdict: &Verdict) {
        self.say(summary::verdict(verdict));
    }
}

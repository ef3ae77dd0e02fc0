//! Log lines on stderr: for people on a terminal; elsewhere JSON for what a program collects.
//!
//! librdkafka's own lines arrive under the target `librdkafka`, the client's under `rdkafka`:
//! `RUST_LOG=info,librdkafka=warn` quiets them.

use std::io::IsTerminal;
use std::{env, io};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

/// Who reads the lines where stderr is no terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// A program that collects them: JSON.
    Collector,
    /// People: they stand beside what a tool says itself.
    People,
}

/// Sets the process's log lines up: as `directives` say, such as `info`, or as `RUST_LOG` says. For a `main`; a
/// library leaves the choice to its program.
///
/// A subscriber that is already there stays: whoever came first knew better.
pub fn init(directives: &str, reader: Reader) {
    let asked_for = env::var(EnvFilter::DEFAULT_ENV).ok().filter(|it| !it.is_empty());
    let directives = asked_for.unwrap_or_else(|| directives.to_owned());
    // A directive that does not parse is left out with a warning on stderr: a typo in RUST_LOG
    // must not keep a worker from starting.
    let filter = EnvFilter::builder().parse_lossy(directives);
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let is_terminal = io::stderr().is_terminal();
    let installed = match reader {
        Reader::Collector if !is_terminal => lines.json().flatten_event(true).finish().try_init(),
        _ => lines.with_ansi(is_terminal && colours_wanted()).finish().try_init(),
    };
    if installed.is_err() {
        tracing::debug!("a log subscriber is already installed; it stays");
    }
}

/// <https://no-color.org>: set to anything but nothing, it means no.
pub(crate) fn colours_wanted() -> bool {
    env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

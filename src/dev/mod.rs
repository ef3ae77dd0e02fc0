//! `dev`: everything on this machine, with sample traffic, until the books are checked.
//!
//! What is run is a program's own handlers with their samples, or the project that the configuration
//! describes, with the commands of its `dev.jsonl`, or else a bank that is part of this program.
//!
//! An embedded broker, a private Postgres (or a schema of its own in the one that `DATABASE_URL`
//! names), two workers that share the partitions, traffic in which one command in twenty comes
//! twice, a take-over now and then, and in a run that is long enough a zombie. Once a second the
//! states are compared with what the applied commands added; at the end the books compare all that
//! was sent with what the database holds and what was published. Database and broker of the
//! configuration are ignored.
//!
//! One effect per command is a claim about tables and topics, so the checks read tables and topics
//! and trust no counter of the workers.

mod bank;
mod board;
mod books;
mod commands;
mod crew;
mod demo;
mod holdings;
mod latency;
mod ledger;
mod listener;
mod process;
mod project;
mod refused;
mod rehearsal;
mod replayed;
mod sample;
mod script;
mod services;
mod tally;
mod traffic;
mod verdict;
mod versions;
mod view;
mod zombie;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use tokio_util::sync::CancellationToken;

use self::books::Books;
use self::demo::Demo;
pub use self::latency::Percentiles;
use self::project::Project;
pub use self::rehearsal::{Rehearsal, Rehearsed};
pub use self::sample::{Sample, Sampler};
pub(crate) use self::sample::{SampleTraffic, Words};
use self::services::Services;
pub use self::tally::{Count, Tally};
pub use self::verdict::{Balance, Difference, Verdict};
pub use self::view::View;
use crate::config::{self, Config};
use crate::declared::DeclaredError;
use crate::local;
use crate::postgres;
use crate::replay::ReplayError;
use crate::worker::{RunError, Worker};

/// `dev` could not be run. That its books do not balance is a [`Difference`] instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is nothing to send, or nobody who handles it.
    #[error("{0}")]
    NothingToRun(String),
    /// The embedded broker.
    #[error("the embedded broker could not be had")]
    Broker(#[from] local::broker::Error),
    /// The private Postgres.
    #[error("a private Postgres could not be had")]
    Postgres(#[from] local::postgres::Error),
    /// `DATABASE_URL` is no address.
    #[error("the database's address cannot be used")]
    DatabaseUrl(#[from] config::DatabaseUrlError),
    /// The configuration is refused.
    #[error("the configuration cannot be used")]
    Config(#[from] config::Error),
    /// The database cannot be reached.
    #[error("the database cannot be used")]
    Connect(#[from] postgres::ConnectError),
    /// The tables could not be made.
    #[error("the schema was not made")]
    Migrate(#[from] postgres::MigrateError),
    /// A question to the database failed.
    #[error("the database does not answer")]
    Database(#[from] postgres::Error),
    /// One of the Kafka clients.
    #[error("a Kafka client failed")]
    Kafka(#[from] KafkaError),
    /// A worker ended.
    #[error("a worker ended")]
    Worker(#[from] RunError),
    /// What is declared cannot be used.
    #[error("{0}")]
    Declared(#[from] DeclaredError),
    /// The log could not be run again.
    #[error("the log could not be run again")]
    Replay(#[from] ReplayError),
    /// The embedded broker refused a command.
    #[error("a command could not be sent: {0}")]
    NotSent(String),
    /// This machine refused something ordinary.
    #[error("could not {doing}")]
    Io {
        /// What was tried.
        doing: String,
        /// What the operating system says.
        source: std::io::Error,
    },
}

impl Error {
    fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}

/// The books are written by who sends and by who listens; held for an instant.
type SharedBooks = Arc<Mutex<Books>>;

fn open(books: &SharedBooks) -> MutexGuard<'_, Books> {
    books.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs until `length` has passed or `shutdown` is cancelled, finishes what was sent, and checks
/// the books.
///
/// # Errors
/// If it could not be run to that end.
pub async fn run(
    worker: Worker,
    config: Config,
    length: Option<Duration>,
    view: &mut View,
    shutdown: CancellationToken,
) -> Result<Verdict, Error> {
    let mut project = Project::of(worker, config)?;
    let began = Instant::now();
    let services = Services::start(&mut project).await?;
    let checked = Demo::play(project, &services, began, length, view, shutdown).await;
    view.end();
    // also after an error: nothing is left behind
    services.stop().await?;
    checked
}

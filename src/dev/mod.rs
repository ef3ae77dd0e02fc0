//! `dev`: everything on this machine, with sample traffic, until the books are checked.
//!
//! An embedded broker, a private Postgres (or a schema of its own in the one that `DATABASE_URL`
//! names), two workers that share the partitions, traffic in which one command in twenty comes
//! twice, and a take-over now and then. At the end [`Books`] compares what was sent with what the
//! database holds and what was published. Database and broker of the configuration are ignored.
//!
//! One effect per command is a claim about tables and topics, so the check reads tables and topics
//! and trusts no counter of the workers.

mod books;
mod crew;
mod listener;
mod sample;
mod schema;
mod services;
mod traffic;
mod verdict;
mod view;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use tokio_util::sync::CancellationToken;

pub use self::books::Books;
use self::crew::Crew;
use self::listener::Listener;
pub(crate) use self::sample::SampleTraffic;
pub use self::sample::{Sample, Sampler};
pub use self::schema::drop_at_end_of_input;
use self::services::Services;
use self::traffic::Traffic;
pub use self::verdict::{Balance, Difference};
use self::view::Second;
pub use self::view::View;
use crate::config::{self, Config};
use crate::local;
use crate::postgres::{self, PartitionStatus, Store};
use crate::worker::{RunError, Worker};

/// How often a line is printed.
const LINE_EVERY: Duration = Duration::from_secs(1);
/// How often it is asked whether everything is settled and published.
const SETTLED_POLL: Duration = Duration::from_millis(100);
/// With no record settled or published for this long, the books are checked as they are.
const PROGRESS_WAIT_MAX: Duration = Duration::from_secs(30);

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
    view: &View,
    shutdown: CancellationToken,
) -> Result<Result<Balance, Difference>, Error> {
    if worker.samples.is_empty() {
        let why = "this program has no sample traffic (Worker::sample registers it); try: ./dev demo";
        return Err(Error::NothingToRun(why.to_owned()));
    }
    let began = Instant::now();
    let services = Services::start(config, &worker).await?;
    let checked = Demo::play(&worker, &services, began, length, view, shutdown).await;
    // also after an error: nothing is left behind
    services.stop().await?;
    checked
}

/// What runs between the start of the services and their end.
struct Demo<'a> {
    store: Store,
    books: SharedBooks,
    traffic: Traffic,
    crew: Crew,
    listener: Listener,
    view: &'a View,
    began: Instant,
}

impl<'a> Demo<'a> {
    async fn play(
        worker: &Worker,
        services: &Services,
        began: Instant,
        length: Option<Duration>,
        view: &'a View,
        shutdown: CancellationToken,
    ) -> Result<Result<Balance, Difference>, Error> {
        view.services(services);
        let config = &services.config;
        let books = SharedBooks::default();
        let mut demo = Self {
            store: Store::new(&config.database, "solewriter dev")?,
            listener: Listener::start(config, books.clone())?,
            crew: Crew::start(worker, config),
            traffic: Traffic::start(worker, config, books.clone())?,
            books,
            view,
            began,
        };
        demo.until_the_end(length, shutdown).await?;
        view.note("the traffic stops; waiting until everything is settled and published");
        let sent = demo.traffic.stop().await?;
        demo.crew.no_more_take_overs();
        demo.finish(&sent).await?;
        demo.check(worker).await
    }

    async fn until_the_end(&mut self, length: Option<Duration>, shutdown: CancellationToken) -> Result<(), Error> {
        let mut lines = tokio::time::interval_at((Instant::now() + LINE_EVERY).into(), LINE_EVERY);
        lines.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut end = std::pin::pin!(async {
            match length {
                Some(length) => tokio::time::sleep(length).await,
                None => std::future::pending().await,
            }
        });
        let mut before = Second::default();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = &mut end => return Ok(()),
                event = self.crew.event() => self.view.note(&event?),
                // the wait for the first effect is part of what a newcomer sees
                () = self.listener.first_effect() => self.view.first_effect(self.began.elapsed()),
                _ = lines.tick() => before = self.line(&before).await?,
            }
        }
    }

    async fn line(&mut self, before: &Second) -> Result<Second, Error> {
        let rows = self.store.status().await?;
        self.traffic.settled(settled(&rows));
        let second = Second {
            at: self.began.elapsed(),
            settled: settled(&rows),
            delivered: self.traffic.delivered(),
            repeats_answered: open(&self.books).repeats_answered(),
            owners: view::owners(&rows),
        };
        self.view.line(before, &second);
        Ok(second)
    }

    /// Waits until every command is settled, and every outcome read back from its topic.
    async fn finish(&mut self, sent: &traffic::Sent) -> Result<(), Error> {
        let mut last = (0, 0);
        let mut progressed = Instant::now();
        while progressed.elapsed() < PROGRESS_WAIT_MAX {
            let rows = self.store.status().await?;
            let owed = open(&self.books).owed();
            let published = rows.iter().all(|row| row.published_offset >= row.next_offset);
            let halted = rows.iter().any(|row| row.halted_code.is_some());
            if halted || (owed == 0 && published && sent.all_below_cursors(&rows)) {
                break;
            }
            let now = (settled(&rows), owed);
            if now != last {
                (last, progressed) = (now, Instant::now());
            }
            tokio::select! {
                event = self.crew.event() => self.view.note(&event?),
                () = tokio::time::sleep(SETTLED_POLL) => {}
            }
        }
        Ok(())
    }

    async fn check(self, worker: &Worker) -> Result<Result<Balance, Difference>, Error> {
        let take_overs = self.crew.stop().await?;
        self.listener.stop();
        let evidence = books::Evidence {
            partitions: self.store.status().await?,
            settled: self.store.settled_commands().await?,
            dead: self.store.dead_commands().await?,
            entities: self.store.entity_states().await?,
        };
        self.store.close().await;
        let holds = |entity_type: &str, state: &str| worker.sample_holds(entity_type, state);
        let balance = open(&self.books).check(&evidence, holds);
        Ok(balance.map(|balance| Balance { take_overs, ..balance }))
    }
}

/// Records settled: every log begins at offset 0.
fn settled(rows: &[PartitionStatus]) -> u64 {
    let offsets = rows.iter().map(|row| u64::try_from(row.next_offset).unwrap_or(0));
    offsets.sum()
}

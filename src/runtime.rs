//! What all partitions of a running worker share.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};

use crate::config::{self, Partitioner, Start};
use crate::cursor::Cursor;
use crate::fencing_token::FencingToken;
use crate::handlers::EntityHandlers;
use crate::horizon::Horizon;
use crate::kafka::{Budget, Consumer, Inspector, Producer, Topics};
use crate::postgres::Store;
use crate::record::TopicPartition;
use crate::steps::Parking;
use crate::steps::fence::Witness;
use crate::telemetry::Health;
use crate::writer::{FloodMax, PublishTo, Unpublished};

/// Limits of a worker, as configured.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Commands in one batch.
    pub batch_commands_max: NonZeroUsize,
    /// Entities that a writer remembers.
    pub entity_cache_entries_max: NonZeroUsize,
    /// Bytes settled and not yet delivered.
    pub unpublished_bytes_max: NonZeroUsize,
    /// A value longer than this is dead: bytes.
    pub payload_bytes_max: usize,
    /// The longest wait between two attempts to reach the database.
    pub database_backoff_max: Duration,
    /// A command whose own statements time out is run again for this long.
    pub timed_out_retry_max: Duration,
    /// The client gives up on an answer of the database after this.
    pub answer_wait_max: Duration,
    /// When dead letters are a flood.
    pub flood: FloodMax,
    /// How long the writers may take to stop.
    pub drain_timeout: Duration,
    /// How long an id is remembered: milliseconds.
    pub window_ms: i64,
    /// How long the maintenance duty rests between two passes.
    pub maintenance_interval: Duration,
}

impl Limits {
    /// As configured.
    pub fn new(config: &config::Config) -> Self {
        let worker = &config.worker;
        Self {
            batch_commands_max: worker.batch_commands_max,
            entity_cache_entries_max: worker.entity_cache_entries_max,
            unpublished_bytes_max: worker.unpublished_bytes_max,
            payload_bytes_max: worker.payload_bytes_max.get(),
            database_backoff_max: worker.database_backoff_max,
            timed_out_retry_max: worker.timed_out_retry_max,
            // the server's own limit comes first, unless the server is gone
            answer_wait_max: config.database.statement_timeout + Duration::from_secs(5),
            flood: FloodMax {
                records: worker.dead_letter_flood_records.get(),
                percent: worker.dead_letter_flood_percent.into(),
            },
            drain_timeout: worker.drain_timeout,
            window_ms: config.deduplication.window_ms(),
            maintenance_interval: worker.maintenance_interval,
        }
    }
}

/// A command topic of a running worker.
pub struct Topic {
    /// Its name.
    pub name: Arc<str>,
    /// Its entity type's handlers.
    pub handlers: Arc<EntityHandlers>,
    /// The numbers of its command types.
    pub type_ids: Arc<dyn Fn(&str) -> i16 + Send + Sync>,
    /// How producers choose partitions.
    pub partitioner: Partitioner,
    /// Where a partition without a row begins.
    pub start: Start,
    /// What follows when a command fails on its own account.
    pub parking: Parking,
    /// How many partitions it had when the worker started.
    pub partition_count: i32,
    /// Where outcomes, events and dead letters go.
    pub publish_to: PublishTo,
    /// What the outcomes and events topics take: bytes.
    pub outcome_bytes_max: usize,
    /// Said once: nobody tells whether it is compacted.
    pub unknown_policy: Once,
    /// Said once: its outcomes cannot be read.
    pub unread_outcomes: Once,
}

impl Topic {
    /// What each of the topics takes that are published to: bytes.
    pub fn least_bytes_max(&self) -> usize {
        let mirror = self.publish_to.dead_letters.as_ref().map(|to| to.mirror.record_bytes_max);
        mirror.unwrap_or(usize::MAX).min(self.outcome_bytes_max)
    }
}

/// What all partitions of a running worker share.
pub struct Runtime {
    /// The database.
    pub store: Store,
    /// The consumer's poll thread.
    pub consumer: Consumer,
    /// Looks at logs.
    pub inspector: Arc<Inspector>,
    /// Asks for topics' settings; `None` where the cluster answers no such question.
    pub settings: Option<Topics>,
    /// Publishes outcomes and events.
    pub producer: Arc<Producer>,
    /// Bytes in flight.
    pub budget: Arc<Budget>,
    /// Bytes settled and not yet delivered.
    pub unpublished: Arc<Unpublished>,
    /// The command topics.
    pub topics: Vec<Arc<Topic>>,
    /// Limits.
    pub limits: Limits,
    /// Differs for every running worker process.
    pub owner: String,
    /// Where the brokers are.
    pub bootstrap_servers: String,
    /// The Kafka cluster.
    pub cluster_id: String,
    /// The consumer group.
    pub group_id: String,
    /// What the probes ask.
    pub health: Arc<Health>,
    /// The horizon as last read.
    pub horizon: watch::Sender<Horizon>,
    /// Rung by whoever needs the horizon read now.
    pub horizon_wanted: Notify,
    /// What this process has seen of each partition. A lock, as partitions come
    /// and go and may be claimed again by another task; held for an instant.
    pub witnesses: Mutex<HashMap<TopicPartition, Witness>>,
    /// Why the process must end, once it must.
    pub failed: watch::Sender<Option<String>>,
}

impl Runtime {
    /// The horizon as last read.
    pub fn horizon(&self) -> Horizon {
        *self.horizon.borrow()
    }

    /// Has the horizon read again, soon.
    pub fn look_at_horizon(&self) {
        self.horizon_wanted.notify_one();
    }

    /// The topic of this name, if it is one of this worker's.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.iter().find(|topic| *topic.name == *name)
    }

    /// What this process has seen of a partition.
    pub fn witness(&self, source: &TopicPartition) -> Option<Witness> {
        self.witnesses.lock().unwrap_or_else(PoisonError::into_inner).get(source).copied()
    }

    /// Remembers what was seen of a partition.
    pub fn witnessed(&self, source: &TopicPartition, token: FencingToken, cursor: Cursor) {
        let witness = Witness { token, cursor };
        self.witnesses.lock().unwrap_or_else(PoisonError::into_inner).insert(source.clone(), witness);
    }
}

/// This machine's clock, in milliseconds since 1970. Shows lag and holds the
/// horizon back; it never decides who may write.
pub(crate) fn worker_time_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

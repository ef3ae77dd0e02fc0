//! Commands on a schedule that does not slip.
//!
//! Command n of a rate is due n/rate seconds after the first, whatever became of those before it. One
//! that is late goes at once, and its wait counts from when it was due: a stall is seen by every
//! command that it would have hit, not by the one only that the producer was waiting for (coordinated
//! omission).

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::Message as _;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::util::Timeout;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Error;
use super::backlog::{Backlog, DELIVERY_TIMEOUT, FULL_WAIT, headers};
use super::services::Services;
use super::workload::Workload;
use crate::config::Partitioner;

/// A command that goes so much later than it was due is counted as late. A thread that sleeps wakes up
/// a fraction of this too late.
const LATE: Duration = Duration::from_millis(1);

/// Partition and offset of a command.
pub(super) type Position = (i32, i64);

/// When each command is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    /// When the first is.
    pub(super) began: Instant,
    /// Commands per second; `None`: all at once.
    rate: Option<u32>,
}

impl Schedule {
    fn new(began: Instant, rate: Option<u32>) -> Self {
        Self { began, rate }
    }

    /// How long after the first the n-th is due, counted from 0.
    pub(super) fn due(&self, n: u64) -> Duration {
        let Some(rate) = self.rate else { return Duration::ZERO };
        let (seconds, rest) = (n / u64::from(rate), n % u64::from(rate));
        Duration::from_secs(seconds) + Duration::from_secs(rest) / rate
    }
}

/// What was sent, and where it is.
#[derive(Debug)]
pub(super) struct Sent {
    /// The numbers of the commands.
    pub(super) numbers: Range<u64>,
    pub(super) schedule: Schedule,
    /// How many went more than [`LATE`] after they were due.
    pub(super) late: u64,
    /// By number.
    pub(super) positions: HashMap<u64, Position>,
}

impl Sent {
    /// How long after the first a command was due.
    pub(super) fn due(&self, number: u64) -> Duration {
        self.schedule.due(number - self.numbers.start)
    }

    /// One command a second, each at its position.
    #[cfg(test)]
    pub(super) fn of_positions(positions: &[Position]) -> Self {
        let positions: HashMap<u64, Position> = (0..).zip(positions.iter().copied()).collect();
        let schedule = Schedule::new(Instant::now(), Some(1));
        Self { numbers: 0..positions.len() as u64, schedule, late: 0, positions }
    }
}

/// A producer of commands that does not linger.
#[derive(Clone)]
pub(super) struct Paced {
    producer: Arc<ThreadedProducer<Deliveries>>,
    topic: String,
    workload: Workload,
}

/// Commands that are being sent. Dropping this stops it.
pub(super) struct Sending {
    sent: JoinHandle<Result<Sent, Error>>,
    stop: CancellationToken,
    _guard: DropGuard,
}

impl Paced {
    pub(super) fn new(services: &Services, backlog: &Backlog) -> Result<Self, Error> {
        let config = services.client("producer")?.command_producer(Partitioner::Murmur2, DELIVERY_TIMEOUT);
        let producer = config.create_with_context(Deliveries::default())?;
        Ok(Self { producer: Arc::new(producer), topic: backlog.topic.clone(), workload: backlog.workload })
    }

    /// Begins to send the commands of these numbers, so many a second; all at once without a rate.
    pub(super) fn begin(&self, numbers: Range<u64>, rate: Option<u32>) -> Sending {
        let stop = CancellationToken::new();
        let (paced, stopped) = (self.clone(), stop.clone());
        let sent = spawn_blocking(move || paced.send_all(numbers, rate, &stopped));
        Sending { sent, _guard: stop.clone().drop_guard(), stop }
    }

    fn send_all(&self, numbers: Range<u64>, rate: Option<u32>, stop: &CancellationToken) -> Result<Sent, Error> {
        let schedule = Schedule::new(Instant::now(), rate);
        let mut sent = Sent { numbers: numbers.start..numbers.start, schedule, late: 0, positions: HashMap::new() };
        for number in numbers {
            if stop.is_cancelled() {
                break;
            }
            let due = schedule.began + sent.schedule.due(number - sent.numbers.start);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            self.send(number)?;
            sent.late += u64::from(rate.is_some() && due.elapsed() > LATE);
            sent.numbers.end = number + 1;
        }
        self.producer.flush(Timeout::After(DELIVERY_TIMEOUT))?;
        sent.positions = self.producer.context().take();
        let (delivered, commands) = (sent.positions.len() as u64, sent.numbers.end - sent.numbers.start);
        if delivered == commands { Ok(sent) } else { Err(Error::NotDelivered { delivered, commands }) }
    }

    fn send(&self, number: u64) -> Result<(), Error> {
        let command = self.workload.command(number);
        let (key, data) = (command.key(), command.data(self.workload.payload_bytes));
        let mut record = BaseRecord::with_opaque_to(&self.topic, number as usize)
            .key(&key)
            .payload(&data)
            .headers(headers(&command.id.hyphenated().to_string(), command.command_type()));
        while let Err((error, refused)) = self.producer.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            record = refused;
            thread::sleep(FULL_WAIT);
        }
        Ok(())
    }
}

impl Sending {
    /// Waits until all are on their topic.
    pub(super) async fn all(self) -> Result<Sent, Error> {
        self.sent.await.map_err(std::io::Error::other).map_err(Error::io("produce the commands"))?
    }

    /// Sends no more, and waits until those that were sent are on their topic.
    pub(super) async fn no_more(self) -> Result<Sent, Error> {
        self.stop.cancel();
        self.all().await
    }
}

/// Where the broker has put each command.
#[derive(Clone, Default)]
struct Deliveries {
    positions: Arc<Mutex<HashMap<u64, Position>>>,
}

impl Deliveries {
    fn take(&self) -> HashMap<u64, Position> {
        std::mem::take(&mut self.positions.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        match result {
            Ok(record) => {
                let position = (record.partition(), record.offset());
                self.positions.lock().unwrap_or_else(PoisonError::into_inner).insert(number as u64, position);
            }
            Err((error, record)) => tracing::warn!(%error, topic = record.topic(), "a command was not delivered"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_does_not_slip() {
        let schedule = Schedule::new(Instant::now(), Some(3));
        assert_eq!(schedule.due(0), Duration::ZERO);
        assert_eq!(schedule.due(1), Duration::from_nanos(333_333_333));
        // errors of thirds of a second do not add up
        assert_eq!(schedule.due(3_000_000), Duration::from_secs(1_000_000));
    }

    #[test]
    fn without_a_rate_all_are_due_at_once() {
        assert_eq!(Schedule::new(Instant::now(), None).due(1_000_000), Duration::ZERO);
    }

    #[test]
    fn a_command_is_due_by_its_place_behind_the_first_one_sent() {
        let schedule = Schedule::new(Instant::now(), Some(1_000));
        let sent = Sent { numbers: 500..600, schedule, late: 0, positions: HashMap::new() };
        assert_eq!(sent.due(500), Duration::ZERO);
        assert_eq!(sent.due(501), Duration::from_millis(1));
    }
}

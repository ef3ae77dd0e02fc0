//! How long partitions are without a writer when their worker goes: asked to (SIGTERM), killed
//! (`kill -9`) or halted (SIGSTOP).
//!
//! Two worker processes share the partitions of a topic on which commands keep coming. One of them
//! goes, and when the other has settled commands on all partitions that were not its own, the longest
//! gap between the outcomes of one of those partitions is the time without a writer, by the timestamps
//! that the worker's producer gives them right after the commit. The time between two commands, which
//! is part of every gap, is not taken off. Then the one that goes comes back, and the books are
//! balanced.

mod gaps;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::chart::{Chart, Point, Scale, Series};
use super::cost::Pid;
use super::outcomes::Outcomes;
use super::paced::{Paced, Sending};
use super::report::Spread;
use super::services::{Services, Setting};
use super::trial::{LOOK, Options, PATIENCE, Row, Trial};
use super::workload::Workload;
use super::{Error, Say, books, trial, with_services};
use crate::config::Config;
use crate::local::itself::Itself;

/// Commands come for so long before a worker goes: at least…
const BEFORE: Duration = Duration::from_secs(2);
/// …and by chance so much longer. The worker that stays learns of it with its next heartbeat (every three
/// seconds by default), and its heartbeats count from the rebalance before: without chance, each time would
/// find the same moment between two of them.
const BEFORE_BY_CHANCE: Duration = Duration::from_secs(3);
/// And after one that was halted is woken: what it still writes must be refused.
const AFTER_WAKING: Duration = Duration::from_secs(1);
/// Joining, and sharing the partitions again.
const BALANCED_WITHIN: Duration = Duration::from_secs(180);

/// What is measured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Commands per second.
    pub(crate) rate: u32,
    /// How often a worker goes in each way.
    pub(crate) times: usize,
    pub(crate) workload: Workload,
    pub(crate) partitions: i32,
}

/// How a worker goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Way {
    /// It is asked to end, as by every orderly restart.
    #[serde(rename = "SIGTERM")]
    Asked,
    /// It is gone at once, as after a crash.
    #[serde(rename = "kill -9")]
    Killed,
    /// It stands still, as in a pause of its machine, and wakes up when others have its partitions.
    #[serde(rename = "SIGSTOP")]
    Halted,
}

impl Way {
    const ALL: [Self; 3] = [Self::Asked, Self::Killed, Self::Halted];

    /// What it is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Asked => "SIGTERM",
            Self::Killed => "kill -9",
            Self::Halted => "SIGSTOP",
        }
    }

    fn signal(self) -> Signal {
        match self {
            Self::Asked => Signal::TERM,
            Self::Killed => Signal::KILL,
            Self::Halted => Signal::STOP,
        }
    }
}

/// What it came to.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) machine: Setting,
    pub(crate) commands_per_second: u32,
    pub(crate) partitions: i32,
    /// So long the group waits for a worker that is silent; `None`: the broker decides on it.
    pub(crate) session_timeout_ms: Option<u64>,
    pub(crate) take_overs: Vec<TakeOver>,
    /// What was wrong with the books after one of them: then the numbers count for nothing.
    pub(crate) void: Option<String>,
}

/// Of one way to go.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TakeOver {
    pub(crate) after: Way,
    /// Of the times.
    pub(crate) seconds_without_a_writer: Spread,
    /// In order.
    pub(crate) each: Vec<f64>,
}

/// Measures. Whatever was made is gone when this returns.
pub(crate) async fn measure(
    config: &Config,
    plan: &Plan,
    shutdown: &CancellationToken,
    say: Say<'_>,
) -> Result<Measured, Error> {
    with_services(config, shutdown, say, async |services| {
        let log = (plan.workload, plan.partitions);
        trial::on_an_empty_log(services, log, (Row::Rust, Options::default()), async |trial| {
            Run::begin(services, trial, plan, say)?.measure().await
        })
        .await
    })
    .await
}

/// Two workers, and what goes in and comes out.
struct Run<'a> {
    trial: &'a Trial<'a>,
    plan: &'a Plan,
    say: Say<'a>,
    /// The first is the one that goes.
    workers: [Itself; 2],
    paced: Paced,
    outcomes: Outcomes,
    session_timeout_ms: Option<u64>,
    /// How many commands were sent.
    sent: u64,
    void: Option<String>,
}

impl<'a> Run<'a> {
    fn begin(services: &'a Services, trial: &'a Trial<'a>, plan: &'a Plan, say: Say<'a>) -> Result<Self, Error> {
        let session_timeout = services.client("worker")?.consumer().get("session.timeout.ms").map(str::to_owned);
        Ok(Self {
            trial,
            plan,
            say,
            workers: [trial.start_worker()?, trial.start_worker()?],
            paced: Paced::new(services, trial.backlog())?,
            outcomes: Outcomes::follow(trial)?,
            session_timeout_ms: session_timeout.and_then(|timeout| timeout.parse().ok()),
            sent: 0,
            void: None,
        })
    }

    async fn measure(mut self) -> Result<Measured, Error> {
        let mut take_overs = Vec::new();
        for way in Way::ALL {
            let mut each = Vec::new();
            for _ in 0..self.plan.times {
                let seconds = self.take_over(way).await?;
                (self.say)(format!("{}: {seconds:.3} s without a writer", way.name()));
                each.push(seconds);
            }
            let spread = Spread::of(each.iter().copied());
            take_overs.extend(spread.map(|spread| TakeOver { after: way, seconds_without_a_writer: spread, each }));
        }
        for worker in &mut self.workers {
            trial::stop(worker)?;
        }
        Ok(Measured {
            machine: self.trial.services().setting.clone(),
            commands_per_second: self.plan.rate,
            partitions: self.plan.partitions,
            session_timeout_ms: self.session_timeout_ms,
            take_overs,
            void: self.void,
        })
    }

    /// One worker goes, and comes back. Seconds without a writer.
    async fn take_over(&mut self, way: Way) -> Result<f64, Error> {
        let changing = self.balanced().await?;
        let seen_before = self.outcomes.count();
        let sending = self.paced.begin(self.sent..u64::MAX, Some(self.plan.rate));
        tokio::time::sleep(BEFORE + BEFORE_BY_CHANCE.mul_f64(fastrand::f64())).await;
        let went_ms = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis());
        self.signal(way.signal())?;
        self.taken_over(&changing).await?;
        let outcomes = self.outcomes.since(seen_before);
        self.comes_back(way, sending).await?;
        let silent = || {
            Error::Silent(
                "outcomes before and after on each partition that changes hands: send more (--rate)".to_owned(),
            )
        };
        let gap_ms = gaps::longest(&outcomes, &changing, went_ms.unwrap_or(i64::MAX)).ok_or_else(silent)?;
        Ok(Duration::from_millis(gap_ms).as_secs_f64())
    }

    /// Waits until the two workers have as many partitions each, and returns those of the first.
    async fn balanced(&mut self) -> Result<Vec<i32>, Error> {
        let [first, second] = self.processes();
        let deadline = Instant::now() + BALANCED_WITHIN;
        loop {
            let owners = self.trial.owners().await?;
            let of = |process| -> Vec<i32> {
                owners.iter().filter(|(_, owner)| **owner == process).map(|(partition, _)| *partition).collect()
            };
            let (its, others) = (of(first), of(second).len());
            if its.len() + others == self.plan.partitions as usize && its.len().abs_diff(others) <= 1 {
                return Ok(its);
            }
            self.trial.look_after(&mut self.workers, Instant::now() > deadline)?;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until the second worker owns these partitions and each has had an outcome since.
    async fn taken_over(&mut self, changing: &[i32]) -> Result<(), Error> {
        let [_, second] = self.processes();
        let deadline = Instant::now() + PATIENCE;
        let mut look = async |done: bool| {
            self.trial.look_after(&mut self.workers[1..], Instant::now() > deadline)?;
            tokio::time::sleep(LOOK).await;
            Ok::<bool, Error>(done)
        };
        loop {
            let owners = self.trial.owners().await?;
            if look(changing.iter().all(|partition| owners.get(partition) == Some(&second))).await? {
                break;
            }
        }
        let claimed = self.outcomes.count();
        loop {
            let since = self.outcomes.since(claimed);
            if look(changing.iter().all(|it| since.iter().any(|outcome| outcome.partition == *it))).await? {
                return Ok(());
            }
        }
    }

    /// The first worker wakes up, or is started again; no more commands come, and the books must
    /// balance.
    async fn comes_back(&mut self, way: Way, sending: Sending) -> Result<(), Error> {
        if way == Way::Halted {
            self.signal(Signal::CONT)?;
            tokio::time::sleep(AFTER_WAKING).await;
        } else {
            trial::wait_for_end(&mut self.workers[0])?;
            self.workers[0] = self.trial.start_worker()?;
        }
        self.sent = sending.no_more().await?.numbers.end;
        self.outcomes.wait_for(self.sent, self.trial, &mut self.workers).await?;
        let workload = self.plan.workload.first(self.sent);
        let difference = books::difference_of(self.trial, &workload, &self.outcomes.published()).await?;
        self.void =
            self.void.take().or_else(|| difference.map(|difference| format!("after {}: {difference}", way.name())));
        Ok(())
    }

    fn signal(&mut self, signal: Signal) -> Result<(), Error> {
        self.workers[0].guarded.signal(signal).map_err(Error::io("signal a worker"))
    }

    fn processes(&self) -> [Pid; 2] {
        self.workers.each_ref().map(|worker| worker.guarded.id())
    }
}

impl Measured {
    /// Seconds by the way in which a worker goes.
    pub(crate) fn chart(&self) -> Chart {
        let points = (0..)
            .zip(&self.take_overs)
            .map(|(place, take_over)| Point::of(f64::from(place), take_over.seconds_without_a_writer));
        let names = self.take_overs.iter().map(|take_over| take_over.after.name().to_owned());
        Chart {
            title: "How long a partition has no writer".to_owned(),
            note: format!(
                "median, least and most; session timeout {}, {} commands/s, {} partitions, {} cores of {}",
                self.session_timeout(),
                self.commands_per_second,
                self.partitions,
                self.machine.cores,
                self.machine.cpu
            ),
            x_label: "how its worker goes".to_owned(),
            y_label: "seconds".to_owned(),
            x: Scale::Words(names.collect()),
            y: Scale::Linear,
            series: vec![Series { name: "seconds without a writer".to_owned(), points: points.collect() }],
        }
    }

    /// As people say it.
    pub(crate) fn session_timeout(&self) -> String {
        match self.session_timeout_ms {
            Some(ms) => format!("{} s", Duration::from_millis(ms).as_secs_f64()),
            None => "of the broker".to_owned(),
        }
    }
}

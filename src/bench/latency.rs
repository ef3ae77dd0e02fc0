//! How long a command waits until it is durable, and until its outcome is in the hands of whoever waits
//! for it, at paces that the worker could keep up with.
//!
//! Both waits begin when the command was due, not when it was sent (see `paced`), and the worker is a
//! process of its own. Durable is known from the worker's log (see `durable`), the outcome from a reader
//! in this process (see `outcomes`).

mod durable;
mod percentiles;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use self::durable::{Clocks, Settled};
pub(crate) use self::percentiles::Percentiles;
use super::chart::{Chart, Point, Scale, Series};
use super::outcomes::{Outcome, Outcomes};
use super::paced::{Paced, Position, Sent};
use super::services::{Services, Setting};
use super::trial::{LOOK, Options, Row, Trial};
use super::workload::Workload;
use super::{Error, Say, books, cost, trial, with_services};
use crate::config::Config;
use crate::local::itself::Itself;

/// So many commands per account leave hardly one in a hundred that the worker has not seen.
const COMMANDS_TO_KNOW_AN_ACCOUNT: u64 = 5;
/// A worker has its partitions within this time.
const CLAIMED_WITHIN: Duration = Duration::from_secs(60);

/// What is measured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// [`Row::Rust`] or [`Row::Sql`].
    pub(crate) row: Row,
    /// Commands per second, one pace after the other.
    pub(crate) rates: Vec<u32>,
    /// How long each is measured.
    pub(crate) length: Duration,
    /// How long each is kept up before.
    pub(crate) warm_up: Duration,
    /// Its accounts are spread evenly; how many commands there are, the rates say.
    pub(crate) workload: Workload,
    /// The accounts have been there for long, and the worker has not seen them.
    pub(crate) cold: bool,
    pub(crate) partitions: i32,
}

/// What it came to.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) machine: Setting,
    pub(crate) handlers: Row,
    pub(crate) accounts: u64,
    /// Whether they were there before, unknown to the worker.
    pub(crate) cold: bool,
    pub(crate) partitions: i32,
    pub(crate) latencies: Vec<Latency>,
    /// The worker's memory when it owns its partitions and has settled nothing.
    pub(crate) idle_memory_bytes: Option<u64>,
    /// The most that it held until the end.
    pub(crate) memory_bytes_max: Option<u64>,
    /// What is wrong with its books: then the numbers count for nothing.
    pub(crate) void: Option<String>,
}

/// Of one pace.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) commands_per_second: u32,
    /// From when a command was due until the worker knew it committed.
    pub(crate) durable_ms: Percentiles,
    /// From then until this process had its outcome.
    pub(crate) outcome_ms: Percentiles,
    pub(crate) samples: u64,
    /// How many of them were sent more than a millisecond late; that counts as their wait.
    pub(crate) sent_late: u64,
}

impl Plan {
    fn commands(rate: u32, length: Duration) -> u64 {
        (f64::from(rate) * length.as_secs_f64()).ceil() as u64
    }

    fn to_know_the_accounts(&self) -> u64 {
        if self.cold { 0 } else { self.workload.accounts * COMMANDS_TO_KNOW_AN_ACCOUNT }
    }

    /// The workload, with as many commands as it takes.
    pub(super) fn whole(&self, services: &Services) -> Workload {
        let paced = |rate: &u32| Self::commands(*rate, self.warm_up) + Self::commands(*rate, self.length);
        let first = first_pace(services).map_or(0, |(rate, length)| Self::commands(rate, length));
        self.workload.first(first + self.to_know_the_accounts() + self.rates.iter().map(paced).sum::<u64>())
    }
}

/// What a broker is warmed up with that has just been started: commands per second, and how long. Its
/// compiler takes half of two cores meanwhile.
fn first_pace(services: &Services) -> Option<(u32, Duration)> {
    services.has_private_broker().then_some((2_000, Duration::from_secs(30)))
}

/// Measures. Whatever was made is gone when this returns.
pub(crate) async fn measure(
    config: &Config,
    plan: &Plan,
    shutdown: &CancellationToken,
    say: Say<'_>,
) -> Result<Measured, Error> {
    with_services(config, shutdown, say, async |services| {
        if plan.cold {
            say(format!("making {} accounts", plan.workload.accounts));
        }
        let options = Options { accounts_exist: plan.cold, ..Options::default() };
        let log = (plan.whole(services), plan.partitions);
        trial::on_an_empty_log(services, log, (plan.row, options), async |trial| {
            Run::begin(services, trial, plan, say).await?.measure().await
        })
        .await
    })
    .await
}

/// A worker at work, and what goes in and comes out.
pub(super) struct Run<'a> {
    trial: &'a Trial<'a>,
    plan: &'a Plan,
    say: Say<'a>,
    worker: [Itself; 1],
    paced: Paced,
    outcomes: Outcomes,
    idle_memory_bytes: Option<u64>,
    /// How many commands were sent.
    sent: u64,
}

impl<'a> Run<'a> {
    /// Returns when a worker owns all partitions.
    pub(super) async fn begin(
        services: &'a Services,
        trial: &'a Trial<'a>,
        plan: &'a Plan,
        say: Say<'a>,
    ) -> Result<Self, Error> {
        let mut worker = [trial.start_worker_that_logs(durable::LOG_DIRECTIVES)?];
        let deadline = Instant::now() + CLAIMED_WITHIN;
        while trial.owners().await?.len() < trial.backlog().partitions as usize {
            trial.look_after(&mut worker, Instant::now() > deadline)?;
            tokio::time::sleep(LOOK).await;
        }
        let idle_memory_bytes = cost::memory_bytes(worker[0].guarded.id());
        let (paced, outcomes) = (Paced::new(services, trial.backlog())?, Outcomes::follow(trial)?);
        Ok(Self { trial, plan, say, worker, paced, outcomes, idle_memory_bytes, sent: 0 })
    }

    /// Lets the broker compile what runs often, and the worker see its accounts.
    pub(super) async fn warm_up(&mut self) -> Result<(), Error> {
        if let Some((rate, length)) = first_pace(self.trial.services()) {
            (self.say)(format!("warming up: the broker, {}", humantime::format_duration(length)));
            self.settle(Plan::commands(rate, length), Some(rate)).await?;
        }
        if !self.plan.cold {
            (self.say)(format!("warming up: {} accounts", self.plan.workload.accounts));
            self.settle(self.plan.to_know_the_accounts(), None).await?;
        }
        Ok(())
    }

    /// Keeps a pace up, and measures it from when it is warm.
    pub(super) async fn paced(&mut self, rate: u32) -> Result<Latency, Error> {
        self.settle(Plan::commands(rate, self.plan.warm_up), Some(rate)).await?;
        self.pace(rate).await
    }

    async fn measure(mut self) -> Result<Measured, Error> {
        let plan = self.plan;
        self.warm_up().await?;
        let mut latencies = Vec::new();
        for rate in &plan.rates {
            latencies.push(self.paced(*rate).await?);
        }
        let idle_memory_bytes = self.idle_memory_bytes;
        let trial = self.trial;
        let (void, memory_bytes_max) = self.end().await?;
        Ok(Measured {
            machine: trial.services().setting.clone(),
            handlers: plan.row,
            accounts: plan.workload.accounts,
            cold: plan.cold,
            partitions: plan.partitions,
            latencies,
            idle_memory_bytes,
            memory_bytes_max,
            void,
        })
    }

    /// Ends the worker. What is wrong with its books, and the most memory that it held.
    pub(super) async fn end(mut self) -> Result<(Option<String>, Option<u64>), Error> {
        let memory_bytes_max = cost::memory_bytes_max(self.worker[0].guarded.id());
        super::trial::stop(&mut self.worker[0])?;
        Ok((books::difference(self.trial, &self.outcomes.published()).await?, memory_bytes_max))
    }

    /// Sends so many more commands, and waits for their outcomes.
    pub(super) async fn settle(&mut self, commands: u64, rate: Option<u32>) -> Result<Sent, Error> {
        let numbers = self.sent..self.sent + commands;
        self.sent = numbers.end;
        let sent = self.paced.begin(numbers, rate).all().await?;
        self.outcomes.wait_for(self.sent, self.trial, &mut self.worker).await?;
        Ok(sent)
    }

    async fn pace(&mut self, rate: u32) -> Result<Latency, Error> {
        let (clocks, before) = (Clocks::read(), self.outcomes.count());
        let sent = self.settle(Plan::commands(rate, self.plan.length), Some(rate)).await?;
        clocks.check()?;
        let outcome_ms = Percentiles::of(outcome_waits(&sent, &self.outcomes.since(before))?.into_iter());
        let Percentiles { p50, p99, .. } = outcome_ms;
        (self.say)(format!("{rate} commands/s: outcomes after {p50:.1} ms, one of a hundred after {p99:.1} ms"));
        let settled = Settled::read(&self.worker[0].log_text());
        Ok(Latency {
            commands_per_second: rate,
            durable_ms: Percentiles::of(durable_waits(&sent, &clocks, &settled)?.into_iter()),
            outcome_ms,
            samples: sent.positions.len() as u64,
            sent_late: sent.late,
        })
    }
}

/// From when each command was due until its outcome was here.
fn outcome_waits(sent: &Sent, outcomes: &[Outcome]) -> Result<Vec<Duration>, Error> {
    let arrived: HashMap<Position, Instant> =
        outcomes.iter().map(|outcome| ((outcome.partition, outcome.offset), outcome.arrived)).collect();
    each(sent, "the outcome", |due, position| Some(arrived.get(&position)?.saturating_duration_since(due)))
}

/// From when each command was due until it was durable.
fn durable_waits(sent: &Sent, clocks: &Clocks, settled: &Settled) -> Result<Vec<Duration>, Error> {
    each(sent, "the worker's log line", |due, position| settled.wait(clocks, due, position))
}

fn each(sent: &Sent, what: &str, wait: impl Fn(Instant, Position) -> Option<Duration>) -> Result<Vec<Duration>, Error> {
    let waits = sent.positions.iter().map(|(number, position)| {
        let (partition, offset) = *position;
        let missing = || Error::Silent(format!("{what} of the command on partition {partition} at offset {offset}"));
        wait(sent.schedule.began + sent.due(*number), *position).ok_or_else(missing)
    });
    waits.collect()
}

impl Measured {
    /// Milliseconds by percentile, two curves for each pace.
    pub(crate) fn chart(&self) -> Chart {
        let series = self.latencies.iter().flat_map(|latency| {
            let rate = latency.commands_per_second;
            [("durable", &latency.durable_ms), ("outcome", &latency.outcome_ms)].map(|(name, percentiles)| Series {
                name: format!("{name}, {rate}/s"),
                points: percentiles.curve.iter().map(|(x, y)| Point { x: *x, y: *y, low: *y, high: *y }).collect(),
            })
        });
        let accounts = if self.cold { "accounts that the worker has not seen" } else { "accounts" };
        Chart {
            title: "How long commands wait".to_owned(),
            note: format!(
                "from when they were due; {} {accounts}, {} partitions, {} cores of {}",
                self.accounts, self.partitions, self.machine.cores, self.machine.cpu
            ),
            x_label: "percentile of the commands".to_owned(),
            y_label: "ms".to_owned(),
            x: Scale::Percentile,
            y: Scale::Log,
            series: series.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_without_an_outcome_is_an_error_and_not_left_out() {
        let sent = Sent::of_positions(&[(0, 0), (0, 1)]);
        let outcome = |offset| Outcome { partition: 0, offset, arrived: Instant::now(), record_ms: 0 };
        assert!(matches!(outcome_waits(&sent, &[outcome(0)]), Err(Error::Silent(_))));
        assert_eq!(outcome_waits(&sent, &[outcome(1), outcome(0)]).expect("both").len(), 2);
    }

    #[test]
    fn waits_count_from_when_each_command_was_due() {
        let sent = Sent::of_positions(&[(0, 7), (1, 7)]);
        let at = sent.schedule.began + Duration::from_millis(1_500);
        let outcome = |partition| Outcome { partition, offset: 7, arrived: at, record_ms: 0 };
        let mut waits = outcome_waits(&sent, &[outcome(0), outcome(1)]).expect("both");
        waits.sort_unstable();
        // one a second: the second command was due a second later
        assert_eq!(waits, [Duration::from_millis(500), Duration::from_millis(1_500)]);
    }
}

//! How fast a log is run again, beside the rate at which the worker settled it; and how long commands wait for a
//! live worker meanwhile.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::backlog::Backlog;
use super::latency::{self, Latency};
use super::report::Spread;
use super::services::{Services, Setting};
use super::trial::{self, Options, Row, Trial};
use super::workload::Workload;
use super::{Error, Say, bank, with_services};
use crate::config::Config;
use crate::replay::ReplayError;
use crate::replay::progress::Progress;
use crate::replay::verify::{self, verify};

/// What is measured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// What settles commands, and runs them again: [`Row::Rust`] or [`Row::Sql`].
    pub(crate) row: Row,
    /// What is settled, and then run again.
    pub(crate) workload: Workload,
    pub(crate) partitions: i32,
    /// How often.
    pub(crate) rounds: usize,
    /// Commands per second while commands are run again.
    pub(crate) pace: u32,
    /// How long that is measured, each time.
    pub(crate) length: Duration,
    /// How long the pace is kept up before.
    pub(crate) warm_up: Duration,
    /// Records per second that are run again meanwhile at most, one limit after the other.
    pub(crate) rates: Vec<NonZeroU32>,
}

/// What it came to.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) machine: Setting,
    /// What settled commands, and ran them again.
    pub(crate) handlers: Row,
    pub(crate) commands: u64,
    pub(crate) partitions: i32,
    pub(crate) rounds: usize,
    /// Commands per second of the worker that settled them.
    pub(crate) live_per_second: Spread,
    /// Commands per second of the verification, from its beginning to its end.
    pub(crate) verified_per_second: Spread,
    /// The one median by the other.
    pub(crate) verified_to_live: f64,
    pub(crate) pace: u32,
    /// Waits at this pace: alone, then beside verifications.
    pub(crate) beside: Vec<Beside>,
    /// What was wrong with the books, or differed: then the numbers count for nothing.
    pub(crate) void: Option<String>,
}

/// Waits beside one verification after the other.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Beside {
    pub(crate) verifying: Verifying,
    /// Records that were read meanwhile, per second.
    pub(crate) records_per_second: f64,
    pub(crate) latency: Latency,
}

/// What goes on beside the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verifying {
    /// Nothing.
    Not,
    /// Verifications that read so many records a second at most.
    AtMost(NonZeroU32),
    /// Verifications without a limit.
    Unlimited,
}

impl Verifying {
    fn limit(self) -> Option<NonZeroU32> {
        match self {
            Self::AtMost(limit) => Some(limit),
            Self::Not | Self::Unlimited => None,
        }
    }
}

/// Measures. Whatever was made is gone when this returns.
pub(crate) async fn measure(
    config: &Config,
    plan: &Plan,
    shutdown: &CancellationToken,
    say: Say<'_>,
) -> Result<Measured, Error> {
    with_services(config, shutdown, say, async |services| {
        let rounds = rounds(services, plan, say).await?;
        let (beside, void) = beside_a_worker(services, plan, say).await?;
        let spread = |of: fn(&Round) -> f64| Spread::of(rounds.iter().map(of)).ok_or(Error::NoRows);
        let (live, verified) = (spread(|round| round.live_per_second)?, spread(|round| round.verified_per_second)?);
        Ok(Measured {
            machine: services.setting.clone(),
            handlers: plan.row,
            commands: plan.workload.commands,
            partitions: plan.partitions,
            rounds: rounds.len(),
            live_per_second: live,
            verified_per_second: verified,
            verified_to_live: verified.median / live.median,
            pace: plan.pace,
            beside,
            void: rounds.into_iter().find_map(|round| round.void).or(void),
        })
    })
    .await
}

/// What one round has shown.
struct Round {
    live_per_second: f64,
    verified_per_second: f64,
    void: Option<String>,
}

async fn rounds(services: &Services, plan: &Plan, say: Say<'_>) -> Result<Vec<Round>, Error> {
    say(format!("producing {} commands", plan.workload.commands));
    let backlog = Backlog::fill(services, plan.workload, plan.partitions).await?;
    trial::warm_up(services, &backlog, say).await?;
    let mut rounds = Vec::new();
    for number in 1..=plan.rounds.max(1) {
        services.empty_schemas().await?;
        let trial = Trial::prepare(services, plan.row, &backlog, Options::default()).await?;
        let live = trial.settle().await?;
        services.checkpoint().await;
        let (config, _files) = bank::beside_files(trial.config())?;
        let began = Instant::now();
        let report =
            verify(&bank::worker(plan.row), &config, &verify::Options::default(), &Progress::default()).await?;
        let verified_per_second = report.commands() as f64 / began.elapsed().as_secs_f64();
        trial.end().await?;
        say(format!("round {number}: live {:.0}/s, run again {verified_per_second:.0}/s", live.commands_per_second));
        let differs = (!report.equal).then(|| report.text());
        let live_per_second = live.commands_per_second;
        rounds.push(Round { live_per_second, verified_per_second, void: live.void.or(differs) });
    }
    backlog.drop(services).await?;
    Ok(rounds)
}

/// The same pace alone, and beside verifications of what was settled so far.
async fn beside_a_worker(
    services: &Services,
    plan: &Plan,
    say: Say<'_>,
) -> Result<(Vec<Beside>, Option<String>), Error> {
    let limited = plan.rates.iter().copied().map(Verifying::AtMost);
    let ways: Vec<Verifying> = [Verifying::Not].into_iter().chain(limited).chain([Verifying::Unlimited]).collect();
    let history = plan.workload.commands;
    let paces = latency::Plan {
        row: plan.row,
        rates: vec![plan.pace; ways.len()],
        length: plan.length,
        warm_up: plan.warm_up,
        workload: plan.workload,
        cold: false,
        partitions: plan.partitions,
    };
    let whole = paces.whole(services);
    let log = (whole.first(whole.commands + history), plan.partitions);
    trial::on_an_empty_log(services, log, (plan.row, Options::default()), async |trial| {
        let mut run = latency::Run::begin(services, trial, &paces, say).await?;
        run.warm_up().await?;
        say(format!("settling {history} commands, to run them again"));
        run.settle(history, None).await?;
        let (config, _files) = bank::beside_files(trial.config())?;
        let mut beside = Vec::new();
        for way in ways {
            beside.push(paced(&mut run, (plan.row, &config), way, plan.pace).await?);
        }
        let (void, _) = run.end().await?;
        Ok((beside, void))
    })
    .await
}

async fn paced(
    run: &mut latency::Run<'_>,
    (row, config): (Row, &Config),
    verifying: Verifying,
    pace: u32,
) -> Result<Beside, Error> {
    let progress = Progress::default();
    let going_on = keep_verifying((row, config), verifying.limit(), &progress);
    let mut going_on = std::pin::pin!(going_on);
    let began = Instant::now();
    let latency = match verifying {
        Verifying::Not => run.paced(pace).await?,
        _ => tokio::select! {
            // it goes on until it is told to stop, or fails
            ended = &mut going_on => return Err(ended.err().unwrap_or(Error::Stopped)),
            latency = run.paced(pace) => latency?,
        },
    };
    let records_per_second = progress.done() as f64 / began.elapsed().as_secs_f64();
    if verifying != Verifying::Not {
        progress.stop();
        going_on.await?;
    }
    Ok(Beside { verifying, records_per_second, latency })
}

/// One verification after the other, until it is stopped.
async fn keep_verifying(
    (row, config): (Row, &Config),
    rate: Option<NonZeroU32>,
    progress: &Progress,
) -> Result<(), Error> {
    let options = verify::Options { rate, ..verify::Options::default() };
    loop {
        match verify(&bank::worker(row), config, &options, progress).await {
            Ok(report) if !report.equal => return Err(Error::Different(report.text())),
            Ok(_) => {}
            Err(ReplayError::Stopped { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

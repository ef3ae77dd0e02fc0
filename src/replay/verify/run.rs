//! The whole of a verification: cut, rebuild, compare, and clear away.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Options;
use super::cut::Snapshot;
use super::guide::Later;
use super::lane::{Lane, READ_TIMEOUT, Ran, Reading};
use super::rebuild::{Rebuild, Rebuilt};
use super::report::{Differences, PartitionReport, Report};
use super::settled_offsets::SettledOffsets;
use crate::config::{self, Config, OnFailure};
use crate::fencing_token::ClaimId;
use crate::kafka::{Client, Inspector, blocking};
use crate::pace::Pace;
use crate::postgres::{Beginning, ClaimRequest, CutPartition, KeptCut, Store};
use crate::record::TopicPartition;
use crate::replay::ReplayError;
use crate::replay::asked::asked;
use crate::replay::partition::{CHUNK_RECORDS_MAX, ShadowPartition};
use crate::replay::progress::Progress;
use crate::replay::session::{Opened, Session};
use crate::replay::shadow::Shadow;
use crate::steps::{Parking, Rules};
use crate::worker::Worker;

/// Dead letters of a checkpoint that are read at a time.
const LETTERS_PAGE: i64 = 500;
/// Lanes that are rebuilt at a time.
const LANES_AT_ONCE: usize = 4;
/// Longer values and outcomes than any broker takes: what was too long is known from the tables. In bytes.
const BYTES_MAX: usize = i32::MAX as usize;

/// Runs the commands of all configured topics again, with the handlers of this worker, and compares what they leave
/// with the live tables, as they are when it begins. `progress` counts offsets, and stops it.
///
/// ```no_run
/// # use serde::{Deserialize, Serialize};
/// # use solewriter::{Context, Rejection, Worker};
/// # #[derive(Clone, Default, Serialize, Deserialize)] struct Account { balance: i64 }
/// # #[derive(Deserialize)] struct Amount { amount: i64 }
/// # impl Account { fn deposit(&mut self, d: Amount, _: &mut Context) -> Result<i64, Rejection> { self.balance += d.amount; Ok(self.balance) } }
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use solewriter::config::Config;
/// use solewriter::replay::progress::Progress;
/// use solewriter::replay::verify::{Options, verify};
///
/// let worker = Worker::new().entity::<Account>("account", |e| e.on("account.deposit", Account::deposit));
/// let report = verify(&worker, &Config::load(None)?, &Options::default(), &Progress::default()).await?;
/// report.assert_equal();
/// # Ok(()) }
/// ```
///
/// # Errors
/// If it cannot be made: see [`ReplayError`]. A difference is no error but the result.
pub async fn verify(
    worker: &Worker,
    config: &Config,
    options: &Options,
    progress: &Progress,
) -> Result<Report, ReplayError> {
    let session = Session::open(worker, config, "solewriter replay verify").await?;
    let (live, server) = (&session.live, &session.server);
    let kept = match &options.from {
        Some(name) => Some(live.kept_cut(name).await?),
        None => None,
    };
    // a checkpoint of the same name may be another
    let asked = asked(worker, config, json!({ "from": kept.as_ref().map(|kept| kept.at_ms) }))?;
    let unfinished = if options.go_on { session.unfinished(config, &asked, options.anew).await? } else { None };
    let Opened { name, store: shadow, kept: kept_cut } = match unfinished {
        Some(unfinished) => unfinished,
        None => session.create_shadow(config).await?,
    };
    let holds_its_cut = AtomicBool::new(kept_cut.is_some());
    let verifying = async {
        if kept_cut.is_none() {
            let making = format!("in the making: {asked}");
            server.note_shadow(&name, &making).await.map_err(ReplayError::Shadow)?;
        }
        let ready = match kept_cut {
            Some(_) => Shadow::open(shadow.clone(), worker, config).await?,
            None => Shadow::make(shadow.clone(), worker, config).await?,
        };
        let kept = kept.as_ref();
        let verification = Verification { config, options, progress, live, shadow: &shadow, ready: &ready, kept };
        let snapshot = match &kept_cut {
            Some(kept_cut) => verification.kept_snapshot(&name, kept_cut).await?,
            None => {
                verification.begin_from_checkpoint().await?;
                let snapshot = verification.cut().await?;
                // from now on it can be gone on in
                server.note_shadow(&name, &asked).await.map_err(ReplayError::Shadow)?;
                holds_its_cut.store(options.go_on, Ordering::Relaxed);
                snapshot
            }
        };
        verification.run(&snapshot).await
    };
    let verified = tokio::select! {
        () = progress.stopped() => Err(ReplayError::Stopped { shadow: None }),
        verified = verifying => Session::if_whole(&shadow, verified).await,
    };
    shadow.close().await;
    let ended = match verified {
        Ok(report) if options.keep => {
            // finished: nobody shall go on in it
            if let Err(error) = server.note_shadow(&name, "kept").await {
                // what was found is worth more
                tracing::warn!(%error, shadow = name, "the shadow is kept, and not marked as finished");
            }
            Ok(Report { shadow: Some(name), ..report })
        }
        verified => session.leave_or_drop(name, holds_its_cut.load(Ordering::Relaxed), verified).await,
    };
    session.close().await;
    ended
}

pub(super) struct Verification<'v> {
    pub config: &'v Config,
    pub options: &'v Options,
    pub progress: &'v Progress,
    pub live: &'v Store,
    pub shadow: &'v Store,
    pub ready: &'v Shadow,
    /// What the rebuild begins from, if not from nothing.
    pub kept: Option<&'v KeptCut>,
}

impl Verification<'_> {
    /// What a checkpoint holds, if the rebuild begins from one.
    async fn begin_from_checkpoint(&self) -> Result<(), ReplayError> {
        let Some(name) = &self.options.from else { return Ok(()) };
        let topics: Vec<&str> = self.config.topics.iter().map(|topic| &*topic.name).collect();
        self.live.fill_shadow(name, self.shadow).await?;
        self.check_kept().await?;
        self.shadow.begin_anew().await.map_err(ReplayError::Shadow)?;
        self.shadow.keep_entities_of(&topics).await.map_err(ReplayError::Shadow)
    }

    async fn check_kept(&self) -> Result<(), ReplayError> {
        match (&self.options.from, self.kept) {
            (Some(name), Some(kept)) => Ok(self.live.check_kept(name, kept).await?),
            _ => Ok(()),
        }
    }

    async fn run(&self, snapshot: &Snapshot) -> Result<Report, ReplayError> {
        let mut unproven = snapshot.unproven.clone();
        for table in
            self.ready.written.iter().filter(|table| self.kept.is_some_and(|kept| !kept.tables.contains(table)))
        {
            unproven.push(format!(
                "{}.{} is not in the checkpoint (no command of the configuration wrote it then): it began as its script \
                 leaves it, so rows from before the checkpoint differ",
                table.schema, table.name
            ));
        }
        for (partition, settled) in &snapshot.partitions {
            let begins = self.cursor(partition).map_or(0, |cursor| cursor.next_offset);
            if partition.batch_seq > 0 && settled.forgotten_below > begins {
                unproven.push(format!(
                    "{}: the batches that settled offsets below {} are older than the horizon: nobody skipped any is assumed",
                    partition.source(),
                    settled.forgotten_below.min(partition.next_offset)
                ));
            }
        }
        let Ran { rebuilt, doubts } = self.rebuild(snapshot).await?;
        let cut_at = crate::outcome::rfc3339(snapshot.at_ms);
        let from = self.options.from.as_ref().map(ToString::to_string);
        let mut report = Report { cut_at, from, entities: snapshot.entities, unproven, ..Report::default() };
        let differences = self.conclude(snapshot, rebuilt, &mut report).await?;
        (report.difference_count, report.differences, report.changes) = differences.into_parts();
        // of entities that are not looked at one by one, too
        report.difference_count = report.difference_count.max(report.entities_differing);
        report.equal = report.difference_count == 0;
        if !report.equal {
            // what comes out alike all the same is proven
            report.unproven.extend(doubts);
            report.unproven.extend(self.doubts(&report));
        }
        Ok(report)
    }

    /// All lanes, some at a time.
    async fn rebuild(&self, snapshot: &Snapshot) -> Result<Ran, ReplayError> {
        let client = Client::new(&self.config.kafka, "solewriter replay")?;
        let inspector = Arc::new(Inspector::new(&client, READ_TIMEOUT)?);
        let at_once = Arc::new(Semaphore::new(LANES_AT_ONCE));
        let reading = Reading {
            client,
            progress: self.progress.clone(),
            pace: Arc::new(tokio::sync::Mutex::new(Pace::new(self.options.rate))),
            records_max: Pace::even(self.options.rate, CHUNK_RECORDS_MAX),
        };
        let (mut lanes, mut shared) = (Vec::new(), Vec::new());
        for (partition, settled) in &snapshot.partitions {
            let source = partition.source();
            let from = match self.cursor(partition) {
                Some(cursor) => cursor.next_offset,
                None if settled.forgotten_below > 0 => 0,
                None => {
                    let first = self.shadow.cut_stretches(&source, -1, -1).await.map_err(ReplayError::Shadow)?;
                    first.first().map_or(partition.next_offset, |(first, _)| *first)
                }
            };
            self.check_log(&inspector, &source, from, partition.next_offset).await?;
            self.progress.expect(u64::try_from(partition.next_offset - from).unwrap_or(0));
            let rebuild = self.begin(partition, settled, from, snapshot.newest_letter).await?;
            match rebuild.partition.rules.handlers.in_database.writes_tables() {
                true => shared.push(rebuild),
                false => lanes.push(Lane::of_one(rebuild)),
            }
        }
        // the longest first
        lanes.splice(..0, (!shared.is_empty()).then(|| Lane::shared(shared)));
        let mut running = JoinSet::new();
        for lane in lanes {
            let (reading, at_once) = (reading.clone(), at_once.clone());
            running.spawn(async move {
                // nobody closes it
                let _permit = at_once.acquire().await;
                lane.run(&reading).await
            });
        }
        let mut all = Ran { rebuilt: Vec::new(), doubts: Vec::new() };
        while let Some(ended) = running.join_next().await {
            // nobody aborts them, and a panic of theirs is ours
            let ran = ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
            all.rebuilt.extend(ran.rebuilt);
            all.doubts.extend(ran.doubts);
        }
        let place = |rebuilt: &Rebuilt| (rebuilt.report.topic.clone(), rebuilt.report.partition);
        all.rebuilt.sort_by_key(place);
        Ok(all)
    }

    async fn check_log(
        &self,
        inspector: &Arc<Inspector>,
        source: &TopicPartition,
        from: i64,
        end: i64,
    ) -> Result<(), ReplayError> {
        let (asked, of) = (inspector.clone(), source.clone());
        let log = blocking(move || asked.log_end(&of)).await;
        let low = log.map_err(|error| ReplayError::Inspect(source.to_string(), error))?.low;
        match from < low && from < end {
            true => Err(ReplayError::LogGone { source_log: source.clone(), from, low }),
            false => Ok(()),
        }
    }

    /// Claims a partition of the shadow.
    async fn begin(
        &self,
        partition: &CutPartition,
        settled: &SettledOffsets,
        from: i64,
        letters_before: i64,
    ) -> Result<Rebuild, ReplayError> {
        let source = partition.source();
        let topic = self.config.topics.iter().find(|topic| topic.name == partition.topic);
        let topic = topic.ok_or_else(|| ReplayError::UnknownTopic(partition.topic.clone()))?;
        let rules = rules(topic, self.ready.handlers(topic)?, source.clone(), partition.partition_count);
        let beginning = Beginning { offset: from, halt: None };
        let request = ClaimRequest {
            source: &source,
            claim_id: ClaimId::random(),
            owner: "solewriter replay verify",
            cluster_id: "shadow",
            group_id: "shadow",
            beginning: Some(&beginning),
            topic_id: None,
            partition_count: partition.partition_count,
        };
        let cache_entries_max = self.config.worker.entity_cache_entries_max;
        let claimed = ShadowPartition::claim(self.shadow, rules, &request, cache_entries_max).await?.partition;
        let cursor = claimed.cursor;
        let mut rebuild = Rebuild {
            live: self.live.clone(),
            partition: claimed,
            settled: settled.clone(),
            batches_from: self.cursor(partition).map_or(0, |cursor| cursor.batch_seq),
            later: Later::default(),
            report: PartitionReport {
                topic: partition.topic.clone(),
                partition: partition.partition,
                from,
                to: partition.next_offset,
                ..PartitionReport::default()
            },
            sometime: 0,
            met: BTreeMap::new(),
            parks: topic.on_failure != OnFailure::Skip,
            ahead: VecDeque::new(),
            found: Vec::new(),
            differences: Differences::default(),
            changes_since_ms: self.options.changes_since_ms.unwrap_or(i64::MIN),
            // letters that ran later do not move the cursor, but the last of them are run behind it
            begun_below: if cursor.batch_seq > 0 { cursor.next_offset.max(from + 1) } else { from },
            letters_before,
        };
        if let Some(name) = &self.options.from {
            // which of them have run since is known from the tables; the log before the cursor is not read
            let mut after = -1;
            loop {
                let letters = self.live.kept_letters(name, &source, after, LETTERS_PAGE).await?;
                let Some(last) = letters.last() else { break };
                after = last.offset;
                rebuild.read(letters).await?;
            }
            self.check_kept().await?;
            // they are none of the log's
            (rebuild.report.records, rebuild.report.skipped) = (0, 0);
        }
        Ok(rebuild)
    }
}

fn rules(
    topic: &config::Topic,
    handlers: Arc<crate::handlers::EntityHandlers>,
    source: TopicPartition,
    partition_count: i32,
) -> Rules {
    Rules {
        source,
        handlers,
        partition_count,
        partitioner: topic.partitioner,
        payload_bytes_max: BYTES_MAX,
        outcome_bytes_max: BYTES_MAX,
        // who parked, and who waited, is known from the tables
        parking: Parking { on_failure: OnFailure::Skip, ..Parking::default() },
    }
}

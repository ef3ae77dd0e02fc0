//! The whole of a dry run: copy, listen, run again, and clear away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;

use super::again::Again;
use super::compared::Compared;
use super::heard::{Heard, Listening, READ_TIMEOUT};
use super::report::{PartitionReport, Report, WouldHalt};
use super::{Found, Options};
use crate::config::{self, Config};
use crate::fencing_token::ClaimId;
use crate::halt::HaltCode;
use crate::horizon::Horizon;
use crate::kafka::{Client, Inspector, LogReader, Topics, blocking};
use crate::pace::Pace;
use crate::postgres::{ClaimRequest, HorizonRow, Layout, OperatorAction, PartitionSeen, Resume, Store};
use crate::record::TopicPartition;
use crate::replay::ReplayError;
use crate::replay::asked::{asked, digest};
use crate::replay::partition::{CHUNK_RECORDS_MAX, ShadowPartition};
use crate::replay::progress::Progress;
use crate::replay::session::{Opened, Session};
use crate::replay::shadow::Shadow;
use crate::runtime::Limits;
use crate::steps::{Parking, Rules};
use crate::worker::{MESSAGE_BYTES_MAX, Worker};
use crate::writer::flood::Flood;

/// Partitions that run at a time.
const PARTITIONS_AT_ONCE: usize = 4;

/// Runs again what the database has forgotten of partitions that are halted `database-behind`, in a shadow, and sets it
/// against the outcomes topic. Nothing live is changed, nothing is published. `progress` counts records read, and
/// stops it.
///
/// # Errors
/// If it cannot be made: see [`ReplayError`]. A difference is no error but the result.
pub async fn dry_run(
    worker: &Worker,
    config: &Config,
    options: &Options,
    progress: &Progress,
) -> Result<Found, ReplayError> {
    let session = Session::open(worker, config, "solewriter replay run").await?;
    let ended = in_shadow(&session, worker, config, options, progress).await;
    session.close().await;
    ended
}

async fn in_shadow(
    session: &Session,
    worker: &Worker,
    config: &Config,
    options: &Options,
    progress: &Progress,
) -> Result<Found, ReplayError> {
    let topics: Vec<&str> = config.topics.iter().map(|topic| &*topic.name).collect();
    // before anything is made
    let seen = halted(session.live.partitions_seen(&topics).await?, options, config)?;
    // limits decide, too
    let limits = format!("{:?}", config.worker);
    let asked = |seen: &[PartitionSeen]| asked(worker, config, json!({ "run": digest(&format!("{seen:?} {limits}")) }));
    let mut unfinished = None;
    if options.go_on {
        unfinished = session.unfinished(config, &asked(&seen)?, options.anew).await?;
    }
    if let Some(shadow) = &unfinished
        && has_expired(&session.live, &shadow.store).await?
    {
        shadow.store.close().await;
        session.drop_shadow(&shadow.name).await;
        unfinished = None;
    }
    let Opened { name, store: shadow, kept } = match unfinished {
        Some(unfinished) => unfinished,
        None => session.create_shadow(config).await?,
    };
    let holds_its_copy = AtomicBool::new(kept.is_some());
    let running = async {
        let ready = match kept {
            Some(_) => Shadow::open(shadow.clone(), worker, config).await?,
            None => Shadow::make(shadow.clone(), worker, config).await?,
        };
        let client = Client::new(&config.kafka, "solewriter replay")?;
        let inspector = Arc::new(Inspector::new(&client, READ_TIMEOUT)?);
        let dry = DryRun {
            config,
            options,
            progress,
            live: &session.live,
            shadow: &shadow,
            ready: &ready,
            client,
            inspector,
        };
        let (seen, copied_at_ms) = match &kept {
            // they have not changed since
            Some(kept) => (seen, copied_at_ms(kept)?),
            None => {
                let copied_at_ms = dry.copy().await?;
                // as they are in the copy
                let rows = shadow.partitions_seen(&topics).await.map_err(ReplayError::Shadow)?;
                (halted(rows, options, config)?, copied_at_ms)
            }
        };
        if options.go_on && kept.is_none() {
            // from now on it can be gone on in
            session.server.note_shadow(&name, &asked(&seen)?).await.map_err(ReplayError::Shadow)?;
            holds_its_copy.store(true, Ordering::Relaxed);
        }
        let mut found = dry.run(seen).await?;
        found.report.copied_at = crate::outcome::rfc3339(copied_at_ms);
        if kept.is_some() {
            found.report.notes.push(format!(
                "it went on where an earlier run was stopped, with the copy of {}: what was changed by hand in the live tables \
                 since is not seen (--anew)",
                found.report.copied_at
            ));
        }
        Ok(found)
    };
    let found = tokio::select! {
        () = progress.stopped() => Err(ReplayError::Stopped { shadow: None }),
        found = running => Session::if_whole(&shadow, found).await,
    };
    shadow.close().await;
    session.leave_or_drop(name, holds_its_copy.load(Ordering::Relaxed), found).await
}

/// When an earlier process has filled its shadow.
fn copied_at_ms(kept: &str) -> Result<i64, ReplayError> {
    let copied_at_ms = kept.parse().map_err(|error| ReplayError::NotKept(format!("{error}: {kept:?}")))?;
    tracing::warn!(copied_at = crate::outcome::rfc3339(copied_at_ms), "goes on where it was stopped");
    Ok(copied_at_ms)
}

/// Whether a command that has run in a shadow would be refused by now: the horizon has moved.
async fn has_expired(live: &Store, shadow: &Store) -> Result<bool, ReplayError> {
    let horizon = Horizon(live.horizon().await?.at_ms);
    let oldest = shadow.oldest_timed_id().await.map_err(ReplayError::Shadow)?;
    Ok(oldest.is_some_and(|id| horizon.is_below(&id)))
}

/// Those that are meant, all of which must be halted so.
fn halted(rows: Vec<PartitionSeen>, options: &Options, config: &Config) -> Result<Vec<PartitionSeen>, ReplayError> {
    let behind = HaltCode::DatabaseBehind.as_str();
    let is_behind = |row: &PartitionSeen| row.halted_code.as_deref() == Some(behind);
    for (topic, partition) in &options.places {
        if !config.topics.iter().any(|known| known.name == *topic) {
            return Err(ReplayError::UnknownTopic(topic.clone()));
        }
        let mut of_it =
            rows.iter().filter(|row| row.topic == *topic && partition.is_none_or(|number| row.partition == number));
        match partition {
            None if !of_it.any(is_behind) => return Err(ReplayError::NothingBehind(topic.clone())),
            None => {}
            Some(number) => match of_it.next() {
                Some(row) if is_behind(row) => {}
                row => {
                    let state = match row.map(|row| &row.halted_code) {
                        None => "not known to the database".to_owned(),
                        Some(None) => "not halted".to_owned(),
                        Some(Some(code)) => format!("halted with {code}"),
                    };
                    return Err(ReplayError::NotBehind { source_log: TopicPartition::new(&**topic, *number), state });
                }
            },
        }
    }
    let is_meant = |row: &PartitionSeen| {
        let mut places = options.places.iter();
        options.places.is_empty()
            || places.any(|(topic, partition)| row.topic == *topic && partition.is_none_or(|it| it == row.partition))
    };
    let mut meant: Vec<PartitionSeen> = rows.into_iter().filter(|row| is_behind(row) && is_meant(row)).collect();
    // in the order of the report, whatever the database's collation is
    meant.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    match meant.is_empty() {
        true => Err(ReplayError::NothingBehind("any topic".to_owned())),
        false => Ok(meant),
    }
}

struct DryRun<'r> {
    config: &'r Config,
    options: &'r Options,
    progress: &'r Progress,
    live: &'r Store,
    shadow: &'r Store,
    ready: &'r Shadow,
    client: Client,
    inspector: Arc<Inspector>,
}

/// Where a partition ends, by the word of whom.
struct Stretch {
    report: PartitionReport,
    partition_count: i32,
    heard: Heard,
}

impl DryRun<'_> {
    /// Fills the shadow with what is live: the database's clock before, milliseconds since 1970.
    async fn copy(&self) -> Result<i64, ReplayError> {
        let copied_at_ms = self.live.horizon().await?.database_time_ms;
        let filled = self.live.fill_shadow_from_live(&self.ready.written, &self.ready.read, self.shadow).await;
        filled.map_err(ReplayError::Fill)?;
        match self.shadow.keep_cut(&copied_at_ms.to_string()).await.map_err(ReplayError::Shadow)? {
            true => Ok(copied_at_ms),
            false => Err(ReplayError::Crashed),
        }
    }

    async fn run(self, seen: Vec<PartitionSeen>) -> Result<Found, ReplayError> {
        // nobody publishes for a partition that is halted: an earlier process has heard the same
        self.shadow.prepare_published().await.map_err(ReplayError::Shadow)?;
        // what has run in the shadow is above it in either
        let horizon = self.live.horizon().await?;
        let pace = Arc::new(Mutex::new(Pace::new(self.options.rate)));
        let records_max = Pace::even(self.options.rate, CHUNK_RECORDS_MAX);
        let mut report = Report::default();
        let (mut running, mut at_once) = (JoinSet::new(), PARTITIONS_AT_ONCE);
        let mut write_tables = 0;
        let mut ready = Vec::new();
        for row in &seen {
            let stretch = self.stretch(row).await?;
            let again = self.begin(row, &stretch, &horizon).await?;
            if again.partition.rules.handlers.in_database.writes_tables() {
                // rows may be shared: one after the other comes out the same each time
                (at_once, write_tables) = (1, write_tables + 1);
            }
            if row.open_requests > 0 {
                report.unproven.push(format!(
                    "{}: {} requests about dead letters are open; a worker does them when it is resumed, and they are left \
                     out here",
                    row.source(),
                    row.open_requests
                ));
            }
            ready.push((again, stretch.heard));
        }
        let at_once = Arc::new(Semaphore::new(at_once));
        for (again, heard) in ready {
            let (client, progress) = (self.client.clone(), self.progress.clone());
            let (pace, at_once) = (pace.clone(), at_once.clone());
            running.spawn(async move {
                // nobody closes it
                let _permit = at_once.acquire().await;
                Ok::<_, ReplayError>((drive(again, &client, records_max, &progress, &pace).await?, heard))
            });
        }
        let mut found = Vec::new();
        while let Some(ended) = running.join_next().await {
            // nobody aborts them, and a panic of theirs is ours
            found.push(ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?);
        }
        found.sort_by_key(|(found, _)| (found.report.topic.clone(), found.report.partition));
        for (compared, heard) in found {
            report.unproven.extend(compared.unproven(self.topic(&compared.report.topic)?, &heard));
            let Compared { report: partition, differences, forgotten, .. } = compared;
            report.partitions.push(partition);
            report.differences.extend(differences);
            report.forgotten.extend(forgotten);
        }
        if write_tables > 0 {
            report.notes.push(
                "commands in SQL of several partitions may share rows, and in which order they changed them is forgotten: here \
                 one partition runs after the other, while workers run them side by side, also those that are not halted. A \
                 difference may come of that, and what is alike here may come out otherwise"
                    .to_owned(),
            );
        }
        Ok(Found { report: report.conclude(), seen })
    }

    /// What is to be run again, once what was published of it is kept.
    async fn stretch(&self, row: &PartitionSeen) -> Result<Stretch, ReplayError> {
        let source = row.source();
        let topic = self.topic(&row.topic)?;
        let (inspector, of) = (self.inspector.clone(), source.clone());
        let asked = blocking(move || {
            let count = inspector.partition_count(&of.topic)?;
            let committed = inspector.committed(&of)?;
            // the stable end first: it is never beyond the end that is asked afterwards
            Ok((count, committed, inspector.stable_end(&of)?, inspector.log_end(&of)?))
        });
        let asked = asked.await.map_err(|error| ReplayError::Inspect(source.to_string(), error))?;
        let (count, committed, readable, log) = asked;
        // 0: an operator has accepted whatever there is
        if row.partition_count != count && row.partition_count != 0 {
            return Err(ReplayError::Layout { source_log: source, placed_for: row.partition_count, found: count });
        }
        let (outcomes_topic, events_topic) = (topic.outcomes_topic(), topic.events_topic());
        let listening = Listening {
            client: &self.client,
            inspector: &self.inspector,
            shadow: self.shadow,
            progress: self.progress,
            source: &source,
            from: row.next_offset,
            outcomes_topic: &outcomes_topic,
            events_topic: &events_topic,
        };
        let heard = listening.listen().await?;
        let outcomes_end = heard.end;
        let from = row.next_offset;
        let to = [outcomes_end, committed, row.witnessed_offset].into_iter().flatten().fold(from, i64::max);
        if from < log.low && from < to {
            return Err(ReplayError::ForgottenGone { source_log: source, from, low: log.low.min(to) });
        }
        if to > readable {
            return Err(ReplayError::LogShort { source_log: source, end: to, readable });
        }
        self.progress.expect(u64::try_from(to - from).unwrap_or(0));
        let report = PartitionReport {
            topic: row.topic.clone(),
            partition: row.partition,
            from,
            to,
            outcomes_end,
            committed,
            witnessed: row.witnessed_offset,
            ..PartitionReport::default()
        };
        Ok(Stretch { report, partition_count: count, heard })
    }

    fn topic(&self, name: &str) -> Result<&config::Topic, ReplayError> {
        let topic = self.config.topics.iter().find(|topic| topic.name == name);
        topic.ok_or_else(|| ReplayError::UnknownTopic(name.to_owned()))
    }

    /// Resumes a partition of the shadow as the verb does, and claims it as a worker does.
    async fn begin(&self, row: &PartitionSeen, stretch: &Stretch, horizon: &HorizonRow) -> Result<Again, ReplayError> {
        let (source, topic, partition_count) = (row.source(), self.topic(&row.topic)?, stretch.partition_count);
        let layout =
            Layout { topic: &topic.name, entity_type: &topic.entity, partitioner: topic.partitioner, partition_count };
        let action = OperatorAction { source: &source, actor: "solewriter replay run", reason: "in a shadow" };
        let code = HaltCode::DatabaseBehind.as_str();
        // an earlier process may have resumed it
        let resumed = self.shadow.operator_resume(&action, code, Resume::AcceptDatabase, &layout).await;
        resumed.map_err(ReplayError::Shadow)?;
        let limits = Limits::new(self.config);
        let rules = Rules {
            source: source.clone(),
            handlers: self.ready.handlers(topic)?,
            partition_count,
            partitioner: topic.partitioner,
            payload_bytes_max: limits.payload_bytes_max,
            outcome_bytes_max: self.outcome_bytes_max(topic).await?,
            parking: Parking {
                on_failure: topic.on_failure,
                waiting_per_key_max: self.config.worker.waiting_per_key_max.get(),
                waiting_max: self.config.worker.waiting_max.get(),
            },
        };
        let request = ClaimRequest {
            source: &source,
            claim_id: ClaimId::random(),
            owner: "solewriter replay run",
            cluster_id: &row.cluster_id,
            group_id: &row.group_id,
            beginning: None,
            topic_id: row.topic_id.as_deref(),
            partition_count,
        };
        let cache_entries_max = self.config.worker.entity_cache_entries_max;
        let begun = ShadowPartition::claim(self.shadow, rules, &request, cache_entries_max).await?;
        let mut report = stretch.report.clone();
        let offset = begun.partition.cursor.next_offset;
        report.would_halt = begun.halted.map(|(code, detail)| WouldHalt { code, offset, detail });
        Ok(Again {
            live: self.live.clone(),
            settled_below: offset,
            partition: begun.partition,
            parked: begun.parked,
            // of what an earlier process has run nothing is counted, as by a worker that was started again
            flood: Flood::new(source, limits.flood),
            horizon: Horizon(horizon.at_ms),
            database_time_ms: horizon.database_time_ms,
            found: Compared::of(report),
        })
    }

    /// What the topics take that the worker publishes to, as it asks when it starts: bytes.
    async fn outcome_bytes_max(&self, topic: &config::Topic) -> Result<usize, ReplayError> {
        let topics = Topics::new(&self.client, READ_TIMEOUT)?;
        let mut least = MESSAGE_BYTES_MAX;
        for name in [topic.outcomes_topic(), topic.events_topic()] {
            // whoever may not ask goes by the default
            let told = topics.message_bytes_max(&name).await;
            let told = told.map_err(|error| ReplayError::Inspect(name.to_string(), error))?;
            least = least.min(told.unwrap_or(MESSAGE_BYTES_MAX));
        }
        Ok(least)
    }
}

/// Reads a partition to its end, and runs it chunk by chunk.
async fn drive(
    mut again: Again,
    client: &Client,
    records_max: usize,
    progress: &Progress,
    pace: &Mutex<Pace>,
) -> Result<Compared, ReplayError> {
    let (from, end) = (again.found.report.from, again.found.report.to);
    let (client, source) = (client.clone(), again.partition.rules.source.clone());
    let reader = blocking(move || LogReader::open(&client, &source, from, end, READ_TIMEOUT)).await?;
    let mut chunks = reader.chunks(records_max);
    let mut read_to = from;
    while let Some(chunk) = chunks.recv().await.transpose()? {
        let behind = chunk.last().map_or(read_to, |last| last.offset + 1);
        pace.lock().await.turns(u32::try_from(chunk.len()).unwrap_or(u32::MAX)).await;
        let goes_on = again.chunk(chunk).await?;
        progress.add(u64::try_from(behind - read_to).unwrap_or(0));
        read_to = behind;
        if !goes_on {
            break;
        }
    }
    progress.add(u64::try_from(end - read_to).unwrap_or(0));
    again.finish(from).await
}

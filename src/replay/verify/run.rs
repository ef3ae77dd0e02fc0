//! The whole of a verification: cut, rebuild, compare, and clear away.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::guide::Later;
use super::lane::{Lane, READ_TIMEOUT, Ran, Reading};
use super::rebuild::{Rebuild, Rebuilt, SettledOffsets};
use super::report::{After, DIFFERENCES_MAX, Difference, Differences, PartitionReport, Report, TableReport, What};
use super::{Options, VerifyError};
use crate::config::{self, Config, OnFailure};
use crate::fencing_token::ClaimId;
use crate::horizon;
use crate::kafka::{Client, Inspector};
use crate::pace::Pace;
use crate::postgres::{
    Beginning, CheckpointCursor, ClaimRequest, CutPartition, CutTable, EntityDifference, KeptCut, RowDifference,
    SHADOW_PREFIX, SchemaState, Store,
};
use crate::record::TopicPartition;
use crate::replay::progress::Progress;
use crate::replay::shadow::Shadow;
use crate::steps::{Parking, Rules};
use crate::worker::Worker;
use crate::writer::batch_size::BatchSize;
use crate::writer::cache::Cache;

/// A cut that is older is not gone on with: 24 h.
const CUT_AGE_MAX_MS: i64 = 24 * 3_600_000;
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
/// If it cannot be made: see [`VerifyError`]. A difference is no error but the result.
pub async fn verify(
    worker: &Worker,
    config: &Config,
    options: &Options,
    progress: &Progress,
) -> Result<Report, VerifyError> {
    config.validate_for_run()?;
    Shadow::check(worker, config)?;
    let live = Store::read_only(&config.database, "solewriter replay verify")?;
    live.reach().await?;
    if live.schema_state().await? != SchemaState::Fits {
        return Err(VerifyError::Schema(config.database.schema.clone()));
    }
    let kept = match &options.from {
        Some(name) => Some(live.kept_cut(name).await?),
        None => None,
    };
    let server = Store::new(&config.database, "solewriter replay verify")?;
    let asked = asked(worker, config, kept.as_ref())?;
    let unfinished = if options.go_on { server.unfinished_shadow(&asked).await? } else { None };
    let (name, is_begun) = match unfinished {
        Some(name) if options.anew => {
            server.drop_shadow(&name).await.map_err(VerifyError::Shadow)?;
            (new_name(), false)
        }
        Some(name) => (name, true),
        None => (new_name(), false),
    };
    // connects when it is first used
    let shadow = Store::of_shadow(&config.database, &name)?;
    if !is_begun && let Err(error) = server.create_shadow(&name).await {
        return Err(VerifyError::NoShadow { name, error });
    }
    let holds_its_cut = AtomicBool::new(is_begun);
    let verifying = async {
        if !is_begun {
            let making = format!("in the making: {asked}");
            server.note_shadow(&name, &making).await.map_err(VerifyError::Shadow)?;
        }
        let ready = match is_begun {
            true => Shadow::open(shadow.clone(), worker, config).await?,
            false => Shadow::make(shadow.clone(), worker, config).await?,
        };
        let (live, shadow, kept) = (&live, &shadow, kept.as_ref());
        let verification = Verification { config, options, progress, live, shadow, ready: &ready, kept };
        let snapshot = match is_begun {
            true => verification.kept_snapshot(&name).await?,
            false => {
                if let Some(name) = &options.from {
                    live.fill_shadow(name, shadow).await?;
                    shadow.begin_anew().await.map_err(VerifyError::Shadow)?;
                    let topics: Vec<&str> = config.topics.iter().map(|topic| &*topic.name).collect();
                    shadow.keep_entities_of(&topics).await.map_err(VerifyError::Shadow)?;
                }
                let snapshot = verification.cut().await?;
                // from now on it can be gone on in
                server.note_shadow(&name, &asked).await.map_err(VerifyError::Shadow)?;
                holds_its_cut.store(options.go_on, Ordering::Relaxed);
                snapshot
            }
        };
        verification.run(&snapshot).await
    };
    let verified = tokio::select! {
        () = progress.stopped() => Err(VerifyError::Stopped { shadow: None }),
        verified = verifying => verified,
    };
    shadow.close().await;
    live.close().await;
    let ended = match verified {
        Ok(report) if options.keep => {
            // finished: nobody shall go on in it
            let noted = server.note_shadow(&name, "kept").await.map_err(VerifyError::Shadow);
            noted.map(|()| Report { shadow: Some(name), ..report })
        }
        // the same command goes on, once whatever it was is over
        Err(error) if error.is_passing() && holds_its_cut.load(Ordering::Relaxed) => Err(error.in_shadow(name)),
        verified => {
            if let Err(error) = server.drop_shadow(&name).await {
                // what was found is worth more
                tracing::warn!(%error, "the shadow is left; type: drop database {name}");
            }
            verified
        }
    };
    server.close().await;
    ended
}

fn new_name() -> String {
    format!("{SHADOW_PREFIX}{:016x}", fastrand::u64(..))
}

/// What a verification is of: whoever asks for the same goes on in what is left of it. Other handlers make another
/// shadow, so the program is part of it, and what is declared.
fn asked(worker: &Worker, config: &Config, kept: Option<&KeptCut>) -> Result<String, VerifyError> {
    let program = std::env::current_exe().and_then(|path| Ok((path.metadata()?, path)));
    let program = program.and_then(|(metadata, path)| Ok((path, metadata.len(), metadata.modified()?)));
    let (path, bytes, modified) = program.map_err(VerifyError::Program)?;
    let mut declared = DefaultHasher::new();
    format!("{:?}", worker.declared(config).map_err(super::ShadowError::from)?.declarations()).hash(&mut declared);
    Ok(json!({
        "schema": config.database.schema,
        "brokers": config.kafka.bootstrap_servers,
        "topics": config.topics,
        "program": { "path": path, "bytes": bytes, "modified": humantime::format_rfc3339_micros(modified).to_string() },
        // a checkpoint of the same name may be another
        "from": kept.map(|kept| kept.at_ms),
        "declared": format!("{:016x}", declared.finish()),
    })
    .to_string())
}

struct Verification<'v> {
    config: &'v Config,
    options: &'v Options,
    progress: &'v Progress,
    live: &'v Store,
    shadow: &'v Store,
    ready: &'v Shadow,
    /// What the rebuild begins from, if not from nothing.
    kept: Option<&'v KeptCut>,
}

/// What one snapshot of the live tables says, as far as it is no table of the shadow.
#[derive(Serialize, Deserialize)]
struct Snapshot {
    /// When it was taken, milliseconds since 1970, by the database's clock.
    at_ms: i64,
    partitions: Vec<(CutPartition, SettledOffsets)>,
    /// Final outcomes: topic, partition, the day of the id (days since 1970, `None` for ids without a time), how many.
    outcomes: Vec<(String, i32, Option<i64>, i64)>,
    entities: u64,
    /// The newest dead letter that the shadow began with.
    newest_letter: i64,
    /// The tables that commands write.
    tables: Vec<CutTable>,
    /// What of it cannot be compared.
    unproven: Vec<String>,
}

impl Verification<'_> {
    /// That of a shadow that somebody else has begun: not long ago, and of the tables that are live now.
    async fn kept_snapshot(&self, shadow: &str) -> Result<Snapshot, VerifyError> {
        let kept = self.shadow.cut_said().await.map_err(VerifyError::Shadow)?;
        let kept: Snapshot = serde_json::from_str(&kept).map_err(|error| VerifyError::NotKept(error.to_string()))?;
        let topics: Vec<&str> = self.config.topics.iter().map(|topic| &*topic.name).collect();
        let mut now = self.live.cut().await?;
        let (now_ms, partitions) = (now.at_ms().await?, now.partitions(&topics).await?);
        now.end().await?;
        if now_ms - kept.at_ms > CUT_AGE_MAX_MS {
            let cut_at = crate::outcome::rfc3339(kept.at_ms);
            return Err(VerifyError::TooOld { shadow: shadow.to_owned(), cut_at });
        }
        for (then, _) in &kept.partitions {
            let is_same = |now: &&CutPartition| (&now.topic, now.partition) == (&then.topic, then.partition);
            let now = partitions.iter().find(is_same);
            if now.is_none_or(|now| now.next_offset < then.next_offset || now.batch_seq < then.batch_seq) {
                return Err(VerifyError::Older(then.source()));
            }
        }
        tracing::warn!(shadow, cut_at = crate::outcome::rfc3339(kept.at_ms), "goes on where it was stopped");
        Ok(kept)
    }

    /// Fills the shadow with the cut.
    async fn cut(&self) -> Result<Snapshot, VerifyError> {
        let snapshot = self.snapshot().await?;
        let said = serde_json::to_string(&snapshot).map_err(|error| VerifyError::NotKept(error.to_string()))?;
        self.shadow.keep_cut(&said).await.map_err(VerifyError::Shadow)?;
        Ok(snapshot)
    }

    async fn run(&self, snapshot: &Snapshot) -> Result<Report, VerifyError> {
        let started = self.shadow.server_started().await.map_err(VerifyError::Shadow)?;
        let mut unproven = snapshot.unproven.clone();
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
        let differences = Arc::new(Mutex::new(Differences::default()));
        let Ran { rebuilt, doubts } = self.rebuild(snapshot, &differences).await?;
        let differences = std::mem::take(&mut *differences.lock().unwrap_or_else(PoisonError::into_inner));
        // a shadow's commits are not waited for: after a crash of the server some are missing that were answered
        if self.shadow.server_started().await.map_err(VerifyError::Shadow)? != started {
            return Err(VerifyError::Restarted);
        }
        let cut_at = crate::outcome::rfc3339(snapshot.at_ms);
        let mut report = Report { cut_at, entities: snapshot.entities, unproven, ..Report::default() };
        let differences = self.conclude(snapshot, rebuilt, differences, &mut report).await?;
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

    /// Everything that has to be read at one moment.
    async fn snapshot(&self) -> Result<Snapshot, VerifyError> {
        let topics: Vec<&str> = self.config.topics.iter().map(|topic| &*topic.name).collect();
        let mut cut = self.live.cut().await?;
        if let Some(topic) = cut.repartitioned(&topics, self.kept).await? {
            return Err(VerifyError::Repartitioned(topic));
        }
        if let Some(kept) = self.kept
            && let Some(source) = cut.went_back(&topics, kept).await?
        {
            return Err(VerifyError::WentBack(source));
        }
        let (mut partitions, mut unproven) = (Vec::new(), Vec::new());
        for partition in cut.partitions(&topics).await? {
            self.check_cursor(&partition)?;
            let stretches = cut.settled_stretches(&partition.source()).await?;
            let skips_to = cut.skips(&partition.source()).await?;
            let forgotten_below = match (partition.batch_seq, partition.oldest_seq) {
                (0, _) | (_, Some(1)) => 0,
                (_, Some(_)) => partition.oldest_offset.unwrap_or(0),
                (_, None) => partition.next_offset,
            };
            partitions.push((partition, SettledOffsets { forgotten_below, stretches, skips_to }));
        }
        cut.copy_letters(&topics, self.shadow).await.map_err(VerifyError::Shadow)?;
        cut.copy_batches(&self.topics_with_tables()?, self.shadow).await.map_err(VerifyError::Shadow)?;
        let entities = cut.copy_entities(&topics, self.shadow).await.map_err(VerifyError::Shadow)?;
        let at_ms = cut.at_ms().await?;
        let outcomes = cut.outcome_counts(&topics, self.kept).await?;
        let mut tables = Vec::new();
        for table in self.shadow.changed_tables(&self.ready.written).await.map_err(VerifyError::Shadow)? {
            tables.extend(cut.copy_table(tables.len(), &table, self.shadow).await?);
        }
        cut.end().await?;
        for table in self.ready.written.iter().filter(|table| tables.iter().all(|cut| cut.table != **table)) {
            let name = format!("{}.{}", table.schema, table.name);
            unproven
                .push(format!("{name} is no table of the live database: what commands write there is not compared"));
        }
        let newest_letter = self.shadow.newest_letter().await.map_err(VerifyError::Shadow)?;
        Ok(Snapshot { at_ms, partitions, outcomes, entities, newest_letter, tables, unproven })
    }

    /// Why tables may differ although commands did what they should.
    fn doubts(&self, report: &Report) -> Vec<String> {
        let mut doubts = Vec::new();
        for name in &self.ready.nondeterministic {
            doubts.push(format!(
                "{name} says nondeterministic = true: it may end otherwise, and leave other rows, each time"
            ));
        }
        for table in &self.ready.read {
            doubts.push(format!(
                "{}.{} is read by commands and written by none: what was changed in it is in no log, so it is as {} it",
                table.schema,
                table.name,
                if self.kept.is_some() { "the checkpoint has" } else { "the scripts make" }
            ));
        }
        if self.kept.is_none() && report.tables.iter().any(|table| table.differing > 0) {
            doubts.push(
                "the tables that commands write began as their scripts leave them: a row that something else has put there \
                 differs; begin from a checkpoint (--from NAME)"
                    .to_owned(),
            );
        }
        doubts
    }

    /// The topics whose commands write the team's tables.
    fn topics_with_tables(&self) -> Result<Vec<&str>, VerifyError> {
        let mut topics = Vec::new();
        for topic in &self.config.topics {
            let writes_tables = self.ready.handlers(topic)?.in_database.writes_tables();
            topics.extend(writes_tables.then_some(&*topic.name));
        }
        Ok(topics)
    }

    /// All lanes, some at a time.
    async fn rebuild(&self, snapshot: &Snapshot, differences: &Arc<Mutex<Differences>>) -> Result<Ran, VerifyError> {
        let client = Client::new(&self.config.kafka, "solewriter replay")?;
        let inspector = Arc::new(Inspector::new(&client, READ_TIMEOUT)?);
        let at_once = Arc::new(Semaphore::new(LANES_AT_ONCE));
        // so many at a time that a slow rate goes evenly
        let records_max = self.options.rate.map_or(CHUNK_RECORDS_MAX, |rate| rate.get() as usize / 10);
        let reading = Reading {
            client,
            progress: self.progress.clone(),
            pace: Arc::new(tokio::sync::Mutex::new(Pace::new(self.options.rate))),
            records_max: records_max.clamp(1, CHUNK_RECORDS_MAX),
        };
        let (mut lanes, mut shared) = (Vec::new(), Vec::new());
        for (partition, settled) in &snapshot.partitions {
            let source = partition.source();
            let from = match self.cursor(partition) {
                Some(cursor) => cursor.next_offset,
                None if settled.forgotten_below > 0 => 0,
                None => settled.stretches.first().map_or(partition.next_offset, |(first, _)| *first),
            };
            self.check_log(&inspector, &source, from, partition.next_offset).await?;
            self.progress.expect(u64::try_from(partition.next_offset - from).unwrap_or(0));
            let rebuild = self.begin(partition, settled, from, (snapshot.newest_letter, differences)).await?;
            match rebuild.rules.handlers.in_database.writes_tables() {
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
    ) -> Result<(), VerifyError> {
        let (asked, of) = (inspector.clone(), source.clone());
        let log = tokio::task::spawn_blocking(move || asked.log_end(&of)).await;
        let low = log.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?.low;
        match from < low && from < end {
            true => Err(VerifyError::LogGone { source_log: source.clone(), from, low }),
            false => Ok(()),
        }
    }

    /// Where the checkpoint has a partition.
    fn cursor(&self, partition: &CutPartition) -> Option<&CheckpointCursor> {
        let is_its =
            |cursor: &&CheckpointCursor| (&cursor.topic, cursor.partition) == (&partition.topic, partition.partition);
        self.kept?.cursors.iter().find(is_its)
    }

    /// What lies between the checkpoint and the cut is one history.
    fn check_cursor(&self, partition: &CutPartition) -> Result<(), VerifyError> {
        let Some(cursor) = self.cursor(partition) else { return Ok(()) };
        if let (Some(then), Some(now)) = (&cursor.topic_id, &partition.topic_id)
            && then != now
        {
            return Err(VerifyError::AnotherLog(partition.source()));
        }
        if partition.next_offset < cursor.next_offset || partition.batch_seq < cursor.batch_seq {
            return Err(VerifyError::Older(partition.source()));
        }
        Ok(())
    }

    /// Claims a partition of the shadow.
    async fn begin(
        &self,
        partition: &CutPartition,
        settled: &SettledOffsets,
        from: i64,
        (letters_before, differences): (i64, &Arc<Mutex<Differences>>),
    ) -> Result<Rebuild, VerifyError> {
        let source = partition.source();
        let topic = self.config.topics.iter().find(|topic| topic.name == partition.topic);
        let topic = topic.ok_or_else(|| VerifyError::Disturbed(source.clone(), "no such topic".to_owned()))?;
        let handlers = self.ready.handlers(topic)?;
        let names = handlers.command_names();
        let names: Vec<&str> = names.iter().map(|name| &**name).collect();
        let numbered = self.shadow.number_command_types(&topic.name, &topic.entity, &names).await;
        let numbered = numbered.map_err(VerifyError::Shadow)?;
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
        let row = self.shadow.claim(&request).await.map_err(VerifyError::Shadow)?;
        let row = row.ok_or_else(|| VerifyError::Disturbed(source.clone(), "its row is gone".to_owned()))?;
        let mut rebuild = Rebuild {
            live: self.live.clone(),
            shadow: self.shadow.clone(),
            rules: rules(topic, handlers.clone(), source.clone(), partition.partition_count),
            type_ids: Arc::new(move |name| {
                numbered.iter().find(|row| row.command_type == name).map_or(0, |row| row.type_id)
            }),
            claimed: row.claimed,
            cursor: row.cursor,
            settled: settled.clone(),
            batches_from: self.cursor(partition).map_or(0, |cursor| cursor.batch_seq),
            cache: Cache::new(self.config.worker.entity_cache_entries_max),
            batch_size: BatchSize::new(CHUNK_RECORDS_MAX, CHUNK_RECORDS_MAX),
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
            differences: differences.clone(),
            changes_since_ms: self.options.changes_since_ms.unwrap_or(i64::MIN),
            // letters that ran later do not move the cursor, but the last of them are run behind it
            begun_below: if row.cursor.batch_seq > 0 { row.cursor.next_offset.max(from + 1) } else { from },
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
        }
        Ok(rebuild)
    }

    /// What is known only when all partitions are rebuilt.
    async fn conclude(
        &self,
        snapshot: &Snapshot,
        rebuilt: Vec<Rebuilt>,
        mut differences: Differences,
        report: &mut Report,
    ) -> Result<Differences, VerifyError> {
        let horizon_ms = self.live.horizon().await?.at_ms;
        let mut met_of = BTreeMap::new();
        for Rebuilt { report: partition, met, sometime } in rebuilt {
            let place = (partition.topic.clone(), partition.partition);
            if sometime > 0 {
                report.unproven.push(format!(
                    "{}:{}: {sometime} redriven letters are older than the horizon and held no key: when they ran is not \
                     known, they were run where their records are",
                    place.0, place.1
                ));
            }
            if self.kept.is_some() && partition.forgotten > 0 {
                report.unproven.push(format!(
                    "{}:{}: of {} commands older than the horizon nobody knows whether they repeat some that were settled \
                     before the checkpoint: they were run",
                    place.0, place.1, partition.forgotten
                ));
            }
            met_of.insert(place, met);
            report.partitions.push(partition);
        }
        for (topic, partition, day, count) in &snapshot.outcomes {
            let met = met_of.get(&(topic.clone(), *partition));
            let met = met.and_then(|met| met.get(day)).copied().unwrap_or(0);
            // a day below the horizon may have been dropped meanwhile
            let is_kept = day.is_none_or(|day| day * horizon::STEP_MS_MAX >= horizon_ms);
            if *count > met && is_kept {
                differences.add(unexplained((topic, *partition), *day, *count, met));
            }
        }
        self.entities(&mut differences, report).await?;
        for table in &snapshot.tables {
            self.table(table, &mut differences, report).await?;
        }
        Ok(differences)
    }

    /// Rows of a table that commands write.
    async fn table(
        &self,
        cut: &CutTable,
        differences: &mut Differences,
        report: &mut Report,
    ) -> Result<(), VerifyError> {
        let name = format!("{}.{}", cut.table.schema, cut.table.name);
        let found = self.shadow.table_differences(cut, DIFFERENCES_MAX as i64).await.map_err(VerifyError::Shadow)?;
        for (columns, why) in [
            (&cut.only_live, "which no script makes"),
            (&cut.only_scripts, "which the live table does not have"),
            (&found.not_compared, "which draws from a sequence, the clock or chance by default, and differs"),
        ] {
            let line = |column: &String| format!("{name}: column {column} is not compared, {why}");
            report.unproven.extend(columns.iter().map(line));
        }
        report.tables.push(TableReport {
            table: name.clone(),
            rows: found.rows.unsigned_abs(),
            differing: found.differing.unsigned_abs(),
        });
        differences.count(found.differing.unsigned_abs().saturating_sub(found.examples.len() as u64));
        for RowDifference { key, live, rebuilt } in found.examples {
            let after = self.named_in(live.as_deref().or(rebuilt.as_deref())).await?;
            let key = key.map(|key| json_of(Some(key)));
            let difference = Difference::of(What::Table, String::new(), json_of(live), json_of(rebuilt));
            differences.add(Difference { table: Some(name.clone()), key, after, ..difference });
        }
        Ok(())
    }

    /// The command whose id stands in a row, if there is one.
    async fn named_in(&self, row: Option<&str>) -> Result<Option<After>, VerifyError> {
        let row: serde_json::Map<String, Value> =
            row.and_then(|row| serde_json::from_str(row).ok()).unwrap_or_default();
        let ids = row.values().filter_map(Value::as_str).filter_map(|text| text.parse().ok());
        let ids: Vec<Uuid> = ids.collect();
        let named = self.shadow.outcomes_of(&ids).await.map_err(VerifyError::Shadow)?;
        let Some(delivery) = ids.iter().find_map(|id| named.get(id)).map(|outcome| &outcome.delivery) else {
            return Ok(None);
        };
        Ok(Some(After {
            command_id: Some(delivery.command_id),
            command_type: Some(delivery.command_type.to_string()),
            ..After::at(&delivery.source, delivery.offset)
        }))
    }

    /// Entities whose version or state differs, unless a command of theirs has told already.
    async fn entities(&self, differences: &mut Differences, report: &mut Report) -> Result<(), VerifyError> {
        let rows_max = DIFFERENCES_MAX as i64;
        let (count, rows) = self.shadow.entity_differences(rows_max).await.map_err(VerifyError::Shadow)?;
        report.entities_differing = count.unsigned_abs();
        let mut last = BTreeMap::new();
        for topic in &self.config.topics {
            let of_type = rows.iter().filter(|row| row.entity_type == topic.entity);
            let ids: Vec<String> = of_type.map(|row| row.entity_id.clone()).collect();
            if ids.is_empty() {
                continue;
            }
            for command in self.shadow.last_commands(&topic.entity, &ids).await.map_err(VerifyError::Shadow)? {
                let place = TopicPartition::new(&*command.topic, command.partition);
                let after = After {
                    command_id: Some(command.command_id),
                    command_type: Some(command.command_type),
                    ..After::at(&place, command.log_offset)
                };
                last.insert((topic.entity.clone(), command.entity_id), after);
            }
        }
        for row in rows.into_iter().filter(|row| !differences.has(&row.entity_type, &row.entity_id)).collect::<Vec<_>>()
        {
            let EntityDifference { entity_type, entity_id, live_version, live_state, rebuilt_version, rebuilt_state } =
                row;
            let after = last.remove(&(entity_type.clone(), entity_id.clone()));
            let (live, rebuilt) = (entity(live_version, live_state), entity(rebuilt_version, rebuilt_state));
            let difference = Difference::of(What::Entity, entity_type, live, rebuilt);
            differences.add(Difference { after, entity_id: Some(entity_id), ..difference });
        }
        Ok(())
    }
}

/// More outcomes of one day than records lead to.
fn unexplained(place: (&String, i32), day: Option<i64>, live: i64, rebuilt: i64) -> Difference {
    let (topic, partition) = place;
    let day = day.map(|day| crate::outcome::rfc3339(day * horizon::STEP_MS_MAX));
    let outcomes =
        |count: i64| json!({ "topic": topic, "partition": partition, "ids_of_day_from": day, "outcomes": count });
    Difference::of(What::OutcomeUnexplained, String::new(), outcomes(live), outcomes(rebuilt))
}

/// JSON that the database has made.
fn json_of(text: Option<String>) -> Value {
    text.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn entity(version: Option<i64>, state: Option<String>) -> Value {
    let Some(version) = version else { return Value::Null };
    let state = state.map(|state| serde_json::from_str(&state).unwrap_or(Value::String(state)));
    json!({ "version": version, "state": state })
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

/// Dead letters of a checkpoint that are read at a time.
const LETTERS_PAGE: i64 = 500;

/// Records that are decided and settled at a time.
const CHUNK_RECORDS_MAX: usize = 2_000;

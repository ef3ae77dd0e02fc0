//! A lane: partitions whose batches are run again one after the other, in the order in which they were committed.
//!
//! A partition whose commands change nothing but their own entities has a lane of its own. Those whose commands write
//! the team's tables share one, as rows may be shared. The order is that of [`CutBatch::settled_lsn`]: a batch notes
//! where the database's log ends when its statements have run. Of two batches that have written, or locked, the same
//! row, the second waited until the first was committed, so it noted a later place. (Within a partition the batches
//! are numbered anyway.) What a statement has read of rows that it did not lock is another matter: see
//! [`doubts_of`].

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;

use super::rebuild::{Rebuild, Rebuilt};
use crate::kafka::{Client, LogReader, ReadError, blocking};
use crate::pace::Pace;
use crate::postgres::CutBatch;
use crate::record::Record;
use crate::replay::ReplayError;
use crate::replay::progress::Progress;

/// Batches that are read at a time.
const BATCHES_PAGE: i64 = 500;
/// How long the broker may be silent.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// How records are read.
#[derive(Clone)]
pub(super) struct Reading {
    pub client: Client,
    pub progress: Progress,
    /// Shared by all lanes.
    pub pace: std::sync::Arc<tokio::sync::Mutex<Pace>>,
    /// Records of a partition at a time.
    pub records_max: usize,
}

/// Partitions that are rebuilt in one order.
pub(super) struct Lane {
    rebuilds: Vec<Rebuild>,
    /// The batches of all members are run in the order of their commits.
    is_ordered: bool,
}

/// What a lane leaves.
pub(super) struct Ran {
    pub rebuilt: Vec<Rebuilt>,
    /// Why a command may end otherwise although the tables are right: what counts only if some do.
    pub doubts: Vec<String>,
}

impl Lane {
    /// A partition whose commands share no rows with those of others.
    pub fn of_one(rebuild: Rebuild) -> Self {
        Self { rebuilds: vec![rebuild], is_ordered: false }
    }

    /// Partitions whose commands may share rows.
    pub fn shared(rebuilds: Vec<Rebuild>) -> Self {
        Self { rebuilds, is_ordered: true }
    }

    /// Runs everything up to the cut.
    pub async fn run(self, reading: &Reading) -> Result<Ran, ReplayError> {
        let mut members = Vec::with_capacity(self.rebuilds.len());
        for rebuild in self.rebuilds {
            members.push(Member::open(rebuild, reading).await?);
        }
        let mut doubts = Vec::new();
        if self.is_ordered {
            for member in &mut members {
                member.run_below(member.rebuild.settled.forgotten_below, reading).await?;
            }
            while let Some((n, others)) = next(&mut members).await? {
                members[n].run_batches(others, reading).await?;
            }
            doubts = doubts_of(&members);
        }
        let mut rebuilt = Vec::with_capacity(members.len());
        for member in members {
            rebuilt.push(member.finish(reading).await?);
        }
        Ok(Ran { rebuilt, doubts })
    }
}

/// Whose batch is the next one, and where the first of the others' stands.
async fn next(members: &mut [Member]) -> Result<Option<(usize, i64)>, ReplayError> {
    let mut heads = Vec::with_capacity(members.len());
    for (n, member) in members.iter_mut().enumerate() {
        heads.extend(member.head().await?.map(|lsn| (lsn, n)));
    }
    heads.sort_unstable();
    let others = heads.get(1).map_or(i64::MAX, |(lsn, _)| *lsn);
    Ok(heads.first().map(|(_, n)| (*n, others)))
}

/// Why the order may be another than it was.
fn doubts_of(members: &[Member]) -> Vec<String> {
    let mut doubts = Vec::new();
    if members.len() < 2 {
        return doubts;
    }
    doubts.push(format!(
        "commands of {} partitions write the same tables: their batches were run again one after the other, in the \
         order of their commits. A command that had read rows, without locking them, while another partition's batch \
         changed them may end otherwise for that alone",
        members.len()
    ));
    for member in members {
        let (source, settled) = (&member.rebuild.partition.rules.source, &member.rebuild.settled);
        if settled.forgotten_below > member.rebuild.report.from {
            doubts.push(format!(
                "{source}: the batches below offset {} are older than the horizon, so their order among those of \
                 other partitions is not known: they were run first",
                settled.forgotten_below
            ));
        }
        if member.went_back {
            doubts.push(format!(
                "{source}: the database was restored, or moved to another server, after some of its batches were \
                 settled: their order among those of other partitions is not known"
            ));
        }
    }
    doubts
}

/// A partition in a lane.
struct Member {
    rebuild: Rebuild,
    chunks: Receiver<Result<Vec<Record>, ReadError>>,
    /// The first offset that is not read.
    read_to: i64,
    batches: VecDeque<CutBatch>,
    /// Every batch up to this one was seen.
    seen_seq: i64,
    last_lsn: i64,
    /// A batch stands before one that came before it.
    went_back: bool,
}

impl Member {
    async fn open(rebuild: Rebuild, reading: &Reading) -> Result<Self, ReplayError> {
        let (client, source) = (reading.client.clone(), rebuild.partition.rules.source.clone());
        let (from, end) = (rebuild.report.from, rebuild.report.to);
        let reader = blocking(move || LogReader::open(&client, &source, from, end, READ_TIMEOUT)).await?;
        Ok(Self {
            chunks: reader.chunks(reading.records_max),
            read_to: from,
            batches: VecDeque::new(),
            seen_seq: rebuild.batches_from,
            last_lsn: 0,
            went_back: false,
            rebuild,
        })
    }

    /// Where the next batch stands in the order of commits.
    async fn head(&mut self) -> Result<Option<i64>, ReplayError> {
        if self.batches.is_empty() {
            let source = &self.rebuild.partition.rules.source;
            let page = self.rebuild.partition.shadow.cut_batches(source, self.seen_seq, BATCHES_PAGE).await;
            self.batches = page.map_err(ReplayError::Shadow)?.into();
            self.seen_seq = self.batches.back().map_or(self.seen_seq, |batch| batch.batch_seq);
        }
        let Some(head) = self.batches.front() else { return Ok(None) };
        self.went_back |= head.settled_lsn < self.last_lsn;
        Ok(Some(head.settled_lsn))
    }

    /// Runs the next batch; and those of the log behind it that are no later than `others`, with it.
    async fn run_batches(&mut self, others: i64, reading: &Reading) -> Result<(), ReplayError> {
        let Some(first) = self.batches.pop_front() else { return Ok(()) };
        self.last_lsn = first.settled_lsn;
        let mut end = first.next_offset;
        if first.letters.is_empty() {
            let end_max = first.first_offset + reading.records_max as i64;
            while let Some(next) = self.batches.front()
                && next.settled_lsn <= others
                && next.settled_lsn >= self.last_lsn
                && next.letters.is_empty()
                && next.next_offset <= end_max
            {
                (self.last_lsn, end) = (next.settled_lsn, next.next_offset);
                self.batches.pop_front();
            }
        }
        self.run_below(end, reading).await?;
        self.rebuild.run_letters(&first.letters).await
    }

    /// Reads up to an offset, and runs what lies below it.
    async fn run_below(&mut self, end: i64, reading: &Reading) -> Result<(), ReplayError> {
        let end = end.min(self.rebuild.report.to);
        while self.read_to < end && self.read(reading).await? {
            self.rebuild.run_below(end.min(self.read_to)).await?;
        }
        self.rebuild.run_below(end).await
    }

    /// Reads some more. False: there is no more.
    async fn read(&mut self, reading: &Reading) -> Result<bool, ReplayError> {
        let chunk = tokio::select! {
            () = reading.progress.stopped() => return Err(ReplayError::Stopped { shadow: None }),
            chunk = self.chunks.recv() => chunk.transpose()?,
        };
        let read_to = match &chunk {
            Some(chunk) => chunk.last().map_or(self.read_to, |last| last.offset + 1),
            None => self.rebuild.report.to,
        };
        let records = chunk.as_ref().map_or(0, |chunk| u32::try_from(chunk.len()).unwrap_or(u32::MAX));
        tokio::select! {
            () = reading.progress.stopped() => return Err(ReplayError::Stopped { shadow: None }),
            () = async { reading.pace.lock().await.turns(records).await } => {}
        }
        reading.progress.add(u64::try_from(read_to - self.read_to).unwrap_or(0));
        self.read_to = read_to;
        match chunk {
            Some(chunk) => self.rebuild.read(chunk).await.map(|()| true),
            None => Ok(false),
        }
    }

    /// Runs what is left.
    async fn finish(mut self, reading: &Reading) -> Result<Rebuilt, ReplayError> {
        self.run_below(i64::MAX, reading).await?;
        self.rebuild.finish(reading.records_max).await
    }
}

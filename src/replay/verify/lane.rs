//! A lane: partitions whose batches are run again one after the other, in the order in which they were committed.
//!
//! A partition whose commands change nothing but their own entities has a lane of its own. Those whose commands write
//! the team's tables share one, as rows may be shared. The order is that of [`CutBatch::settled_lsn`]: a batch notes
//! where the database's log ends when its statements have run. Of two batches that have written, or locked, the same
//! row, the second waited until the first was committed, so it noted a later place. (Within a partition the batches
//! are numbered anyway.) What a statement has read of rows that it did not lock is another matter: see
//! [`Lane::doubts`].

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;

use super::VerifyError;
use super::rebuild::{Rebuild, Rebuilt};
use crate::kafka::{Client, LogReader, ReadError};
use crate::pace::Pace;
use crate::postgres::CutBatch;
use crate::record::Record;
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
    members: Vec<Member>,
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
        Self { members: vec![Member::new(rebuild)], is_ordered: false }
    }

    /// Partitions whose commands may share rows.
    pub fn shared(rebuilds: Vec<Rebuild>) -> Self {
        Self { members: rebuilds.into_iter().map(Member::new).collect(), is_ordered: true }
    }

    /// Runs everything up to the cut.
    pub async fn run(mut self, reading: &Reading) -> Result<Ran, VerifyError> {
        for member in &mut self.members {
            member.open(reading).await?;
        }
        let mut doubts = Vec::new();
        if self.is_ordered {
            for member in &mut self.members {
                member.run_below(member.rebuild.settled.forgotten_below, reading).await?;
            }
            while let Some((n, others)) = self.next().await? {
                self.members[n].run_batches(others, reading).await?;
            }
            doubts = self.doubts();
        }
        let mut rebuilt = Vec::with_capacity(self.members.len());
        for member in self.members {
            rebuilt.push(member.finish(reading).await?);
        }
        Ok(Ran { rebuilt, doubts })
    }

    /// Whose batch is the next one, and where the first of the others' stands.
    async fn next(&mut self) -> Result<Option<(usize, i64)>, VerifyError> {
        let mut heads = Vec::with_capacity(self.members.len());
        for (n, member) in self.members.iter_mut().enumerate() {
            heads.extend(member.head().await?.map(|lsn| (lsn, n)));
        }
        heads.sort_unstable();
        let others = heads.get(1).map_or(i64::MAX, |(lsn, _)| *lsn);
        Ok(heads.first().map(|(_, n)| (*n, others)))
    }

    /// Why the order may be another than it was.
    fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        if self.members.len() < 2 {
            return doubts;
        }
        doubts.push(format!(
            "commands of {} partitions write the same tables: their batches were run again one after the other, in the \
             order of their commits. A command that had read rows, without locking them, while another partition's batch \
             changed them may end otherwise for that alone",
            self.members.len()
        ));
        for member in &self.members {
            let (source, settled) = (&member.rebuild.rules.source, &member.rebuild.settled);
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
}

/// A partition in a lane.
struct Member {
    rebuild: Rebuild,
    chunks: Option<Receiver<Result<Vec<Record>, ReadError>>>,
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
    fn new(rebuild: Rebuild) -> Self {
        let (read_to, seen_seq) = (rebuild.report.from, rebuild.batches_from);
        Self { rebuild, chunks: None, read_to, batches: VecDeque::new(), seen_seq, last_lsn: 0, went_back: false }
    }

    async fn open(&mut self, reading: &Reading) -> Result<(), VerifyError> {
        let (client, source) = (reading.client.clone(), self.rebuild.rules.source.clone());
        let (from, end) = (self.read_to, self.rebuild.report.to);
        let opened =
            tokio::task::spawn_blocking(move || LogReader::open(&client, &source, from, end, READ_TIMEOUT)).await;
        let reader: Result<LogReader, ReadError> =
            opened.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        self.chunks = Some(reader?.chunks(reading.records_max));
        Ok(())
    }

    /// Where the next batch stands in the order of commits.
    async fn head(&mut self) -> Result<Option<i64>, VerifyError> {
        if self.batches.is_empty() {
            let source = &self.rebuild.rules.source;
            let page = self.rebuild.shadow.cut_batches(source, self.seen_seq, BATCHES_PAGE).await;
            self.batches = page.map_err(VerifyError::Shadow)?.into();
            self.seen_seq = self.batches.back().map_or(self.seen_seq, |batch| batch.batch_seq);
        }
        let Some(head) = self.batches.front() else { return Ok(None) };
        self.went_back |= head.settled_lsn < self.last_lsn;
        Ok(Some(head.settled_lsn))
    }

    /// Runs the next batch; and those of the log behind it that are no later than `others`, with it.
    async fn run_batches(&mut self, others: i64, reading: &Reading) -> Result<(), VerifyError> {
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
    async fn run_below(&mut self, end: i64, reading: &Reading) -> Result<(), VerifyError> {
        let end = end.min(self.rebuild.report.to);
        while self.read_to < end && self.read(reading).await? {
            self.rebuild.run_below(end.min(self.read_to)).await?;
        }
        self.rebuild.run_below(end).await
    }

    /// Reads some more. False: there is no more.
    async fn read(&mut self, reading: &Reading) -> Result<bool, VerifyError> {
        let Some(chunks) = &mut self.chunks else { return Ok(false) };
        let chunk = tokio::select! {
            () = reading.progress.stopped() => return Err(VerifyError::Stopped),
            chunk = chunks.recv() => chunk.transpose()?,
        };
        let read_to = match &chunk {
            Some(chunk) => chunk.last().map_or(self.read_to, |last| last.offset + 1),
            None => self.rebuild.report.to,
        };
        let records = chunk.as_ref().map_or(0, |chunk| u32::try_from(chunk.len()).unwrap_or(u32::MAX));
        tokio::select! {
            () = reading.progress.stopped() => return Err(VerifyError::Stopped),
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
    async fn finish(mut self, reading: &Reading) -> Result<Rebuilt, VerifyError> {
        self.run_below(i64::MAX, reading).await?;
        self.rebuild.finish(reading.records_max).await
    }
}

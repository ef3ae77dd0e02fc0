//! A stretch of the log, record by record, with what became of each.
//!
//! The tables are asked once for each chunk of records, in this order: the cursor, what is settled, the
//! horizon. So a record that is settled meanwhile is found, and one that is forgotten meanwhile is not taken
//! for one that never was.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use uuid::Uuid;

use super::fate::{Concluded, Facts, Fate};
use super::progress::Progress;
use super::range::Only;
use super::resolve::Stretch;
use crate::horizon::Horizon;
use crate::kafka::{Client, LogReader, ReadError, blocking};
use crate::postgres::{self, LetterAt, Store};
use crate::record::{Record, TopicPartition};
use crate::steps::receive;

/// Records that are looked up at a time.
const CHUNK_RECORDS_MAX: usize = 2_000;

/// What a survey asks, and how.
#[derive(Clone)]
pub struct Survey {
    /// The tables.
    pub store: Store,
    /// The log.
    pub client: Client,
    /// Which records are meant.
    pub only: Only,
    /// Longer values are not looked into: bytes.
    pub payload_bytes_max: usize,
    /// How long the broker may be silent.
    pub timeout: Duration,
}

/// A record with its fate.
#[derive(Clone, Debug)]
pub struct Surveyed {
    /// Its offset.
    pub offset: i64,
    /// Its time, milliseconds since 1970.
    pub time_ms: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// The command's id, if it could be read.
    pub command_id: Option<Uuid>,
    /// The command's type, if it could be read.
    pub command_type: Option<String>,
    /// What became of it.
    pub concluded: Concluded,
}

/// A stretch in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records that were meant.
    pub records: u64,
    /// How many had which fate.
    pub fates: BTreeMap<Fate, u64>,
    /// The same by code, of those that have one.
    pub codes: BTreeMap<(Fate, String), u64>,
    /// Everything of the stretch below this offset is in it: less than its end if it was stopped.
    pub read_to: i64,
    /// The cursor when the last of it was looked up; `None`: nobody has claimed the partition.
    pub next_offset: Option<i64>,
}

impl Tally {
    /// How many had this fate.
    pub fn of(&self, fate: Fate) -> u64 {
        self.fates.get(&fate).copied().unwrap_or(0)
    }

    fn count(&mut self, concluded: &Concluded) {
        self.records += 1;
        *self.fates.entry(concluded.fate).or_default() += 1;
        if let Some(code) = &concluded.code {
            *self.codes.entry((concluded.fate, code.clone())).or_default() += 1;
        }
    }
}

/// A survey cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SurveyError {
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Log(#[from] ReadError),
    /// The tables cannot be read.
    #[error("the tables cannot be read")]
    Tables(#[from] postgres::Error),
}

impl Survey {
    /// Surveys a stretch and sends each chunk's records to `rows`; whoever drops the receiver only wants the
    /// numbers. Ends early when `progress`, which counts offsets, is stopped.
    ///
    /// # Errors
    /// If the log or the tables cannot be read.
    pub async fn run(
        &self,
        stretch: &Stretch,
        rows: &mpsc::Sender<(TopicPartition, Vec<Surveyed>)>,
        progress: &Progress,
    ) -> Result<Tally, SurveyError> {
        let source = &stretch.source;
        let mut tally = Tally { read_to: stretch.from, ..Tally::default() };
        tally.next_offset = self.store.cursor_of(source).await?;
        let mut chunks = self.open(stretch).await?.chunks(CHUNK_RECORDS_MAX);
        loop {
            let chunk = tokio::select! {
                chunk = chunks.recv() => chunk.transpose()?,
                () = progress.stopped() => return Ok(tally),
            };
            let read_to = chunk.as_ref().and_then(|chunk| chunk.last()).map_or(stretch.end, |last| last.offset + 1);
            if let Some(chunk) = &chunk {
                let surveyed = self.look_up(source, chunk, &mut tally.next_offset).await?;
                surveyed.iter().for_each(|record| tally.count(&record.concluded));
                if !surveyed.is_empty() {
                    // who does not listen only wants the numbers
                    let _ = rows.send((source.clone(), surveyed)).await;
                }
            }
            progress.add(u64::try_from(read_to - tally.read_to).unwrap_or(0));
            tally.read_to = read_to;
            if chunk.is_none() {
                return Ok(tally);
            }
        }
    }

    async fn open(&self, stretch: &Stretch) -> Result<LogReader, ReadError> {
        let (client, timeout, stretch) = (self.client.clone(), self.timeout, stretch.clone());
        blocking(move || LogReader::open(&client, &stretch.source, stretch.from, stretch.end, timeout)).await
    }

    async fn look_up(
        &self,
        source: &TopicPartition,
        chunk: &[Record],
        next_offset: &mut Option<i64>,
    ) -> Result<Vec<Surveyed>, postgres::Error> {
        let meant = chunk.iter().map(|record| (record, receive::glance(record, self.payload_bytes_max)));
        let meant = meant.filter(|(record, glance)| self.only.means(record, glance.command_type.as_deref()));
        let meant: Vec<_> = meant.collect();
        let ids: Vec<Uuid> = meant.iter().filter_map(|(_, glance)| glance.command_id).collect();
        let offsets: Vec<i64> = meant.iter().map(|(record, _)| record.offset).collect();
        *next_offset = self.store.cursor_of(source).await?;
        let settled = self.store.settled_deliveries(&ids).await?;
        let letters = self.store.letters_at(source, &offsets).await?;
        let horizon = Horizon(self.store.horizon().await?.at_ms);
        let mut at: BTreeMap<i64, Vec<LetterAt>> = BTreeMap::new();
        letters.into_iter().for_each(|letter| at.entry(letter.log_offset).or_default().push(letter));
        let surveyed = meant.into_iter().map(|(record, glance)| {
            let facts = Facts {
                source,
                offset: record.offset,
                record_time_ms: record.time_ms(),
                next_offset: *next_offset,
                settled: glance.command_id.and_then(|id| settled.get(&id)),
                letters: at.get(&record.offset).map(Vec::as_slice).unwrap_or_default(),
                below_horizon: glance.command_id.is_some_and(|id| horizon.is_below(&id)),
            };
            Surveyed {
                offset: record.offset,
                time_ms: record.time_ms(),
                key: record.key().map(<[u8]>::to_vec),
                command_id: glance.command_id,
                command_type: glance.command_type,
                concluded: facts.conclude(),
            }
        });
        Ok(surveyed.collect())
    }
}

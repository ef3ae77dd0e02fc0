//! COPY of the rows that solewriter writes into its idempotency table: no settlement can be faster.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use futures_util::TryStreamExt as _;
use sqlx::Connection as _;
use sqlx::postgres::PgPoolCopyExt as _;
use tokio::task::JoinSet;

use super::super::Error;
use super::super::services::Services;
use super::super::trial::Worked;

const CONNECTIONS: usize = 4;
/// As many as one batch of solewriter settles at most.
const ROWS_PER_COPY: usize = 2_000;

/// What every binary COPY begins with: signature, flags and the length of an extension.
const HEADER_BYTES: usize = 19;
/// And ends with, in place of a row's number of columns.
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();

/// Rows in the binary form of COPY.
pub(crate) struct Rows {
    /// Each is a whole COPY, with how many rows it has.
    chunks: Vec<(Arc<[u8]>, u64)>,
}

impl Rows {
    /// Those that solewriter has just written.
    pub(crate) async fn of(services: &Services) -> Result<Self, Error> {
        let [schema, _] = services.schemas();
        // a partitioned table cannot be copied out, a query can
        let statement = format!(
            "copy (select * from {schema}.processed_timed union all select * from {schema}.processed_untimed) \
             to stdout (format binary)"
        );
        let mut stream = pin!(services.pool.copy_out_raw(&statement).await?);
        let mut copied = Vec::new();
        while let Some(bytes) = stream.try_next().await? {
            copied.extend_from_slice(&bytes);
        }
        Ok(Self { chunks: chunks(&copied) })
    }
}

/// A COPY of many rows as COPYs of few.
fn chunks(copied: &[u8]) -> Vec<(Arc<[u8]>, u64)> {
    let Some((header, mut rest)) = copied.split_at_checked(HEADER_BYTES) else { return Vec::new() };
    let mut chunks = Vec::new();
    loop {
        let (mut bytes, mut rows) = (0, 0);
        while let Some(row) = row_bytes(&rest[bytes..]).filter(|_| rows < ROWS_PER_COPY) {
            bytes += row;
            rows += 1;
        }
        if rows == 0 {
            return chunks;
        }
        let (these, others) = rest.split_at(bytes);
        chunks.push(([header, these, &TRAILER].concat().into(), rows as u64));
        rest = others;
    }
}

/// How long the first row is: a number of columns, and of each its length and its bytes. `None` at
/// the trailer.
fn row_bytes(bytes: &[u8]) -> Option<usize> {
    let columns = i16::from_be_bytes(*bytes.first_chunk()?);
    let mut at = 2;
    for _ in 0..usize::try_from(columns).ok()? {
        let length = i32::from_be_bytes(*bytes.get(at..)?.first_chunk()?);
        // -1 is null, and nothing follows
        at += 4 + usize::try_from(length).unwrap_or(0);
    }
    Some(at)
}

/// Copies them into a table of the same columns and the same index.
pub(crate) async fn run(services: &Services, rows: &Rows) -> Result<Worked, Error> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(services.connection().await?);
    }
    sqlx::raw_sql("create table copied (like processed_timed including all)").execute(&mut connections[0]).await?;
    services.checkpoint().await;
    let began = Instant::now();
    let mut copying = JoinSet::new();
    for (number, mut connection) in connections.into_iter().enumerate() {
        let chunks: Vec<_> = rows.chunks.iter().skip(number).step_by(CONNECTIONS).cloned().collect();
        copying.spawn(async move {
            for (chunk, _) in chunks {
                let mut copy = connection.copy_in_raw("copy copied from stdin (format binary)").await?;
                copy.send(&chunk[..]).await?;
                copy.finish().await?;
            }
            connection.close().await
        });
    }
    while let Some(joined) = copying.join_next().await {
        joined.map_err(std::io::Error::other).map_err(Error::io("copy"))??;
    }
    let commands = rows.chunks.iter().map(|(_, rows)| rows).sum();
    Ok(Worked { commands, took: began.elapsed() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row of one column: a number of columns, its length, its bytes.
    fn row(value: &[u8]) -> Vec<u8> {
        [&1_i16.to_be_bytes()[..], &(value.len() as i32).to_be_bytes(), value].concat()
    }

    #[test]
    fn a_copy_falls_apart_into_whole_copies() {
        let rows: Vec<Vec<u8>> = (0..ROWS_PER_COPY + 1).map(|n| row(n.to_string().as_bytes())).collect();
        let header = [7_u8; HEADER_BYTES];
        let copied = [&header[..], &rows.concat(), &TRAILER].concat();
        let chunks = chunks(&copied);
        let counts: Vec<u64> = chunks.iter().map(|(_, rows)| *rows).collect();
        assert_eq!(counts, [ROWS_PER_COPY as u64, 1]);
        let [_, (last, _)] = &chunks[..] else { panic!("two") };
        assert_eq!(last[..], [&header[..], &rows[ROWS_PER_COPY], &TRAILER].concat());
    }

    #[test]
    fn a_null_has_no_bytes() {
        let row = [&2_i16.to_be_bytes()[..], &(-1_i32).to_be_bytes(), &3_i32.to_be_bytes(), b"abc"].concat();
        assert_eq!(row_bytes(&row), Some(row.len()));
        assert_eq!(row_bytes(&TRAILER), None);
    }
}

//! Filling a shadow with what the live tables hold now: what a checkpoint would keep, without making one.

use sqlx::{AssertSqlSafe, Connection as _};

use super::create::OWN as ROWS;
use super::fill::{NUMBERED, OWN, Suspended, copy_rows, go_on_behind, suspend};
use super::tables::{belonging, sequences};
use super::{CheckpointError, Filled, quoted};
use crate::handlers::sql::typed::Relation;
use crate::postgres::Store;

impl Store {
    /// Fills the tables of `shadow`, which are there and empty, with the rows that a checkpoint made now would have:
    /// cursors, horizon, entities, parked keys, letters that can still run, open requests, and the tables that
    /// commands write or read. One snapshot, which lives as long as the copying takes; no writer waits for it.
    ///
    /// # Errors
    /// If a command writes what is no table, or one of the databases refuses or cannot be reached.
    pub async fn fill_shadow_from_live(
        &self,
        written: &[Relation],
        read: &[Relation],
        shadow: &Self,
    ) -> Result<Filled, CheckpointError> {
        let mut live = self.patient_connection().await?;
        let mut cut = live.begin_with("begin isolation level repeatable read read only").await?;
        // whole tables are read, by one process: whoever settles needs the processors too
        sqlx::query(
            "select set_config('enable_seqscan', 'on', true), set_config('max_parallel_workers_per_gather', '0', true),
                    set_config('idle_in_transaction_session_timeout', '0', true)",
        )
        .execute(&mut *cut)
        .await?;
        let mut there = shadow.patient_connection().await?;
        let mut filling = there.begin().await?;
        // a migrated schema has a horizon of its own
        sqlx::query("delete from horizon").execute(&mut *filling).await?;
        let mut filled = Filled::default();
        for table in OWN {
            let rows = ROWS.iter().find(|(name, _)| *name == table).map_or("", |(_, rows)| rows);
            filled.own_rows += copy_rows(&mut cut, &format!("{table} {rows}"), &mut filling, table).await?;
        }
        for (table, column) in NUMBERED {
            go_on_behind(&mut filling, table, column).await?;
        }
        let used: Vec<Relation> = written.iter().chain(read).cloned().collect();
        let tables = belonging(&mut cut, written, &used).await?;
        let names: Vec<String> =
            tables.iter().map(|table| format!("{}.{}", quoted(&table.schema), quoted(&table.name))).collect();
        let mut suspended = Vec::new();
        for name in &names {
            suspended.extend(suspend(&mut filling, name).await?);
        }
        for name in &names {
            // what the tables' own scripts have put there is in the live ones too, as it is by now
            sqlx::raw_sql(AssertSqlSafe(format!("delete from {name}"))).execute(&mut *filling).await?;
            filled.team_rows += copy_rows(&mut cut, name, &mut filling, name).await?;
        }
        for Suspended { on, .. } in suspended {
            sqlx::raw_sql(AssertSqlSafe(on)).execute(&mut *filling).await?;
        }
        for sequence in sequences(&mut cut, &tables).await? {
            let Some(last_value) = sequence.last_value else { continue };
            sqlx::query("select setval(format('%I.%I', $1::text, $2::text)::regclass, $3)")
                .bind(sequence.schema)
                .bind(sequence.name)
                .bind(last_value)
                .execute(&mut *filling)
                .await?;
        }
        filling.commit().await?;
        cut.commit().await?;
        Ok(filled)
    }
}

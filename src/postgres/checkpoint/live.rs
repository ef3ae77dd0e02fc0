//! Filling a shadow with what the live tables hold now: what a checkpoint would keep, without making one.

use sqlx::Connection as _;

use super::CheckpointError;
use super::fill::{Filling, fill};
use super::tables::{OWN, belonging, sequences};
use crate::handlers::sql::typed::Relation;
use crate::postgres::{Store, snapshot};

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
    ) -> Result<(), CheckpointError> {
        let mut live = self.patient_connection().await?;
        let used: Vec<Relation> = written.iter().chain(read).cloned().collect();
        let tables = belonging(&mut live, written, &used).await?;
        let mut cut = live.begin_with("begin isolation level repeatable read read only").await?;
        let all = OWN.iter().map(|(table, _)| (*table).to_owned()).chain(tables.iter().map(Relation::quoted));
        snapshot::begin(&mut cut, &all.collect::<Vec<_>>()).await?;
        if belonging(&mut cut, written, &used).await? != tables {
            return Err(CheckpointError::TablesChanged);
        }
        let what = Filling {
            own: OWN.iter().map(|(table, rows)| format!("{table} {rows}")).collect(),
            sequences: sequences(&mut cut, &tables).await?,
            team: tables.into_iter().map(|table| (table.clone(), table.quoted())).collect(),
        };
        fill(&mut cut, shadow, &what).await?;
        cut.commit().await?;
        Ok(())
    }
}

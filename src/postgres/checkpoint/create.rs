//! Making a checkpoint.
//!
//! A first, short transaction makes the schema with the row about it, so that whatever is left behind says what it is.
//! A second one takes one snapshot, copies every table in it and ends the row: a crash undoes all of its copies.
//! No lock of it stops a writer, but whoever wants to alter a table waits for its end, and the writers behind that one;
//! while its snapshot lives, nothing newer is vacuumed.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::tables::{OWN, belonging, sequences};
use super::{CheckpointError, CheckpointName, CheckpointRow, CheckpointState, audit, quoted};
use crate::handlers::sql::typed::Relation;
use crate::postgres::{Error, Refusal, Store, snapshot};

/// How often a statement is cancelled until it hears.
const CANCEL_EVERY: Duration = Duration::from_millis(100);

type Result<T> = std::result::Result<T, CheckpointError>;

/// A checkpoint that is wanted.
#[derive(Clone, Debug)]
pub struct NewCheckpoint<'a> {
    /// Its name.
    pub name: &'a CheckpointName,
    /// Who wants it.
    pub actor: &'a str,
    /// What for.
    pub reason: &'a str,
    /// The tables that commands write.
    pub written: Vec<Relation>,
    /// The tables that they read.
    pub read: Vec<Relation>,
}

impl Store {
    /// Makes a checkpoint. If that fails, or `stop` is cancelled, nothing of it is left; if the process is killed, an
    /// unfinished one is.
    ///
    /// # Errors
    /// If the name is taken or too long, a command writes what is no table, `stop` is cancelled, or the database
    /// refuses or cannot be reached.
    pub async fn create_checkpoint(&self, new: &NewCheckpoint<'_>, stop: &CancellationToken) -> Result<CheckpointRow> {
        let schema = self.checkpoint_schema(new.name)?;
        if self.has_schema(&schema).await? {
            return Err(match self.any_checkpoint(new.name).await?.state {
                CheckpointState::Complete => CheckpointError::Exists(new.name.clone()),
                CheckpointState::InTheMaking => CheckpointError::InTheMaking(new.name.clone()),
                CheckpointState::Unfinished => CheckpointError::Unfinished(new.name.clone()),
            });
        }
        let mut connection = self.patient_connection().await?;
        let attempt = begin(&mut connection, &schema, new).await?;
        let copied = self.copied_unless_stopped(&mut connection, &schema, new, stop).await;
        if let Err(error) = copied {
            // its transaction is undone with the connection
            let forgotten = async {
                connection.close_hard().await?;
                self.forget_checkpoint(&schema, attempt).await
            };
            return Err(match forgotten.await {
                Ok(()) => error,
                Err(why) => {
                    tracing::warn!(checkpoint = %new.name, %error, "not made");
                    why
                }
            });
        }
        connection.close().await?;
        self.checkpoint(new.name).await
    }

    async fn copied_unless_stopped(
        &self,
        connection: &mut PgConnection,
        schema: &str,
        new: &NewCheckpoint<'_>,
        stop: &CancellationToken,
    ) -> Result<()> {
        let pid: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut *connection).await?;
        let copying = copy(connection, schema, new);
        tokio::pin!(copying);
        tokio::select! {
            copied = &mut copying => copied,
            () = stop.cancelled() => loop {
                // the server would go on with a statement whose client is gone; between two statements it does not hear
                sqlx::query("select pg_cancel_backend($1)").bind(pid).execute(&self.pool).await?;
                tokio::select! {
                    ended = &mut copying => break match ended {
                        // cancelled
                        Err(CheckpointError::Database(Error::Refused(Refusal::TimedOut(_)))) => {
                            Err(CheckpointError::Stopped(new.name.clone()))
                        }
                        // it was done before it heard, or has failed
                        ended => ended,
                    },
                    () = tokio::time::sleep(CANCEL_EVERY) => {}
                }
            }
        }
    }

    /// Drops what this attempt has left, unless somebody has dropped it already, and perhaps made another.
    async fn forget_checkpoint(&self, schema: &str, attempt: Uuid) -> Result<()> {
        if !self.has_schema(schema).await? {
            return Ok(());
        }
        let schema = quoted(schema);
        let mut connection = self.patient_connection().await?;
        let mut forgetting = connection.begin().await?;
        // waits until the server has noticed that the copying connection is gone
        sqlx::raw_sql(AssertSqlSafe(format!("lock table {schema}.checkpoint in access exclusive mode")))
            .execute(&mut *forgetting)
            .await?;
        let is_ours = format!("select exists (select from {schema}.checkpoint where attempt = $1 and cut_at is null)");
        if sqlx::query_scalar(AssertSqlSafe(is_ours)).bind(attempt).fetch_one(&mut *forgetting).await? {
            sqlx::raw_sql(AssertSqlSafe(format!("drop schema {schema} cascade"))).execute(&mut *forgetting).await?;
        }
        forgetting.commit().await?;
        connection.close().await?;
        Ok(())
    }
}

/// The schema with the row about it; unfinished until `cut_at` is set.
/// The number of this attempt.
async fn begin(connection: &mut PgConnection, schema: &str, new: &NewCheckpoint<'_>) -> Result<Uuid> {
    let mut transaction = connection.begin().await?;
    let schema = quoted(schema);
    sqlx::raw_sql(AssertSqlSafe(format!(
        "create schema {schema};
         create table {schema}.checkpoint (
             singleton      boolean     primary key default true check (singleton),
             -- whoever drops it finds out whether it is the one that was looked at
             attempt        uuid        not null,
             name           text        not null,
             begun_at       timestamptz not null default now(),
             actor          text        not null,
             reason         text        not null,
             -- null while it is made, like the four below
             schema_version bigint,
             -- the transactions that the cut has seen, and when
             snapshot       text,
             cut_at         timestamptz,
             entities       bigint,
             letters        bigint
         );
         -- the team's own tables, and under which name each is kept here
         create table {schema}.tables (
             place       int  primary key,
             schema_name text not null,
             table_name  text not null,
             kept_as     text not null
         );
         create table {schema}.sequences (
             schema_name   text not null,
             sequence_name text not null,
             last_value    bigint
         );"
    )))
    .execute(&mut *transaction)
    .await?;
    let attempt = Uuid::new_v4();
    sqlx::query(AssertSqlSafe(format!(
        "insert into {schema}.checkpoint (attempt, name, actor, reason) values ($1, $2, $3, $4)"
    )))
    .bind(attempt)
    .bind(new.name.to_string())
    .bind(new.actor)
    .bind(new.reason)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(attempt)
}

/// Everything in one snapshot.
async fn copy(connection: &mut PgConnection, schema: &str, new: &NewCheckpoint<'_>) -> Result<()> {
    let into = quoted(schema);
    let used: Vec<Relation> = new.written.iter().chain(&new.read).cloned().collect();
    let tables = belonging(&mut *connection, &new.written, &used).await?;
    let mut cut = connection.begin_with("begin isolation level repeatable read").await?;
    // it says that this checkpoint is in the making
    let lock_own = format!("lock table {into}.checkpoint in exclusive mode");
    sqlx::raw_sql(AssertSqlSafe(lock_own)).execute(&mut *cut).await?;
    let all = OWN.iter().map(|(table, _)| (*table).to_owned()).chain(tables.iter().map(Relation::quoted));
    snapshot::begin(&mut cut, &all.collect::<Vec<_>>()).await?;
    keep_sequences(&mut cut, &into, &tables).await?;
    if belonging(&mut cut, &new.written, &used).await? != tables {
        return Err(CheckpointError::TablesChanged);
    }
    let (mut entities, mut letters) = (0, 0);
    for (table, rows) in OWN {
        let copied = sqlx::query(AssertSqlSafe(format!("create table {into}.{table} as select * from {table} {rows}")))
            .execute(&mut *cut)
            .await?
            .rows_affected();
        match table {
            "entities" => entities = copied,
            "dead_letters" => letters = copied,
            _ => {}
        }
    }
    keep_tables(&mut cut, &into, &tables).await?;
    sqlx::raw_sql(AssertSqlSafe(format!("create index on {into}.dead_letters (topic, partition, \"offset\")")))
        .execute(&mut *cut)
        .await?;
    let end = format!(
        "update {into}.checkpoint
            set snapshot = pg_current_snapshot()::text, cut_at = now(), entities = $1, letters = $2,
                schema_version = (select coalesce(max(version), 0) from _solewriter_migrations where success)"
    );
    sqlx::query(AssertSqlSafe(end)).bind(entities as i64).bind(letters as i64).execute(&mut *cut).await?;
    let detail = serde_json::json!({ "checkpoint": new.name.to_string(), "entities": entities, "letters": letters });
    audit(&mut cut, new.actor, new.reason, "checkpoint-create", detail).await?;
    cut.commit().await?;
    Ok(())
}

async fn keep_tables(cut: &mut PgConnection, into: &str, tables: &[Relation]) -> Result<()> {
    for (place, table) in (1_i32..).zip(tables) {
        // no name of theirs can be one of ours
        let kept_as = format!("table_{place}");
        sqlx::query(AssertSqlSafe(format!("create table {into}.{kept_as} as select * from {}", table.quoted())))
            .execute(&mut *cut)
            .await?;
        sqlx::query(AssertSqlSafe(format!("insert into {into}.tables values ($1, $2, $3, $4)")))
            .bind(place)
            .bind(&table.schema)
            .bind(&table.name)
            .bind(kept_as)
            .execute(&mut *cut)
            .await?;
    }
    Ok(())
}

/// As they are right behind the cut: a number that was drawn is never given back.
async fn keep_sequences(cut: &mut PgConnection, into: &str, tables: &[Relation]) -> Result<()> {
    for sequence in sequences(&mut *cut, tables).await? {
        sqlx::query(AssertSqlSafe(format!("insert into {into}.sequences values ($1, $2, $3)")))
            .bind(&sequence.schema)
            .bind(&sequence.name)
            .bind(sequence.last_value)
            .execute(&mut *cut)
            .await?;
    }
    Ok(())
}

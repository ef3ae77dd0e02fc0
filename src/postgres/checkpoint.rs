//! Checkpoints: each a schema of its own, with a table that says what it is and copies of the others.

mod create;
mod fill;
mod live;
mod name;
mod tables;

use sqlx::{AssertSqlSafe, FromRow};
use uuid::Uuid;

use super::{Error, Refusal, Result, Store};
use crate::dead_letter::stored_headers;
use crate::handlers::sql::compile::quoted;
use crate::record::{Record, TopicPartition};

pub use create::NewCheckpoint;
pub(super) use fill::copy_rows;
pub use name::{CheckpointName, schema_prefix};

/// Something about a checkpoint that is not as was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The name is taken.
    #[error("there is a checkpoint {0} already; drop it, or take another name")]
    Exists(CheckpointName),
    /// There is none of this name.
    #[error("there is no checkpoint {0}; type: solewriter checkpoint list")]
    Missing(CheckpointName),
    /// Somebody was killed while making it.
    #[error("checkpoint {0} is unfinished; type: solewriter checkpoint drop {0} --reason …")]
    Unfinished(CheckpointName),
    /// Another process works on it.
    #[error("checkpoint {0} is being made by another process: wait for it, or stop that one with Ctrl-C")]
    InTheMaking(CheckpointName),
    /// The names of the schema and of the checkpoint are too long together.
    #[error("a schema for checkpoint {0} would have a name of more than 63 bytes: take a shorter one")]
    NameTooLong(CheckpointName),
    /// A command writes what is no table, so what it changes is not known.
    #[error("a command writes {0}, which is no table: what lies behind it cannot be kept in a checkpoint")]
    NotATable(String),
    /// Somebody has changed the team's tables meanwhile.
    #[error("tables or foreign keys were changed at the same moment: type the same command again")]
    TablesChanged,
    /// Another role's, which this one may not read.
    #[error("checkpoint {name} belongs to role {owner}: only that role, or a superuser, can use or drop it")]
    Forbidden {
        /// Its name.
        name: CheckpointName,
        /// Whose it is.
        owner: String,
    },
    /// It is not what it was a moment ago.
    #[error("checkpoint {0} was changed at the same moment: look at it again with solewriter checkpoint list")]
    Changed(CheckpointName),
    /// Asked to stop; nothing is left behind.
    #[error("stopped; nothing of checkpoint {0} is left")]
    Stopped(CheckpointName),
    /// The database refuses or cannot be reached.
    #[error(transparent)]
    Database(#[from] Error),
}

impl From<sqlx::Error> for CheckpointError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

/// How far a checkpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointState {
    /// It can be used.
    Complete,
    /// Another process makes it.
    InTheMaking,
    /// Whoever made it was killed.
    Unfinished,
}

/// A checkpoint, as a list shows it.
#[derive(Clone, Debug)]
pub enum ListedCheckpoint {
    /// One that this role may read.
    Readable(CheckpointRow),
    /// Another role's.
    Forbidden {
        /// Its name.
        name: String,
        /// Whose it is.
        owner: String,
        /// On disk.
        size_bytes: i64,
    },
}

/// A checkpoint.
#[derive(Clone, Debug)]
pub struct CheckpointRow {
    /// Its name.
    pub name: String,
    /// The role whose it is.
    pub owner: String,
    /// How far it is.
    pub state: CheckpointState,
    /// What else it says about itself.
    pub about: CheckpointAbout,
    /// Its cursors, by topic and partition; none while it is unfinished.
    pub cursors: Vec<CheckpointCursor>,
    /// On disk.
    pub size_bytes: i64,
}

/// What a checkpoint says about itself.
#[derive(Clone, Debug, FromRow)]
pub struct CheckpointAbout {
    /// When somebody began to make it, milliseconds since 1970.
    pub begun_at_ms: i64,
    /// When the snapshot was taken, milliseconds since 1970. `None`: it is unfinished.
    pub cut_at_ms: Option<i64>,
    /// By whom.
    pub actor: String,
    /// What for.
    pub reason: String,
    /// The newest migration of the tables that were copied.
    /// `None`: it is unfinished.
    pub schema_version: Option<i64>,
    /// How many entities it has.
    pub entities: Option<i64>,
    /// How many dead letters that could still run.
    pub letters: Option<i64>,
    /// The number of the attempt that has made it, or makes it.
    pub(super) attempt: Uuid,
}

/// Where a partition was at the cut.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct CheckpointCursor {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first offset that was not settled.
    pub next_offset: i64,
    /// Batches settled.
    pub batch_seq: i64,
    /// Which log the cursor belongs to, if the broker told.
    pub topic_id: Option<String>,
}

#[derive(FromRow)]
struct KeptLetter {
    #[sqlx(rename = "offset")]
    log_offset: i64,
    record_time_ms: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: String,
    dead_letter_id: i64,
}

impl KeptLetter {
    fn into_record(self) -> Result<Record> {
        let headers = stored_headers(&self.headers).map_err(|error| {
            Refusal::Broken(format!("dead_letters row {} of a checkpoint: its headers: {error}", self.dead_letter_id))
        })?;
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_deref())).collect();
        Ok(Record::copied(self.log_offset, self.record_time_ms, self.key.as_deref(), self.value.as_deref(), &headers))
    }
}

#[derive(FromRow)]
struct Found {
    schema: String,
    name: String,
    owner: String,
    readable: bool,
    in_the_making: bool,
    size_bytes: i64,
}

/// The schemas that begin with `$1` and hold a checkpoint; of those being made somebody holds a lock.
const FOUND: &str = "
    select n.nspname::text as schema, substr(n.nspname::text, length($1) + 1) as name,
           pg_get_userbyid(n.nspowner)::text as owner,
           coalesce(has_schema_privilege(n.oid, 'usage')
                    and (select bool_and(has_table_privilege(t.oid, 'select')) from pg_class t
                          where t.relnamespace = n.oid and t.relkind = 'r'), false) as readable,
           exists (select from pg_locks l
                    where l.locktype = 'relation' and l.relation = c.oid and l.mode = 'ExclusiveLock' and l.granted
                      and l.database = (select oid from pg_database where datname = current_database())) as in_the_making,
           (select coalesce(sum(pg_total_relation_size(t.oid)), 0)::bigint from pg_class t
             where t.relnamespace = n.oid and t.relkind = 'r') as size_bytes
      from pg_namespace n join pg_class c on c.relnamespace = n.oid and c.relname = 'checkpoint' and c.relkind = 'r'
     where starts_with(n.nspname::text, $1)
     order by 1";

/// Whether the command of an outcome `c` was settled before the cut in the schema that stands for `CUT`.
///
/// The live row of an id tells which delivery was settled. Below the cut's cursor it was settled before the cut,
/// unless it was a letter then that could still run: such a one is settled when it is run again, by a batch that has
/// no offsets of the log of its own. (A letter that is redriven is settled under its own topic, partition and offset,
/// whichever partition its key lives on by then.) It is exact as long as the log is the one of the cut, and no cursor has
/// gone back within the window (see [`super::Cut::went_back`]).
const SETTLED: &str = "
    exists (select from CUT.partitions p
             where p.topic = c.topic and p.partition = c.partition and c.\"offset\" < p.next_offset)
    and not exists (select from CUT.dead_letters d
                     where d.topic = c.topic and d.partition = c.partition and d.\"offset\" = c.\"offset\")";

impl Store {
    /// The checkpoints of these tables, by name.
    ///
    /// # Errors
    /// If the database refuses or cannot be reached.
    pub async fn checkpoints(&self) -> Result<Vec<ListedCheckpoint>> {
        let mut listed = Vec::new();
        for found in self.found().await? {
            listed.push(match found {
                Found { readable: true, .. } => ListedCheckpoint::Readable(self.checkpoint_row(found).await?),
                Found { name, owner, size_bytes, .. } => ListedCheckpoint::Forbidden { name, owner, size_bytes },
            });
        }
        Ok(listed)
    }

    /// A checkpoint that can be used.
    ///
    /// # Errors
    /// If there is none of this name, or it is unfinished, or the database refuses or cannot be reached.
    pub async fn checkpoint(&self, name: &CheckpointName) -> std::result::Result<CheckpointRow, CheckpointError> {
        let row = self.any_checkpoint(name).await?;
        match row.state {
            CheckpointState::Complete => Ok(row),
            CheckpointState::InTheMaking => Err(CheckpointError::InTheMaking(name.clone())),
            CheckpointState::Unfinished => Err(CheckpointError::Unfinished(name.clone())),
        }
    }

    /// A checkpoint, however far it is.
    ///
    /// # Errors
    /// If there is none of this name, or it is another role's, or the database refuses or cannot be reached.
    pub async fn any_checkpoint(&self, name: &CheckpointName) -> std::result::Result<CheckpointRow, CheckpointError> {
        let found = self.found().await?.into_iter().find(|found| found.name == name.to_string());
        let found = found.ok_or_else(|| CheckpointError::Missing(name.clone()))?;
        if !found.readable {
            return Err(CheckpointError::Forbidden { name: name.clone(), owner: found.owner });
        }
        Ok(self.checkpoint_row(found).await?)
    }

    async fn found(&self) -> Result<Vec<Found>> {
        Ok(sqlx::query_as(FOUND).bind(schema_prefix(&self.schema)).fetch_all(&self.pool).await?)
    }

    async fn checkpoint_row(&self, found: Found) -> Result<CheckpointRow> {
        let Found { schema, name, owner, in_the_making, size_bytes, .. } = found;
        let schema = quoted(&schema);
        let about = format!(
            "select (extract(epoch from begun_at) * 1000)::bigint as begun_at_ms,
                    (extract(epoch from cut_at) * 1000)::bigint as cut_at_ms,
                    actor, reason, schema_version, entities, letters, attempt from {schema}.checkpoint"
        );
        let about: CheckpointAbout = sqlx::query_as(AssertSqlSafe(about))
            .fetch_optional(&self.pool)
            .await?
            .ok_or_else(|| Refusal::Broken(format!("{schema}.checkpoint has no row: drop that schema by hand")))?;
        let mut cursors = Vec::new();
        let state = match about.cut_at_ms {
            Some(_) => {
                let all = format!(
                    "select topic, partition, next_offset, batch_seq, topic_id from {schema}.partitions
                      order by topic, partition"
                );
                cursors = sqlx::query_as(AssertSqlSafe(all)).fetch_all(&self.pool).await?;
                CheckpointState::Complete
            }
            None if in_the_making => CheckpointState::InTheMaking,
            None => CheckpointState::Unfinished,
        };
        Ok(CheckpointRow { name, owner, state, about, cursors, size_bytes })
    }

    /// Drops a checkpoint, complete or unfinished, and keeps in the audit that it was done.
    ///
    /// # Errors
    /// If there is none of this name, or it is being made, or the database refuses or cannot be reached.
    pub async fn drop_checkpoint(
        &self,
        name: &CheckpointName,
        actor: &str,
        reason: &str,
    ) -> std::result::Result<CheckpointRow, CheckpointError> {
        let row = self.any_checkpoint(name).await?;
        if row.state == CheckpointState::InTheMaking {
            return Err(CheckpointError::InTheMaking(name.clone()));
        }
        let schema = quoted(&self.checkpoint_schema(name)?);
        let mut connection = self.patient_connection().await?;
        let mut transaction = sqlx::Connection::begin(&mut connection).await?;
        let lock = format!("lock table {schema}.checkpoint in access exclusive mode");
        sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut *transaction).await?;
        // what was looked at may be gone, and another of its name be there
        let same =
            format!("select exists (select from {schema}.checkpoint where attempt = $1 and (cut_at is null) = $2)");
        let is_unfinished = row.state == CheckpointState::Unfinished;
        let same = sqlx::query_scalar(AssertSqlSafe(same)).bind(row.about.attempt).bind(is_unfinished);
        if !same.fetch_one(&mut *transaction).await? {
            return Err(CheckpointError::Changed(name.clone()));
        }
        sqlx::raw_sql(AssertSqlSafe(format!("drop schema {schema} cascade"))).execute(&mut *transaction).await?;
        let detail = serde_json::json!({ "checkpoint": name.to_string(), "size_bytes": row.size_bytes });
        audit(&mut transaction, actor, reason, "checkpoint-drop", detail).await?;
        transaction.commit().await?;
        Ok(row)
    }

    /// The dead letters of a partition's log that could still run at the checkpoint's cut, as records, by offset: those
    /// behind `after`, at most so many, and the others of the last offset.
    ///
    /// # Errors
    /// If the database refuses or cannot be reached, or a letter cannot be read.
    pub async fn kept_letters(
        &self,
        name: &CheckpointName,
        source: &TopicPartition,
        after: i64,
        letters_max: i64,
    ) -> std::result::Result<Vec<Record>, CheckpointError> {
        let letters = format!(
            "select \"offset\", (extract(epoch from record_time) * 1000)::bigint as record_time_ms, key, value,
                    headers::text as headers, dead_letter_id
               from {}.dead_letters where topic = $1 and partition = $2 and \"offset\" > $3
              order by \"offset\" fetch first $4 rows with ties",
            quoted(&self.checkpoint_schema(name)?)
        );
        let rows: Vec<KeptLetter> = sqlx::query_as(AssertSqlSafe(letters))
            .bind(&*source.topic)
            .bind(source.partition)
            .bind(after)
            .bind(letters_max)
            .fetch_all(&self.pool)
            .await?;
        rows.into_iter().map(|row| row.into_record().map_err(CheckpointError::Database)).collect()
    }

    pub(super) fn checkpoint_schema(&self, name: &CheckpointName) -> std::result::Result<String, CheckpointError> {
        name.schema(&self.schema).ok_or_else(|| CheckpointError::NameTooLong(name.clone()))
    }
}

/// Whether the command of an outcome `c` was settled before the cut that this schema holds, as a condition.
pub(super) fn settled_before(schema: &str) -> String {
    SETTLED.replace("CUT", &quoted(schema))
}

/// Keeps what was done to a checkpoint: no partition is changed by it.
async fn audit(
    transaction: &mut sqlx::PgConnection,
    actor: &str,
    reason: &str,
    action: &str,
    detail: serde_json::Value,
) -> Result<()> {
    sqlx::query("insert into operator_actions (actor, action, reason, detail) values ($1, $2, $3, $4)")
        .bind(actor)
        .bind(action)
        .bind(reason)
        .bind(detail)
        .execute(transaction)
        .await?;
    Ok(())
}

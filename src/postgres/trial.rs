//! One command in SQL, run in a transaction that is rolled back whatever comes of it.

use sqlx::types::Json;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, FromRow, PgConnection};

use super::functions::{create, look_in};
use super::{Error, Refusal, Refused, Result, Store};
use crate::dead_letter::DeadCode;
use crate::handlers::sql::compile::{Function, digests, quoted};
use crate::handlers::sql::typed::Relation;
use crate::outcome::Ending;
use crate::steps::decide::Called;

/// Serializable transactions, and those that deadlock, are run again so often.
const ATTEMPTS_MAX: u32 = 5;
/// Changed rows of a table that are looked at.
const ROWS_MAX: i64 = 1000;
/// No index tells which rows are new: a table that takes longer is too large to be looked through
/// while its locks are held. Milliseconds.
const LOOK_MAX_MS: &str = "2000";

/// What is tried.
#[derive(Debug)]
pub struct Trial<'a> {
    /// The command, with its arguments.
    pub called: &'a Called,
    /// The function that runs its entity type's commands.
    pub runner: &'a str,
    /// The functions that this takes; those that are not there are made for this transaction.
    pub functions: &'a [&'a Function],
    /// Where the team's tables and types are.
    pub tables_schema: &'a str,
    /// At isolation level serializable.
    pub serializable: bool,
    /// The longest part of an outcome: bytes.
    pub part_bytes_max: i32,
    /// The tables that the command's own statements write.
    pub writes: &'a [&'a Relation],
}

/// What came of it.
#[derive(Debug)]
pub struct Tried {
    /// How the command would have ended.
    pub ending: TrialEnding,
    /// What it would have changed, in order of the tables' names.
    pub changes: Vec<Changes>,
}

/// How a command that was tried would have ended.
#[derive(Debug)]
pub enum TrialEnding {
    /// With this outcome.
    Final(Ending),
    /// As a dead letter.
    Dead {
        /// Why.
        code: DeadCode,
        /// The payload's field that is malformed, from 0, if that is why.
        field: Option<usize>,
        /// For a person.
        why: String,
    },
}

/// What a command has changed in a table. Rows that a team's own function has written, and caught
/// an exception meanwhile, are not among them.
#[derive(Debug)]
pub struct Changes {
    /// The table.
    pub table: Relation,
    /// The rows that were inserted or updated, as they are now; or why that is not known.
    pub rows: std::result::Result<Vec<ChangedRow>, String>,
    /// There are more rows than that.
    pub more: bool,
    /// How many rows were deleted.
    pub deleted: i64,
}

/// A row that was inserted or updated.
#[derive(Debug, FromRow)]
pub struct ChangedRow {
    /// All of it, as JSON.
    pub json: String,
    /// Its columns, in the table's order.
    pub columns: Vec<String>,
    /// Their values, for the eye.
    pub values: Vec<Option<String>>,
}

/// What a runner says of the commands of a batch: here, of one.
#[derive(FromRow)]
struct Ran {
    code: Vec<Option<String>>,
    detail: Vec<Option<String>>,
    reply: Vec<Option<String>>,
    events: Vec<Option<String>>,
    refused: Option<Json<Vec<Refused>>>,
}

impl Store {
    /// Runs a command as a worker would, and keeps nothing of it.
    ///
    /// # Errors
    /// If the database refuses what is not the command's own fault, or cannot be reached.
    pub async fn try_command(&self, trial: &Trial<'_>) -> Result<Tried> {
        let mut attempt = 1;
        loop {
            match self.attempt(trial).await {
                Err(Error::Refused(Refusal::Contended(_))) if attempt < ATTEMPTS_MAX => attempt += 1,
                tried => return tried,
            }
        }
    }

    /// As a batch of one: carefully only if it raises.
    async fn attempt(&self, trial: &Trial<'_>) -> Result<Tried> {
        match self.rolled_back(trial, false).await {
            // the two others: a team's own table has a name like one of ours
            Err(Error::Refused(Refusal::Data(_) | Refusal::Duplicate | Refusal::DayMissing)) => {
                self.rolled_back(trial, true).await
            }
            tried => tried,
        }
    }

    async fn rolled_back(&self, trial: &Trial<'_>, careful: bool) -> Result<Tried> {
        let absent = self.absent_functions(&digests(trial.functions.iter().copied())).await?;
        let pool = if trial.serializable { &self.serializable } else { &self.pool };
        // out of the pool: the transaction ends with the connection, however this ends
        let mut connection = pool.acquire().await?.detach();
        connection.execute("begin").await?;
        create(&mut connection, trial.functions, &absent, trial.tables_schema).await?;
        look_in(&mut connection, &self.schema).await?;
        let ending = run(&mut connection, trial, careful).await?;
        let changes = match &ending {
            // carefully, it has written in a subtransaction, whose rows nothing tells from others'
            TrialEnding::Final(Ending::Applied { .. }) if !careful => changes(&mut connection, trial).await?,
            _ => Vec::new(),
        };
        connection.execute("rollback").await?;
        // nothing is left to lose
        let _ = connection.close().await;
        Ok(Tried { ending, changes })
    }
}

async fn run(connection: &mut PgConnection, trial: &Trial<'_>, careful: bool) -> Result<TrialEnding> {
    let Called { delivery, function, arguments } = trial.called;
    // the name is made of a few plain characters: see compile
    let sql = format!("select * from \"{}\"($1, $2, $3, $4, $5, $6, $7, $8)", trial.runner);
    let ran: Ran = sqlx::query_as(AssertSqlSafe(sql))
        .bind([*function])
        .bind([&**arguments])
        .bind([delivery.offset])
        .bind([&*delivery.entity_id])
        .bind([delivery.command_id])
        .bind([delivery.record_time_ms])
        .bind(trial.part_bytes_max)
        .bind(careful)
        .fetch_one(connection)
        .await?;
    ran.ending().map_err(|error| Refusal::Broken(format!("the runner answers with what is no JSON: {error}")).into())
}

impl Ran {
    fn ending(self) -> serde_json::Result<TrialEnding> {
        if let Some(refused) = self.refused.and_then(|Json(refused)| refused.into_iter().next()) {
            let Refused { dead, field, why, .. } = refused;
            let code = dead.unwrap_or(DeadCode::DataError);
            return Ok(TrialEnding::Dead { code, field, why: why.unwrap_or_default() });
        }
        let only = |column: Vec<Option<String>>| column.into_iter().next().flatten();
        let (code, reply, events) = (only(self.code), only(self.reply), only(self.events));
        let [reply, events] = [&reply, &events].map(|json| json.as_ref().map(String::as_bytes));
        Ok(TrialEnding::Final(Ending::stored(code.is_none(), code, only(self.detail), reply, events)?))
    }
}

/// A partition counts as its root. The statistics also know what cascades and triggers have written.
const CHANGED_TABLES: &str = "
    select n.nspname::text, c.relname::text, c.relkind = 'p', sum(changed.deleted)::bigint
      from (select coalesce(pg_partition_root(relid)::oid, relid) as id, n_tup_del as deleted
              from pg_stat_xact_user_tables where n_tup_ins + n_tup_upd + n_tup_del > 0
            union all
            select c.oid, 0 from unnest($1::text[], $2::text[]) as named (schema, name)
              join pg_namespace n on n.nspname = named.schema
              join pg_class c on c.relnamespace = n.oid and c.relname = named.name) changed
      join pg_class c on c.oid = changed.id
      join pg_namespace n on n.oid = c.relnamespace
     where c.relkind in ('r', 'p')
     group by n.nspname, c.relname, c.relkind order by n.nspname, c.relname";

async fn changes(connection: &mut PgConnection, trial: &Trial<'_>) -> Result<Vec<Changes>> {
    let (schemas, names): (Vec<_>, Vec<_>) = trial.writes.iter().map(|table| (&*table.schema, &*table.name)).unzip();
    let tables: Vec<(String, String, bool, i64)> =
        sqlx::query_as(CHANGED_TABLES).bind(schemas).bind(names).fetch_all(&mut *connection).await?;
    sqlx::query("select set_config('statement_timeout', $1, true)").bind(LOOK_MAX_MS).execute(&mut *connection).await?;
    let mut changes = Vec::with_capacity(tables.len());
    for (schema, name, partitioned, deleted) in tables {
        let table = Relation { schema, name };
        connection.execute("savepoint look").await?;
        let looked = rows(connection, &table, partitioned).await;
        connection.execute("rollback to savepoint look").await?;
        let (rows, more) = match looked {
            Ok((rows, more)) => (Ok(rows), more),
            // another attempt may know
            Err(error @ Error::Refused(Refusal::Contended(_))) => return Err(error),
            // the role may only write, or the table is too large: the outcome is known all the same
            Err(Error::Refused(why)) => (Err(why.to_string()), false),
            Err(error) => return Err(error),
        };
        changes.push(Changes { table, rows, more, deleted });
    }
    Ok(changes)
}

/// The rows that this transaction has made, and whether there are more.
async fn rows(connection: &mut PgConnection, table: &Relation, partitioned: bool) -> Result<(Vec<ChangedRow>, bool)> {
    let (schema, name) = (quoted(&table.schema), quoted(&table.name));
    // tables that inherit are changed tables of their own
    let only = if partitioned { "" } else { "only" };
    let sql = format!(
        "select sw_json::text as json,
                array(select key from json_each_text(sw_json) with ordinality order by ordinality) as columns,
                array(select value from json_each_text(sw_json) with ordinality order by ordinality) as values
           from (select to_json(sw_row) as sw_json from {only} {schema}.{name} as sw_row
                  where sw_row.xmin = pg_current_xact_id()::xid limit $1) made"
    );
    let query = sqlx::query_as(AssertSqlSafe(sql)).persistent(false);
    let mut rows: Vec<ChangedRow> = query.bind(ROWS_MAX + 1).fetch_all(connection).await?;
    let more = rows.len() > ROWS_MAX as usize;
    rows.truncate(ROWS_MAX as usize);
    Ok((rows, more))
}

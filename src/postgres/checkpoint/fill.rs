//! Filling the tables of a shadow with what a checkpoint holds: COPY out here, COPY in there.

use std::future::poll_fn;

use sqlx::{AssertSqlSafe, Connection as _, FromRow, PgConnection};

use super::tables::{OWN, Sequence};
use super::{CheckpointError, CheckpointName};
use crate::handlers::sql::compile::quoted;
use crate::handlers::sql::typed::Relation;
use crate::postgres::{Refusal, Result, Store};

/// What numbers the rows of our own tables.
const NUMBERED: [(&str, &str); 3] =
    [("command_types", "type_id"), ("dead_letters", "dead_letter_id"), ("requests", "request_id")];

/// What a shadow is filled with.
pub(super) struct Filling {
    /// Where the rows of a table of ours come from, each as what stands behind `from` in a statement: of every
    /// table of [`OWN`], in that order.
    pub(super) own: Vec<String>,
    /// The team's tables, and where their rows come from, likewise.
    pub(super) team: Vec<(Relation, String)>,
    /// What those tables draw from.
    pub(super) sequences: Vec<Sequence>,
}

/// One of the team's tables, and what it is called in the checkpoint.
#[derive(FromRow)]
struct Kept {
    schema_name: String,
    table_name: String,
    kept_as: String,
}

/// What must not act while rows come in, and how it comes back: statements.
#[derive(FromRow)]
struct Suspended {
    off: String,
    on: String,
}

/// Foreign keys from and to `$1`, and the triggers that somebody made and that are enabled. In a checkpoint all rows fit; in
/// between they need not, and what a trigger has done is in the rows already.
const SUSPENDED: &str = "
    select format('alter table %s drop constraint %I', k.conrelid::regclass, k.conname) as off,
           format('alter table %s add constraint %I %s', k.conrelid::regclass, k.conname,
                  pg_get_constraintdef(k.oid)) as \"on\"
      from pg_constraint k
     where $1::regclass in (k.conrelid, k.confrelid) and k.contype = 'f' and k.conparentid = 0
    union all
    select format('alter table %s disable trigger %I', t.tgrelid::regclass, t.tgname),
           format('alter table %s enable %s trigger %I', t.tgrelid::regclass,
                  case t.tgenabled when 'A' then 'always' when 'R' then 'replica' else '' end, t.tgname)
      from pg_trigger t
     where t.tgrelid = $1::regclass and not t.tgisinternal and t.tgenabled <> 'D' and t.tgparentid = 0";

/// The columns of `$1` that take values, as a list.
const COLUMNS: &str = "
    select string_agg(quote_ident(attname), ', ' order by attnum)
      from pg_attribute
     where attrelid = $1::regclass and attnum > 0 and not attisdropped and attgenerated = ''";

impl Store {
    /// Fills the tables of `shadow` with what the checkpoint holds: all of it or nothing. Ours are empty there; the
    /// team's, which have the same schemas and names, are emptied. Numbers and sequences go on behind what was copied.
    ///
    /// The shadow's role owns its tables: foreign keys and triggers rest meanwhile. What a foreign key refers to is
    /// in the checkpoint too.
    ///
    /// # Errors
    /// If the checkpoint is missing or unfinished, or one of the databases refuses or cannot be reached.
    pub async fn fill_shadow(&self, name: &CheckpointName, shadow: &Self) -> std::result::Result<(), CheckpointError> {
        self.checkpoint(name).await?;
        let from = quoted(&self.checkpoint_schema(name)?);
        let mut live = self.patient_connection().await?;
        let kept = format!("select schema_name, table_name, kept_as from {from}.tables order by place");
        let kept: Vec<Kept> = sqlx::query_as(AssertSqlSafe(kept)).fetch_all(&mut live).await?;
        let of = |kept: Kept| {
            let table = Relation { schema: kept.schema_name, name: kept.table_name };
            (table, format!("{from}.{}", kept.kept_as))
        };
        let sequences =
            format!("select schema_name as schema, sequence_name as name, last_value from {from}.sequences");
        let what = Filling {
            own: OWN.iter().map(|(table, _)| format!("{from}.{table}")).collect(),
            team: kept.into_iter().map(of).collect(),
            sequences: sqlx::query_as(AssertSqlSafe(sequences)).fetch_all(&mut live).await?,
        };
        fill(&mut live, shadow, &what).await
    }
}

/// Copies all of it, or nothing.
pub(super) async fn fill(
    live: &mut PgConnection,
    shadow: &Store,
    what: &Filling,
) -> std::result::Result<(), CheckpointError> {
    let mut there = shadow.patient_connection().await?;
    let mut filling = there.begin().await?;
    // a migrated schema has a horizon of its own
    sqlx::query("delete from horizon").execute(&mut *filling).await?;
    for ((table, _), source) in OWN.iter().zip(&what.own) {
        copy_rows(live, source, &mut filling, table).await?;
    }
    for (table, column) in NUMBERED {
        go_on_behind(&mut filling, table, column).await?;
    }
    let mut suspended = Vec::new();
    for (table, _) in &what.team {
        suspended.extend(suspend(&mut filling, &table.quoted()).await?);
    }
    for (table, source) in &what.team {
        // what a script has put there comes with the rows, as far as it is still there
        let emptied = format!("delete from {}", table.quoted());
        sqlx::raw_sql(AssertSqlSafe(emptied)).execute(&mut *filling).await?;
        copy_rows(live, source, &mut filling, &table.quoted()).await?;
    }
    for Suspended { on, .. } in suspended {
        sqlx::raw_sql(AssertSqlSafe(on)).execute(&mut *filling).await?;
    }
    for Sequence { schema, name, last_value } in &what.sequences {
        let Some(last_value) = last_value else { continue };
        sqlx::query("select setval(format('%I.%I', $1::text, $2::text)::regclass, $3)")
            .bind(schema)
            .bind(name)
            .bind(last_value)
            .execute(&mut *filling)
            .await?;
    }
    filling.commit().await?;
    Ok(())
}

/// Takes foreign keys and triggers of a table away. How they come back.
async fn suspend(filling: &mut PgConnection, table: &str) -> Result<Vec<Suspended>> {
    let suspended: Vec<Suspended> = sqlx::query_as(SUSPENDED).bind(table).fetch_all(&mut *filling).await?;
    for Suspended { off, .. } in &suspended {
        sqlx::raw_sql(AssertSqlSafe(off.clone())).execute(&mut *filling).await?;
    }
    Ok(suspended)
}

/// Copies all rows of `source` into `target`. How many they were. As text: a type of the team's own has another number
/// in another database, and the binary form of its arrays carries it.
pub(in crate::postgres) async fn copy_rows(
    live: &mut PgConnection,
    source: &str,
    filling: &mut PgConnection,
    target: &str,
) -> Result<u64> {
    let columns: Option<String> = sqlx::query_scalar(COLUMNS).bind(target).fetch_one(&mut *filling).await?;
    let columns = columns.ok_or_else(|| Refusal::Broken(format!("table {target} of the shadow has no columns")))?;
    let mut rows = live.copy_out_raw(&format!("copy (select {columns} from {source}) to stdout")).await?;
    let mut sink = filling.copy_in_raw(&format!("copy {target} ({columns}) from stdin")).await?;
    loop {
        let sent = match poll_fn(|cx| rows.as_mut().poll_next(cx)).await {
            None => return Ok(sink.finish().await?),
            Some(Ok(bytes)) => sink.send(bytes).await.map(|_| ()),
            Some(Err(error)) => Err(error),
        };
        if let Err(error) = sent {
            // the first error counts; this one leaves the connection usable for the rollback
            if let Err(aborting) = sink.abort("the rows could not be copied").await {
                tracing::debug!(%aborting, target, "a copy was aborted");
            }
            return Err(error.into());
        }
    }
}

/// The next number that a table gives is above all that were copied.
async fn go_on_behind(filling: &mut PgConnection, table: &str, column: &str) -> Result<()> {
    let sql = format!(
        "select setval(pg_get_serial_sequence('{table}', '{column}'), coalesce(max({column}), 0) + 1, false) from {table}"
    );
    sqlx::query(AssertSqlSafe(sql)).execute(filling).await?;
    Ok(())
}

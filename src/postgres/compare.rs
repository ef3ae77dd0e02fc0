//! The team's own tables at a cut, set against those that a rebuild has made in the shadow.

use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, FromRow, PgConnection, Postgres, Transaction};
use uuid::Uuid;

use super::checkpoint::copy_rows;
use super::{Cut, Result, Store};
use crate::handlers::sql::compile::quoted;
use crate::handlers::sql::typed::Relation;

/// A table of the team's, copied to the shadow at the cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutTable {
    /// The table.
    pub table: Relation,
    /// What the copy is called.
    name: String,
    /// The columns that both have, in order; generated ones follow from the others.
    columns: Vec<String>,
    /// Columns that only the live table has.
    pub only_live: Vec<String>,
    /// Columns that only the scripts make.
    pub only_scripts: Vec<String>,
}

/// What is to be known of a table in the shadow.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
struct Described {
    /// The columns of its primary key, in order; none if it has none.
    key: Vec<String>,
    /// The columns that draw from a sequence, the clock or chance if a statement leaves them out.
    unsteady: Vec<String>,
}

/// How a table differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableDifferences {
    /// Rows of the live table at the cut.
    pub rows: i64,
    /// Rows that differ, are missing or too many.
    pub differing: i64,
    /// Columns that draw from a sequence, the clock or chance, and differ: they do not count.
    pub not_compared: Vec<String>,
    /// Some of the rows that differ.
    pub examples: Vec<RowDifference>,
}

/// A row that differs.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct RowDifference {
    /// The values of its primary key, as a JSON object; `None`: the table has none.
    pub key: Option<String>,
    /// The live row, as a JSON object; `None`: there is none.
    pub live: Option<String>,
    /// The rebuilt row, likewise.
    pub rebuilt: Option<String>,
}

/// The tables `$1`.`$2` (side by side), and those that a change of one of them changes through a foreign key, and so on.
const CHANGED: &str = "
    with recursive changed (oid) as (
        select c.oid from unnest($1::text[], $2::text[]) as t (schema, name)
          join pg_namespace n on n.nspname = t.schema
          join pg_class c on c.relnamespace = n.oid and c.relname = t.name and c.relkind in ('r', 'p')
        union
        select k.conrelid from changed
          join pg_constraint k on k.confrelid = changed.oid and k.contype = 'f' and k.conparentid = 0
           and (k.confdeltype in ('c', 'n', 'd') or k.confupdtype in ('c', 'n', 'd'))
    )
    select n.nspname::text as schema, c.relname::text as name
      from changed join pg_class c using (oid) join pg_namespace n on n.oid = c.relnamespace
     order by 1, 2";

/// The columns of `$1` that hold values of their own; none if there is no such table.
const COLUMNS: &str = "
    select coalesce(array_agg(attname::text order by attnum), '{}') from pg_attribute
     where attrelid = to_regclass($1) and attnum > 0 and not attisdropped and attgenerated = ''";

/// A default rests on what is not the same twice if it names a function that is not immutable, or one of the words of
/// SQL that read the clock or the session; those and an identity have nodes of their own.
const DESCRIBED: &str = r"
    select coalesce((select array_agg(a.attname::text order by k.n)
                       from pg_index i cross join unnest(i.indkey) with ordinality as k (attnum, n)
                       join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
                      where i.indrelid = $1::regclass and i.indisprimary), '{}') as key,
           coalesce((select array_agg(a.attname::text order by a.attnum)
                       from pg_attribute a
                       left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
                      where a.attrelid = $1::regclass and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
                        and (a.attidentity <> ''
                             or d.adbin::text ~ '\{(SQLVALUEFUNCTION|NEXTVALUEEXPR|COERCEVIAIO) '
                             or exists (select from regexp_matches(d.adbin::text, ':(?:op)?funcid (\d+)', 'g') as f (oid)
                                          join pg_proc p on p.oid = f.oid[1]::oid where p.provolatile <> 'i'))), '{}')
               as unsteady";

/// An entity as the live tables and the rebuilt ones have it. `None`: there is no row.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct EntityDifference {
    /// The entity's type.
    pub entity_type: String,
    /// The entity's id.
    pub entity_id: String,
    /// How many commands the live row says were applied.
    pub live_version: Option<i64>,
    /// Its state, JSON.
    pub live_state: Option<String>,
    /// How many commands were applied in the shadow.
    pub rebuilt_version: Option<i64>,
    /// Its state, JSON.
    pub rebuilt_state: Option<String>,
}

/// The last command of an entity.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct LastCommand {
    /// The entity's id.
    pub entity_id: String,
    /// The command's id.
    pub command_id: Uuid,
    /// Its type.
    pub command_type: String,
    /// Where it came from.
    pub topic: String,
    /// Where it came from.
    pub partition: i32,
    /// Its offset.
    #[sqlx(rename = "offset")]
    pub log_offset: i64,
}

impl Store {
    /// The tables that statements change which name these: they themselves, and those that follow through foreign keys.
    /// What is no table is left out.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn changed_tables(&self, written: &[Relation]) -> Result<Vec<Relation>> {
        let (schemas, names): (Vec<&str>, Vec<&str>) = written.iter().map(|it| (&*it.schema, &*it.name)).unzip();
        let rows: Vec<(String, String)> =
            sqlx::query_as(CHANGED).bind(schemas).bind(names).fetch_all(&self.pool).await?;
        Ok(rows.into_iter().map(|(schema, name)| Relation { schema, name }).collect())
    }

    /// Compares a rebuilt table of this shadow with its copy at the cut, by primary key, or as a bag of rows if there is
    /// none. Columns that draw from a sequence, the clock or chance count unless all that differs is in them.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn table_differences(&self, cut: &CutTable, examples_max: i64) -> Result<TableDifferences> {
        let mut scan = self.whole_scan().await?;
        let Described { key, unsteady } =
            sqlx::query_as(DESCRIBED).bind(cut.table.quoted()).fetch_one(&mut *scan).await?;
        let all = differences(&mut scan, cut, &key, &cut.columns, examples_max).await?;
        if all.differing == 0 || unsteady.is_empty() {
            return Ok(all);
        }
        let is_unsteady = |column: &&String| unsteady.contains(*column);
        let steady: Vec<String> = cut.columns.iter().filter(|column| !is_unsteady(column)).cloned().collect();
        let not_compared = cut.columns.iter().filter(is_unsteady).cloned().collect();
        let compared = differences(&mut scan, cut, &key, &steady, examples_max).await?;
        Ok(TableDifferences { not_compared, ..compared })
    }

    /// Entities that differ, in a shadow: their number, and the first `rows_max` of them by type and id.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn entity_differences(&self, rows_max: i64) -> Result<(i64, Vec<EntityDifference>)> {
        let mut scan = self.whole_scan().await?;
        let differing = "
              from cut_entities l full join entities r
                on (l.entity_type, l.entity_id) = (r.entity_type, r.entity_id)
             where l.version is distinct from r.version or l.state is distinct from r.state
                or (l.topic, l.partition) is distinct from (r.topic, r.partition)";
        let count: i64 =
            sqlx::query_scalar(AssertSqlSafe(format!("select count(*) {differing}"))).fetch_one(&mut *scan).await?;
        let rows = format!(
            "select coalesce(l.entity_type, r.entity_type) as entity_type,
                    coalesce(l.entity_id, r.entity_id) as entity_id,
                    l.version as live_version, l.state::text as live_state,
                    r.version as rebuilt_version, r.state::text as rebuilt_state {differing}
              order by 1, 2 limit $1"
        );
        let rows = sqlx::query_as(AssertSqlSafe(rows)).bind(rows_max).fetch_all(&mut *scan).await?;
        Ok((count, rows))
    }

    /// The last command of each of these entities of one type, in a shadow.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn last_commands(&self, entity_type: &str, entity_ids: &[String]) -> Result<Vec<LastCommand>> {
        let mut scan = self.whole_scan().await?;
        Ok(sqlx::query_as(
            "select distinct on (entity_id) entity_id, command_id, command_type, topic, partition, \"offset\"
               from processed_commands where entity_type = $1 and entity_id = any ($2)
              order by entity_id, version desc, \"offset\" desc",
        )
        .bind(entity_type)
        .bind(entity_ids)
        .fetch_all(&mut *scan)
        .await?)
    }

    /// For questions about whole tables, however long they take.
    async fn whole_scan(&self) -> Result<Transaction<'_, Postgres>> {
        let mut scan = self.pool.begin().await?;
        sqlx::query("select set_config('statement_timeout', '0', true), set_config('enable_seqscan', 'on', true)")
            .execute(&mut *scan)
            .await?;
        Ok(scan)
    }
}

async fn differences(
    scan: &mut PgConnection,
    cut: &CutTable,
    key: &[String],
    columns: &[String],
    examples_max: i64,
) -> Result<TableDifferences> {
    // names that no column has: a row's name would else mean the column
    let list = |names: &[String]| names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
    let row = match columns {
        [] => "'{}'::text".to_owned(),
        columns => {
            format!("(select to_jsonb(solewriter_columns) from (select {}) as solewriter_columns)::text", list(columns))
        }
    };
    let is_keyed = !key.is_empty() && key.iter().all(|column| columns.contains(column));
    let sides = match is_keyed {
        true => {
            let keys = list(key);
            let side = |table: &str| format!("(select {keys}, {row} as solewriter_row from {table})");
            format!(
                "select (select to_jsonb(solewriter_key) from (select {keys}) as solewriter_key)::text as key, l.solewriter_row as live,
                        r.solewriter_row as rebuilt
                   from {} as l full join {} as r using ({keys})
                  where l.solewriter_row is distinct from r.solewriter_row",
                side(&quoted(&cut.name)),
                side(&cut.table.quoted())
            )
        }
        false => {
            let (live, rebuilt) = (quoted(&cut.name), cut.table.quoted());
            format!(
                "select null::text as key, solewriter_row as live, null::text as rebuilt
                   from (select {row} as solewriter_row from {live}
                         except all select {row} from {rebuilt}) as only_live
                 union all
                 select null, null, solewriter_row
                   from (select {row} as solewriter_row from {rebuilt}
                         except all select {row} from {live}) as only_rebuilt"
            )
        }
    };
    let counted = format!("select (select count(*) from {}), (select count(*) from ({sides}) as d)", quoted(&cut.name));
    let (rows, differing): (i64, i64) = sqlx::query_as(AssertSqlSafe(counted)).fetch_one(&mut *scan).await?;
    let examples = match differing {
        0 => Vec::new(),
        _ => {
            let some = format!("select * from ({sides}) as d order by key, live, rebuilt limit $1");
            sqlx::query_as(AssertSqlSafe(some)).bind(examples_max).fetch_all(&mut *scan).await?
        }
    };
    Ok(TableDifferences { rows, differing, not_compared: Vec::new(), examples })
}

impl Cut {
    /// Copies one of the team's tables to a shadow, beside the table that is rebuilt there; `n` tells the copies apart.
    /// `None`: there is no such table among the live ones.
    ///
    /// # Errors
    /// If a database refuses or cannot be reached.
    pub async fn copy_table(&mut self, n: usize, table: &Relation, shadow: &Store) -> Result<Option<CutTable>> {
        let from = table.quoted();
        let live: Vec<String> = sqlx::query_scalar(COLUMNS).bind(&from).fetch_one(self.connection()).await?;
        if live.is_empty() {
            return Ok(None);
        }
        let mut there = shadow.patient_connection().await?;
        let made: Vec<String> = sqlx::query_scalar(COLUMNS).bind(&from).fetch_one(&mut there).await?;
        let (columns, only_scripts): (Vec<String>, Vec<String>) =
            made.iter().cloned().partition(|column| live.contains(column));
        let only_live = live.into_iter().filter(|column| !made.contains(column)).collect();
        let name = format!("cut_table_{n}");
        let list: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
        let make = format!("create table {name} as select {} from {from} with no data", list.join(", "));
        sqlx::raw_sql(AssertSqlSafe(make)).execute(&mut there).await?;
        copy_rows(self.connection(), &from, &mut there, &name).await?;
        Ok(Some(CutTable { table: table.clone(), name, columns, only_live, only_scripts }))
    }
}

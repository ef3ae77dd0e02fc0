//! What the catalog says of the tables and functions that statements name.

use std::collections::BTreeSet;

use super::Result;
use super::statements::Examiner;
use crate::handlers::sql::typed::Relation;

/// What a table brings into the statements that write it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WrittenTable {
    /// The columns that have a value of their own.
    pub defaults: Vec<ColumnDefault>,
    /// Its enabled triggers.
    pub triggers: Vec<Trigger>,
    /// The names that a violation may carry: constraints (foreign keys of other tables too), unique
    /// indexes, checks of domains, and `<table>_<column>_not_null`.
    pub constraints: BTreeSet<String>,
    /// The constraints that a transaction may put off until it commits.
    pub deferrable: Vec<Deferrable>,
    /// Its columns that are NOT NULL, each with its number.
    pub not_null: Vec<(usize, String)>,
}

/// A column that has a value of its own.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct ColumnDefault {
    /// The column.
    pub column: String,
    /// The expression; that of an identity column is `nextval(…)`.
    pub expression: String,
    /// It is an identity column.
    pub identity: bool,
}

/// A trigger that somebody made.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Trigger {
    /// Its name.
    pub name: String,
    /// It runs on inserts.
    pub on_insert: bool,
    /// It runs on updates.
    pub on_update: bool,
    /// It runs on deletes.
    pub on_delete: bool,
}

/// A constraint that a transaction may put off until it commits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deferrable {
    /// Its table: for a foreign key, the one that has it.
    pub table: Relation,
    /// Its name.
    pub name: String,
    /// It is put off unless a transaction says otherwise.
    pub initially_deferred: bool,
}

/// The table `$1.$2` with its partitions.
const TABLES: &str = "with recursive tables (id) as (
     select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = $2
     union all
     select i.inhrelid from pg_inherits i join tables on i.inhparent = id)";

impl Examiner {
    /// Those of `names` that a VOLATILE function on the search path has.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn volatile(&mut self, names: &BTreeSet<String>) -> Result<BTreeSet<String>> {
        let names: Vec<_> = names.iter().cloned().collect();
        let volatile: Vec<String> = sqlx::query_scalar(
            "select distinct proname::text from pg_proc
              where proname = any($1) and provolatile = 'v' and pg_function_is_visible(oid)",
        )
        .bind(names)
        .fetch_all(&mut self.connection)
        .await?;
        Ok(volatile.into_iter().collect())
    }

    /// The names of all schemas, but for the one that is always searched.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn schemas(&mut self) -> Result<BTreeSet<String>> {
        self.names("select nspname::text from pg_namespace where nspname <> 'pg_catalog'").await
    }

    /// The names of the tables and views on the search path, without the system's.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn tables(&mut self) -> Result<BTreeSet<String>> {
        self.names(
            "select relname::text from pg_class
              where relkind in ('r', 'p', 'v', 'm', 'f') and relnamespace <> 'pg_catalog'::regnamespace
                and pg_table_is_visible(oid)",
        )
        .await
    }

    /// The names of the functions on the search path.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn functions(&mut self) -> Result<BTreeSet<String>> {
        self.names("select distinct proname::text from pg_proc where pg_function_is_visible(oid)").await
    }

    /// The names of the columns of the tables on the search path, without the system's.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn columns_of_tables(&mut self) -> Result<BTreeSet<String>> {
        self.names(
            "select distinct attname::text from pg_attribute a join pg_class c on c.oid = a.attrelid
              where attnum > 0 and not attisdropped and relkind in ('r', 'p', 'v', 'm', 'f')
                and relnamespace <> 'pg_catalog'::regnamespace and pg_table_is_visible(c.oid)",
        )
        .await
    }

    async fn names(&mut self, sql: &'static str) -> Result<BTreeSet<String>> {
        let names: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut self.connection).await?;
        Ok(names.into_iter().collect())
    }

    /// What `table`, and its partitions if it has some, brings into a statement that writes it.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn written(&mut self, table: &Relation) -> Result<WrittenTable> {
        Ok(WrittenTable {
            defaults: self.defaults(table).await?,
            triggers: self.triggers(table).await?,
            constraints: self.constraints(table).await?,
            deferrable: self.deferrable(table).await?,
            not_null: self.not_null(table).await?,
        })
    }

    async fn defaults(&mut self, table: &Relation) -> Result<Vec<ColumnDefault>> {
        Ok(sqlx::query_as(
            "select a.attname::text as column, a.attidentity <> '' as identity,
                    coalesce(pg_get_expr(d.adbin, d.adrelid), 'nextval()') as expression
               from pg_attribute a
               join pg_class c on c.oid = a.attrelid
               join pg_namespace n on n.oid = c.relnamespace
               left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
              where n.nspname = $1 and c.relname = $2 and a.attnum > 0 and not a.attisdropped
                and a.attgenerated = '' and (a.attidentity <> '' or d.oid is not null)
              order by a.attnum",
        )
        .bind(&table.schema)
        .bind(&table.name)
        .fetch_all(&mut self.connection)
        .await?)
    }

    async fn not_null(&mut self, table: &Relation) -> Result<Vec<(usize, String)>> {
        let rows: Vec<(i16, String)> = sqlx::query_as(
            "select a.attnum, a.attname::text
               from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
              where n.nspname = $1 and c.relname = $2 and c.relkind in ('r', 'p')
                and a.attnum > 0 and a.attnotnull and not a.attisdropped and a.attgenerated = ''",
        )
        .bind(&table.schema)
        .bind(&table.name)
        .fetch_all(&mut self.connection)
        .await?;
        Ok(rows.into_iter().filter_map(|(number, name)| Some((usize::try_from(number).ok()?, name))).collect())
    }

    async fn triggers(&mut self, table: &Relation) -> Result<Vec<Trigger>> {
        let sql = about(
            "select distinct tgname::text as name, tgtype & 4 <> 0 as on_insert, tgtype & 16 <> 0 as on_update,
                    tgtype & 8 <> 0 as on_delete
               from pg_trigger where tgrelid in (select id from tables) and not tgisinternal
                 -- enabled for a session that replicates nothing
                 and tgenabled in ('O', 'A') order by name",
        );
        Ok(sqlx::query_as(sql).bind(&table.schema).bind(&table.name).fetch_all(&mut self.connection).await?)
    }

    async fn deferrable(&mut self, table: &Relation) -> Result<Vec<Deferrable>> {
        let sql = about(
            "select n.nspname::text as schema, c.relname::text as table_name, conname::text as constraint_name,
                    condeferred as initially_deferred
               from pg_constraint k join pg_class c on c.oid = k.conrelid join pg_namespace n on n.oid = c.relnamespace
              where condeferrable and (conrelid in (select id from tables) or confrelid in (select id from tables))
                and conparentid = 0",
        );
        let rows: Vec<(String, String, String, bool)> =
            sqlx::query_as(sql).bind(&table.schema).bind(&table.name).fetch_all(&mut self.connection).await?;
        let deferrable = |(schema, table, name, initially_deferred)| Deferrable {
            table: Relation { schema, name: table },
            name,
            initially_deferred,
        };
        Ok(rows.into_iter().map(deferrable).collect())
    }

    async fn constraints(&mut self, table: &Relation) -> Result<BTreeSet<String>> {
        let sql = about(
            "select conname::text from pg_constraint
              where conrelid in (select id from tables) or confrelid in (select id from tables)
             union
             select c.relname::text from pg_index i join pg_class c on c.oid = i.indexrelid
              where i.indisunique and i.indrelid in (select id from tables)
             union
             select conname::text from pg_constraint k join pg_attribute a on a.atttypid = k.contypid
              where k.contypid <> 0 and a.attrelid in (select id from tables)
             union
             -- a violation of NOT NULL carries no name before Postgres 18: this is the one there
             select c.relname || '_' || a.attname || '_not_null'
               from pg_attribute a join pg_class c on c.oid = a.attrelid
              where a.attnotnull and a.attnum > 0 and c.oid in (select id from tables)",
        );
        let names: Vec<String> =
            sqlx::query_scalar(sql).bind(&table.schema).bind(&table.name).fetch_all(&mut self.connection).await?;
        Ok(names.into_iter().collect())
    }
}

/// A question about [`TABLES`].
fn about(question: &str) -> sqlx::AssertSqlSafe<String> {
    sqlx::AssertSqlSafe(format!("{TABLES} {question}"))
}

//! What the database says of a statement without running it: the types of its parameters and
//! columns, the tables that it reads and writes, or what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgConnection, PgDatabaseError, PgErrorPosition, PgTypeInfo};
use sqlx::{AssertSqlSafe, Column as _, Connection as _, Executor as _, SqlSafeStr as _, Statement as _};

use super::plan::{Operation, Plan};
use super::{Error, Refusal, Result, Store};
use crate::handlers::sql::typed::{Column, Relation};

/// A connection that examines statements, in a transaction that writes nothing and is rolled back.
#[derive(Debug)]
pub struct Examiner {
    pub(super) connection: PgConnection,
    /// Statements so far: each is prepared under a name of its own.
    count: u32,
}

/// What the database says of a statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Examined {
    /// The types of `$1`, `$2`, …, as they can be written behind `::`, without a length.
    pub parameter_types: Vec<String>,
    /// The same with what is below them in place of domains.
    pub base_types: Vec<String>,
    /// What it returns.
    pub columns: Vec<Column>,
    /// The tables that it reads, a partition as its root, in order of their names.
    pub reads: Vec<Relation>,
    /// The tables that it writes, likewise, and how.
    pub writes: Vec<(Relation, Operation)>,
    /// The expressions of its plan: with defaults filled in, and views replaced by what they are.
    pub expressions: Vec<String>,
    /// The columns that an insert fills with null in every row, by their number in the table. Not those
    /// of a partition.
    pub left_null: Vec<(Relation, usize)>,
}

/// What is wrong with a statement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StatementError {
    /// What the database says.
    pub message: String,
    /// Its code.
    pub sqlstate: String,
    /// What the database suggests.
    pub hint: Option<String>,
    /// What the database says besides.
    pub detail: Option<String>,
    /// The character of the SQL that it points at; the first is 1.
    pub position: Option<usize>,
}

/// A type as it can be written behind `::`. A type that a bare name would give a length of 1
/// (`character`, `bit`) has another name for the same without.
const TYPE_NAME: &str = "case t::regtype
     when 'bpchar'::regtype then 'bpchar' when 'bpchar[]'::regtype then 'bpchar[]'
     when '\"bit\"'::regtype then '\"bit\"' when '\"bit\"[]'::regtype then '\"bit\"[]'
     else format_type(t, null) end";

/// Fails whenever it is run.
const FAILS: &str = "select 1 / 0;";
const DIVISION_BY_ZERO: &str = "22012";

impl Store {
    /// Examines statements as if they ran with `tables_schema` as their search path.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn examiner(&self, tables_schema: &str) -> Result<Examiner> {
        // out of the pool: what is prepared here must not come back into it
        let mut connection = self.pool.acquire().await?.detach();
        // read only: even if something ran, it would write nothing
        connection.execute("begin read only").await?;
        sqlx::query(
            "select set_config('search_path', $1, true),
                    -- a plan for any value, not for the nulls that it is explained with
                    set_config('plan_cache_mode', 'force_generic_plan', true),
                    -- with a null for the key, no partition would be left to read
                    set_config('enable_partition_pruning', 'off', true),
                    -- the caller thinks between two statements
                    set_config('idle_in_transaction_session_timeout', '60s', true)",
        )
        .bind(format!("\"{tables_schema}\", pg_temp"))
        .execute(&mut connection)
        .await?;
        Ok(Examiner { connection, count: 0 })
    }
}

impl Examiner {
    /// Examines `sql`, whose parameters are `$1`, `$2`, … One that is not declared has the type that
    /// its use says. A statement that is not in order leaves nothing behind for the next.
    ///
    /// # Errors
    /// If the database cannot be reached, or waited too long for a lock.
    pub async fn examine(
        &mut self,
        sql: &str,
        declared: &[Option<String>],
    ) -> Result<std::result::Result<Examined, StatementError>> {
        self.connection.execute("savepoint one").await?;
        let examined = self.prepare_and_explain(sql, declared).await;
        self.connection.execute("rollback to savepoint one").await?;
        match examined {
            Ok(examined) => Ok(Ok(examined)),
            Err(failure) => failure.of_statement().map(Err),
        }
    }

    /// Whether a script of several statements can be parsed; nothing of it is run.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn parse(&mut self, script: &str) -> Result<std::result::Result<(), StatementError>> {
        self.connection.execute("savepoint one").await?;
        // the database parses all of what is sent before it runs the first statement
        let sent = format!("{FAILS}{script}");
        let refused = sqlx::raw_sql(AssertSqlSafe(sent)).execute(&mut self.connection).await;
        self.connection.execute("rollback to savepoint one").await?;
        let Err(error) = refused else { return Ok(Ok(())) };
        match Failure::of(error, FAILS.chars().count()).of_statement()? {
            error if error.sqlstate == DIVISION_BY_ZERO => Ok(Ok(())),
            error => Ok(Err(error)),
        }
    }

    /// Ends the transaction and the connection.
    pub async fn close(self) {
        // it has written nothing: how it ends does not matter
        let _ = self.connection.close().await;
    }

    async fn prepare_and_explain(
        &mut self,
        sql: &str,
        declared: &[Option<String>],
    ) -> std::result::Result<Examined, Failure> {
        let declared: Vec<_> = declared.iter().map(|name| name.as_deref().unwrap_or("unknown")).collect();
        let name = self.prepare(sql, &declared).await?;
        let types = self.parameter_types(&name).await?;
        let plan = self.explain(&name, sql, &types).await?;
        let columns = self.columns(sql, &types).await?;
        let base_types = self.base_types(&types).await?;
        let roots = self.roots(&plan).await?;
        let whole = |relation: &Relation| roots.get(relation).is_none_or(|root| root == relation);
        let left_null = plan.left_null.into_iter().filter(|(table, _)| whole(table)).collect();
        let root = |relation: Relation| roots.get(&relation).cloned().unwrap_or(relation);
        let reads: BTreeSet<_> = plan.reads.into_iter().map(root).collect();
        let writes: BTreeSet<_> = plan.writes.into_iter().map(|(table, how)| (root(table), how)).collect();
        Ok(Examined {
            parameter_types: types.into_iter().map(|parameter| parameter.name).collect(),
            base_types,
            columns,
            reads: reads.into_iter().collect(),
            writes: writes.into_iter().collect(),
            expressions: plan.expressions,
            left_null,
        })
    }

    /// The name under which it is prepared.
    async fn prepare(&mut self, sql: &str, types: &[&str]) -> std::result::Result<String, Failure> {
        self.count += 1;
        let name = format!("examined_{}", self.count);
        let types = if types.is_empty() { String::new() } else { format!(" ({})", types.join(", ")) };
        let before = format!("prepare {name}{types} as ");
        let prepared = self.run(&format!("{before}{sql}")).await;
        prepared.map_err(|error| Failure::of(error, before.chars().count()))?;
        Ok(name)
    }

    /// One statement at most, whatever `sql` holds: that is what the extended protocol takes.
    async fn run(&mut self, sql: &str) -> std::result::Result<(), sqlx::Error> {
        let query = sqlx::query(AssertSqlSafe(sql)).persistent(false);
        query.execute(&mut self.connection).await?;
        Ok(())
    }

    async fn parameter_types(&mut self, name: &str) -> Result<Vec<ParameterType>> {
        let sql = format!(
            "select t::oid, {TYPE_NAME}, not exists (select from pg_type where oid = t and typtype <> 'd')
               from pg_prepared_statements, unnest(parameter_types) with ordinality as u (t, n)
              where name = $1 order by n"
        );
        let rows: Vec<(Oid, String, bool)> =
            sqlx::query_as(AssertSqlSafe(sql)).bind(name).fetch_all(&mut self.connection).await?;
        Ok(rows.into_iter().map(|(oid, name, domain)| ParameterType { oid, name, domain }).collect())
    }

    /// This also asks whether the role may read and write the tables.
    async fn explain(&mut self, name: &str, sql: &str, types: &[ParameterType]) -> std::result::Result<Plan, Failure> {
        self.connection.execute("savepoint explained").await?;
        let error = match self.explain_prepared(name, types.len()).await {
            Ok(plan) => return Ok(plan),
            Err(error) => Failure::of(error, 0),
        };
        if !types.iter().any(|parameter| parameter.domain) || !error.is_about_a_value() {
            return Err(error);
        }
        // a domain that takes no null, and null is what a statement is explained with: its plan with
        // the type below the domain reads and writes the same
        self.connection.execute("rollback to savepoint explained").await?;
        let base = self.base_types(types).await?;
        let pairs = types.iter().zip(&base);
        let base: Vec<_> = pairs.map(|(own, base)| if own.domain { &**base } else { &*own.name }).collect();
        let Ok(name) = self.prepare(sql, &base).await else { return Err(error) };
        Ok(self.explain_prepared(&name, types.len()).await?)
    }

    async fn explain_prepared(&mut self, name: &str, parameters: usize) -> std::result::Result<Plan, sqlx::Error> {
        let nulls = vec!["null"; parameters].join(", ");
        let values = if nulls.is_empty() { nulls } else { format!("({nulls})") };
        let explain = format!("explain (format json, verbose, costs off) execute {name}{values}");
        let query = sqlx::query_as(AssertSqlSafe(explain)).persistent(false);
        let (document,): (Value,) = query.fetch_one(&mut self.connection).await?;
        Ok(Plan::read(&document))
    }

    /// Of an array of domains: the array of what is below them.
    async fn base_types(&mut self, types: &[ParameterType]) -> Result<Vec<String>> {
        let sql = format!(
            "with recursive down (n, t, brackets, depth) as (
                 select n, t, '', 0 from unnest($1::oid[]) with ordinality as u (t, n)
                 union all
                 select n, case own.typtype when 'd' then own.typbasetype else own.typelem end,
                        case own.typtype when 'd' then brackets else brackets || '[]' end, depth + 1
                   from down join pg_type own on own.oid = t left join pg_type element on element.oid = own.typelem
                  where own.typtype = 'd' or (own.typcategory = 'A' and element.typtype = 'd'))
             select distinct on (n) {TYPE_NAME} || brackets from down order by n, depth desc"
        );
        let oids: Vec<_> = types.iter().map(|parameter| parameter.oid).collect();
        Ok(sqlx::query_scalar(AssertSqlSafe(sql)).bind(oids).fetch_all(&mut self.connection).await?)
    }

    async fn columns(&mut self, sql: &str, types: &[ParameterType]) -> std::result::Result<Vec<Column>, Failure> {
        // the driver remembers a text, whatever types it was prepared with
        self.connection.clear_cached_statements().await?;
        let types: Vec<_> = types.iter().map(|parameter| PgTypeInfo::with_oid(parameter.oid)).collect();
        let statement = self.connection.prepare_with(AssertSqlSafe(sql).into_sql_str(), &types).await?;
        let described: Vec<_> = statement.columns().iter().map(|column| column.type_info().oid()).collect();
        let names = sqlx::query_scalar(AssertSqlSafe(format!(
            "select {TYPE_NAME} from unnest($1::oid[]) with ordinality as u (t, n) order by n"
        )));
        let names: Vec<String> = names.bind(described).fetch_all(&mut self.connection).await?;
        let columns = statement.columns().iter().zip(names);
        Ok(columns.map(|(column, data_type)| Column { name: column.name().to_owned(), data_type }).collect())
    }

    /// The partitioned table that a partition is a part of.
    async fn roots(&mut self, plan: &Plan) -> Result<BTreeMap<Relation, Relation>> {
        let named = plan.reads.iter().chain(plan.writes.iter().map(|(relation, _)| relation));
        let (schemas, names): (Vec<_>, Vec<_>) = named.map(|r| (r.schema.clone(), r.name.clone())).unzip();
        let rows: Vec<(String, String, String, String)> = sqlx::query_as(
            "select u.schema, u.name, root_schema.nspname, root.relname
               from unnest($1::text[], $2::text[]) as u (schema, name)
               join pg_namespace part_schema on part_schema.nspname = u.schema
               join pg_class part on part.relnamespace = part_schema.oid and part.relname = u.name
               join pg_class root on root.oid = pg_partition_root(part.oid)
               join pg_namespace root_schema on root_schema.oid = root.relnamespace",
        )
        .bind(schemas)
        .bind(names)
        .fetch_all(&mut self.connection)
        .await?;
        let pair = |(schema, name, root_schema, root)| {
            (Relation { schema, name }, Relation { schema: root_schema, name: root })
        };
        Ok(rows.into_iter().map(pair).collect())
    }
}

struct ParameterType {
    oid: Oid,
    name: String,
    /// It is a domain.
    domain: bool,
}

/// What ended an examination, or a script.
pub(super) enum Failure {
    /// The statement is not in order.
    Statement(StatementError),
    /// The database did not tell.
    Database(Error),
}

impl Failure {
    /// `before` characters of what was sent are not the statement's.
    pub(super) fn of(error: sqlx::Error, before: usize) -> Self {
        let said = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
        let said = said.map(|error| StatementError {
            message: error.message().to_owned(),
            sqlstate: error.code().to_owned(),
            hint: error.hint().map(str::to_owned),
            detail: error.detail().map(str::to_owned),
            position: match error.position() {
                Some(PgErrorPosition::Original(at)) => at.checked_sub(before).filter(|at| *at > 0),
                _ => None,
            },
        });
        match (said, Error::from(error)) {
            (Some(said), Error::Refused(Refusal::Broken(_) | Refusal::Data(_))) => Self::Statement(said),
            (_, error) => Self::Database(error),
        }
    }

    /// What is wrong with the statement, if it is the statement that is wrong.
    pub(super) fn of_statement(self) -> Result<StatementError> {
        match self {
            Self::Statement(error) => Ok(error),
            Self::Database(error) => Err(error),
        }
    }

    /// Null is not a value of a domain, or violates its check.
    fn is_about_a_value(&self) -> bool {
        matches!(self, Self::Statement(error) if error.sqlstate.starts_with("23"))
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::of(error, 0)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

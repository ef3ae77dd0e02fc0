//! The functions that are made of commands in SQL, and the scripts that make a team's tables.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::migrate::make_schema;
use super::statements::Failure;
use super::{Result, StatementError, Store};
use crate::handlers::sql::compile::{Function, digests};

/// Names without a schema are looked up in this one until the transaction ends.
pub(super) async fn look_in(connection: &mut PgConnection, schema: &str) -> Result<()> {
    sqlx::query("select set_config('search_path', $1, true)")
        .bind(format!("\"{schema}\", pg_temp"))
        .execute(connection)
        .await?;
    Ok(())
}

/// Makes those of the functions that are `absent`, in a transaction.
pub(super) async fn create(
    connection: &mut PgConnection,
    functions: &[&Function],
    absent: &[String],
    tables_schema: &str,
) -> Result<()> {
    // a field may have a type of the team's own, which Postgres looks up when it makes the function
    look_in(connection, tables_schema).await?;
    for function in functions.iter().filter(|function| absent.contains(&function.name)) {
        // made of declarations whose statements the database has examined
        sqlx::raw_sql(AssertSqlSafe(function.create.clone())).execute(&mut *connection).await?;
    }
    Ok(())
}

impl Store {
    /// A connection for what may take long and changes the schema; not out of the pool again.
    pub(super) async fn patient_connection(&self) -> Result<PgConnection> {
        // taken out of the pool: its time-outs are wrong for a migration, and what
        // is set here must not come back into the pool
        let mut connection: PgConnection = self.pool.acquire().await?.detach();
        sqlx::query("select set_config('lock_timeout', '60s', false), set_config('statement_timeout', '0', false)")
            .execute(&mut connection)
            .await?;
        Ok(connection)
    }

    /// Runs a team's script that makes tables in `tables_schema`, which is made if it is not there:
    /// all of it or nothing. Whether the schema was made, or what the database refuses in the script.
    ///
    /// # Errors
    /// If the database refuses the schema or cannot be reached.
    pub async fn make_tables(
        &self,
        tables_schema: &str,
        script: &str,
    ) -> Result<std::result::Result<bool, StatementError>> {
        let mut connection = self.patient_connection().await?;
        let mut transaction = connection.begin().await?;
        let made_schema = make_schema(&mut transaction, tables_schema).await?;
        look_in(&mut transaction, tables_schema).await?;
        // the operator's own file, as psql would run it
        let ran = sqlx::raw_sql(AssertSqlSafe(script.to_owned())).execute(&mut *transaction).await;
        if let Err(error) = ran {
            return Failure::of(error, 0).of_statement().map(Err);
        }
        transaction.commit().await?;
        Ok(Ok(made_schema))
    }

    /// The names of those functions, given with the SHA-256 of their bodies, that are not in the
    /// database as they should be.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn absent_functions(&self, functions: &[(String, Vec<u8>)]) -> Result<Vec<String>> {
        if functions.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<(String,)> = sqlx::query_as(
            "select wanted.name from unnest($1::text[], $2::bytea[]) as wanted (name, digest)
              where not exists (select from pg_proc p
                                 where p.proname = wanted.name
                                   and sha256(convert_to(p.prosrc, 'UTF8')) = wanted.digest
                                   and p.pronamespace = current_schema()::regnamespace)",
        )
        .bind(functions.iter().map(|(name, _)| &**name).collect::<Vec<_>>())
        .bind(functions.iter().map(|(_, digest)| &**digest).collect::<Vec<_>>())
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|(name,)| name).collect())
    }

    /// Makes those functions that are not there, over tables and types of `tables_schema`: all or
    /// none. Their names.
    ///
    /// # Errors
    /// If the database refuses or cannot be reached.
    pub async fn make_functions(&self, functions: &[&Function], tables_schema: &str) -> Result<Vec<String>> {
        let absent = self.absent_functions(&digests(functions.iter().copied())).await?;
        if absent.is_empty() {
            return Ok(absent);
        }
        let mut connection = self.patient_connection().await?;
        let mut transaction = connection.begin().await?;
        create(&mut transaction, functions, &absent, tables_schema).await?;
        transaction.commit().await?;
        Ok(absent)
    }
}

//! Reading whole tables as they are at one moment, for as long as that takes.

use sqlx::{AssertSqlSafe, PgConnection};

use super::Result;

/// Makes a transaction ready for it that is at repeatable read and has read nothing yet. No writer waits for it.
///
/// Whoever wants to alter one of `tables`, or to empty it with truncate, waits until it ends: behind a snapshot that is
/// older, such a table looks empty. Rows that this role must not see are an error, and not left out.
///
/// # Errors
/// If one of the tables is missing, or the database cannot be reached.
pub(super) async fn begin(transaction: &mut PgConnection, tables: &[String]) -> Result<()> {
    if !tables.is_empty() {
        // before the first query, which takes the snapshot
        let lock = format!("lock table {} in access share mode", tables.join(", "));
        sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut *transaction).await?;
    }
    // whole tables are read, by one process: whoever settles needs the processors too. A limit on the length of a
    // transaction is newer than some servers
    sqlx::query(
        "select set_config('enable_seqscan', 'on', true), set_config('max_parallel_workers_per_gather', '0', true),
                set_config('statement_timeout', '0', true), set_config('row_security', 'off', true),
                set_config('idle_in_transaction_session_timeout', '0', true),
                (select set_config(name, '0', true) from pg_settings where name = 'transaction_timeout')",
    )
    .execute(transaction)
    .await?;
    Ok(())
}

//! Connections, each with the settings that the promises rest on.

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnection, PgPoolOptions};

use super::{Result, Store, nodelay};
use crate::config::{self, Database};

/// The database's address cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// There is none.
    #[error("there is no database to connect to")]
    Missing(#[from] config::Error),
    /// It is no Postgres address.
    #[error("database.url cannot be used")]
    Malformed(#[from] config::DatabaseUrlError),
}

impl Store {
    /// A pool that connects when it is first used.
    ///
    /// # Errors
    /// If the address cannot be used; nothing is connected yet.
    pub fn new(database: &Database, application_name: &str) -> std::result::Result<Self, ConnectError> {
        Self::connect_to(database, application_name, Sessions::Live)
    }

    /// The same, in sessions that refuse to write.
    ///
    /// # Errors
    /// If the address cannot be used; nothing is connected yet.
    pub fn read_only(database: &Database, application_name: &str) -> std::result::Result<Self, ConnectError> {
        Self::connect_to(database, application_name, Sessions::ReadOnly)
    }

    /// The same, for other sessions.
    pub(super) fn connect_to(
        database: &Database,
        application_name: &str,
        sessions: Sessions<'_>,
    ) -> std::result::Result<Self, ConnectError> {
        let mut options = database.require_url()?.connect_options()?;
        if let Sessions::Shadow(name) = sessions {
            options = options.database(name);
        }
        let options = options.application_name(application_name).statement_cache_capacity(64);
        // the worker says itself what is slow, and a settlement's text says nothing
        let options = options.disable_statement_logging();
        let pool = |isolation| {
            let session = Session::of(database, isolation, sessions);
            PgPoolOptions::new()
                .max_connections(database.connections_max.get())
                .acquire_timeout(database.connect_timeout)
                // a ping before each call would double the round trips
                .test_before_acquire(false)
                .after_connect(move |connection, _| {
                    let session = session.clone();
                    Box::pin(async move { session.prepare(connection).await })
                })
                .connect_lazy_with(options.clone())
        };
        // a level cannot be set inside the one call that settles a batch
        let (pool, serializable) = (pool("read committed"), pool("serializable"));
        Ok(Self { pool, serializable, schema: database.schema.clone() })
    }

    /// Asks the database for an answer.
    ///
    /// # Errors
    /// If there is none.
    pub async fn ping(&self) -> Result<()> {
        sqlx::query("select 1").execute(&self.pool).await?;
        Ok(())
    }
}

/// What sessions are for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sessions<'a> {
    /// The live tables.
    Live,
    /// The live tables, which they refuse to write.
    ReadOnly,
    /// Another database of that server: what a crash loses of it is run again.
    Shadow(&'a str),
}

/// What a database's or a role's defaults must not change.
#[derive(Clone)]
struct Session {
    search_path: String,
    isolation: &'static str,
    is_read_only: bool,
    is_durable: bool,
    statement_timeout: String,
    lock_timeout: String,
}

impl Session {
    fn of(database: &Database, isolation: &'static str, sessions: Sessions<'_>) -> Self {
        Self {
            isolation,
            is_read_only: sessions == Sessions::ReadOnly,
            is_durable: !matches!(sessions, Sessions::Shadow(_)),
            search_path: format!("\"{}\", pg_temp", database.schema),
            statement_timeout: database.statement_timeout.as_millis().to_string(),
            lock_timeout: database.lock_timeout.as_millis().to_string(),
        }
    }

    async fn prepare(&self, connection: &mut PgConnection) -> std::result::Result<(), sqlx::Error> {
        let (port,): (Option<i32>,) = sqlx::query_as(
            "select inet_client_port() from (select
                 set_config('search_path', $1, false),
                 set_config('default_transaction_isolation', $4, false),
                 -- only ever stricter: somebody may have frozen the database
                 set_config('default_transaction_read_only', case when $5 then 'on'
                     else current_setting('default_transaction_read_only') end, false),
                 -- only ever raised: a server that waits for its standbys goes on doing so
                 set_config('synchronous_commit', case when not $6 then 'off'
                     when current_setting('synchronous_commit') in ('remote_apply', 'on')
                     then current_setting('synchronous_commit') else 'on' end, false),
                 set_config('statement_timeout', $2, false),
                 set_config('lock_timeout', $3, false),
                 -- every statement looks rows up by key; a plan made while a table
                 -- was small must not go on scanning it when it is large
                 set_config('enable_seqscan', 'off', false),
                 -- so one plan serves all values. Left to itself, Postgres plans each call anew on a
                 -- connection whose first batches were small, as that looks cheaper (measured: a
                 -- batch of one command takes 430 us then, 225 us with this)
                 set_config('plan_cache_mode', 'force_generic_plan', false),
                 -- short statements, and a scan that has no index costs 10^10 now
                 set_config('jit', 'off', false),
                 -- a reply is the same text wherever it is made, and a literal means the same
                 set_config('standard_conforming_strings', 'on', false),
                 set_config('array_nulls', 'on', false),
                 set_config('transform_null_equals', 'off', false),
                 set_config('timezone', 'UTC', false),
                 set_config('datestyle', 'ISO, YMD', false),
                 set_config('intervalstyle', 'iso_8601', false),
                 set_config('extra_float_digits', '1', false),
                 set_config('bytea_output', 'hex', false),
                 set_config('idle_in_transaction_session_timeout', '5000', false),
                 set_config('client_connection_check_interval', '1000', false),
                 set_config('tcp_keepalives_idle', '10', false),
                 set_config('tcp_keepalives_interval', '5', false),
                 set_config('tcp_keepalives_count', '3', false),
                 set_config('tcp_user_timeout', '30000', false)) settings",
        )
        .bind(&self.search_path)
        .bind(&self.statement_timeout)
        .bind(&self.lock_timeout)
        .bind(self.isolation)
        .bind(self.is_read_only)
        .bind(self.is_durable)
        .fetch_one(connection)
        .await?;
        if let Some(port) = port.and_then(|port| u16::try_from(port).ok()) {
            nodelay::set(port);
        }
        Ok(())
    }
}

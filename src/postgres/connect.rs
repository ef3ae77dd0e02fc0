//! Connections, each with the settings that the promises rest on.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions, PgSslMode};

use super::{Result, Store, nodelay};

/// How to connect.
#[derive(Clone)]
pub struct Connect {
    /// `postgres://…`; may hold a password.
    pub url: String,
    /// The schema that holds solewriter's tables.
    pub schema: String,
    /// The pool's size.
    pub connections_max: u32,
    /// How long a connection may take to be had.
    pub connect_timeout: Duration,
    /// The server ends a statement after this.
    pub statement_timeout: Duration,
    /// The server gives up waiting for a lock after this.
    pub lock_timeout: Duration,
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
}

/// The database's address cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("database.url is no Postgres address: {0}")]
pub struct ConnectError(String);

impl Connect {
    /// A pool that connects when it is first used.
    ///
    /// # Errors
    /// If the address cannot be parsed; nothing is connected yet.
    pub fn pool(&self) -> std::result::Result<Store, ConnectError> {
        let mut options = PgConnectOptions::from_str(&self.url)
            // the parser's message can quote the address, and with it the password
            .map_err(|_| ConnectError("expected postgres://user:password@host:port/database".into()))?
            .application_name(&self.application_name)
            .statement_cache_capacity(64);
        if !is_local(options.get_host(), options.get_socket().is_some()) && !self.url.contains("sslmode=") {
            options = options.ssl_mode(PgSslMode::VerifyFull);
        }
        let session = Session::of(self);
        let pool = PgPoolOptions::new()
            .max_connections(self.connections_max)
            .acquire_timeout(self.connect_timeout)
            // a ping before each call would double the round trips
            .test_before_acquire(false)
            .after_connect(move |connection, _| {
                let session = session.clone();
                Box::pin(async move { session.prepare(connection).await })
            })
            .connect_lazy_with(options);
        Ok(Store { pool, schema: self.schema.clone() })
    }
}

impl Store {
    /// Asks the database for an answer.
    ///
    /// # Errors
    /// If there is none.
    pub async fn ping(&self) -> Result<()> {
        sqlx::query("select 1").execute(&self.pool).await?;
        Ok(())
    }
}

/// Loopback and Unix sockets carry no certificate that could be verified.
fn is_local(host: &str, socket: bool) -> bool {
    socket || host.starts_with('/') || matches!(host, "localhost" | "127.0.0.1" | "::1" | "[::1]")
}

/// What a database's or a role's defaults must not change.
#[derive(Clone)]
struct Session {
    search_path: String,
    statement_timeout: String,
    lock_timeout: String,
}

impl Session {
    fn of(connect: &Connect) -> Self {
        Self {
            search_path: format!("\"{}\", pg_temp", connect.schema),
            statement_timeout: connect.statement_timeout.as_millis().to_string(),
            lock_timeout: connect.lock_timeout.as_millis().to_string(),
        }
    }

    async fn prepare(&self, connection: &mut PgConnection) -> std::result::Result<(), sqlx::Error> {
        let (port,): (Option<i32>,) = sqlx::query_as(
            "select inet_client_port() from (select
                 set_config('search_path', $1, false),
                 set_config('default_transaction_isolation', 'read committed', false),
                 -- only ever raised: a server that waits for its standbys goes on doing so
                 set_config('synchronous_commit', case when current_setting('synchronous_commit')
                     in ('remote_apply', 'on') then current_setting('synchronous_commit') else 'on' end, false),
                 set_config('statement_timeout', $2, false),
                 set_config('lock_timeout', $3, false),
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
        .fetch_one(connection)
        .await?;
        if let Some(port) = port.and_then(|port| u16::try_from(port).ok()) {
            nodelay::set(port);
        }
        Ok(())
    }
}

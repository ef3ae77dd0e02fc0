//! Whether the database can be reached at all; if not, why, and what to type.

use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::Connection as _;
use sqlx::postgres::PgConnectOptions;

use super::Store;

/// The pool says only that it waited; a connection of its own says why.
const REACH_TIMEOUT: Duration = Duration::from_secs(5);

/// The database cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReachError {
    /// Nobody answers, or not now: it may pass.
    #[error("no Postgres answers at {address}: {why}; start it, or correct database.url")]
    NoAnswer {
        /// Host and port.
        address: String,
        /// What happened.
        why: String,
    },
    /// The server refuses the login.
    #[error("Postgres at {address} refuses user {user}: {why}; correct user and password in database.url")]
    Login {
        /// Host and port.
        address: String,
        /// The user.
        user: String,
        /// What the server says.
        why: String,
    },
    /// The server answers, and lets nobody in, or not this role.
    #[error("Postgres at {address} lets user {user} not connect: {why}; grant connect, or correct database.url")]
    Refused {
        /// Host and port.
        address: String,
        /// The user.
        user: String,
        /// What the server says.
        why: String,
    },
    /// The server answers, and has no room or is starting: it may pass.
    #[error("Postgres at {address} takes no connection now: {why}; wait, or raise max_connections")]
    NotNow {
        /// Host and port.
        address: String,
        /// What the server says.
        why: String,
    },
    /// There is no such database.
    #[error("Postgres at {address} has no database {database}; type: createdb {options} {database}")]
    NoDatabase {
        /// Host and port.
        address: String,
        /// Its name.
        database: String,
        /// How `createdb` finds the server.
        options: String,
    },
    /// The server could not prove who it is, or does not speak TLS.
    #[error("no trusted connection to Postgres at {address}: {why}; see sslmode and sslrootcert in docs/security.md")]
    Tls {
        /// Host and port.
        address: String,
        /// What happened.
        why: String,
    },
}

impl ReachError {
    /// Whether waiting may help.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::NoAnswer { .. } | Self::NotNow { .. })
    }

    fn of(error: &sqlx::Error, options: &PgConnectOptions) -> Self {
        let address = format!("{}:{}", options.get_host(), options.get_port());
        match error {
            sqlx::Error::Database(database) => {
                let why = database.message().to_owned();
                match database.code().as_deref() {
                    Some("3D000") => Self::NoDatabase {
                        database: options.get_database().unwrap_or(options.get_username()).to_owned(),
                        options: format!("-h {} -p {}", options.get_host(), options.get_port()),
                        address,
                    },
                    Some(code) if code.starts_with("28") => {
                        Self::Login { user: options.get_username().to_owned(), address, why }
                    }
                    Some(code) if code.starts_with("42") || code.starts_with("55") => {
                        Self::Refused { user: options.get_username().to_owned(), address, why }
                    }
                    _ => Self::NotNow { address, why },
                }
            }
            sqlx::Error::Tls(why) => Self::Tls { address, why: why.to_string() },
            // a certificate that is not trusted comes as bad data
            sqlx::Error::Io(why) if why.kind() == std::io::ErrorKind::InvalidData => {
                Self::Tls { address, why: why.to_string() }
            }
            sqlx::Error::Io(why) => Self::NoAnswer { address, why: why.to_string() },
            error => Self::NoAnswer { address, why: error.to_string() },
        }
    }
}

impl Store {
    /// Connects once, outside the pool.
    ///
    /// # Errors
    /// Why not, and what to do about it.
    pub async fn reach(&self) -> Result<(), ReachError> {
        let options = self.pool.connect_options();
        let connecting = tokio::time::timeout(REACH_TIMEOUT, options.connect());
        let connection = match connecting.await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(ReachError::of(&error, &options)),
            Err(_) => {
                let address = format!("{}:{}", options.get_host(), options.get_port());
                return Err(ReachError::NoAnswer { address, why: format!("no connection within {REACH_TIMEOUT:?}") });
            }
        };
        // it answered: how it is closed does not matter
        let _ = connection.close().await;
        Ok(())
    }
}

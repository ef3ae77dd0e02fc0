//! Whether the database can be reached at all; if not, why, and what to type.

use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::Connection as _;
use sqlx::postgres::PgConnectOptions;

use super::Store;

/// The pool says only that it waited; a connection of its own says why.
const REACH_TIMEOUT: Duration = Duration::from_secs(5);

/// The database cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReachError {
    /// Nobody answers, or not now: it may pass.
    NoAnswer {
        /// Host and port.
        address: String,
        /// What happened.
        why: String,
    },
    /// The server refuses the login.
    Login {
        /// Host and port.
        address: String,
        /// The user.
        user: String,
        /// What the server says.
        why: String,
    },
    /// The server answers, and lets nobody in, or not this role.
    Refused {
        /// Host and port.
        address: String,
        /// The user.
        user: String,
        /// What the server says.
        why: String,
    },
    /// The server answers, and has no room or is starting: it may pass.
    NotNow {
        /// Host and port.
        address: String,
        /// What the server says.
        why: String,
    },
    /// There is no such database.
    NoDatabase {
        /// Host and port.
        address: String,
        /// Its name.
        database: String,
        /// How `createdb` finds the server.
        options: String,
    },
    /// The server could not prove who it is, or does not speak TLS.
    Tls {
        /// Host and port.
        address: String,
        /// What happened.
        why: String,
    },
}

impl std::error::Error for ReachError {}

impl std::fmt::Display for ReachError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {}", self.found(), self.cure())
    }
}

impl ReachError {
    /// What was found, and where.
    pub fn found(&self) -> String {
        match self {
            Self::NoAnswer { address, why } => format!("no Postgres answers at {address}: {why}"),
            Self::Login { address, user, why } => format!("Postgres at {address} refuses user {user}: {why}"),
            Self::Refused { address, user, why } => {
                format!("Postgres at {address} lets user {user} not connect: {why}")
            }
            Self::NotNow { address, why } => format!("Postgres at {address} takes no connection now: {why}"),
            Self::NoDatabase { address, database, .. } => format!("Postgres at {address} has no database {database}"),
            Self::Tls { address, why } => format!("no trusted connection to Postgres at {address}: {why}"),
        }
    }

    /// What to do about it.
    pub fn cure(&self) -> String {
        match self {
            Self::NoAnswer { .. } => "start it, or correct database.url".to_owned(),
            Self::Login { .. } => "correct user and password in database.url".to_owned(),
            Self::Refused { .. } => "grant connect, or correct database.url".to_owned(),
            Self::NotNow { .. } => "wait, or raise max_connections".to_owned(),
            Self::NoDatabase { database, options, .. } => format!("type: createdb {options} {database}"),
            Self::Tls { .. } => "see sslmode and sslrootcert in docs/security.md".to_owned(),
        }
    }

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

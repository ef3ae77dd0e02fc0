//! The database's URL: checked once, shown only without its password.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::Url;

/// What stands for a secret wherever one would be shown.
pub(super) const HIDDEN: &str = "***";

/// A URL that Postgres's driver accepts. `Display`, `Debug` and `Serialize` hide the password.
#[derive(Clone)]
pub struct DatabaseUrl {
    /// As it was written, password included.
    secret: SecretString,
    /// The same for eyes.
    shown: String,
    /// Whether the URL itself says how to use TLS.
    says_sslmode: bool,
}

/// Why a text is no URL of a database; never quotes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a URL such as postgres://user:password@host:5432/database: {0}")]
pub struct DatabaseUrlError(String);

impl DatabaseUrl {
    /// How to connect: what the URL says, and for a remote host whose URL does not say how to use
    /// TLS, `verify-full`. A password must not leave the machine for a server that has not proven
    /// who it is, so anything weaker has to be written into the URL; `PGSSLMODE` does not count.
    ///
    /// # Errors
    ///
    /// None that parsing the URL has not found; the driver reads the environment (`PGHOST` and the
    /// like) again.
    pub fn connect_options(&self) -> Result<PgConnectOptions, DatabaseUrlError> {
        let options = driver_options(self.secret.expose_secret())?;
        if self.says_sslmode || stays_here(&options) {
            return Ok(options);
        }
        Ok(options.ssl_mode(PgSslMode::VerifyFull))
    }

    /// As it was written, with its password: for another process's environment, never for eyes.
    #[cfg(feature = "bench")]
    pub(crate) fn exposed(&self) -> &str {
        self.secret.expose_secret()
    }

    /// Whether the password goes only to a server that has proven who it is, or to this machine.
    ///
    /// # Errors
    ///
    /// As [`connect_options`](Self::connect_options).
    pub fn verifies_server(&self) -> Result<bool, DatabaseUrlError> {
        let options = self.connect_options()?;
        let verified = matches!(options.get_ssl_mode(), PgSslMode::VerifyFull);
        Ok(verified || stays_here(&options))
    }
}

impl FromStr for DatabaseUrl {
    type Err = DatabaseUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text).map_err(|error| DatabaseUrlError(error.to_string()))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return refuse("the scheme has to be postgres or postgresql");
        }
        // `postgres://user:pa/ss@host/db` parses, with half of the password as the path.
        if url.path().contains('@') {
            return refuse("a / or @ in the password has to be written as %2F or %40");
        }
        driver_options(text)?;
        Ok(Self {
            secret: text.into(),
            says_sslmode: url.query_pairs().any(|(key, _)| key == "sslmode" || key == "ssl-mode"),
            shown: without_password(url),
        })
    }
}

fn refuse<T>(reason: &str) -> Result<T, DatabaseUrlError> {
    Err(DatabaseUrlError(reason.to_owned()))
}

fn driver_options(text: &str) -> Result<PgConnectOptions, DatabaseUrlError> {
    text.parse().map_err(|error: sqlx::Error| DatabaseUrlError(error.to_string()))
}

fn stays_here(options: &PgConnectOptions) -> bool {
    options.get_socket().is_some() || is_local(options.get_host())
}

fn is_local(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        // The driver takes a host that is a path for the directory of a socket.
        || host.starts_with('/')
        || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn without_password(mut url: Url) -> String {
    if url.password().is_some() && url.set_password(Some(HIDDEN)).is_err() {
        return HIDDEN.to_owned();
    }
    if url.query().is_none() {
        return url.into();
    }
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    url.query_pairs_mut()
        .clear()
        .extend_pairs(pairs.iter().map(|(key, value)| (key, if key.contains("password") { HIDDEN } else { value })));
    url.into()
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Serialize for DatabaseUrl {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.shown)
    }
}

impl<'de> Deserialize<'de> for DatabaseUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for DatabaseUrl {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "DatabaseUrl".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> DatabaseUrl {
        text.parse().expect("a good URL")
    }

    fn ssl_mode(text: &str) -> String {
        let options = url(text).connect_options().expect("a good URL");
        format!("{:?}", options.get_ssl_mode())
    }

    #[test]
    fn a_remote_host_is_verified_in_full_unless_the_url_says_otherwise() {
        assert_eq!(ssl_mode("postgres://u:p@db.example.com/app"), "VerifyFull");
        assert_eq!(ssl_mode("postgres://u:p@10.0.0.5/app"), "VerifyFull");
        assert_eq!(ssl_mode("postgres:///app?host=db.example.com"), "VerifyFull");
        assert_eq!(ssl_mode("postgres://u@db/app?sslmode=disable"), "Disable");
        assert_eq!(ssl_mode("postgres://u@db/app?sslmode=require"), "Require");
    }

    #[test]
    fn a_local_host_or_socket_is_left_to_the_url() {
        for local in [
            "postgres://u@localhost/app?sslmode=disable",
            "postgres://u@127.0.0.1/app?sslmode=disable",
            "postgres://u@[::1]/app?sslmode=disable",
            "postgres:///app?host=/var/run/postgresql&sslmode=disable",
        ] {
            assert_eq!(ssl_mode(local), "Disable", "{local}");
        }
        assert_ne!(ssl_mode("postgres://u@localhost/app"), "VerifyFull");
        assert_ne!(ssl_mode("postgres://u@%2Frun%2Fpg/app"), "VerifyFull");
    }

    #[test]
    fn a_weaker_mode_for_a_remote_host_can_be_told_from_a_safe_one() {
        let verifies = |text: &str| url(text).verifies_server().expect("a good URL");
        assert!(verifies("postgres://u@db/app"));
        assert!(verifies("postgres://u@localhost/app?sslmode=disable"));
        assert!(!verifies("postgres://u@db/app?sslmode=require"));
    }

    #[test]
    fn a_password_is_never_shown() {
        for text in [
            "postgres://app:hunter2@db/app",
            "postgres://app@db/app?password=hunter2&sslmode=require",
            "postgres://app:hunter2%40%2F@db:5433/app",
        ] {
            let url = url(text);
            let json = serde_json::to_string(&url).expect("a string");
            for shown in [format!("{url} {url:?}"), json] {
                assert!(!shown.contains("hunter2") && shown.contains(HIDDEN), "{shown}");
            }
        }
    }

    #[test]
    fn what_is_no_url_is_refused_without_quoting_it() {
        for text in [
            "",
            "hunter2",
            "mysql://u:hunter2@db/app",
            "postgres://u:1/hunter2@db/app",
            "postgres://u:hunter2@db:port/app",
            "postgres://u:hunter2@db/app?sslmode=sometimes",
        ] {
            let error = text.parse::<DatabaseUrl>().expect_err("no URL").to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}

//! The checks of `check` that need nobody's answer: what the configuration and the handlers say
//! by themselves.

use super::check::Check;
use crate::config::{Config, Error};
use crate::handlers::sql::declaration::Declarations;
use crate::worker::Worker;

/// Checks that the configuration is complete and asks for nothing risky.
pub(super) fn checks(config: &Config) -> Vec<Check> {
    let mut checks = vec![complete(config)];
    checks.extend(server_verified(config));
    checks
}

/// Every topic's entity type has handlers, in Rust or in SQL.
pub(super) fn handlers(worker: &Worker, config: &Config, declarations: &Declarations) -> Vec<Check> {
    let check = |topic: &crate::config::Topic| {
        let name = format!("handlers of {}", topic.entity);
        let in_sql = declarations.commands.iter().filter(|command| *command.entity == *topic.entity);
        let in_sql: Vec<_> = in_sql.map(|command| &*command.command_type).collect();
        match worker.handlers(&topic.entity) {
            Some(handlers) => Check::ok(name, handlers.command_names().join(", ")),
            None if !in_sql.is_empty() => Check::ok(name, format!("in SQL: {}", in_sql.join(", "))),
            None => Check::failed(
                name,
                format!("this worker has no handlers for the entity type of {}", topic.name),
                "run the binary that registers them, declare commands in SQL, or correct the topic's entity",
            ),
        }
    };
    config.topics.iter().map(check).collect()
}

/// Loading has checked every value; what is left is what only `run` needs.
fn complete(config: &Config) -> Check {
    const NAME: &str = "configuration";
    match config.validate_for_run() {
        Ok(()) => Check::ok(NAME, format!("complete; command topics: {}", names(config))),
        Err(Error::Missing { key, cure }) => Check::failed(NAME, format!("{key} is not set"), cure),
        Err(error) => Check::failed(NAME, error.to_string(), "correct the value"),
    }
}

fn names(config: &Config) -> String {
    let names = config.topics.iter().map(|topic| topic.name.as_str());
    names.collect::<Vec<_>>().join(", ")
}

/// Whoever wrote a weaker sslmode has a reason today; the report keeps asking.
fn server_verified(config: &Config) -> Option<Check> {
    const NAME: &str = "database tls";
    let url = config.database.url.as_ref()?;
    Some(match url.verifies_server() {
        Ok(true) => Check::ok(NAME, "the server is verified, or on this machine"),
        Ok(false) => Check::warning(
            NAME,
            "a remote server need not prove who it is before it gets the password",
            "remove sslmode from database.url, or set it to verify-full",
        ),
        Err(error) => Check::failed(NAME, error.to_string(), "correct database.url"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::check::CheckStatus;
    use super::*;

    #[test]
    fn what_is_missing_comes_with_the_way_to_set_it() {
        let checks = checks(&Config::default());
        assert_eq!(checks.len(), 1);
        assert_eq!(checks[0].detail, "database.url is not set");
        let cure = checks[0].cure.as_deref().unwrap_or_default();
        assert!(cure.contains("DATABASE_URL"), "{cure}");
    }

    #[test]
    fn an_unverified_remote_database_is_a_warning() {
        let mut config = Config::default();
        config.database.url = "postgres://u@db/app?sslmode=disable".parse().ok();
        let check = server_verified(&config).expect("there is a URL");
        assert_eq!(check.status, CheckStatus::Warning);
    }
}

//! What `check` asks the database.

use super::check::Check;
use crate::config::Config;
use crate::postgres::{Holder, Result, Settings, Store};
use crate::runtime::worker_time_ms;

/// The check that fails when nobody answers.
pub(super) const DATABASE: &str = "database";
const SCHEMA: &str = "schema";
/// The oldest server that solewriter is tested with: 15.
const SERVER_VERSION_MIN: i32 = 150_000;
/// Clocks further apart make ids look older or younger than they are: milliseconds.
const CLOCK_SKEW_MAX_MS: i64 = 5_000;

/// What the schema says of the cluster.
#[derive(Default)]
pub(super) struct Known {
    /// Whose partitions it holds.
    pub(super) holders: Vec<Holder>,
    /// The partition count that each topic's keys were placed for.
    placed_for: Vec<(String, i32)>,
}

impl Known {
    /// The partition counts that a topic's keys were placed for: one, unless some
    /// partitions were claimed with another.
    pub(super) fn placed_for(&self, topic: &str) -> impl Iterator<Item = i32> {
        self.placed_for.iter().filter(move |(name, _)| name == topic).map(|(_, count)| *count)
    }
}

/// The database answers, keeps what it commits, and lets this role do a worker's work.
///
/// Also what it says of the cluster.
pub(super) async fn checks(config: &Config) -> anyhow::Result<(Vec<Check>, Known)> {
    let store = Store::new(&config.database, "solewriter check")?;
    if let Err(error) = store.reach().await {
        return Ok((vec![Check::failed(DATABASE, error.found(), &error.cure())], Known::default()));
    }
    let settings = store.settings().await?;
    let mut checks = vec![server(&settings)];
    checks.extend(durability(&settings));
    checks.push(clock(&settings, worker_time_ms()));
    checks.push(connections(&settings, config));
    if let Some(failed) = schema(&store, config).await? {
        checks.push(failed);
        return Ok((checks, Known::default()));
    }
    checks.push(Check::ok(SCHEMA, config.database.schema.clone()));
    checks.push(privileges(&store).await?);
    checks.push(days(&store).await?);
    let known = Known { holders: store.holders().await?, placed_for: store.partition_counts().await? };
    Ok((checks, known))
}

fn server(settings: &Settings) -> Check {
    let found = format!("Postgres {}", settings.server_version);
    if settings.in_recovery {
        return Check::failed(
            DATABASE,
            format!("{found}, a standby: nothing can be written"),
            "name the primary in database.url",
        );
    }
    if settings.server_version_num < SERVER_VERSION_MIN {
        return Check::warning(DATABASE, format!("{found}: solewriter is tested from 15 on"), "upgrade the server");
    }
    Check::ok(DATABASE, found)
}

fn durability(settings: &Settings) -> Vec<Check> {
    let mut checks = Vec::new();
    for (name, value) in [("fsync", &settings.fsync), ("full_page_writes", &settings.full_page_writes)] {
        checks.push(if value == "on" {
            Check::ok(name, "on")
        } else {
            let cure = format!("alter system set {name} = on");
            Check::warning(name, "off: a crash of the server can lose what it has confirmed", &cure)
        });
    }
    let value = &settings.synchronous_commit;
    checks.push(match value.as_str() {
        "on" | "remote_apply" => Check::ok("synchronous_commit", value.clone()),
        // a worker's own sessions raise it
        weak => Check::ok("synchronous_commit", format!("{weak} by default; a worker's own sessions use on")),
    });
    checks
}

fn clock(settings: &Settings, here_ms: i64) -> Check {
    let skew_ms = settings.time_ms - here_ms;
    if skew_ms.abs() <= CLOCK_SKEW_MAX_MS {
        return Check::ok("database clock", "agrees with this machine's");
    }
    let detail = format!("is {:.1} s ahead of this machine's", skew_ms as f64 / 1000.0);
    Check::warning("database clock", detail, "let both follow one time server (chrony, NTP)")
}

fn connections(settings: &Settings, config: &Config) -> Check {
    const NAME: &str = "connections";
    let (wanted, most) = (i64::from(config.database.connections_max.get()), i64::from(settings.max_connections));
    let detail = format!("a worker takes up to {wanted}, the server {most} of everybody");
    if wanted * 2 > most {
        return Check::warning(NAME, detail, "lower database.connections_max, or raise max_connections");
    }
    Check::ok(NAME, detail)
}

/// What is wrong with the schema, if something is.
async fn schema(store: &Store, config: &Config) -> Result<Option<Check>> {
    let state = store.schema_state().await?;
    let (schema, program) = (&config.database.schema, "program");
    let failed = |misfit| Check::failed(SCHEMA, format!("{schema} {misfit}"), &state.cure(schema, program));
    Ok(state.misfit(program).map(failed))
}

async fn privileges(store: &Store) -> Result<Check> {
    const NAME: &str = "database privileges";
    let missing = store.missing_privileges().await?;
    if missing.is_empty() {
        return Ok(Check::ok(NAME, "all that a worker needs"));
    }
    let cure = "let one role migrate and run, so that it owns the schema (docs/security.md)";
    Ok(Check::failed(NAME, format!("this role lacks {}", missing.join(", ")), cure))
}

async fn days(store: &Store) -> Result<Check> {
    const NAME: &str = "days ahead";
    if store.days_ahead().await? {
        return Ok(Check::ok(NAME, "the tables of today and tomorrow are there"));
    }
    let cure = "solewriter migrate makes them; a running worker does so by itself";
    Ok(Check::warning(NAME, "no table for today's or tomorrow's ids", cure))
}

#[cfg(test)]
mod tests {
    use super::super::check::CheckStatus;
    use super::*;

    fn settings() -> Settings {
        Settings {
            server_version: "17.2".into(),
            server_version_num: 170_002,
            fsync: "on".into(),
            full_page_writes: "on".into(),
            synchronous_commit: "on".into(),
            in_recovery: false,
            time_ms: 1_000_000,
            max_connections: 100,
        }
    }

    #[test]
    fn a_standby_fails_and_an_old_server_warns() {
        assert_eq!(server(&Settings { in_recovery: true, ..settings() }).status, CheckStatus::Failed);
        assert_eq!(server(&Settings { server_version_num: 130_000, ..settings() }).status, CheckStatus::Warning);
        assert_eq!(server(&settings()).status, CheckStatus::Ok);
    }

    #[test]
    fn a_setting_that_weakens_a_promise_is_a_warning_with_its_cure() {
        let checks = durability(&Settings { fsync: "off".into(), ..settings() });
        assert_eq!(
            (checks[0].status, checks[0].cure.as_deref()),
            (CheckStatus::Warning, Some("alter system set fsync = on"))
        );
        assert!(checks[1..].iter().all(|check| check.status == CheckStatus::Ok));
    }

    #[test]
    fn clocks_that_disagree_are_a_warning() {
        assert_eq!(clock(&settings(), 1_004_000).status, CheckStatus::Ok);
        let skewed = clock(&settings(), 990_000);
        assert_eq!(
            (skewed.status, skewed.detail.as_str()),
            (CheckStatus::Warning, "is 10.0 s ahead of this machine's")
        );
    }
}

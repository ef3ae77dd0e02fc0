//! The last of the checks: what the log says, run again, must come out as the tables have it.

use super::{Difference, Error};
use crate::config::Config;
use crate::replay::ReplayError;
use crate::replay::progress::Progress;
use crate::replay::verify::{self, Options, verify};
use crate::worker::Worker;

/// How running the log again has ended.
pub(super) enum Replayed {
    /// So many commands, and everything came out as it is.
    Alike(u64),
    /// Something came out otherwise.
    Different(Difference),
    /// Why it could not be done.
    Impossible(String),
}

/// Runs everything that was settled again, in a shadow database.
pub(super) async fn replayed(worker: &Worker, config: &Config) -> Result<Replayed, Error> {
    let report = match verify(worker, config, &Options::default(), &Progress::default()).await {
        Ok(report) => report,
        // in a database that `DATABASE_URL` names the role may have less to say
        Err(error @ ReplayError::NoShadow { .. }) => return Ok(Replayed::Impossible(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    Ok(match report.differences.first() {
        Some(first) => Replayed::Different(Difference::Replayed(words(first))),
        None => Replayed::Alike(report.partitions.iter().map(|partition| partition.commands).sum()),
    })
}

fn words(difference: &verify::Difference) -> String {
    let verify::Difference { what, entity_type, entity_id, table, key, after, live, rebuilt } = difference;
    let entity = entity_id.as_ref().map(|id| format!(" of {entity_type} {id}")).unwrap_or_default();
    let table = table.as_ref().map(|table| format!(" of {table}")).unwrap_or_default();
    let key = key.as_ref().map(|key| format!(" {key}")).unwrap_or_default();
    let after = after.as_ref().map(|after| format!(" after {}:{}:{}", after.topic, after.partition, after.offset));
    format!("{}{entity}{table}{key}{} is {live}, run again it is {rebuilt}", what.as_str(), after.unwrap_or_default())
}

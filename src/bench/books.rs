//! The books of one trial, balanced against the oracle: a rate that wrong books were kept at counts for
//! nothing.

use std::collections::HashMap;

use sqlx::PgConnection;

use super::Error;
use super::outcomes::Published;
use super::trial::{Row, Trial};
use super::workload::{Expected, Workload, account_id};

/// The first difference between what one worker has left, which ended in order, and what is right.
pub(super) async fn difference(trial: &Trial<'_>, published: &Published) -> Result<Option<String>, Error> {
    let (outcomes, records) = (published.records, trial.workload().commands);
    if outcomes > records {
        return Ok(Some(format!("{outcomes} outcomes of {records} records")));
    }
    difference_of(trial, trial.workload(), published).await
}

/// The same where not the whole workload was sent. Copies of outcomes are no difference: a partition's
/// next owner publishes again what the last one may have published.
pub(super) async fn difference_of(
    trial: &Trial<'_>,
    workload: &Workload,
    published: &Published,
) -> Result<Option<String>, Error> {
    let mut connection = trial.services().connection().await?;
    let held = Held {
        published: *published,
        balances: balances(&mut connection, trial.row()).await?,
        ended: ended(&mut connection, trial.row()).await?,
    };
    Ok(compare(&workload.expected(), workload.commands, &held))
}

struct Held {
    published: Published,
    balances: HashMap<String, i64>,
    /// How many were applied, and how many rejected.
    ended: (u64, u64),
}

/// Of the accounts that hold something: of ten million few do.
async fn balances(connection: &mut PgConnection, row: Row) -> Result<HashMap<String, i64>, Error> {
    let query = match row {
        Row::Rust => {
            "select entity_id, (state ->> 'balance')::bigint from entities where (state ->> 'balance')::bigint <> 0"
        }
        Row::Sql => "select id, balance from account where balance <> 0",
        _ => "select account_id, balance from accounts where balance <> 0",
    };
    let rows: Vec<(String, i64)> = sqlx::query_as(query).fetch_all(connection).await?;
    Ok(rows.into_iter().collect())
}

async fn ended(connection: &mut PgConnection, row: Row) -> Result<(u64, u64), Error> {
    let query = match row.is_solewriter() {
        true => {
            "select count(*) filter (where outcome = 'applied'), count(*) filter (where outcome = 'rejected') from processed_commands where partition >= 0"
        }
        false => "select count(*) filter (where applied), count(*) filter (where not applied) from processed",
    };
    let (applied, rejected): (i64, i64) = sqlx::query_as(query).fetch_one(connection).await?;
    Ok((applied.unsigned_abs(), rejected.unsigned_abs()))
}

fn compare(expected: &Expected, records: u64, held: &Held) -> Option<String> {
    let Expected { applied: right, rejected: no, .. } = expected;
    let Published { records: published, applied, rejected, dead, wrong } = held.published;
    if published < records {
        return Some(format!("{published} outcomes of {records} records"));
    }
    if (applied, rejected, dead, wrong) != (*right, *no, 0, 0) {
        return Some(format!(
            "the outcomes say {applied} applied, {rejected} rejected, {dead} dead and {wrong} that make no sense, not {right} and {no}"
        ));
    }
    let (applied, rejected) = held.ended;
    if (applied, rejected) != (expected.applied, expected.rejected) {
        return Some(format!("{applied} applied and {rejected} rejected, not {right} and {no}"));
    }
    for (account, balance) in (0..).zip(&expected.balances) {
        let id = account_id(account);
        // an account that holds nothing is not read, or not there
        let held = held.balances.get(&id).copied().unwrap_or(0);
        if held != *balance {
            return Some(format!("{id} holds {held}, not {balance}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held() -> Held {
        let published = Published { records: 3, applied: 2, rejected: 1, ..Published::default() };
        Held { published, balances: [(account_id(1), 7)].into(), ended: (2, 1) }
    }

    fn expected() -> Expected {
        Expected { balances: vec![0, 7], applied: 2, rejected: 1 }
    }

    #[test]
    fn books_that_are_right_show_no_difference() {
        assert_eq!(compare(&expected(), 3, &held()), None);
    }

    #[test]
    fn an_outcome_too_few_is_found() {
        let two = Held { published: Published { records: 2, ..held().published }, ..held() };
        assert_eq!(compare(&expected(), 3, &two).as_deref(), Some("2 outcomes of 3 records"));
    }

    #[test]
    fn an_outcome_that_says_what_is_not_right_is_found() {
        let wrong = Held { published: Published { applied: 1, rejected: 2, ..held().published }, ..held() };
        assert_eq!(
            compare(&expected(), 3, &wrong).as_deref(),
            Some("the outcomes say 1 applied, 2 rejected, 0 dead and 0 that make no sense, not 2 and 1")
        );
    }

    #[test]
    fn a_command_that_ended_otherwise_is_found() {
        let other = Held { ended: (3, 0), ..held() };
        assert_eq!(compare(&expected(), 3, &other).as_deref(), Some("3 applied and 0 rejected, not 2 and 1"));
    }

    #[test]
    fn a_lost_deposit_is_found() {
        let lost = Held { balances: HashMap::new(), ..held() };
        assert_eq!(compare(&expected(), 3, &lost).as_deref(), Some("acct-0000001 holds 0, not 7"));
    }
}

//! What `dev` runs where nothing else is to be run: the bank of examples/sql/bank, with the traffic of
//! examples/bank.

use serde_json::json;

use super::sample::{Sample, SampleTraffic, Sampler, Words};

/// The entity type, and the beginning of its topics' names.
pub(super) const ENTITY: &str = "account";

/// The bank's files, which are part of this program; the first declares the commands.
pub(super) const FILES: [(&str, &str); 2] = [
    ("commands.toml", include_str!("../../examples/sql/bank/commands.toml")),
    ("tables.sql", include_str!("../../examples/sql/bank/tables.sql")),
];

/// What the customers have is theirs, whether saved or not.
const HELD: &str = "select id, balance + savings from account";

/// Its traffic.
pub(super) fn traffic() -> SampleTraffic {
    let words = Words { held: "sum of balances".to_owned(), added: "deposited less withdrawn".to_owned() };
    SampleTraffic::in_sql(ENTITY, next, HELD, words)
}

fn next(sampler: &mut Sampler) -> Sample {
    let account = format!("acct-{}", sampler.number(1..=200));
    if sampler.is_new(&account) {
        let initial = sampler.number(0..=100);
        return Sample::new(account, "account.open", &json!({ "initial": initial })).adds(initial);
    }
    let amount = sampler.number(1..=50);
    let data = json!({ "amount": amount });
    match sampler.number(1..=2) {
        1 => Sample::new(account, "account.deposit", &data).adds(amount),
        // often more than there is: rejected, and then it adds nothing
        _ => Sample::new(account, "account.withdraw", &data).adds(-amount),
    }
}

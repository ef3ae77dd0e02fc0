//! What `bank dev` sends: accounts are opened, filled and emptied.

use solewriter::dev::{Sample, Sampler};

use crate::account::{Amount, Open};

pub fn next(sampler: &mut Sampler) -> Sample {
    let account = format!("acct-{}", sampler.number(1..=200));
    if sampler.is_new(&account) {
        let initial = sampler.number(0..=100);
        return Sample::new(account, "account.open", &Open { initial }).adds(initial);
    }
    let amount = sampler.number(1..=50);
    match sampler.number(1..=2) {
        1 => Sample::new(account, "account.deposit", &Amount { amount }).adds(amount),
        // often more than there is: rejected, and then it adds nothing
        _ => Sample::new(account, "account.withdraw", &Amount { amount }).adds(-amount),
    }
}

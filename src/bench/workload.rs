//! What every row settles: deposits and withdrawals, the same ones in every run.
//!
//! A command is a function of its number, so producer and oracle make it apart, and a short run is
//! the beginning of a long one.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use uuid::{Builder, Uuid};

/// The command types.
pub(super) const DEPOSIT: &str = "account.deposit";
/// Refused when there is not as much.
pub(super) const WITHDRAW: &str = "account.withdraw";
/// Why it is refused.
pub(super) const INSUFFICIENT_FUNDS: &str = "insufficient-funds";

const AMOUNTS: RangeInclusive<i64> = 1..=100;
/// Of 100 commands.
const WITHDRAWALS: u8 = 25;
/// How many ids of version 7 fall on one millisecond.
pub(crate) const IDS_PER_MS: u64 = 100;
/// Of 100 commands, with hot accounts…
const HOT_COMMANDS: u8 = 90;
/// …that go to one account of so many.
const HOT_SHARE: u64 = 100;
/// From one cold account to the next: a prime number, so that no number of accounts below it is skipped.
const COLD_STEP: u64 = 2_654_435_761;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Workload {
    /// How many records, repeats included.
    pub(crate) commands: u64,
    /// How many accounts they are spread over.
    pub(crate) accounts: u64,
    /// How.
    pub(crate) spread: Spread,
    /// The length of each command's data: bytes, at least [`PAYLOAD_BYTES_MIN`].
    pub(crate) payload_bytes: usize,
    /// What command ids are made of.
    pub(crate) ids: Ids,
    /// How many records of 100 are earlier ones once more.
    pub(crate) repeats_percent: u8,
    /// The time of the first id of version 7, milliseconds since 1970.
    pub(crate) began_ms: u64,
}

/// What the shortest data takes: bytes.
pub(crate) const PAYLOAD_BYTES_MIN: usize = 26;

/// How commands are spread over accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Spread {
    /// Each account is as likely as any other.
    Even,
    /// The n-th account is the n-th part as likely as the first (Zipf's law with exponent 1).
    Zipf,
    /// Nine commands of ten go to one account of a hundred.
    Hot,
    /// An account comes again after all others only, so that no cache that is smaller helps.
    Cold,
}

/// What command ids are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ids {
    /// UUID version 7: by time.
    V7,
    /// UUID version 4: by chance.
    V4,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// The first record of this id.
    pub(crate) number: u64,
    pub(crate) id: Uuid,
    pub(crate) account: u64,
    pub(crate) is_withdrawal: bool,
    pub(crate) amount: i64,
}

/// A command's data.
#[derive(Serialize, Deserialize)]
pub(crate) struct Amount {
    pub(crate) amount: i64,
    /// Makes the data as long as it shall be.
    #[serde(default, skip_serializing)]
    #[expect(dead_code, reason = "read as a service reads what it does not use")]
    pub(crate) memo: String,
}

impl Workload {
    /// The same commands, the first `commands` of them.
    pub(crate) fn first(self, commands: u64) -> Self {
        Self { commands, ..self }
    }

    /// The record of this number.
    pub(crate) fn command(&self, number: u64) -> Command {
        let mut chance = chance(number);
        let is_repeat = number > 0 && chance.u8(..100) < self.repeats_percent;
        if is_repeat {
            // as often within ten as within the ten thousand before; it may be a repeat: its original then
            let distance = ((number as f64).powf(chance.f64()) as u64).clamp(1, number);
            return self.command(number - distance);
        }
        let account = self.spread.account(number, self.accounts, &mut chance);
        let is_withdrawal = chance.u8(..100) < WITHDRAWALS;
        let amount = chance.i64(AMOUNTS);
        let random = chance.u128(..).to_be_bytes();
        let id = match self.ids {
            Ids::V4 => Builder::from_random_bytes(random).into_uuid(),
            Ids::V7 => {
                let [.., a, b, c, d, e, f, g, h, i, j] = random;
                let at_ms = self.began_ms + number / IDS_PER_MS;
                Builder::from_unix_timestamp_millis(at_ms, &[a, b, c, d, e, f, g, h, i, j]).into_uuid()
            }
        };
        Command { number, id, account, is_withdrawal, amount }
    }
}

impl Command {
    /// The command type.
    pub(crate) fn command_type(&self) -> &'static str {
        if self.is_withdrawal { WITHDRAW } else { DEPOSIT }
    }

    /// The key of its record.
    pub(crate) fn key(&self) -> String {
        account_id(self.account)
    }

    /// Its data, of so many bytes.
    pub(crate) fn data(&self, bytes: usize) -> String {
        let bare = format!(r#"{{"amount":{},"memo":""}}"#, self.amount);
        let memo = "m".repeat(bytes.saturating_sub(bare.len()));
        format!(r#"{{"amount":{},"memo":"{memo}"}}"#, self.amount)
    }
}

/// What an account is called.
pub(crate) fn account_id(account: u64) -> String {
    format!("acct-{account:07}")
}

/// What a command does to a balance: `None` if it is refused.
pub(crate) fn balance_after(balance: i64, is_withdrawal: bool, amount: i64) -> Option<i64> {
    let after = if is_withdrawal { balance - amount } else { balance + amount };
    (after >= 0).then_some(after)
}

impl Spread {
    fn account(self, number: u64, accounts: u64, chance: &mut fastrand::Rng) -> u64 {
        match self {
            // a step that shares no factor with their number meets all of them
            Self::Cold => (number % accounts * COLD_STEP) % accounts,
            Self::Even => chance.u64(..accounts),
            // the inverse of the harmonic sum, which grows as the logarithm
            Self::Zipf => ((accounts as f64).powf(chance.f64()) as u64).min(accounts) - 1,
            Self::Hot if chance.u8(..100) < HOT_COMMANDS => chance.u64(..accounts.div_ceil(HOT_SHARE)),
            Self::Hot => chance.u64(..accounts),
        }
    }
}

/// Differs for every number, and is the same for one.
fn chance(number: u64) -> fastrand::Rng {
    // neighbours must not look alike: the step is 2^64 divided by the golden ratio
    fastrand::Rng::with_seed(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// What is right after the whole workload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// By account.
    pub(crate) balances: Vec<i64>,
    pub(crate) applied: u64,
    pub(crate) rejected: u64,
}

impl Workload {
    /// The oracle: settles everything once, in order, in memory.
    pub(crate) fn expected(&self) -> Expected {
        let balances = vec![0; usize::try_from(self.accounts).unwrap_or(usize::MAX)];
        let mut expected = Expected { balances, applied: 0, rejected: 0 };
        for number in 0..self.commands {
            let command = self.command(number);
            if command.number == number {
                expected.settle(&command);
            }
        }
        expected
    }
}

impl Expected {
    fn settle(&mut self, command: &Command) {
        let balance = &mut self.balances[command.account as usize];
        match balance_after(*balance, command.is_withdrawal, command.amount) {
            Some(after) => {
                *balance = after;
                self.applied += 1;
            }
            None => self.rejected += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn workload() -> Workload {
        Workload {
            commands: 10_000,
            accounts: 100,
            spread: Spread::Even,
            payload_bytes: 100,
            ids: Ids::V7,
            repeats_percent: 0,
            began_ms: 1_790_000_000_000,
        }
    }

    #[test]
    fn a_command_is_a_function_of_its_number() {
        let commands = || (0..100).map(|number| workload().command(number)).collect::<Vec<_>>();
        assert_eq!(commands(), commands());
        let ids: HashSet<Uuid> = (0..10_000).map(|number| workload().command(number).id).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| id.get_version_num() == 7));
    }

    #[test]
    fn data_is_as_long_as_it_shall_be() {
        for bytes in [PAYLOAD_BYTES_MIN, 100, 10_000] {
            let data = workload().command(7).data(bytes);
            assert_eq!(data.len(), bytes);
            serde_json::from_str::<Amount>(&data).expect("an amount");
        }
    }

    #[test]
    fn a_repeat_is_an_earlier_command_once_more() {
        let workload = Workload { repeats_percent: 50, ids: Ids::V4, ..workload() };
        let commands: Vec<Command> = (0..workload.commands).map(|number| workload.command(number)).collect();
        for (number, command) in (0..).zip(&commands) {
            assert_eq!(command, &commands[command.number as usize]);
            assert!(command.number <= number);
        }
        let ids: HashSet<Uuid> = commands.iter().map(|command| command.id).collect();
        assert!((4_500..5_500).contains(&ids.len()), "{}", ids.len());
        let expected = workload.expected();
        assert_eq!(expected.applied + expected.rejected, ids.len() as u64);
    }

    #[test]
    fn some_accounts_are_met_more_often() {
        let met = |spread| {
            let workload = Workload { spread, accounts: 10_000, ..workload() };
            let first = |number: &u64| workload.command(*number).account < 100;
            (0..workload.commands).filter(first).count()
        };
        assert!((50..200).contains(&met(Spread::Even)));
        // ln 100 / ln 10,000 is a half
        assert!((4_500..5_500).contains(&met(Spread::Zipf)));
        assert!((8_800..9_300).contains(&met(Spread::Hot)));
    }

    #[test]
    fn a_cold_account_comes_again_after_all_others() {
        let workload = Workload { spread: Spread::Cold, accounts: 5_000, ..workload() };
        let turn = |from: u64| (from..from + 5_000).map(|number| workload.command(number).account);
        assert_eq!(turn(0).collect::<HashSet<_>>().len(), 5_000);
        assert!(turn(0).eq(turn(5_000)));
    }

    #[test]
    fn the_oracle_s_books_balance() {
        let workload = workload();
        let expected = workload.expected();
        assert_eq!(expected.applied + expected.rejected, workload.commands);
        assert!(expected.rejected > 0 && expected.balances.iter().all(|balance| *balance >= 0));
    }
}

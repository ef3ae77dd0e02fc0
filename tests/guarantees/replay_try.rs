//! `replay try` says which of yesterday's commands would have ended otherwise under the handlers of another program.

use serde::{Deserialize, Serialize};
use solewriter::replay::progress::Progress;
use solewriter::replay::verify::{Options, Report, verify};
use solewriter::{Context, Rejection, Worker};

use crate::support;
use crate::support::bank::Bank;
use crate::support::commands::{deposit, now_ms, open, withdraw};

const TOO_MUCH: Rejection = Rejection::new("too-much-at-once");
const INSUFFICIENT_FUNDS: Rejection = Rejection::new("insufficient-funds");

/// The bank of tomorrow: at most 50 are withdrawn at once.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Account {
    balance: i64,
}

#[derive(Serialize, Deserialize)]
struct Open {
    initial: i64,
}

#[derive(Serialize, Deserialize)]
struct Amount {
    amount: i64,
}

impl Account {
    fn open(&mut self, open: Open, cx: &mut Context) -> Result<Self, Rejection> {
        cx.emit("account.opened", &open);
        self.balance = open.initial;
        Ok(self.clone())
    }

    fn deposit(&mut self, deposit: Amount, cx: &mut Context) -> Result<Self, Rejection> {
        cx.emit("account.deposited", &deposit);
        self.balance += deposit.amount;
        Ok(self.clone())
    }

    fn withdraw(&mut self, withdraw: Amount, cx: &mut Context) -> Result<Self, Rejection> {
        if withdraw.amount > 50 {
            return Err(TOO_MUCH);
        }
        self.balance = self.balance.checked_sub(withdraw.amount).filter(|rest| *rest >= 0).ok_or(INSUFFICIENT_FUNDS)?;
        cx.emit("account.withdrawn", &withdraw);
        Ok(self.clone())
    }
}

async fn tried(bank: &Bank, changes_since_ms: Option<i64>) -> Report {
    let worker = Worker::new().entity::<Account>("account", |e| {
        e.on("account.open", Account::open)
            .on("account.deposit", Account::deposit)
            .on("account.withdraw", Account::withdraw)
    });
    let options = Options { changes_since_ms, ..Options::default() };
    let report = verify(&worker, &bank.options.config(), &options, &Progress::default()).await;
    report.unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_rule_tells_whom_it_would_have_refused() {
    let _turn = support::alone();
    let bank = Bank::open("try-rule", 1).await;
    bank.send(&[
        open("a", 100),
        withdraw("a", 30),
        withdraw("a", 60), // refused tomorrow
        withdraw("a", 40), // has 10 today, 70 tomorrow
        open("b", 500),
        withdraw("b", 400), // refused tomorrow
        deposit("b", 1),
        withdraw("b", 900), // refused today too, otherwise
    ]);
    let mut worker = bank.worker();
    bank.settled().await;
    assert_eq!(worker.sigterm_and_wait().code(), Some(0), "{}", worker.output());

    let report = tried(&bank, None).await;
    let kinds: Vec<_> =
        report.changes.iter().map(|it| (&*it.command_type, &*it.was, &*it.becomes, it.commands)).collect();
    let expected = [
        ("account.withdraw", "applied", "too-much-at-once", 2),
        ("account.withdraw", "insufficient-funds", "applied", 1),
        ("account.withdraw", "insufficient-funds", "too-much-at-once", 1),
        // what an earlier refusal leaves in the account comes last: it ends as it did
        ("account.deposit", "applied", "applied with another reply or other events", 1),
    ];
    assert_eq!(kinds, expected, "{report:?}");
    let offsets: Vec<i64> = report.changes[0].examples.iter().map(|example| example.offset).collect();
    assert_eq!((offsets, report.changes[1].examples[0].offset), (vec![2, 5], 3));
    println!("{}", report.changes_text());
    assert!(tried(&bank, Some(now_ms() + 1_000)).await.changes.is_empty());

    assert_eq!((report.entities_differing, report.is_unchanged()), (2, false));

    // with the handlers that run, all end as they did
    let said = bank.options.run_verb(&["replay", "try", "--since", "1d"]);
    assert!(said.code == Some(0) && said.stdout.contains("all end as they did"), "{said:?}");
}

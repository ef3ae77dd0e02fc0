//! A cluster that asks for encryption and a password is a cluster like any other.

use serde_json::json;
use solewriter::client::{Command, Outcome};

use crate::support;
use crate::support::bank::{Bank, Traffic};
use crate::support::kafka::{Broker, BrokerOptions};
use crate::support::patience::PATIENCE;
use crate::support::postgres::Database;

#[tokio::test]
async fn the_bank_works_over_sasl_ssl_with_scram() {
    let _turn = support::heavy();
    let broker = Broker::start(BrokerOptions { secure: true, ..BrokerOptions::default() });
    let database = Database::fresh("secured").await;
    let bank = Bank::open_on(broker.secure_cluster(), database, "secured", 2).await;
    let checked = bank.options.run_verb(&["check"]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let mut worker = bank.worker();
    bank.send(&Traffic::new(8, 20).commands(500));
    bank.audit().await;
    let client = bank.client().await;
    let command = Command::new("account.open", "acct-of-client", &json!({"initial": 1})).expect("a command");
    let outcome = client.send_and_wait(&command, PATIENCE).await;
    assert!(matches!(outcome, Ok(Outcome::Applied { .. })), "{outcome:?}");
    let status = bank.options.run_verb(&["status", "-o", "json"]);
    assert_eq!(status.code, Some(0), "{status:?}");
    assert_eq!(worker.sigterm_and_wait().code(), Some(0));
}

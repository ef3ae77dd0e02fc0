//! A cluster that asks for encryption and a password is a cluster like any other.

use serde_json::json;
use solewriter::client::{Command, Outcome};

use crate::support;
use crate::support::bank::{Bank, Traffic};
use crate::support::kafka::{Broker, BrokerOptions, acls};
use crate::support::patience::PATIENCE;
use crate::support::postgres::Database;
use crate::support::producer::Producer;
use crate::support::topics;

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

/// What a worker may not ask is said once, where it would have been a witness; it settles all the same.
#[tokio::test]
async fn a_worker_without_the_rights_to_look_goes_on_and_says_what_it_cannot_see() {
    let _turn = support::heavy();
    let broker = Broker::start(BrokerOptions { secure: true, properties: acls::properties() });
    let database = Database::fresh("rights").await;
    let mut bank = Bank::open_on(broker.secure_cluster(), database, "rights", 2).await;
    bank.producer = Producer::new(&broker.cluster());
    let outcomes = format!("{}.outcomes", bank.topic);
    topics::create(&broker.cluster(), &outcomes, 2, &[]).await;
    acls::may_only_read(&broker.cluster(), &bank.topic);
    acls::may_only_write(&broker.cluster(), &outcomes);
    let checked = bank.options.run_verb(&["check"]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.stdout.contains("if it is compacted, commands are lost"), "{checked:?}");
    assert!(checked.stdout.contains("DescribeConfigs on it (docs/security.md)"), "{checked:?}");
    // before the first claims there is no outcome that could not be read
    for unread in [0, 1] {
        let mut worker = bank.worker();
        bank.send(&Traffic::new(8, 20).commands(100));
        bank.settled().await;
        let (compacted, testimony) =
            ("nobody tells whether the topic is compacted", "the outcomes topic cannot bear witness");
        for (said, times) in [(compacted, 1), (testimony, unread)] {
            assert_eq!(worker.output().matches(said).count(), times, "{said}");
        }
        assert_eq!(worker.sigterm_and_wait().code(), Some(0));
    }
}

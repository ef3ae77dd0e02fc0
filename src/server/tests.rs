//! The endpoint over a real socket, as a probe and as a scraper.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::telemetry::{PartitionState, metrics as emit};

/// Serves on a free port until dropped, and emits metrics into its own recorder.
struct Served {
    address: SocketAddr,
    health: Arc<Health>,
    shutdown: CancellationToken,
    serving: tokio::task::JoinHandle<Result<(), Error>>,
}

async fn served(emit: impl FnOnce()) -> Served {
    let recorder = prometheus::builder().expect("good buckets").build_recorder();
    ::metrics::with_local_recorder(&recorder, emit);
    let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let health = Arc::new(Health::new());
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(serve(listener, health.clone(), recorder.handle(), shutdown.clone()));
    Served { address, health, shutdown, serving }
}

impl Served {
    async fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("listening");
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }
}

#[tokio::test]
async fn readiness_names_what_is_missing() {
    let served = served(|| ()).await;
    served.health.set_schema_ok(true);
    served.health.set_database_ok(true);
    let answer = served.get("/readyz").await;
    assert!(answer.contains(" 503 "), "{answer}");
    assert!(answer.ends_with("not ready: the consumer group is not joined\n"), "{answer}");
    served.health.set_group_joined(true);
    let answer = served.get("/readyz").await;
    assert!(answer.contains(" 200 ") && answer.ends_with("ready\n"), "{answer}");
}

#[tokio::test]
async fn a_process_that_is_not_ready_is_still_alive() {
    let answer = served(|| ()).await.get("/healthz").await;
    assert!(answer.contains(" 200 "), "{answer}");
}

#[tokio::test]
async fn metrics_have_the_names_and_labels_of_the_interface() {
    let answer = served(|| {
        emit::describe();
        emit::commands("accounts", "account.open", emit::Settled::Applied, 3);
        emit::batch(3, Duration::from_millis(4));
        emit::command_age(Duration::from_millis(40));
        emit::claimed("assigned");
        let partition = emit::Partition::new("accounts", 2);
        partition.lag(7, Duration::from_secs(1));
        partition.state(PartitionState::Running);
        partition.fencing_token(5);
    })
    .await
    .get("/metrics")
    .await;
    for line in [
        "solewriter_commands_total{topic=\"accounts\",command_type=\"account.open\",outcome=\"applied\"} 3\n",
        "solewriter_batch_commands_bucket{le=\"5\"} 1\n",
        "solewriter_commit_seconds_bucket{le=\"0.005\"} 1\n",
        "solewriter_command_age_seconds_bucket{le=\"0.05\"} 1\n",
        "solewriter_partition_lag{topic=\"accounts\",partition=\"2\"} 7\n",
        "solewriter_partition_lag_seconds{topic=\"accounts\",partition=\"2\"} 1\n",
        "solewriter_partition_state{topic=\"accounts\",partition=\"2\",state=\"running\"} 1\n",
        "solewriter_partition_state{topic=\"accounts\",partition=\"2\",state=\"halted\"} 0\n",
        "solewriter_fencing_token{topic=\"accounts\",partition=\"2\"} 5\n",
        "solewriter_claims_total{reason=\"assigned\"} 1\n",
        "solewriter_fenced_total 0\n",
        "solewriter_rebalances_total 0\n",
        "solewriter_build_info{version=",
    ] {
        assert!(answer.contains(line), "{line} in\n{answer}");
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_named_with_its_key() {
    let served = served(|| ()).await;
    let error = bind(served.address).await.expect_err("taken").to_string();
    let expected = format!("http.listen = \"{}\" cannot be used", served.address);
    assert!(error.starts_with(&expected), "{error}");
}

#[tokio::test]
async fn serving_ends_with_the_shutdown() {
    let served = served(|| ()).await;
    served.shutdown.cancel();
    let ended = served.serving.await.expect("no panic");
    assert!(ended.is_ok());
}

//! What `check` asks the database, the cluster and the worker's own handlers.

use std::sync::Arc;
use std::time::Duration;

use super::backend;
use super::check::Check;
use crate::config::Config;
use crate::kafka::{self, InspectError, Inspector, Topics};
use crate::postgres::{SchemaState, Store};
use crate::worker::Worker;

const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// Every topic's entity type has handlers.
pub(super) fn handlers(worker: &Worker, config: &Config) -> Vec<Check> {
    let check = |topic: &crate::config::Topic| {
        let name = format!("handlers of {}", topic.entity);
        match worker.handlers(&topic.entity) {
            Some(handlers) => Check::ok(name, handlers.command_names().join(", ")),
            None => Check::failed(
                name,
                format!("this worker has no handlers for the entity type of {}", topic.name),
                "run the binary that registers them, or correct the topic's entity",
            ),
        }
    };
    config.topics.iter().map(check).collect()
}

/// The database answers, keeps what it commits, and has the schema.
pub(super) async fn database(config: &Config) -> anyhow::Result<Vec<Check>> {
    let store = Store::new(&config.database, "solewriter check")?;
    let settings = match store.settings().await {
        Ok(settings) => settings,
        Err(error) => {
            let cure = "start it, or correct database.url";
            return Ok(vec![Check::failed("database", error.to_string(), cure)]);
        }
    };
    let mut checks = vec![Check::ok("database", format!("Postgres {}", settings.server_version))];
    for (name, value) in [("fsync", &settings.fsync), ("full_page_writes", &settings.full_page_writes)] {
        checks.push(if value == "on" {
            Check::ok(name, "on")
        } else {
            let cure = format!("alter system set {name} = on");
            Check::warning(name, "off: a crash of the server can lose what it has confirmed", &cure)
        });
    }
    checks.push(match store.schema_state().await? {
        SchemaState::Fits => Check::ok("schema", config.database.schema.clone()),
        state => Check::failed("schema", format!("{}: {state:?}", config.database.schema), "solewriter migrate"),
    });
    Ok(checks)
}

/// The cluster answers, and every topic is there and can hold commands.
pub(super) async fn kafka(config: &Config) -> anyhow::Result<Vec<Check>> {
    let inspector = backend::inspector(config)?;
    let asked = inspector.clone();
    let Some(cluster_id) = tokio::task::spawn_blocking(move || asked.cluster_id()).await? else {
        let cure = "start it, or correct kafka.bootstrap_servers";
        return Ok(vec![Check::failed("kafka", "no broker answers", cure)]);
    };
    let mut checks = vec![Check::ok("kafka", format!("cluster {cluster_id}"))];
    let topics = Topics::new(&kafka::Client::new(&config.kafka, "solewriter check")?, ASK_TIMEOUT)?;
    for topic in &config.topics {
        checks.push(command_topic(&inspector, &topics, &topic.name).await?);
        for name in [topic.outcomes_topic(), topic.events_topic()] {
            checks.push(publish_topic(&inspector, &name).await?);
        }
    }
    Ok(checks)
}

async fn count(inspector: &Arc<Inspector>, topic: &str) -> anyhow::Result<Result<i32, InspectError>> {
    let (inspector, topic) = (inspector.clone(), topic.to_owned());
    Ok(tokio::task::spawn_blocking(move || inspector.partition_count(&topic)).await?)
}

async fn command_topic(inspector: &Arc<Inspector>, topics: &Topics, topic: &str) -> anyhow::Result<Check> {
    let name = format!("topic {topic}");
    let partitions = match count(inspector, topic).await? {
        Ok(partitions) => partitions,
        Err(error) => {
            let cure = "create it, with the partition count that its producers use";
            return Ok(Check::failed(name, error.to_string(), cure));
        }
    };
    let policy = topics.setting(topic, "cleanup.policy").await;
    Ok(match policy.as_deref() {
        Some(policy) if policy.contains("compact") => Check::failed(
            name,
            format!("cleanup.policy is {policy}: compaction removes commands before they are settled"),
            "kafka-configs.sh --alter --entity-type topics --add-config cleanup.policy=delete",
        ),
        _ => Check::ok(name, format!("{partitions} partitions")),
    })
}

async fn publish_topic(inspector: &Arc<Inspector>, topic: &str) -> anyhow::Result<Check> {
    let name = format!("topic {topic}");
    Ok(match count(inspector, topic).await? {
        Ok(partitions) => Check::ok(name, format!("{partitions} partitions")),
        Err(InspectError::NoTopic) => {
            Check::warning(name, "does not exist yet", "`run` creates it, if the broker lets it")
        }
        Err(error) => Check::failed(name, error.to_string(), "look at the broker"),
    })
}

//! What `check` asks the cluster: brokers, topics, their settings.

use std::sync::Arc;
use std::time::Duration;

use super::check::Check;
use super::check_database::Known;
use super::{backend, check_sample};
use crate::config::{Config, Topic};
use crate::handlers::EntityHandlers;
use crate::kafka::{self, InspectError, Inspector, Settings, Topics};
use crate::postgres::Holder;
use crate::record::TopicPartition;

const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Commands that are gone sooner than an outage may last are lost.
const RETENTION_MIN: Duration = Duration::from_secs(24 * 3600);
/// A topic without this setting takes records of this size: bytes.
const MESSAGE_BYTES_MAX: u64 = 1_048_588;

/// The cluster answers, and every topic is there and can hold commands.
///
/// `handlers`: of an entity type, if they are in order.
pub(super) async fn checks(
    handlers: impl Fn(&str) -> Option<Arc<EntityHandlers>>,
    config: &Config,
    known: &Known,
) -> anyhow::Result<Vec<Check>> {
    let inspector = backend::inspector(config)?;
    let asked = inspector.clone();
    let Some(cluster_id) = tokio::task::spawn_blocking(move || asked.cluster_id()).await? else {
        let servers = config.kafka.bootstrap_servers.as_deref().unwrap_or_default();
        let cure = "start it, or correct kafka.bootstrap_servers (and its TLS and SASL settings)";
        return Ok(vec![Check::failed("kafka", format!("no broker answers at {servers}"), cure)]);
    };
    let kafka = Check::ok("kafka", format!("cluster {cluster_id}"));
    let mut checks = vec![kafka, holder(&known.holders, &config.kafka.group_id, &cluster_id)];
    let topics = Topics::new(&kafka::Client::new(&config.kafka, "solewriter check")?, ASK_TIMEOUT)?;
    for topic in &config.topics {
        let settings = topics.settings(&topic.name).await;
        match count(&inspector, &topic.name).await? {
            Ok(partitions) => {
                checks.extend(match &settings {
                    Ok(settings) => command_topic(&topic.name, partitions, settings),
                    Err(error) => vec![unknown_settings(&topic.name, error)],
                });
                let placed_for = known.placed_for(&topic.name);
                checks.extend(placed_for.filter_map(|placed_for| moved(&topic.name, partitions, placed_for)));
                checks.push(group(&inspector, topic).await?);
                checks.push(check_sample::check(handlers(&topic.entity), topic, &inspector, partitions).await?);
            }
            Err(error) => checks.push(missing(config, &topic.name, &error)),
        }
        for (key, name) in topic.published_to() {
            let own = topics.settings(&name).await.unwrap_or_default();
            let holds = if key == "dead_letter_topic" { Holds::DeadLetters } else { Holds::Answers };
            checks.push(
                publish_topic(&inspector, &name, holds, settings.as_ref().unwrap_or(&Settings::default()), &own)
                    .await?,
            );
        }
    }
    Ok(checks)
}

async fn count(inspector: &Arc<Inspector>, topic: &str) -> anyhow::Result<Result<i32, InspectError>> {
    let (inspector, topic) = (inspector.clone(), topic.to_owned());
    Ok(tokio::task::spawn_blocking(move || inspector.partition_count(&topic)).await?)
}

fn missing(config: &Config, topic: &str, error: &InspectError) -> Check {
    let servers = config.kafka.bootstrap_servers.as_deref().unwrap_or_default();
    let cure = match error {
        InspectError::NoTopic => kafka::how_to_create(servers, topic),
        InspectError::Kafka(_) | InspectError::Denied(_) => {
            "look at the broker, and at this user's right to describe the topic".to_owned()
        }
    };
    Check::failed(format!("topic {topic}"), error.to_string(), &cure)
}

/// What nobody tells may be wrong.
fn unknown_settings(topic: &str, error: &InspectError) -> Check {
    let found = format!("its settings are unknown ({error}): if it is compacted, commands are lost in silence");
    let cure = "give this user DescribeConfigs on it (docs/security.md)";
    Check::warning(format!("topic {topic}"), found, cure)
}

/// One line if all is well, else one for each thing that is not.
fn command_topic(topic: &str, partitions: i32, settings: &Settings) -> Vec<Check> {
    let name = format!("topic {topic}");
    let alter = |setting: &str| kafka::how_to_alter("…", topic, setting);
    let setting = |name: &str| settings.get(name);
    let mut checks = Vec::new();
    if let Some(policy) = settings.compaction() {
        let found = format!("cleanup.policy is {policy}: compaction removes commands before they are settled");
        checks.push(Check::failed(&name, found, &alter("cleanup.policy=delete")));
    }
    if setting("unclean.leader.election.enable") == Some("true") {
        let found = "unclean leader election: a broker's failure may lose commands and halt partitions";
        checks.push(Check::warning(&name, found, &alter("unclean.leader.election.enable=false")));
    }
    let retention_ms = setting("retention.ms").and_then(|ms| ms.parse::<i64>().ok());
    if let Some(ms) = retention_ms.filter(|ms| (0..RETENTION_MIN.as_millis() as i64).contains(ms)) {
        let found = format!("commands are deleted after {} min: a longer outage loses them", ms / 60_000);
        checks.push(Check::warning(&name, found, &alter("retention.ms=604800000")));
    }
    if checks.is_empty() {
        let time = match setting("message.timestamp.type") {
            Some("LogAppendTime") => "the broker's clock stamps records",
            _ => "producers' clocks stamp records",
        };
        let copies = match setting("min.insync.replicas") {
            Some("1") => ", an acknowledged command may be on one disk only (min.insync.replicas=1)",
            _ => "",
        };
        checks.push(Check::ok(name, format!("{partitions} partitions; {time}{copies}")));
    }
    checks
}

/// One schema belongs to one group of one cluster.
fn holder(holders: &[Holder], group_id: &str, cluster_id: &str) -> Check {
    const NAME: &str = "consumer group";
    let own = |holder: &&Holder| holder.group_id == group_id && holder.cluster_id == cluster_id;
    match holders.iter().find(|holder| !own(holder)) {
        None => Check::ok(NAME, group_id),
        Some(Holder { group_id, cluster_id }) => Check::failed(
            NAME,
            format!("the schema's partitions belong to group {group_id} of cluster {cluster_id}"),
            "give this worker a schema of its own (database.schema), or that group (kafka.group_id)",
        ),
    }
}

/// Added partitions put one entity on two of them.
fn moved(topic: &str, partitions: i32, placed_for: i32) -> Option<Check> {
    (partitions != placed_for).then(|| {
        Check::failed(
            format!("partitions of {topic}"),
            format!("there are {partitions}, its keys were placed for {placed_for}"),
            &format!("stop the producers; then look what moves: solewriter repartition {topic}"),
        )
    })
}

/// The group's offsets can be read.
async fn group(inspector: &Arc<Inspector>, topic: &Topic) -> anyhow::Result<Check> {
    let (inspector, source) = (inspector.clone(), TopicPartition::new(topic.name.as_str(), 0));
    let name = format!("group offsets of {}", topic.name);
    Ok(match tokio::task::spawn_blocking(move || inspector.committed(&source)).await? {
        Ok(Some(offset)) => Check::ok(name, format!("partition 0 at {offset}")),
        Ok(None) => Check::ok(name, "none yet"),
        Err(error) => Check::failed(name, error.to_string(), "give this user read on the group (docs/security.md)"),
    })
}

/// What a topic is for that is published to.
#[derive(Clone, Copy)]
enum Holds {
    /// Outcomes or events.
    Answers,
    DeadLetters,
}

async fn publish_topic(
    inspector: &Arc<Inspector>,
    topic: &str,
    holds: Holds,
    commands: &Settings,
    own: &Settings,
) -> anyhow::Result<Check> {
    let name = format!("topic {topic}");
    let bytes_max = |settings: &Settings| {
        settings.get("max.message.bytes").and_then(|bytes| bytes.parse().ok()).unwrap_or(MESSAGE_BYTES_MAX)
    };
    let policy = own.get("cleanup.policy").filter(|policy| policy.contains("compact"));
    Ok(match (count(inspector, topic).await?, holds, policy) {
        (Ok(_), Holds::DeadLetters, Some(policy)) => Check::failed(
            name,
            format!("cleanup.policy is {policy}: a compacted topic refuses dead letters that have no key"),
            &kafka::how_to_alter("…", topic, "cleanup.policy=delete"),
        ),
        (Ok(_), ..) if bytes_max(own) < bytes_max(commands) => Check::warning(
            name,
            format!("max.message.bytes is {}, the command topic takes {}", bytes_max(own), bytes_max(commands)),
            match holds {
                Holds::Answers => "raise it: a command whose outcome does not fit is a dead letter",
                Holds::DeadLetters => "raise it: a dead letter that does not fit is mirrored without its value",
            },
        ),
        (Ok(partitions), ..) => Check::ok(name, format!("{partitions} partitions")),
        (Err(InspectError::NoTopic), ..) => {
            Check::warning(name, "does not exist yet", "`run` creates it, if the broker lets it")
        }
        (Err(error), ..) => Check::failed(name, error.to_string(), "look at the broker"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::check::CheckStatus;
    use super::*;

    fn checked<const N: usize>(settings: [(&str, &str); N]) -> Vec<Check> {
        command_topic("t", 8, &settings.into())
    }

    #[test]
    fn a_topic_that_forgets_commands_is_named_with_the_command_that_mends_it() {
        let compacted = checked([("cleanup.policy", "compact,delete")]);
        assert_eq!(compacted[0].status, CheckStatus::Failed);
        let cure = compacted[0].cure.as_deref().unwrap_or_default();
        assert!(cure.ends_with("--entity-name t --add-config cleanup.policy=delete"), "{cure}");
        let short = checked([("retention.ms", "60000"), ("unclean.leader.election.enable", "true")]);
        assert_eq!(short.len(), 2);
        assert!(short.iter().all(|check| check.status == CheckStatus::Warning));
    }

    #[test]
    fn a_topic_in_order_says_whose_clock_stamps_its_records() {
        let checks = checked([("message.timestamp.type", "LogAppendTime"), ("retention.ms", "-1")]);
        assert_eq!(checks, [Check::ok("topic t", "8 partitions; the broker's clock stamps records")]);
    }
}

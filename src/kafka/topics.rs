//! The topics that a worker publishes to: made if they are missing.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::{Client, InspectError};

/// A topic could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// The broker refused.
    #[error(
        "topic {topic} is missing and the broker refuses to create it ({code}); type: {}",
        create_command(bootstrap_servers, topic, *partitions)
    )]
    Refused {
        /// The topic.
        topic: String,
        /// Why.
        code: RDKafkaErrorCode,
        /// Where.
        bootstrap_servers: String,
        /// As many as the command topic has.
        partitions: i32,
    },
    /// The broker refused to add partitions.
    #[error(
        "the broker refuses to give topic {topic} {partitions} partitions ({code}); type: kafka-topics.sh \
         --bootstrap-server {bootstrap_servers} --alter --topic {topic} --partitions {partitions}"
    )]
    NotGrown {
        /// The topic.
        topic: String,
        /// Why.
        code: RDKafkaErrorCode,
        /// Where.
        bootstrap_servers: String,
        /// In all.
        partitions: i32,
    },
    /// The broker does not answer.
    #[error("the broker does not answer: {0}")]
    Kafka(#[from] KafkaError),
}

/// What to type for a command topic that does not exist. It is never made by
/// solewriter: its partition count is a decision.
pub fn how_to_create(bootstrap_servers: &str, topic: &str) -> String {
    let create = create_command(bootstrap_servers, topic, 12);
    format!("{create} (more partitions than there will ever be workers: the count must not change later)")
}

/// What to type to give a topic another setting.
pub fn how_to_alter(bootstrap_servers: &str, topic: &str, setting: &str) -> String {
    format!(
        "kafka-configs.sh --bootstrap-server {bootstrap_servers} --alter --entity-type topics --entity-name {topic} \
         --add-config {setting}"
    )
}

/// The command that makes a topic of so many partitions.
pub fn create_command(bootstrap_servers: &str, topic: &str, partitions: i32) -> String {
    format!(
        "kafka-topics.sh --bootstrap-server {bootstrap_servers} --create --topic {topic} --partitions {partitions} \
         --config cleanup.policy=delete"
    )
}

impl TopicError {
    /// Whether the broker said no; anything else may pass by itself.
    pub fn is_refusal(&self) -> bool {
        use RDKafkaErrorCode::{
            ClusterAuthorizationFailed, InvalidConfig, InvalidPartitions, InvalidReplicationFactor, InvalidTopic,
            PolicyViolation, TopicAuthorizationFailed,
        };
        let Self::Refused { code, .. } = self else { return false };
        matches!(
            code,
            ClusterAuthorizationFailed
                | TopicAuthorizationFailed
                | PolicyViolation
                | InvalidTopic
                | InvalidPartitions
                | InvalidReplicationFactor
                | InvalidConfig
        )
    }
}

/// What a broker tells of a topic's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(HashMap<String, String>);

impl Settings {
    /// The setting of this name, as the broker writes it.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The cleanup policy, if it is one that removes commands before they are settled.
    pub fn compaction(&self) -> Option<&str> {
        self.get("cleanup.policy").filter(|policy| policy.contains("compact"))
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Settings {
    fn from(settings: [(&str, &str); N]) -> Self {
        Self(settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
    }
}

/// Asks and changes what brokers hold of topics.
pub struct Topics {
    admin: AdminClient<DefaultClientContext>,
    bootstrap_servers: String,
    options: AdminOptions,
}

impl Topics {
    /// An admin client; it connects when it is first asked.
    ///
    /// # Errors
    /// If a setting is not one of librdkafka's.
    pub fn new(client: &Client, timeout: Duration) -> Result<Self, KafkaError> {
        let options = AdminOptions::new().request_timeout(Some(timeout)).operation_timeout(Some(timeout));
        Ok(Self { admin: client.admin().create()?, bootstrap_servers: client.bootstrap_servers.clone(), options })
    }

    /// Makes a topic for outcomes, events or dead letters. One that exists is as good.
    ///
    /// # Errors
    /// [`TopicError::Refused`], with the command to type.
    pub async fn create(&self, topic: &str, partitions: i32) -> Result<(), TopicError> {
        // -1: the broker's default replication
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1)).set("cleanup.policy", "delete");
        for result in self.admin.create_topics([&new], &self.options).await? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => {
                    let (topic, bootstrap_servers) = (topic.to_owned(), self.bootstrap_servers.clone());
                    return Err(TopicError::Refused { topic, code, bootstrap_servers, partitions });
                }
            }
        }
        Ok(())
    }

    /// What to type to give a topic another setting.
    pub fn how_to_alter(&self, topic: &str, setting: &str) -> String {
        how_to_alter(&self.bootstrap_servers, topic, setting)
    }

    /// Adds partitions to a topic until it has so many in all.
    ///
    /// # Errors
    /// [`TopicError::NotGrown`], with the command to type.
    pub async fn grow(&self, topic: &str, partitions: i32) -> Result<(), TopicError> {
        let wanted = NewPartitions::new(topic, usize::try_from(partitions).unwrap_or(0));
        for result in self.admin.create_partitions([&wanted], &self.options).await? {
            if let Err((_, code)) = result {
                let (topic, bootstrap_servers) = (topic.to_owned(), self.bootstrap_servers.clone());
                return Err(TopicError::NotGrown { topic, code, bootstrap_servers, partitions });
            }
        }
        Ok(())
    }

    /// A topic's settings.
    ///
    /// # Errors
    /// [`InspectError::Denied`] if the broker does not tell them: this user may not ask
    /// (`DescribeConfigs`), or there is no such topic. If nobody answers.
    pub async fn settings(&self, topic: &str) -> Result<Settings, InspectError> {
        let described = self.admin.describe_configs([&ResourceSpecifier::Topic(topic)], &self.options).await?;
        let resource = described.into_iter().next().and_then(Result::ok);
        let entries = resource.into_iter().flat_map(|resource| resource.entries);
        let settings: HashMap<_, _> = entries.filter_map(|entry| Some((entry.name, entry.value?))).collect();
        if settings.is_empty() {
            // rust-rdkafka 0.39 does not look at the resource's own error; a topic that
            // is told of has settings
            return Err(InspectError::Denied(KafkaError::AdminOp(RDKafkaErrorCode::TopicAuthorizationFailed)));
        }
        Ok(Settings(settings))
    }

    /// What a topic takes, in bytes: `max.message.bytes`. `None` if the broker does not tell (see [`Self::settings`]).
    ///
    /// # Errors
    /// If nobody answers.
    pub async fn message_bytes_max(&self, topic: &str) -> Result<Option<usize>, InspectError> {
        match self.settings(topic).await {
            Ok(settings) => Ok(settings.get("max.message.bytes").and_then(|told| told.parse().ok())),
            Err(InspectError::Denied(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

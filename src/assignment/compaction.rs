//! Whether a command topic is compacted. Compaction keeps the newest record of a
//! key and removes the older ones, settled or not, and the log looks whole.

use crate::runtime::{Runtime, Topic};

/// A cleanup policy that loses commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// `compact`, or `compact,delete`.
    pub policy: String,
    /// What to type against it.
    pub cure: String,
}

/// The topic's compaction, if it has one. Where the broker does not tell, that is
/// said once, and the partition goes on: a missing right is no lost command.
pub(super) async fn of(worker: &Runtime, topic: &Topic) -> Option<Compaction> {
    let asked = worker.settings.as_ref()?;
    match asked.settings(&topic.name).await {
        Ok(settings) => settings.compaction().map(|policy| Compaction {
            policy: policy.to_owned(),
            cure: asked.how_to_alter(&topic.name, "cleanup.policy=delete"),
        }),
        Err(error) => {
            topic.unknown_policy.call_once(|| {
                tracing::warn!(
                    topic = &*topic.name, %error,
                    "nobody tells whether the topic is compacted, which would lose commands in silence: give this \
                     user DescribeConfigs on it (docs/security.md)"
                );
            });
            None
        }
    }
}

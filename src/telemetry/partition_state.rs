//! What a partition is doing, in the words that status, metrics and docs share.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The state of one partition at its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartitionState {
    /// Assigned by Kafka, not yet claimed in Postgres; or owned by nobody.
    Claiming,
    /// Settling commands.
    Running,
    /// Not fetching, because it alone is stuck while its neighbours have room.
    Paused,
    /// Waiting before the next attempt after a dependency failed.
    BackingOff,
    /// Refuses to go on until an operator decides.
    Halted,
    /// Finishing what is in flight before it is given up.
    Draining,
}

impl PartitionState {
    /// Every state, in the order of a partition's life.
    pub const ALL: [Self; 6] =
        [Self::Claiming, Self::Running, Self::Paused, Self::BackingOff, Self::Halted, Self::Draining];

    /// As status and metrics write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Claiming => "claiming",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::BackingOff => "backing-off",
            Self::Halted => "halted",
            Self::Draining => "draining",
        }
    }
}

impl fmt::Display for PartitionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `pad` and not `write_str`: columns of a table have a width.
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_has_one_name_everywhere() {
        for state in PartitionState::ALL {
            let json = serde_json::to_value(state).expect("a word");
            assert_eq!(json, state.as_str());
            assert_eq!(state.to_string(), state.as_str());
        }
    }
}

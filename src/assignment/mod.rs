//! Who owns what: from the group's assignment to a claimed, running writer.
//!
//! What is authoritative: Kafka says which member *should* write a partition,
//! the row in Postgres says which one *can*. They disagree for moments at every
//! rebalance; the row wins, so that is harmless.
//!
//! ```text
//!              assigned                    claimed
//! (nothing) ────────────> claiming ──────────────────> running
//!                          ^  ^  │                      │ │ │
//!                          │  │  │ cannot be proven     │ │ │ fenced
//!             row changed  │  │  └────────> halted <────┘ │ └──> confirming
//!                          │  └───────────────┘           │          │
//!                          └──────────────────────────────┘          │
//!                          ^   the broker confirms the membership    │
//!                          └─────────────────────────────────────────┘
//! ```
//!
//! From every state: revoked, or the process drains, and the writer has ended.
//!
//! A late claim by a stale member fences the rightful owner; so who is fenced
//! asks the broker, and claims again only if it is still a member of the current
//! generation. Two that both believe cannot take turns for ever, and no order of
//! events leaves a partition without a writer.

mod claim;
mod compaction;
mod group;
mod lifecycle;
mod partition;
mod testimony;
mod verify;
mod watch;

pub use claim::Claim;
pub use compaction::Compaction;
pub use group::run;
pub use lifecycle::{Event, State, next};
pub use partition::Partition;
pub use verify::{LogFacts, Testimony, forgotten, layout_changed, suspects, verify};

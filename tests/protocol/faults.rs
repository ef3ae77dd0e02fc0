//! The protocol, and the ways to weaken it: each takes out one rule, and the checker must miss it.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Neither token nor claim id is compared when a batch commits.
    NoFence,
    /// The token alone is compared: after a failover two owners can hold the same number.
    NoClaimId,
    /// Neither cursor nor last decision is compared when a batch commits.
    NoCursor,
    /// The last decision is not compared: a cursor that went back and rose again looks like no change.
    NoHistory,
    /// Zero rows and a batch more than I know of are taken for my own commit.
    NoDecisionId,
    /// Command ids are not unique in the idempotency table.
    NoIdempotency,
    /// The entity cache survives a claim.
    CacheKeptOverClaim,
    /// What is not cached is read without a look at the fence.
    ReadUnfenced,
    /// Only a batch that writes the entity checks its version.
    RejectionsUnchecked,
    /// The offset goes to Kafka when the batch is sent.
    AcknowledgeBeforeCommit,
    /// Outcomes go to Kafka when the batch is sent.
    PublishBeforeCommit,
    /// A claimant does not publish what its predecessor owed.
    DebtsForgotten,
    /// The published watermark may pass the batches that the database holds.
    WatermarkUnchecked,
    /// A token or a cursor lower than known is believed.
    PastBelieved,
    /// A claimant looks at the cursor, not at the offset that the group has committed.
    NoWitness,
    /// Who is fenced stops for good, without asking the broker.
    FencedGivesUp,
    /// Who is fenced claims again, without asking the broker.
    FencedClaimsAgain,
}

/// The rules in force: all of them, or all but one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Protocol {
    pub fault: Option<Fault>,
}

impl Protocol {
    pub fn has(self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }
}

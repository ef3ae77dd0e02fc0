//! Step 3, fence: the writer holds the token that it claimed.
//!
//! What is authoritative: the partition's row in Postgres. A writer believes
//! what its claim returned until an answer of the database says otherwise; it
//! asks nobody before it writes, as the write itself compares. So there is no
//! trust window: a paused owner may decide for hours on what it remembers, and
//! its call then changes nothing.
//!
//! ```text
//! claim ──> Claimed ──(settle: token and claim id agree)──> Durable
//!              │
//!              └──(they differ)──> fenced: the writer ends, and asks the broker
//! ```

use crate::cursor::Cursor;
use crate::fencing_token::{ClaimId, FencingToken};
use crate::halt::{Halt, HaltCode};
use crate::record::TopicPartition;

/// Proof that this writer has claimed the partition. Needed to build a commit.
///
/// Only a claim makes one:
///
/// ```compile_fail
/// # use solewriter::{TopicPartition, fencing_token::*, steps::fence::Claimed};
/// # let (source, token, claim_id) = (TopicPartition::new("t", 0), FencingToken(1), ClaimId::random());
/// let claimed = Claimed { source, token, claim_id };
/// ```
#[derive(Clone, Debug)]
pub struct Claimed {
    source: TopicPartition,
    token: FencingToken,
    claim_id: ClaimId,
}

impl Claimed {
    /// What the database answered to a claim with `claim_id`.
    pub(crate) fn by_the_database(source: TopicPartition, token: FencingToken, claim_id: ClaimId) -> Self {
        Self { source, token, claim_id }
    }

    /// The claimed partition.
    pub fn source(&self) -> &TopicPartition {
        &self.source
    }

    /// The token that the claim returned.
    pub fn token(&self) -> FencingToken {
        self.token
    }

    /// The claim's id.
    pub fn claim_id(&self) -> ClaimId {
        self.claim_id
    }
}

/// What this process has seen of a partition: a witness against a database that
/// goes back in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Witness {
    /// The highest token seen.
    pub token: FencingToken,
    /// The newest cursor seen durable.
    pub cursor: Cursor,
}

/// Halts if the database knows less than a witness, or another history: it was
/// restored to an earlier time, or failed over to a replica that had lost
/// commits. Outcomes that it no longer knows may have been published.
///
/// `token` is the row's before this writer's own claim added to it;
/// `accepted_offset` is what an operator has accepted as lost. A history that has
/// come back to the same cursor another way has another decision there: found by
/// model checking (`tests/protocol`).
///
/// # Errors
/// `database-behind`, with what the witness saw.
pub fn check_not_behind(
    witness: Option<Witness>,
    token: FencingToken,
    cursor: Cursor,
    accepted_offset: i64,
) -> Result<(), Halt> {
    let Some(Witness { token: seen_token, cursor: seen }) = witness else { return Ok(()) };
    let fell = cursor.next_offset < seen.next_offset || cursor.batch_seq < seen.batch_seq;
    let differs = cursor.batch_seq == seen.batch_seq && cursor.decision_id != seen.decision_id;
    let accepted = seen.next_offset <= accepted_offset;
    if token >= seen_token && (accepted || !(fell || differs)) {
        return Ok(());
    }
    let detail = format!(
        "the database holds token {token}, cursor {}, batch {}; this worker has seen token {seen_token}, cursor {}, batch {}: \
         the database went back in time (restored, or failed over to a replica that had lost commits); outcomes that it \
         no longer knows may be published; solewriter replay run says whether they would end alike",
        cursor.next_offset, cursor.batch_seq, seen.next_offset, seen.batch_seq
    );
    let witnessed = Some((seen_token.0, seen.next_offset));
    Err(Halt { code: HaltCode::DatabaseBehind, detail, witnessed })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn check(token: i64, next_offset: i64, decision: u128, accepted: i64) -> bool {
        let cursor = |next_offset, decision| Cursor {
            next_offset,
            batch_seq: next_offset / 10,
            decision_id: Some(Uuid::from_u128(decision)),
        };
        let witness = Witness { token: FencingToken(5), cursor: cursor(100, 1) };
        check_not_behind(Some(witness), FencingToken(token), cursor(next_offset, decision), accepted).is_ok()
    }

    #[test]
    fn a_database_that_knows_less_than_the_worker_halts_it() {
        assert!(check(5, 100, 1, 0) && check(6, 150, 2, 0));
        assert!(!check(4, 100, 1, 0), "the token fell");
        assert!(!check(6, 90, 1, 0), "the cursor fell");
        assert!(!check(6, 100, 2, 0), "another history came to the same cursor");
        assert!(check(6, 90, 1, 100), "an operator has accepted the loss");
    }
}

//! The protocol of one partition, checked exhaustively: every order in which things can happen.
//!
//! **Modelled.** A log of up to three commands of one entity (`log`). A database that executes one transaction at a
//! time (`store`). Two members that may both believe they own the partition (`writer`). A broker that knows who does
//! (`kafka`), calls that arrive late, twice or never (`state`), a foreign program that changes the entity once, and
//! a failover, once, to any earlier state of the database (`model`). Which promises are checked: `properties`.
//!
//! ```text
//!   writer 0 --claim, settle--> calls in flight --executed in any order--> row, entity, ids, batches
//!   writer 1 --/     |                                                       |  any earlier state
//!                    +--publish, acknowledge--> Kafka <-- fenced: still mine?  +--<-- failover
//! ```
//!
//! **Bounded.** Only disturbances are counted, in their sum: a reassignment, a crash, a time-out (or lost answer), an
//! aborted call, the foreign change, a standby that stops following. What the protocol does in return is not bounded:
//! token, claim ids and decision ids only grow, so that the check ends at all shows that nobody retries for ever.
//!
//! **Not modelled.** Parked keys and redrives, the horizon, several partitions, handlers that decide in the database, a
//! truncated log. Deciding ahead (batch n+1 during the commit of n) is the same function of the same cache, and thrown
//! away with it. A batch is published as a whole. A run ends when the log is drained and published: what zombies
//! do after that is not explored. A failover that loses what a member has not seen is nobody's to notice:
//! P5 is checked wherever no committed batch was lost.
//!
//! `faults` takes the rules out one at a time: a checker that finds nothing proves little until it has found these.

mod faults;
mod kafka;
mod log;
mod model;
mod properties;
mod state;
mod store;
mod writer;

use std::time::Instant;

use faults::{Fault, Protocol};
use model::Partition;
use stateright::{Checker, HasDiscoveries, Model};

/// Two disturbances of any kind, three commands: the third is a repeat.
#[test]
fn every_promise_survives_any_two_disturbances() {
    holds(2, 3);
}

/// Three disturbances of any kind, two commands.
#[test]
fn every_promise_survives_any_three_disturbances_of_a_shorter_log() {
    holds(3, 2);
}

/// Minutes and gigabytes; for the night.
#[test]
#[ignore = "takes minutes"]
fn every_promise_survives_any_three_disturbances() {
    holds(3, 3);
}

fn holds(disturbances: u8, commands: usize) {
    let begun = Instant::now();
    let protocol = Protocol::default();
    let model = Partition { protocol, disturbances, calm: false, commands };
    let checker = model.checker().threads(2).spawn_dfs().join();
    println!(
        "{disturbances} disturbances, {commands} commands: {} states in {:.1?}",
        checker.unique_state_count(),
        begun.elapsed()
    );
    checker.assert_properties();
}

/// The weakened protocol breaks this promise, with so few disturbances and commands (four in a calm world only).
fn breaks(fault: Fault, promise: &'static str, disturbances: u8, commands: usize) {
    let begun = Instant::now();
    let protocol = Protocol { fault: Some(fault) };
    let model = Partition { protocol, disturbances, calm: disturbances > 3 && commands > 1, commands };
    let found = HasDiscoveries::AnyOf([promise].into());
    let checker = model.checker().finish_when(found).spawn_bfs().join();
    let path = checker.assert_any_discovery(promise).into_actions();
    println!(
        "{fault:?} breaks {promise} in {} steps, found among {} states in {:.1?}",
        path.len(),
        checker.unique_state_count(),
        begun.elapsed()
    );
}

/// One test per fault: what the rule is for, the fault, the promise that breaks, disturbances, commands.
macro_rules! faults {
    ($($name:ident: $fault:ident, $promise:ident, $disturbances:literal, $commands:literal;)*) => {$(
        #[test]
        fn $name() {
            breaks(Fault::$fault, properties::$promise, $disturbances, $commands);
        }
    )*};
}

faults! {
    without_a_fence_a_zombie_commits: NoFence, ONE_WRITER, 1, 2;
    without_a_claim_id_two_owners_share_a_token_after_a_failover: NoClaimId, ONE_WRITER, 2, 2;
    without_a_cursor_a_late_repeat_commits_twice: NoCursor, KEY_ORDER, 1, 3;
    without_the_last_decision_a_writer_commits_on_a_history_that_is_not_its_own: NoHistory, ONE_HISTORY, 3, 2;
    without_a_decision_id_an_earlier_attempt_is_published_as_the_later_one: NoDecisionId, PUBLISHED_AS_STORED, 2, 2;
    without_unique_ids_a_repeat_has_a_second_effect: NoIdempotency, ONE_EFFECT, 1, 3;
    a_cache_kept_over_a_claim_decides_on_a_lost_history: CacheKeptOverClaim, ONE_EFFECT, 4, 2;
    an_entity_read_without_the_fence_decides_on_a_lost_history: ReadUnfenced, ONE_EFFECT, 3, 2;
    a_rejection_whose_version_is_not_checked_is_decided_on_stale_state: RejectionsUnchecked, ONE_EFFECT, 1, 2;
    an_early_acknowledgement_passes_the_cursor: AcknowledgeBeforeCommit, NOTHING_LOST, 0, 2;
    an_early_publication_is_of_nothing_stored: PublishBeforeCommit, PUBLISHED_AS_STORED, 0, 2;
    a_claimant_that_forgets_the_debts_leaves_outcomes_unpublished: DebtsForgotten, DRAINED, 1, 2;
    an_unchecked_watermark_hides_outcomes_that_were_never_published: WatermarkUnchecked, DRAINED, 4, 1;
    a_past_that_is_believed_is_worked_on: PastBelieved, KNOWS_BETTER, 1, 2;
    without_the_witness_a_newcomer_works_on_the_past: NoWitness, KNOWS_BETTER, 2, 2;
    a_fenced_owner_that_gives_up_leaves_no_writer: FencedGivesUp, DRAINED, 1, 2;
    a_fenced_zombie_that_claims_again_takes_turns_for_ever: FencedClaimsAgain, BOUNDED_CLAIMS, 1, 2;
}

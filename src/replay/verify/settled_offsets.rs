//! What the batches say of the offsets that the cursor came past.

use serde::{Deserialize, Serialize};

use super::guide::Passed;

/// Which offsets of a partition were settled, as far as the kept batches tell; beside the stretches that they have
/// settled, which the shadow keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SettledOffsets {
    /// Below this one batches are no longer kept: all may have been settled.
    pub forgotten_below: i64,
    /// Offsets that an operator let the partition go on at, in order.
    pub skips_to: Vec<i64>,
}

impl SettledOffsets {
    /// How the cursor came past an offset. The stretches that were settled there and next, in order: first offset
    /// and the one behind the last.
    pub fn passed(&self, offset: i64, stretches: &[(i64, i64)]) -> Passed {
        let n = stretches.partition_point(|(first, _)| *first <= offset);
        if offset < self.forgotten_below || n.checked_sub(1).is_some_and(|n| offset < stretches[n].1) {
            return Passed::Settled;
        }
        // a skip goes over what was not settled before it, up to its own offset
        let next_settled = stretches.get(n).map_or(i64::MAX, |(first, _)| *first);
        let is_skipped = self.skips_to.iter().any(|to| offset < *to && *to <= next_settled);
        if is_skipped { Passed::Skipped } else { Passed::Unexplained }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_settled_if_a_batch_has_it_or_may_have_had_it() {
        let settled = SettledOffsets { forgotten_below: 10, skips_to: vec![25] };
        let stretches = [(12, 20), (25, 30)];
        let of = |wanted| (0..40).filter(|offset| settled.passed(*offset, &stretches) == wanted).collect::<Vec<i64>>();
        assert_eq!(of(Passed::Settled), (0..10).chain(12..20).chain(25..30).collect::<Vec<_>>());
        assert_eq!(of(Passed::Skipped), (20..25).collect::<Vec<_>>());
        assert_eq!(of(Passed::Unexplained), [10, 11].into_iter().chain(30..40).collect::<Vec<_>>());
    }
}

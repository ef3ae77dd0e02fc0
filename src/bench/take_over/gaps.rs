//! How long a partition had no writer: the longest time between two outcomes that follow each other.

use std::collections::BTreeMap;

use super::super::outcomes::Outcome;

/// The longest gap of one of these partitions, milliseconds between the timestamps of two outcomes of
/// it that follow each other. `None`: none of them has two.
pub(super) fn longest(outcomes: &[Outcome], partitions: &[i32]) -> Option<u64> {
    let mut times: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    for outcome in outcomes.iter().filter(|outcome| partitions.contains(&outcome.partition)) {
        times.entry(outcome.partition).or_default().push(outcome.record_ms);
    }
    let gaps = times.values_mut().flat_map(|times| {
        times.sort_unstable();
        times.windows(2).map(|pair| pair[1].abs_diff(pair[0]))
    });
    gaps.max()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn outcomes(times: &[(i32, i64)]) -> Vec<Outcome> {
        let outcome = |(offset, (partition, record_ms)): (i64, &(i32, i64))| Outcome {
            partition: *partition,
            offset,
            arrived: Instant::now(),
            record_ms: *record_ms,
        };
        (0..).zip(times).map(outcome).collect()
    }

    #[test]
    fn the_longest_gap_is_one_of_a_single_partition() {
        // another partition's outcomes do not fill it, and do not make it longer
        let outcomes = outcomes(&[(0, 1_000), (1, 1_500), (0, 1_020), (1, 1_700), (0, 2_520), (1, 1_900), (0, 2_540)]);
        assert_eq!(longest(&outcomes, &[0, 1]), Some(1_500));
    }

    #[test]
    fn partitions_that_did_not_change_hands_do_not_count() {
        let outcomes = outcomes(&[(0, 1_000), (1, 0), (0, 1_020), (1, 9_000)]);
        assert_eq!(longest(&outcomes, &[0]), Some(20));
    }

    #[test]
    fn one_outcome_is_no_gap() {
        assert_eq!(longest(&outcomes(&[(0, 1_000)]), &[0]), None);
    }
}

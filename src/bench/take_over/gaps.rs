//! How long a partition had no writer: the longest time between two outcomes that follow each other.

use std::collections::BTreeMap;

use super::super::outcomes::Outcome;

/// The longest gap of one of these partitions, milliseconds between the timestamps of two outcomes of
/// it that follow each other. `None`: one of them has no outcome before the worker went, or none after.
pub(super) fn longest(outcomes: &[Outcome], partitions: &[i32], went_ms: i64) -> Option<u64> {
    let mut times: BTreeMap<i32, Vec<i64>> = partitions.iter().map(|partition| (*partition, Vec::new())).collect();
    for outcome in outcomes {
        if let Some(times) = times.get_mut(&outcome.partition) {
            times.push(outcome.record_ms);
        }
    }
    times.values_mut().for_each(|times| times.sort_unstable());
    let spans = |times: &Vec<i64>| times.first() <= Some(&went_ms) && times.last() > Some(&went_ms);
    if !times.values().all(|times| !times.is_empty() && spans(times)) {
        return None;
    }
    times.values().flat_map(|times| times.windows(2).map(|pair| pair[1].abs_diff(pair[0]))).max()
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
        assert_eq!(longest(&outcomes, &[0, 1], 1_600), Some(1_500));
    }

    #[test]
    fn partitions_that_did_not_change_hands_do_not_count() {
        let outcomes = outcomes(&[(0, 1_000), (1, 0), (0, 1_020), (1, 9_000)]);
        assert_eq!(longest(&outcomes, &[0], 1_010), Some(20));
    }

    #[test]
    fn a_gap_spans_the_moment_at_which_the_worker_went() {
        assert_eq!(longest(&outcomes(&[(0, 1_000)]), &[0], 1_000), None);
        let outcomes = outcomes(&[(0, 1_000), (0, 2_000), (1, 1_900), (1, 2_000)]);
        assert_eq!(longest(&outcomes, &[0], 1_500), Some(1_000));
        assert_eq!(longest(&outcomes, &[0, 1], 1_500), None, "of the second nothing is known before");
        assert_eq!(longest(&outcomes, &[0, 2], 1_500), None);
    }
}

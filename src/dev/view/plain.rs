//! Plain lines, one a second: for files, pipes and terminals that cannot move the cursor.

use super::words::{grouped, latency};
use crate::dev::board::Board;

/// Above the lines.
pub(super) const HEADER: &str = " time  per s    settled  repeats  refused    lag      p50      p99  partitions";

/// One second.
pub(super) fn line(board: &Board) -> String {
    let [p50, p99] = [board.latency.map(|of| of.p50_us), board.latency.map(|of| of.p99_us)].map(latency);
    let owners: Vec<String> = board.owners().iter().map(|(name, count)| format!("{name}:{count}")).collect();
    format!(
        "{:4}s {:>6} {:>10} {:>8} {:>8} {:>6} {p50:>8} {p99:>8}  {}",
        board.at.as_secs(),
        grouped(board.settled_per_second),
        grouped(board.settled),
        grouped(board.repeats_answered),
        grouped(board.refused),
        grouped(board.lag),
        owners.join(" "),
    )
}

//! The live view: one picture that is drawn over itself.
//!
//! The opening lines stay above it, and what happens is told in its last lines instead of being
//! printed above: on a terminal of 24 rows that would push the addresses and the commands to try out
//! of sight within seconds.

use std::collections::VecDeque;
use std::io;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::invariant;
use super::words::{counted, grouped, latency};
use crate::dev::board::{Board, Partition};

/// The cheap numbers change so often in a second.
pub(super) const FRAMES_PER_SECOND: u8 = 4;
/// More would not fit beside the rest; `status` shows all.
const PARTITION_LINES_MAX: usize = 8;
/// Rows of the opening lines, the numbers, eight partitions in two columns and the invariant.
const OTHER_ROWS: usize = 22;
/// The gap between two columns of partitions.
const BETWEEN: &str = "  ";
const NOTES_MIN: usize = 2;
const NOTES_MAX: usize = 10;

/// The picture on the terminal.
pub(super) struct Live {
    bar: ProgressBar,
    notes: VecDeque<String>,
    notes_max: usize,
    differs: bool,
}

impl Live {
    /// If stdout is a terminal on which the cursor can be moved.
    pub(super) fn on_stdout() -> Option<Self> {
        let target = ProgressDrawTarget::stdout_with_hz(2 * FRAMES_PER_SECOND);
        if target.is_hidden() {
            return None;
        }
        let bar = ProgressBar::with_draw_target(None, target).with_style(style("green"));
        let rows = rustix::termios::tcgetwinsize(io::stdout()).map_or(24, |size| usize::from(size.ws_row));
        let notes_max = rows.saturating_sub(OTHER_ROWS).clamp(NOTES_MIN, NOTES_MAX);
        Some(Self { bar, notes: VecDeque::new(), notes_max, differs: false })
    }

    pub(super) fn note(&mut self, note: String) {
        self.notes.push_back(note);
        if self.notes.len() > self.notes_max {
            self.notes.pop_front();
        }
    }

    pub(super) fn show(&mut self, board: &Board) {
        let differs = board.sums.iter().any(|sum| sum.held != sum.added);
        if differs && !self.differs {
            self.bar.set_style(style("red"));
            self.differs = true;
        }
        let sums: Vec<String> = board.sums.iter().map(|sum| format!(" {}", invariant::line(sum))).collect();
        self.bar.set_prefix(sums.join("\n"));
        let mut lines = picture(board);
        lines.push(String::new());
        lines.extend(self.notes.iter().map(|note| format!(" {note}")));
        // always as high as it will be: nothing jumps
        lines.extend(std::iter::repeat_n(String::new(), self.notes_max - self.notes.len()));
        self.bar.set_message(lines.join("\n"));
    }

    /// Leaves the last picture where it is.
    pub(super) fn end(&self) {
        if !self.bar.is_finished() {
            self.bar.abandon();
        }
    }
}

/// The invariant in a colour, unless NO_COLOR is set, below everything else.
fn style(colour: &str) -> ProgressStyle {
    let template = format!("{{msg}}\n{{prefix:.{colour}.bold}}");
    ProgressStyle::with_template(&template).expect("this template is well-formed")
}

/// Numbers and partitions, in 80 columns.
fn picture(board: &Board) -> Vec<String> {
    let [p50, p99] = [board.latency.map(|of| of.p50_us), board.latency.map(|of| of.p99_us)].map(latency);
    let seconds = board.at.as_secs();
    let mut lines = vec![
        format!(
            " {:>3}:{:02}  {:>9} commands/s   p50 {p50:>7}   p99 {p99:>7}   lag {:>6}",
            seconds / 60,
            seconds % 60,
            grouped(board.settled_per_second),
            grouped(board.lag),
        ),
        format!(
            " {} settled, {} answered, {} refused by the fence",
            grouped(board.settled),
            counted(board.repeats_answered, "duplicate"),
            counted(board.refused, "write"),
        ),
        String::new(),
    ];
    lines.extend(partitions(&board.partitions));
    lines
}

/// Of one topic in two columns, numbers only; of several with their names.
fn partitions(all: &[Partition]) -> Vec<String> {
    let one_topic = all.windows(2).all(|pair| pair[0].topic == pair[1].topic);
    let columns = if one_topic { 2 } else { 1 };
    let shown = &all[..all.len().min(columns * PARTITION_LINES_MAX)];
    let heading = if one_topic { cell("partition", "owner", "token", "lag") } else { wide_heading() };
    let mut lines = vec![vec![heading; columns].join(BETWEEN)];
    let rows = shown.len().div_ceil(columns);
    for row in 0..rows {
        let across = (0..columns).filter_map(|column| shown.get(column * rows + row));
        lines.push(across.map(|partition| entry(partition, one_topic)).collect::<Vec<_>>().join(BETWEEN));
    }
    if shown.len() < all.len() {
        lines.push(format!(" and {} more", all.len() - shown.len()));
    }
    lines
}

fn wide_heading() -> String {
    format!("{:>30}", "topic") + &cell("partition", "owner", "token", "lag")
}

fn entry(partition: &Partition, one_topic: bool) -> String {
    let Partition { topic, partition, owner, owner_id, token, lag } = partition;
    let rest = cell(&partition.to_string(), &format!("{owner} {owner_id}"), &grouped(*token), &grouped(*lag));
    if one_topic { rest } else { format!("{topic:>30.30}{rest}") }
}

/// 38 columns.
fn cell(partition: &str, owner: &str, token: &str, lag: &str) -> String {
    format!(" {partition:>9} {owner:<15.15} {token:>5} {lag:>5}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::dev::latency::Percentiles;

    fn board(topics: &[&str], partitions: i32) -> Board {
        let partition = |topic: &str, partition| Partition {
            topic: topic.to_owned(),
            partition,
            owner: "zombie".to_owned(),
            owner_id: "0a1b2c3d".to_owned(),
            token: 1_234,
            lag: 99_999,
        };
        let all = |topic: &&str| (0..partitions).map(|number| partition(topic, number)).collect::<Vec<_>>();
        Board {
            at: Duration::from_secs(3_601),
            settled: 9_999_999,
            settled_per_second: 99_999,
            latency: Some(Percentiles { p50_us: 99_949, p99_us: 99_949 }),
            lag: 99_999,
            repeats_answered: 499_999,
            refused: 12,
            partitions: topics.iter().flat_map(all).collect(),
            ..Board::default()
        }
    }

    #[test]
    fn the_picture_fits_80_columns_and_few_lines() {
        let topics = ["a.topic.with.a.name.that.is.longer.than.it.should.be", "b"];
        for topics in [&topics[..1], &topics] {
            let lines = picture(&board(topics, 64));
            assert!(lines.len() <= 13, "{lines:#?}");
            assert!(lines.iter().all(|line| line.chars().count() <= 80), "{lines:#?}");
        }
        assert_eq!(picture(&board(&["a"], 8)).len(), 8, "two columns");
    }

    #[test]
    fn partitions_stand_in_order_down_the_columns() {
        let lines = picture(&board(&["a"], 3));
        assert!(lines[4].starts_with("         0 zombie 0a1b2c3d") && lines[4].contains("  2 zombie"), "{lines:#?}");
        assert!(lines[5].trim_start().starts_with('1'), "{lines:#?}");
    }
}

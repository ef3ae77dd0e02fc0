//! The input: a command per line, or what is wrong with the line.

use std::io;
use std::io::{BufRead, Read as _};

use tokio::sync::mpsc;

use crate::client::line::{Given, parse};

/// A longer line is refused, and not kept: 64 MiB, more than any broker takes.
const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Lines that are read and not sent yet.
const READ_AHEAD_MAX: usize = 1_000;

/// A line that is not blank.
#[derive(Debug)]
pub(super) struct Line {
    /// From 1.
    pub(super) number: u64,
    /// What it says, or why it says nothing.
    pub(super) given: Result<Given, String>,
}

/// Reads standard input on a thread of its own: a read cannot be interrupted, and the process may
/// end before its input does.
pub(super) fn of_stdin() -> mpsc::Receiver<Line> {
    let (sender, lines) = mpsc::channel(READ_AHEAD_MAX);
    tokio::task::spawn_blocking(move || each(io::stdin().lock(), |line| sender.blocking_send(line).is_ok()));
    lines
}

/// Hands over each line that is not blank, until `take` is false or the input ends.
fn each(mut input: impl BufRead, mut take: impl FnMut(Line) -> bool) {
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        let given = match next(&mut input, &mut bytes) {
            Ok(0) => return,
            Ok(_) if bytes.trim_ascii().is_empty() => continue,
            Ok(length) if length > LINE_BYTES_MAX => Err(format!("longer than {LINE_BYTES_MAX} bytes")),
            Ok(_) => parse(&bytes),
            Err(error) => {
                take(Line { number, given: Err(format!("the input cannot be read: {error}")) });
                return;
            }
        };
        if !take(Line { number, given }) {
            return;
        }
    }
}

/// Reads a line, as far as it fits; its length, 0 at the end.
fn next(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<usize> {
    let length = input.by_ref().take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', line)?;
    if length > LINE_BYTES_MAX && !line.ends_with(b"\n") {
        input.skip_until(b'\n')?;
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &str) -> Vec<Line> {
        let mut lines = Vec::new();
        each(input.as_bytes(), |line| {
            lines.push(line);
            true
        });
        lines
    }

    #[test]
    fn lines_are_counted_with_the_blank_ones_and_the_last_needs_no_end() {
        let good = r#"{"key":"a","type":"t","data":{}}"#;
        let lines = read(&format!("{good}\n\n  \r\nnonsense\n{good}"));
        let summary: Vec<_> = lines.iter().map(|line| (line.number, line.given.is_ok())).collect();
        assert_eq!(summary, [(1, true), (4, false), (5, true)]);
    }

    #[test]
    fn a_line_without_an_end_does_not_fill_the_memory() {
        let good = br#"{"key":"a","type":"t","data":{}}"#;
        let mut input = vec![b' '; LINE_BYTES_MAX + 10];
        input.insert(0, b'[');
        input.push(b'\n');
        input.extend_from_slice(good);
        let mut lines = Vec::new();
        each(&*input, |line| {
            lines.push(line);
            true
        });
        assert!(lines[0].given.is_err() && lines[1].given.is_ok() && lines[1].number == 2, "{lines:?}");
    }
}

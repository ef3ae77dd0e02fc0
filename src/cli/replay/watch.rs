//! Long work as its caller sees it: a bar on a terminal, a line now and then elsewhere, both on stderr; Ctrl-C
//! stops it cleanly.

use std::io;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio_util::task::AbortOnDropHandle;

use crate::cli::signals;
use crate::replay::progress::Progress;

/// How often the bar moves.
const BAR_EVERY: Duration = Duration::from_millis(200);
/// How often a line is written where no bar can be drawn.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows work until it is dropped.
pub(in crate::cli) struct Watch {
    bar: Option<ProgressBar>,
    _shown: AbortOnDropHandle<()>,
}

impl Watch {
    /// Shows `progress`, counted in `unit` (such as `offsets`), and stops it at the first signal. A second
    /// one ends the process.
    pub(in crate::cli) fn begin(progress: &Progress, unit: &'static str) -> anyhow::Result<Self> {
        signals::stop_work(progress)?;
        let bar = io::stderr().is_terminal().then(|| bar(unit));
        let (shown, progress) = (bar.clone(), progress.clone());
        let shown = tokio::spawn(async move {
            match shown {
                Some(bar) => draw(&bar, &progress).await,
                None => tell(&progress, unit).await,
            }
        });
        Ok(Self { bar, _shown: AbortOnDropHandle::new(shown) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(unit: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    let template = format!("{{bar:40}} {{pos}}/{{len}} {unit}, {{per_sec}}, {{eta}} left");
    bar.with_style(ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

async fn draw(bar: &ProgressBar, progress: &Progress) {
    loop {
        bar.set_length(progress.total());
        bar.set_position(progress.done());
        tokio::time::sleep(BAR_EVERY).await;
    }
}

async fn tell(progress: &Progress, unit: &str) {
    let begun = Instant::now();
    loop {
        tokio::time::sleep(LINE_EVERY).await;
        // stderr may be closed: the work does not depend on it
        let _ = writeln!(io::stderr(), "{}", line(progress.done(), progress.total(), begun.elapsed(), unit));
    }
}

fn line(done: u64, total: u64, elapsed: Duration, unit: &str) -> String {
    let per_second = done as f64 / elapsed.as_secs_f64().max(f64::EPSILON);
    let left = total.saturating_sub(done) as f64 / per_second;
    // nothing is done yet, or so little that it would take for ever
    let left = Duration::try_from_secs_f64(left.ceil()).map(|left| humantime::format_duration(left).to_string());
    let left = left.unwrap_or_else(|_| "?".to_owned());
    format!("{done} of {total} {unit}, {per_second:.0} a second, {left} left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_the_rate_and_the_time_left() {
        assert_eq!(line(50, 200, Duration::from_secs(5), "offsets"), "50 of 200 offsets, 10 a second, 15s left");
        assert_eq!(line(0, 200, Duration::from_secs(5), "offsets"), "0 of 200 offsets, 0 a second, ? left");
    }
}

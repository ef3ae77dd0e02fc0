//! Three passes over everything that has a home: count what moves, move it, prove each row.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::cli::exit::Problem;
use crate::postgres::{Homed, HomedRow, Layout, Store};

/// The least time between two lines of progress where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// So many differences are named.
const NAMED_MAX: usize = 10;

/// How many rows of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    pub(super) entities: u64,
    pub(super) letters: u64,
    pub(super) parked_keys: u64,
}

impl Counts {
    fn add(&mut self, kind: Homed, count: usize) {
        let counted = match kind {
            Homed::Entities => &mut self.entities,
            Homed::Letters => &mut self.letters,
            Homed::ParkedKeys => &mut self.parked_keys,
        };
        *counted += count as u64;
    }

    pub(super) fn sum(self) -> u64 {
        self.entities + self.letters + self.parked_keys
    }
}

/// What moves, from where to where.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// Rows that were looked at.
    pub(super) rows: Counts,
    pub(super) moving: Counts,
    pub(super) between: BTreeMap<(i32, i32), Counts>,
}

impl Moves {
    pub(super) async fn count(store: &Store, layout: &Layout<'_>) -> anyhow::Result<Self> {
        let mut moves = Self::default();
        for kind in Homed::ALL {
            let mut after = None;
            loop {
                let rows = store.homes(kind, layout, after.as_ref()).await?;
                moves.rows.add(kind, rows.len());
                for row in &rows {
                    let home = layout.home(&row.entity_id);
                    if home != row.home {
                        moves.moving.add(kind, 1);
                        moves.between.entry((row.home, home)).or_default().add(kind, 1);
                    }
                }
                let Some(last) = rows.into_iter().next_back() else { break };
                after = Some(last);
            }
        }
        Ok(moves)
    }
}

/// A choice that leaves everything where it is is refused while something would be on a partition that
/// its key has left.
pub(in crate::cli) async fn refuse_misplaced(store: &Store, layout: &Layout<'_>) -> anyhow::Result<()> {
    let moving @ Counts { entities, letters, parked_keys } = Moves::count(store, layout).await?.moving;
    if moving.sum() == 0 {
        return Ok(());
    }
    Err(Problem::usage(format!(
        "entities {entities}, dead letters {letters} and parked keys {parked_keys} of {0} live on partitions that their \
         keys have left; look what moves: solewriter repartition {0}",
        layout.topic
    ))
    .into())
}

/// Moves every row to its home, in bounded transactions. Returns how many rows there are; `None`:
/// somebody has resumed a partition meanwhile.
pub(super) async fn move_all(store: &Store, layout: &Layout<'_>, rows: u64) -> anyhow::Result<Option<Counts>> {
    let mut progress = Progress::of("moved", rows);
    let mut counts = Counts::default();
    for kind in Homed::ALL {
        let mut after = None;
        loop {
            let Some(rows) = store.move_home(kind, layout, after.as_ref()).await? else { return Ok(None) };
            counts.add(kind, rows.len());
            progress.add(rows.len());
            let Some(last) = rows.into_iter().next_back() else { break };
            after = Some(last);
        }
    }
    Ok(Some(counts))
}

/// Whether everything is where its key is.
pub(super) struct Proof {
    rows: Counts,
    moved: Counts,
    /// Some that are not.
    misplaced: Vec<HomedRow>,
    parked_otherwise: Vec<String>,
}

impl Proof {
    /// Reads every row again, after `moved` rows were looked at.
    pub(super) async fn of(store: &Store, layout: &Layout<'_>, moved: &Counts) -> anyhow::Result<Self> {
        let mut progress = Progress::of("proved", moved.sum());
        let (mut rows_seen, mut misplaced) = (Counts::default(), Vec::new());
        for kind in Homed::ALL {
            let mut after = None;
            loop {
                let rows = store.homes(kind, layout, after.as_ref()).await?;
                rows_seen.add(kind, rows.len());
                progress.add(rows.len());
                let wrong = rows.iter().filter(|row| layout.home(&row.entity_id) != row.home);
                misplaced.extend(wrong.take(NAMED_MAX - misplaced.len()).cloned());
                let Some(last) = rows.into_iter().next_back() else { break };
                after = Some(last);
            }
        }
        let parked_otherwise = store.parked_otherwise(layout.topic).await?;
        Ok(Self { rows: rows_seen, moved: *moved, misplaced, parked_otherwise })
    }

    pub(super) fn holds(&self) -> bool {
        self.misplaced.is_empty() && self.parked_otherwise.is_empty() && self.counts_agree()
    }

    /// Parked keys are proved by the letters that they stand for; one that moves to a later partition
    /// is met twice.
    fn counts_agree(&self) -> bool {
        (self.rows.entities, self.rows.letters) == (self.moved.entities, self.moved.letters)
    }

    pub(super) fn text(&self, layout: &Layout<'_>) -> String {
        let topic = layout.topic;
        let mut text = format!("{topic} is not as its new layout needs it, and stays halted:\n");
        for row in &self.misplaced {
            let home = layout.home(&row.entity_id);
            text += &format!("  {} lives on {topic}:{}, its key belongs on {topic}:{home}\n", row.entity_id, row.home);
        }
        for key in &self.parked_otherwise {
            text += &format!("  parked_keys and dead_letters disagree about {key}\n");
        }
        if !self.counts_agree() {
            let (before, now) = (self.moved, self.rows);
            text += &format!(
                "  there were {} entities and {} letters, and there are {} and {}\n",
                before.entities, before.letters, now.entities, now.letters
            );
        }
        text + "  somebody else writes to these tables: find out who, then type the same command again"
    }
}

/// A bar on a terminal, a line now and then elsewhere.
struct Progress {
    doing: &'static str,
    bar: ProgressBar,
    said: Instant,
}

impl Progress {
    fn of(doing: &'static str, rows: u64) -> Self {
        // hidden unless stderr is a terminal
        let bar = ProgressBar::with_draw_target(Some(rows), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{msg} {bar:40} {pos}/{len} rows, {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(doing);
        Self { doing, bar, said: Instant::now() }
    }

    fn add(&mut self, rows: usize) {
        self.bar.inc(rows as u64);
        if self.said.elapsed() >= LINE_EVERY && !std::io::stderr().is_terminal() {
            let (doing, done, of) = (self.doing, self.bar.position(), self.bar.length().unwrap_or(0));
            // stderr may be closed
            let _ = writeln!(std::io::stderr(), "{doing} {done} of {of} rows");
            self.said = Instant::now();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

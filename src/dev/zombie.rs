//! The zombie: a third worker that is halted while it owns partitions, as a machine that stalls
//! would be, and wakes up when others have taken them over. What it then writes comes too late, and
//! the fence refuses it.
//!
//! Only a process can be halted (SIGSTOP) and woken (SIGCONT), so this program starts itself once
//! more, with `run`. The process ends with this one, however this one ends.

use std::collections::HashMap;
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Error;
use super::process::Process;
use super::refused::Refused;
use crate::config::Config;
use crate::postgres::{PartitionStatus, Store};

/// Joining, the session's time-out, two rebalances and waking up take about this long: a zombie does
/// not begin so late that its end would not be seen.
pub(super) const NEEDS: Duration = Duration::from_secs(11);

/// A rebalance that gives it partitions takes some seconds, on a busy machine many.
const WORKS_WITHIN: Duration = Duration::from_secs(30);
const REPLACED_WITHIN: Duration = Duration::from_secs(60);
/// It writes as soon as it wakes, if it had a record in hand.
const REFUSED_WITHIN: Duration = Duration::from_secs(3);
const LEAVES_WITHIN: Duration = Duration::from_secs(10);
/// It is halted in the moment in which its first command is settled: the rebalance has left a
/// backlog, so it has more in hand, but not for long. So the rows are looked at often.
const POLL: Duration = Duration::from_millis(3);

/// What is needed to raise one.
pub(super) struct Zombie {
    pub(super) config: Config,
    /// The files of `commands` that come along.
    pub(super) files: &'static [(&'static str, &'static str)],
    /// With its password: for the process's environment.
    pub(super) database_url: String,
    pub(super) store: Store,
    pub(super) refused: Refused,
    pub(super) say: mpsc::UnboundedSender<String>,
}

impl Zombie {
    /// The whole story of one, or as much of it as there is time for until `cut_short`. Returns
    /// whether it was halted and woken again.
    pub(super) async fn play(&self, cut_short: &CancellationToken) -> Result<bool, Error> {
        let mut process = Process::start(&self.config, self.files, &self.database_url).await?;
        self.say(format!("a third worker joins: process {}", process.id()));
        let story = cut_short.run_until_cancelled(self.halt_and_wake(&mut process)).await;
        let left = leave(&mut process).await;
        let refusals = process.refusals();
        self.refused.add(refusals.len() as u64);
        let woken = story.transpose()?.unwrap_or(false);
        left?;
        match refusals.first() {
            Some(first) => self.say(format!("the fence refused its late write: {first}")),
            None if woken => self.say("the zombie had nothing left to write".to_owned()),
            None => {}
        }
        Ok(woken)
    }

    async fn halt_and_wake(&self, process: &mut Process) -> Result<bool, Error> {
        let id = process.id();
        let mut claimed = HashMap::new();
        let settles = |rows: &[PartitionStatus]| {
            owned(rows, id).any(|row| {
                let at = (row.topic.clone(), row.partition);
                row.next_offset > *claimed.entry(at).or_insert(row.next_offset)
            })
        };
        if !self.rows_show(WORKS_WITHIN, settles).await? {
            let why = if process.is_running()? { "it was given nothing to do" } else { "it has ended by itself" };
            self.say(why.to_owned());
            return Ok(false);
        }
        process.signal(Signal::STOP)?;
        self.say(format!("process {id} is halted (SIGSTOP) while it owns partitions"));
        if !self.rows_show(REPLACED_WITHIN, |rows| owned(rows, id).next().is_none()).await? {
            self.say("nobody has taken its partitions over, and it leaves".to_owned());
            return Ok(false);
        }
        process.signal(Signal::CONT)?;
        self.say(format!("others have its partitions; process {id} wakes up (SIGCONT), a zombie"));
        let deadline = Instant::now() + REFUSED_WITHIN;
        while process.refusals().is_empty() && Instant::now() < deadline {
            sleep(POLL).await;
        }
        Ok(true)
    }

    /// Waits for that; `false`: in vain.
    async fn rows_show(
        &self,
        within: Duration,
        mut condition: impl FnMut(&[PartitionStatus]) -> bool,
    ) -> Result<bool, Error> {
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            if condition(&self.store.status().await?) {
                return Ok(true);
            }
            sleep(POLL).await;
        }
        Ok(false)
    }

    fn say(&self, event: String) {
        // nobody listens only when the demonstration is over
        let _ = self.say.send(event);
    }
}

/// The partitions that a process claimed last.
fn owned(rows: &[PartitionStatus], process: u32) -> impl Iterator<Item = &PartitionStatus> {
    rows.iter().filter(move |row| process_of(&row.owner) == Some(process))
}

/// An owner is host:process:random.
pub(super) fn process_of(owner: &str) -> Option<u32> {
    owner.rsplit(':').nth(1)?.parse().ok()
}

/// Lets it leave the group, so that nobody waits for its session to end; it may be halted still. One
/// that does not leave is killed when it is dropped.
async fn leave(process: &mut Process) -> Result<(), Error> {
    process.signal(Signal::CONT)?;
    process.signal(Signal::TERM)?;
    let ended = async {
        while process.is_running()? {
            sleep(POLL).await;
        }
        Ok(())
    };
    timeout(LEAVES_WITHIN, ended).await.unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_of_an_owner_is_found_whatever_its_host_is_called() {
        assert_eq!(process_of("host:4711:0a1b2c3d"), Some(4711));
        assert_eq!(process_of("fe80::1:4711:0a1b2c3d"), Some(4711));
        assert_eq!(process_of("nobody"), None);
    }
}

//! Two workers in this process. Now and then one of them is stopped and started again, so that the
//! other takes its partitions over and gives some back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Error;
use crate::config::Config;
use crate::worker::{RunError, Worker};

/// The first take-over comes so soon that a short demonstration shows one.
const FIRST_TAKE_OVER_AFTER: Duration = Duration::from_secs(3);
/// A rebalance of the embedded broker takes some seconds, so not much more often than this.
const TAKE_OVER_EVERY: Duration = Duration::from_secs(10);

/// The workers, played by a task of their own.
pub(super) struct Crew {
    calm: CancellationToken,
    stop: CancellationToken,
    events: mpsc::UnboundedReceiver<String>,
    take_overs: Arc<AtomicU32>,
    playing: JoinHandle<Result<(), RunError>>,
}

impl Crew {
    pub(super) fn start(worker: &Worker, config: &Config) -> Self {
        let (calm, stop) = (CancellationToken::new(), CancellationToken::new());
        let (say, events) = mpsc::unbounded_channel();
        let take_overs = Arc::new(AtomicU32::new(0));
        let play = Play {
            worker: worker.clone(),
            config: config.clone(),
            calm: calm.clone(),
            stop: stop.clone(),
            say,
            take_overs: take_overs.clone(),
        };
        Self { calm, stop, events, take_overs, playing: tokio::spawn(play.run()) }
    }

    /// What happens next; an error if a worker has ended by itself.
    pub(super) async fn event(&mut self) -> Result<String, Error> {
        match self.events.recv().await {
            Some(event) => Ok(event),
            // the task has ended, and says why
            None => match (&mut self.playing).await {
                Ok(Ok(())) => Err(Error::NotSent("the workers have stopped".to_owned())),
                Ok(Err(error)) => Err(error.into()),
                Err(error) => Err(panicked(error)),
            },
        }
    }

    pub(super) fn no_more_take_overs(&self) {
        self.calm.cancel();
    }

    /// Stops both workers. Returns how many take-overs there were.
    pub(super) async fn stop(mut self) -> Result<u32, Error> {
        self.stop.cancel();
        (&mut self.playing).await.map_err(panicked)??;
        Ok(self.take_overs.load(Ordering::Relaxed))
    }
}

impl Drop for Crew {
    /// After an error of somebody else the workers must not outlive their services.
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn panicked(error: tokio::task::JoinError) -> Error {
    Error::io("run the workers")(std::io::Error::other(error))
}

struct Play {
    worker: Worker,
    config: Config,
    calm: CancellationToken,
    stop: CancellationToken,
    say: mpsc::UnboundedSender<String>,
    take_overs: Arc<AtomicU32>,
}

/// One running worker.
struct Member {
    stop: CancellationToken,
    task: JoinHandle<Result<(), RunError>>,
}

impl Play {
    async fn run(self) -> Result<(), RunError> {
        let mut members = [self.hire(), self.hire()];
        let mut next = tokio::time::Instant::now() + FIRST_TAKE_OVER_AFTER;
        let mut turn = 0;
        loop {
            let [one, two] = &mut members;
            tokio::select! {
                () = self.stop.cancelled() => break,
                ended = &mut one.task => return outcome(ended),
                ended = &mut two.task => return outcome(ended),
                () = tokio::time::sleep_until(next), if !self.calm.is_cancelled() => {}
            }
            if self.calm.is_cancelled() {
                continue;
            }
            self.take_over(&mut members[turn % 2], turn % 2 + 1).await?;
            turn += 1;
            next = tokio::time::Instant::now() + TAKE_OVER_EVERY;
        }
        for member in &members {
            member.stop.cancel();
        }
        for member in members {
            outcome(member.task.await)?;
        }
        Ok(())
    }

    fn hire(&self) -> Member {
        let stop = CancellationToken::new();
        let running = self.worker.clone().run(self.config.clone(), stop.clone());
        Member { stop, task: tokio::spawn(running) }
    }

    async fn take_over(&self, member: &mut Member, number: usize) -> Result<(), RunError> {
        self.say(format!("worker {number} stops: the other takes its partitions over"));
        member.stop.cancel();
        outcome((&mut member.task).await)?;
        self.take_overs.fetch_add(1, Ordering::Relaxed);
        *member = self.hire();
        self.say(format!("worker {number} has left the group and starts again"));
        Ok(())
    }

    fn say(&self, event: String) {
        // nobody listens only when the demonstration is over
        let _ = self.say.send(event);
    }
}

/// A worker's panic is this process's.
fn outcome(ended: Result<Result<(), RunError>, tokio::task::JoinError>) -> Result<(), RunError> {
    match ended {
        Ok(ended) => ended,
        Err(error) => Err(RunError::Fatal(error.to_string())),
    }
}

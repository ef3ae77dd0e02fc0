//! Two workers in this process, and what happens to them: now and then one of them is stopped and
//! started again, so that the other takes its partitions over and gives some back, and now and then
//! a third one, a process of its own, becomes a [`Zombie`]. One thing at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Error;
use super::project::Project;
use super::refused::Refused;
use super::services::Services;
use super::zombie::{self, Zombie};
use crate::config::Config;
use crate::postgres::Store;
use crate::worker::{RunError, Worker};

/// The first take-over comes so soon that a short demonstration shows one.
const FIRST_TAKE_OVER_AFTER: Duration = Duration::from_secs(3);
/// A rebalance of the embedded broker takes some seconds, so not much more often than this.
const TAKE_OVER_EVERY: Duration = Duration::from_secs(7);
/// Not so late that the end would have to wait for it.
const TAKE_OVER_NEEDS: Duration = Duration::from_millis(1_500);
const FIRST_ZOMBIE_AFTER: Duration = Duration::from_secs(8);
const ZOMBIE_EVERY: Duration = Duration::from_secs(30);
/// What happened is looked at for a moment before the next thing happens.
const CALM_BETWEEN: Duration = Duration::from_secs(3);

/// The workers, played by a task of their own.
pub(super) struct Crew {
    calm: CancellationToken,
    stop: CancellationToken,
    events: mpsc::UnboundedReceiver<String>,
    happened: Arc<Happened>,
    playing: JoinHandle<Result<(), Error>>,
}

/// What has happened so far.
#[derive(Debug, Default)]
pub(super) struct Happened {
    take_overs: AtomicU32,
    zombies: AtomicU32,
}

impl Happened {
    /// Workers that were stopped and whose partitions were taken over.
    pub(super) fn take_overs(&self) -> u32 {
        self.take_overs.load(Ordering::Relaxed)
    }

    /// Workers that were halted, and woken when others had taken over.
    pub(super) fn zombies(&self) -> u32 {
        self.zombies.load(Ordering::Relaxed)
    }
}

impl Crew {
    /// A demonstration of this `length` begins now.
    pub(super) fn start(
        project: &Project,
        services: &Services,
        store: &Store,
        refused: &Refused,
        length: Option<Duration>,
    ) -> Self {
        let config = &services.config;
        let (calm, stop) = (CancellationToken::new(), CancellationToken::new());
        let (say, events) = mpsc::unbounded_channel();
        let happened = Arc::<Happened>::default();
        let play = Play {
            worker: project.worker.clone(),
            config: config.clone(),
            zombie: Zombie {
                config: config.clone(),
                files: project.files,
                database_url: services.database_url.clone(),
                store: store.clone(),
                refused: refused.clone(),
                say: say.clone(),
            },
            end: length.map(|length| Instant::now() + length),
            calm: calm.clone(),
            stop: stop.clone(),
            say,
            happened: happened.clone(),
        };
        Self { calm, stop, events, happened, playing: tokio::spawn(play.run()) }
    }

    /// What happens next; an error if a worker has ended by itself.
    pub(super) async fn event(&mut self) -> Result<String, Error> {
        match self.events.recv().await {
            Some(event) => Ok(event),
            // the task has ended, and says why
            None => match (&mut self.playing).await {
                Ok(Ok(())) => Err(Error::NotSent("the workers have stopped".to_owned())),
                Ok(Err(error)) => Err(error),
                Err(error) => Err(panicked(error)),
            },
        }
    }

    pub(super) fn happened(&self) -> &Arc<Happened> {
        &self.happened
    }

    /// No more take-overs and zombies; one that is on its way is cut short.
    pub(super) fn calm_down(&self) {
        self.calm.cancel();
    }

    /// Stops both workers.
    pub(super) async fn stop(mut self) -> Result<(), Error> {
        self.calm.cancel();
        self.stop.cancel();
        (&mut self.playing).await.map_err(panicked)?
    }
}

impl Drop for Crew {
    /// After an error of somebody else the workers must not outlive their services.
    fn drop(&mut self) {
        self.calm.cancel();
        self.stop.cancel();
    }
}

fn panicked(error: tokio::task::JoinError) -> Error {
    Error::io("run the workers")(std::io::Error::other(error))
}

struct Play {
    worker: Worker,
    config: Config,
    zombie: Zombie,
    end: Option<Instant>,
    calm: CancellationToken,
    stop: CancellationToken,
    say: mpsc::UnboundedSender<String>,
    happened: Arc<Happened>,
}

/// One running worker.
struct Member {
    stop: CancellationToken,
    task: JoinHandle<Result<(), RunError>>,
}

impl Play {
    async fn run(self) -> Result<(), Error> {
        let mut members = [self.hire(), self.hire()];
        let began = Instant::now();
        let (mut take_over, mut zombie) = (began + FIRST_TAKE_OVER_AFTER, began + FIRST_ZOMBIE_AFTER);
        let (mut turn, mut quiet_until) = (0, began);
        loop {
            let [one, two] = &mut members;
            let next = take_over.min(zombie).max(quiet_until);
            tokio::select! {
                () = self.stop.cancelled() => break,
                ended = &mut one.task => return Ok(outcome(ended)?),
                ended = &mut two.task => return Ok(outcome(ended)?),
                () = tokio::time::sleep_until(next), if !self.calm.is_cancelled() => {}
            }
            if self.calm.is_cancelled() {
                continue;
            }
            if zombie <= take_over {
                if self.is_time_for(zombie::NEEDS) {
                    self.raise_a_zombie().await?;
                }
                zombie = Instant::now() + ZOMBIE_EVERY;
            } else {
                if self.is_time_for(TAKE_OVER_NEEDS) {
                    self.take_over(&mut members[turn % 2], turn % 2 + 1).await?;
                    turn += 1;
                }
                take_over = Instant::now() + TAKE_OVER_EVERY;
            }
            quiet_until = Instant::now() + CALM_BETWEEN;
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

    async fn take_over(&self, member: &mut Member, number: usize) -> Result<(), Error> {
        self.say(format!("worker {number} stops: the other takes its partitions over"));
        member.stop.cancel();
        outcome((&mut member.task).await)?;
        self.happened.take_overs.fetch_add(1, Ordering::Relaxed);
        *member = self.hire();
        self.say(format!("worker {number} has left the group and starts again"));
        Ok(())
    }

    async fn raise_a_zombie(&self) -> Result<(), Error> {
        if self.zombie.play(&self.calm).await? {
            self.happened.zombies.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn is_time_for(&self, needed: Duration) -> bool {
        self.end.is_none_or(|end| end.saturating_duration_since(Instant::now()) >= needed)
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

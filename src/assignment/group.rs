//! The group's member: gives each assigned partition a task, and takes it back.

use std::collections::HashMap;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::partition::Partition;
use super::watch;
use crate::kafka::Notice;
use crate::record::TopicPartition;
use crate::runtime::Runtime;
use crate::telemetry::metrics;
use crate::writer::Stop;

/// How long a partition whose task panicked waits before it is claimed again.
const PANICKED_WAIT: Duration = Duration::from_secs(1);
/// What leaving takes of `drain_timeout`, at the most.
const LEAVE_MAX: Duration = Duration::from_secs(3);

/// A partition with the task that owns it.
struct Owned {
    partition: Arc<Partition>,
    revoked: CancellationToken,
    task: AbortOnDropHandle<()>,
}

/// Obeys the group until `shutdown`; then drains, within the limit, and leaves.
///
/// # Errors
/// The message of a client error that is fatal.
pub async fn run(
    worker: Arc<Runtime>,
    mut notices: UnboundedReceiver<Notice>,
    shutdown: CancellationToken,
) -> Result<(), String> {
    let mut group = Group { worker: worker.clone(), owned: HashMap::new(), draining: CancellationToken::new() };
    let watch = watch::start(worker.clone());
    let mut failed = worker.failed.subscribe();
    let result = loop {
        tokio::select! {
            () = shutdown.cancelled() => break Ok(()),
            _ = failed.wait_for(Option::is_some) => break Ok(()),
            notice = notices.recv() => match notice {
                Some(Notice::Fatal(message)) => break Err(message),
                Some(notice) => group.serve(notice, &watch),
                None => break Err("the poll thread has ended".to_owned()),
            },
        }
    };
    worker.health.set_draining();
    // nobody waits for an answer any more: a revocation while leaving is served at once
    drop(notices);
    group.drain().await;
    // it must not ask a database that is being left
    drop(watch);
    leave(&worker).await;
    result
}

struct Group {
    worker: Arc<Runtime>,
    owned: HashMap<TopicPartition, Owned>,
    draining: CancellationToken,
}

impl Group {
    fn serve(&mut self, notice: Notice, watch: &watch::Watch) {
        match notice {
            Notice::Assigned(sources) => {
                metrics::rebalanced();
                self.worker.health.set_group_joined(true);
                for source in sources {
                    self.own(source);
                }
            }
            Notice::Revoked(sources, done) => {
                metrics::rebalanced();
                self.give_back(sources, done);
            }
            Notice::AssignmentLost => self.worker.health.set_group_joined(false),
            Notice::OffsetOutOfRange => {
                tracing::warn!("an offset is not in its log: every partition looks at its log again");
                self.owned.values().for_each(|owned| owned.partition.poke.notify_one());
            }
            // ends the loop of `run`
            Notice::Fatal(_) => {}
        }
        watch.set(self.owned.values().map(|owned| owned.partition.clone()).collect());
    }

    fn own(&mut self, source: TopicPartition) {
        let Some(topic) = self.worker.topic(&source.topic).cloned() else {
            tracing::error!(%source, "assigned a partition of a topic that is not configured");
            return;
        };
        let revoked = CancellationToken::new();
        let stop = Stop { revoked: revoked.clone(), draining: self.draining.clone() };
        let partition = Partition::new(self.worker.clone(), topic, source.clone());
        let task = AbortOnDropHandle::new(tokio::spawn(supervise(partition.clone(), stop)));
        if let Some(before) = self.owned.insert(source, Owned { partition, revoked, task }) {
            // given again without having been taken back: the newer claim fences the older
            before.revoked.cancel();
        }
    }

    /// Stops the writers; `done` is dropped when all have ended.
    fn give_back(&mut self, sources: Vec<TopicPartition>, done: mpsc::Sender<()>) {
        let ending: Vec<Owned> = sources.iter().filter_map(|source| self.owned.remove(source)).collect();
        ending.iter().for_each(|owned| owned.revoked.cancel());
        tokio::spawn(async move {
            ended(ending).await;
            drop(done);
        });
    }

    /// Lets every writer finish what it has in flight and publish it.
    async fn drain(&mut self) {
        self.draining.cancel();
        let owned: Vec<Owned> = self.owned.drain().map(|(_, owned)| owned).collect();
        let revoked: Vec<_> = owned.iter().map(|owned| owned.revoked.clone()).collect();
        let mut ended = std::pin::pin!(ended(owned));
        // leaving the group comes after this, within the same limit
        let limit = self.worker.limits.drain_timeout;
        let limit = limit.saturating_sub(LEAVE_MAX).max(limit / 2);
        if tokio::time::timeout(limit, &mut ended).await.is_err() {
            tracing::warn!("drain_timeout: the next owners settle and publish what is left");
            revoked.iter().for_each(CancellationToken::cancel);
            // what does not end now is waiting for the database: the fence covers it
            let _ = tokio::time::timeout(Duration::from_secs(1), ended).await;
        }
    }
}

/// Owns a partition also after a panic of ours: a partition that stays assigned
/// must not be without a writer. (Claims without progress bound it.)
async fn supervise(partition: Arc<Partition>, stop: Stop) {
    while !stop.revoked.is_cancelled() {
        match tokio::spawn(partition.clone().own(stop.clone())).await {
            Ok(()) => return,
            Err(error) => {
                tracing::error!(source = %partition.source, %error, "a bug: the task of a partition panicked; it claims again")
            }
        }
        tokio::time::sleep(PANICKED_WAIT).await;
    }
}

async fn ended(owned: Vec<Owned>) {
    for Owned { task, partition, .. } in owned {
        if let Err(error) = task.await {
            tracing::error!(source = %partition.source, %error, "the task of a partition panicked");
        }
    }
}

async fn leave(worker: &Arc<Runtime>) {
    let leaving = worker.clone();
    let stopped = tokio::task::spawn_blocking(move || leaving.consumer.stop());
    if tokio::time::timeout(LEAVE_MAX, stopped).await.is_err() {
        tracing::warn!("the client does not leave the group: the broker notices when the session expires");
    }
    // a connection that hangs is closed by the process's end
    let _ = tokio::time::timeout(Duration::from_secs(1), worker.store.close()).await;
}

//! The reader of outcomes: one thread, and a register of who waits for which command.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use uuid::Uuid;

use super::outcome::{Answer, OutcomeRecord, command_id, judge};
use super::{ASK_TIMEOUT, Command, Error, Published, Result};
use crate::kafka::{self, Tail, TailError};

/// How long the thread waits for a record before it looks whether to stop.
const POLL: Duration = Duration::from_millis(100);

/// Reads from when it was started until it is dropped, or the Kafka client fails for good.
pub(super) struct Listener {
    register: Arc<Register>,
    stopped: Arc<AtomicBool>,
}

impl Listener {
    /// Blocks until the topic's end is known.
    pub(super) fn start(settings: &kafka::Client, topic: &str) -> Result<Self> {
        let not_listening =
            |why: &str, source| Error::NotListening { topic: topic.to_owned(), why: why.into(), source };
        let tail = Tail::begin(settings, topic, ASK_TIMEOUT)
            .map_err(|source| not_listening("Kafka does not say where it ends", Some(Box::new(source))))?;
        let register = Arc::new(Register { topic: topic.to_owned(), waiting: Mutex::new(Some(HashMap::new())) });
        let stopped = Arc::new(AtomicBool::new(false));
        let (of_thread, stop) = (register.clone(), stopped.clone());
        let listen = move || {
            let ended = listen(tail, &of_thread, &stop);
            of_thread.end();
            if let Err(error) = ended {
                tracing::error!(%error, "the reader of outcomes has ended; the next who waits starts another");
            }
        };
        let spawned = std::thread::Builder::new().name("solewriter-outcomes".into()).spawn(listen);
        spawned.map_err(|error| not_listening(&format!("no thread to read them: {error}"), None))?;
        Ok(Self { register, stopped })
    }

    /// `None`: it has ended.
    pub(super) fn watch(&self, command: &Command) -> Option<Watch> {
        let (sender, records) = mpsc::unbounded_channel();
        self.register.open().as_mut()?.entry(command.id()).or_default().push(sender);
        let (command_type, key) = (command.command_type().to_owned(), command.key().to_owned());
        Some(Watch { command_id: command.id(), command_type, key, records, register: self.register.clone() })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
    }
}

fn listen(mut tail: Tail, register: &Register, stopped: &AtomicBool) -> std::result::Result<(), TailError> {
    while !stopped.load(Ordering::Acquire) {
        let Some(value) = tail.next(POLL)? else { continue };
        if let Some(id) = command_id(&value) {
            register.tell(id, value);
        }
    }
    Ok(())
}

type Waiting = HashMap<Uuid, Vec<mpsc::UnboundedSender<Arc<[u8]>>>>;

/// Who waits for which command; `None` when nobody reads any more.
struct Register {
    topic: String,
    waiting: Mutex<Option<Waiting>>,
}

impl Register {
    fn open(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, id: Uuid, value: Vec<u8>) {
        let waiting = self.open();
        let Some(senders) = waiting.as_ref().and_then(|waiting| waiting.get(&id)) else { return };
        let value: Arc<[u8]> = value.into();
        for sender in senders {
            // whoever stopped waiting is about to leave the register
            let _ = sender.send(value.clone());
        }
    }

    /// Tells all who wait that nothing will come.
    fn end(&self) {
        self.open().take();
    }

    fn leave(&self, id: Uuid) {
        if let Some(waiting) = &mut *self.open()
            && let Some(senders) = waiting.get_mut(&id)
        {
            senders.retain(|sender| !sender.is_closed());
            if senders.is_empty() {
                waiting.remove(&id);
            }
        }
    }
}

/// Looks out for the outcome of one command. Everything that is said of it is kept from
/// [`Client::watch`](super::Client::watch) on.
#[must_use = "it looks out only while it is held"]
pub struct Watch {
    command_id: Uuid,
    command_type: String,
    key: String,
    records: mpsc::UnboundedReceiver<Arc<[u8]>>,
    register: Arc<Register>,
}

impl Watch {
    /// Waits for the outcome of this delivery: the command's final one, or a dead one that speaks of
    /// this delivery. Has no time-out of its own; dropping the future loses nothing.
    ///
    /// # Errors
    /// [`Error::IdReuse`], or [`Error::NotListening`] if the reader ends meanwhile.
    pub async fn outcome(&mut self, published: &Published) -> Result<OutcomeRecord> {
        while let Some(value) = self.records.recv().await {
            match judge(&value, &self.command_type, &self.key, published) {
                Answer::Outcome(record) => return Ok(*record),
                Answer::Another => {}
                Answer::IdReuse { command_type, entity_id } => {
                    return Err(Error::IdReuse { command_id: self.command_id, command_type, entity_id });
                }
            }
        }
        let (topic, why) = (self.register.topic.clone(), "the reader has ended".to_owned());
        Err(Error::NotListening { topic, why, source: None })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.records.close();
        self.register.leave(self.command_id);
    }
}

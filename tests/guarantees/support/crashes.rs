//! A campaign of crashes under load, and the audit behind it.

use fastrand::Rng;

use super::bank::{Bank, Traffic};
use super::worker::Worker;

/// Two workers, of which one is killed again and again in the middle of its work and started anew.
pub struct Crashes {
    /// What is sent, who is killed, and how far into each instalment. Fixed, so that a failure can
    /// be repeated as far as a crash can be.
    pub seed: u64,
    pub kills: usize,
    pub commands: usize,
    /// Small batches: more moments to be hit at.
    pub batch_commands_max: usize,
}

impl Crashes {
    pub async fn happen(self, mut bank: Bank) {
        let small = format!("[worker]\nbatch_commands_max = {}", self.batch_commands_max);
        bank.options = bank.options.clone().property("session.timeout.ms", "2000").setting(&small);
        let mut random = Rng::with_seed(self.seed);
        let mut traffic = Traffic::new(self.seed, 400);
        let mut workers = [bank.worker(), bank.worker()];
        let instalment_commands = self.commands / self.kills;
        for _ in 0..self.kills {
            let instalment = traffic.commands(instalment_commands);
            let before = bank.settled_count().await;
            let sending = bank.send_in_background(instalment);
            bank.settled_beyond(before + random.i64(200..instalment_commands as i64 * 2 / 5)).await;
            let victim = &mut workers[random.usize(..2)];
            victim.kill9();
            *victim = Worker::start(&bank.options);
            sending.join().expect("send commands");
        }
        bank.audit().await;
        for worker in &mut workers {
            assert_eq!(worker.sigterm_and_wait().code(), Some(0), "{}", worker.output());
        }
    }
}

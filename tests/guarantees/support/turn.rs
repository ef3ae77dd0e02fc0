//! Heavy tests take turns, first come, first served: many of them on two cores would only measure each other.

use std::sync::{Condvar, Mutex, PoisonError};

/// So many at a time: each waits for timeouts, commits and other processes more than it computes (alone, they left
/// 80 % of two cores idle).
const AT_ONCE: usize = 2;

static QUEUE: Mutex<Queue> = Mutex::new(Queue { running: 0, last_number: 0, called: 0 });
static CALL: Condvar = Condvar::new();

struct Queue {
    /// Turns that are taken.
    running: usize,
    /// The number that was drawn last.
    last_number: u64,
    /// Whoever has drawn this number, or an earlier one, has had a turn.
    called: u64,
}

/// The right to run. Not a mutex guard, so it may be held over an `await`.
#[must_use = "the turn ends where this value is dropped: `let _turn = heavy();`"]
pub struct Turn(usize);

/// Waits until at most one other heavy test runs.
pub fn heavy() -> Turn {
    take(1)
}

/// Waits until no other heavy test runs: for a test that measures, or that counts what all of them share.
pub fn alone() -> Turn {
    take(AT_ONCE)
}

fn take(turns: usize) -> Turn {
    let mut queue = QUEUE.lock().unwrap_or_else(PoisonError::into_inner);
    queue.last_number += 1;
    let number = queue.last_number;
    while queue.called + 1 < number || queue.running + turns > AT_ONCE {
        queue = CALL.wait(queue).unwrap_or_else(PoisonError::into_inner);
    }
    queue.called = number;
    queue.running += turns;
    CALL.notify_all();
    Turn(turns)
}

impl Drop for Turn {
    fn drop(&mut self) {
        QUEUE.lock().unwrap_or_else(PoisonError::into_inner).running -= self.0;
        CALL.notify_all();
    }
}

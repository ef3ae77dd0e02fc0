//! Heavy tests take turns: two of them on two cores would only measure each other.

use std::sync::{Condvar, Mutex, PoisonError};

static TAKEN: Mutex<bool> = Mutex::new(false);
static GIVEN_BACK: Condvar = Condvar::new();

/// The right to be the only heavy test that runs. Not a mutex guard, so it may be held over an
/// `await`.
#[must_use = "the turn ends where this value is dropped: `let _turn = heavy();`"]
pub struct Turn(());

/// Waits until no other heavy test runs.
pub fn heavy() -> Turn {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    while *taken {
        taken = GIVEN_BACK.wait(taken).unwrap_or_else(PoisonError::into_inner);
    }
    *taken = true;
    Turn(())
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) = false;
        GIVEN_BACK.notify_one();
    }
}

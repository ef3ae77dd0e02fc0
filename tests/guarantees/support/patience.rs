//! Waiting for what has no signal to wait on: another process's state.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

/// Long enough for a busy two-core machine; a test that hits it has failed, not been unlucky.
pub const PATIENCE: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(20);

/// Asks again until `ask` has an answer. Panics after `timeout` with what was waited for.
pub fn wait_for<T>(what: impl Display, timeout: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {timeout:?} in vain for {what}");
        thread::sleep(POLL);
    }
}

/// The same for a question that is itself asynchronous, such as a query.
pub async fn wait_until(what: impl Display, timeout: Duration, mut ask: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + timeout;
    while !ask().await {
        assert!(Instant::now() < deadline, "waited {timeout:?} in vain for {what}");
        tokio::time::sleep(POLL).await;
    }
}

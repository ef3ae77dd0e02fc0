//! Work of librdkafka that knows no other way than to wait.

/// Does it off the async threads. A panic of it is the caller's.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // cancelled: the runtime is ending, and this future with it
        Err(Err(_)) => std::future::pending().await,
    }
}

//! Exit codes, and the one place that gives an error its code.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use crate::config;
use crate::declared::DeclaredError;
use crate::handlers::sql::diagnostic::Diagnostics;
use crate::postgres::{CheckpointError, ReachError};
use crate::replay::ReplayError;
use crate::replay::shadow::ShadowError;
use crate::worker::RunError;

/// How a verb ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// Done, also by a graceful stop that hit `drain_timeout`.
    Done = 0,
    /// Failed for the reason that the message names.
    Failed = 1,
    /// Wrong usage or configuration, or a schema that needs `migrate`.
    Usage = 2,
    /// A check found a difference.
    Difference = 3,
    /// A dependency could not be reached in time.
    Unreachable = 4,
    /// The Kafka client reported a fatal error.
    Fatal = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A failure whose code its cause does not tell.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Problem {
    exit: Exit,
    message: String,
}

impl Problem {
    pub(super) fn unreachable(message: impl Into<String>) -> Self {
        Self { exit: Exit::Unreachable, message: message.into() }
    }

    pub(super) fn difference(message: impl Into<String>) -> Self {
        Self { exit: Exit::Difference, message: message.into() }
    }

    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, message: message.into() }
    }

    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into() }
    }
}

impl Exit {
    /// The code of the outermost cause that has one. Causes are found along `source()`, so an error
    /// type that wraps one of these must not be `#[error(transparent)]`.
    pub(super) fn of(error: &anyhow::Error) -> Self {
        error.chain().find_map(of_cause).unwrap_or(Self::Failed)
    }
}

/// The error with its causes, each said once: some of them repeat the next one.
pub(super) fn message(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |message, cause| {
        let cause = cause.to_string();
        if message.contains(&cause) { message } else { format!("{message}: {cause}") }
    })
}

fn of_cause(cause: &(dyn Error + 'static)) -> Option<Exit> {
    if let Some(problem) = cause.downcast_ref::<Problem>() {
        return Some(problem.exit);
    }
    if let Some(error) = cause.downcast_ref::<ReachError>() {
        return Some(if error.is_passing() { Exit::Unreachable } else { Exit::Failed });
    }
    if cause.is::<config::Error>() || cause.is::<config::DatabaseUrlError>() {
        return Some(Exit::Usage);
    }
    if cause.is::<Diagnostics>()
        || matches!(cause.downcast_ref(), Some(DeclaredError::Mistakes(_) | DeclaredError::NotMigrated(_)))
    {
        return Some(Exit::Usage);
    }
    if let Some(
        ReplayError::Schema(_)
        | ReplayError::UnknownTopic(_)
        | ReplayError::NotBehind { .. }
        | ReplayError::NothingBehind(_),
    ) = cause.downcast_ref()
    {
        return Some(Exit::Usage);
    }
    if let Some(ShadowError::NoHandlers { .. }) = cause.downcast_ref() {
        return Some(Exit::Usage);
    }
    if let Some(CheckpointError::Missing(_)) = cause.downcast_ref() {
        return Some(Exit::Usage);
    }
    if let Some(exit) = cause.downcast_ref::<RunError>().and_then(of_run) {
        return Some(exit);
    }
    if let Some(error) = cause.downcast_ref::<sqlx::Error>() {
        return Some(of_database(error));
    }
    cause.downcast_ref::<KafkaError>().map(of_kafka)
}

/// Those that carry no cause of their own.
fn of_run(error: &RunError) -> Option<Exit> {
    match error {
        RunError::NoHandlers { .. }
        | RunError::Schema(_)
        | RunError::AnotherGroup(_)
        | RunError::Topic(_)
        | RunError::Declared(DeclaredError::Mistakes(_) | DeclaredError::NotMigrated(_)) => Some(Exit::Usage),
        RunError::Fatal(_) => Some(Exit::Fatal),
        _ => None,
    }
}

fn of_database(error: &sqlx::Error) -> Exit {
    // 57P03: starting up or shutting down; 53300: too many connections.
    const NOT_NOW: [&str; 2] = ["57P03", "53300"];
    match error {
        sqlx::Error::PoolTimedOut => Exit::Unreachable,
        // TLS reports a certificate that it does not trust as bad data.
        sqlx::Error::Io(error) if is_bad_data(error) => Exit::Failed,
        sqlx::Error::Io(_) => Exit::Unreachable,
        sqlx::Error::Database(error) => match error.code() {
            Some(code) if NOT_NOW.contains(&code.as_ref()) => Exit::Unreachable,
            _ => Exit::Failed,
        },
        _ => Exit::Failed,
    }
}

fn is_bad_data(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)
}

fn of_kafka(error: &KafkaError) -> Exit {
    use RDKafkaErrorCode as Code;
    if let KafkaError::ClientConfig(..) = error {
        return Exit::Usage;
    }
    match error.rdkafka_error_code() {
        Some(Code::Fatal) => Exit::Fatal,
        Some(
            Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::OperationTimedOut
            | Code::MessageTimedOut
            | Code::RequestTimedOut
            | Code::Resolve
            | Code::BrokerNotAvailable
            | Code::CoordinatorNotAvailable,
        ) => Exit::Unreachable,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit_of(error: impl Into<anyhow::Error>) -> Exit {
        Exit::of(&error.into().context("while checking"))
    }

    #[test]
    fn a_dependency_that_cannot_be_reached_is_not_a_failure_of_the_verb() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(exit_of(sqlx::Error::Io(refused)), Exit::Unreachable);
        assert_eq!(exit_of(sqlx::Error::PoolTimedOut), Exit::Unreachable);
        let down = KafkaError::MetadataFetch(RDKafkaErrorCode::BrokerTransportFailure);
        assert_eq!(exit_of(down), Exit::Unreachable);
    }

    #[test]
    fn a_certificate_that_is_not_trusted_is_a_failure_and_not_an_outage() {
        let tls = io::Error::from(io::ErrorKind::InvalidData);
        assert_eq!(exit_of(sqlx::Error::Io(tls)), Exit::Failed);
        let denied = KafkaError::MetadataFetch(RDKafkaErrorCode::Authentication);
        assert_eq!(exit_of(denied), Exit::Failed);
    }

    #[test]
    fn wrong_configuration_and_usage_have_one_code() {
        let missing = config::Config::default().validate_for_run();
        assert_eq!(exit_of(missing.expect_err("no database")), Exit::Usage);
        assert_eq!(exit_of(Problem::usage("no")), Exit::Usage);
    }

    #[test]
    fn a_fatal_kafka_error_has_a_code_of_its_own() {
        let fatal = KafkaError::MessageConsumptionFatal(RDKafkaErrorCode::Fatal);
        assert_eq!(exit_of(fatal), Exit::Fatal);
    }

    #[test]
    fn what_a_cause_repeats_is_said_once() {
        let refused = io::Error::other("permission denied (42501)");
        let error =
            anyhow::Error::from(refused).context("the database says permission denied (42501)").context("status");
        assert_eq!(message(&error), "status: the database says permission denied (42501)");
    }

    #[test]
    fn anything_else_has_failed() {
        assert_eq!(exit_of(anyhow::anyhow!("no idea")), Exit::Failed);
    }
}

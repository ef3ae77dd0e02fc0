//! What a shadow is for, so that the same command finds what it has left unfinished.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde_json::{Value, json};

use super::ReplayError;
use super::shadow::ShadowError;
use crate::config::Config;
use crate::worker::Worker;

/// Whoever asks for the same goes on in what is left of it. Other handlers make another shadow, so the program is part of
/// it, and what is declared; `of` is what else must be the same.
///
/// # Errors
/// If the program's file cannot be looked at, or the declarations cannot be used.
pub(super) fn asked(worker: &Worker, config: &Config, of: Value) -> Result<String, ReplayError> {
    let program = std::env::current_exe().and_then(|path| Ok((path.metadata()?, path)));
    let program = program.and_then(|(metadata, path)| Ok((path, metadata.len(), metadata.modified()?)));
    let (path, bytes, modified) = program.map_err(ReplayError::Program)?;
    let declared = format!("{:?}", worker.declared(config).map_err(ShadowError::from)?.declarations());
    Ok(json!({
        "schema": config.database.schema,
        "brokers": config.kafka.bootstrap_servers,
        "topics": config.topics,
        "program": { "path": path, "bytes": bytes, "modified": humantime::format_rfc3339_micros(modified).to_string() },
        "declared": digest(&declared),
        "of": of,
    })
    .to_string())
}

/// Tells one text from another, to the same program.
pub(super) fn digest(text: &str) -> String {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

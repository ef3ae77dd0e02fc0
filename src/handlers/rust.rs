//! Handlers in Rust: plain methods, routed by type as axum routes functions.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use solewriter::{Context, Rejection, Worker};
//!
//! #[derive(Clone, Default, Serialize, Deserialize)]
//! struct Door { open: bool }
//!
//! #[derive(Deserialize)]
//! struct Open {}
//!
//! const ALREADY_OPEN: Rejection = Rejection::new("already-open");
//!
//! impl Door {
//!     fn open(&mut self, _: Open, cx: &mut Context) -> Result<Self, Rejection> {
//!         if self.open {
//!             return Err(ALREADY_OPEN);
//!         }
//!         self.open = true;
//!         cx.emit("door.opened", &serde_json::json!({}));
//!         Ok(self.clone())
//!     }
//! }
//!
//! let worker = Worker::new().entity::<Door>("door", |e| e.on("door.open", Door::open));
//! ```

use std::any::Any;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Applied, CommandType, Context, EntityHandlers, Handler, HandlerError, Rejection, State, sql};

#[cfg(panic = "abort")]
compile_error!("solewriter catches a handler's panic: build with panic = \"unwind\"");

/// What an entity's state must be: any serde type with a first value.
pub trait Entity: Default + Clone + Serialize + DeserializeOwned + Send + 'static {}

impl<T: Default + Clone + Serialize + DeserializeOwned + Send + 'static> Entity for T {}

struct Typed<E>(E);

impl<E: Entity> State for Typed<E> {
    fn encode(&self) -> Result<String, String> {
        guarded_text(|| serde_json::to_string(&self.0))
    }

    fn as_any(&self) -> &dyn Any {
        &self.0
    }
}

/// Collects an entity's command types; see [`crate::Worker::entity`].
pub struct EntityBuilder<E> {
    handlers: EntityHandlers,
    entity: PhantomData<fn(E)>,
}

impl<E: Entity> EntityBuilder<E> {
    pub(crate) fn new(entity_type: &str) -> Self {
        let handlers = EntityHandlers {
            entity_type: entity_type.into(),
            initial: || Box::new(Typed(E::default())),
            decode: |state| {
                let state = guarded_text(|| serde_json::from_str::<E>(state))?;
                Ok(Box::new(Typed(state)))
            },
            commands: HashMap::new(),
            in_database: sql::InDatabase::default(),
        };
        Self { handlers, entity: PhantomData }
    }

    /// Runs `handler` for commands of this type. It is given a copy of the state,
    /// which is kept only if it returns `Ok`; a panic is caught.
    ///
    /// # Panics
    /// If the command type is registered twice: a mistake in the program.
    #[must_use]
    pub fn on<C, R, F>(mut self, command_type: &str, handler: F) -> Self
    where
        C: DeserializeOwned,
        R: Serialize,
        F: Fn(&mut E, C, &mut Context<'_>) -> Result<R, Rejection> + Send + Sync + 'static,
    {
        let handle = move |state: &dyn State, data: &[u8], cx: &mut Context<'_>| {
            let command: C = guarded(|| serde_json::from_slice(data))?.map_err(malformed)?;
            let state = state.as_any().downcast_ref::<E>();
            let state = state.ok_or_else(|| HandlerError::Failed("state of another entity".into()))?;
            // the copy, the handler and the reply are the team's own code: each may panic
            let (next, reply) = guarded(|| {
                let mut next = state.clone();
                let reply = handler(&mut next, command, cx).map_err(HandlerError::Rejected)?;
                let reply = serde_json::value::to_raw_value(&reply)
                    .map_err(|error| HandlerError::Failed(format!("reply cannot be encoded: {error}")))?;
                Ok((next, reply))
            })??;
            Ok(Applied { state: Box::new(Typed(next)), reply })
        };
        let name: Arc<str> = command_type.into();
        let command = CommandType { name: name.clone(), handler: Handler::Rust(Box::new(handle)) };
        let before = self.handlers.commands.insert(name, Arc::new(command));
        assert!(before.is_none(), "command type {command_type} is registered twice");
        self
    }

    pub(crate) fn into_handlers(self) -> EntityHandlers {
        self.handlers
    }
}

fn malformed(error: serde_json::Error) -> HandlerError {
    HandlerError::Malformed(error.to_string())
}

/// Runs a team's code: a panic becomes an error that names it.
fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, HandlerError> {
    catch_unwind(AssertUnwindSafe(run))
        .map_err(|panic| HandlerError::Failed(format!("panicked: {}", panic_message(&*panic))))
}

/// The same, for code whose errors are texts.
fn guarded_text<T>(run: impl FnOnce() -> Result<T, serde_json::Error>) -> Result<T, String> {
    match guarded(run) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(HandlerError::Failed(why)) => Err(why),
        Err(error) => Err(format!("{error:?}")),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use uuid::Uuid;

    use super::*;

    #[derive(Clone, Default, Serialize, Deserialize)]
    struct Counter(i64);

    fn run(state: i64, data: &str) -> Result<Applied, HandlerError> {
        let handlers = EntityBuilder::<Counter>::new("counter")
            .on("add", |counter: &mut Counter, by: i64, cx: &mut Context<'_>| {
                counter.0 += by;
                assert!(counter.0 < 10, "too large");
                if counter.0 < 0 {
                    return Err(Rejection::new("below-zero"));
                }
                cx.emit("added", &by);
                Ok(counter.0)
            })
            .into_handlers();
        let state = handlers.decode(&state.to_string()).unwrap();
        let mut cx = Context::new("c", Uuid::nil(), 0, 0, &handlers.in_database.writes);
        let Handler::Rust(handle) = &handlers.command("add").unwrap().handler else { panic!("not in Rust") };
        handle(&*state, data.as_bytes(), &mut cx)
    }

    #[test]
    fn a_handler_returns_the_next_state_and_a_reply() {
        let applied = run(1, "2").unwrap_or_else(|_| panic!("applied"));
        assert_eq!((applied.state.encode().as_deref(), applied.reply.get()), (Ok("3"), "3"));
    }

    #[test]
    fn a_panic_is_caught_and_named() {
        assert!(matches!(run(9, "1"), Err(HandlerError::Failed(m)) if m == "panicked: too large"));
    }

    #[test]
    fn a_no_is_a_rejection_and_a_wrong_type_malformed() {
        assert!(matches!(run(0, "-1"), Err(HandlerError::Rejected(r)) if r.code() == "below-zero"));
        assert!(matches!(run(0, "1.5"), Err(HandlerError::Malformed(_))));
    }
}

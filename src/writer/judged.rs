//! What only the database could tell of commands, as the next decision needs it.

use uuid::Uuid;

use crate::dead_letter::DeadCode;
use crate::handlers::{EntityHandlers, Handler};
use crate::postgres::Refused;
use crate::steps::decide::{Decision, Judgement, Routed, record_of};

/// What is wrong with these commands of a decision that the database refused, by offset and id.
pub(crate) fn judgements(
    handlers: &EntityHandlers,
    decision: &Decision,
    refused: Vec<Refused>,
) -> Vec<((i64, Uuid), Judgement)> {
    let judged = |refused: Refused| {
        let delivery = decision.delivery_in_database(refused.at.checked_sub(1)?)?;
        let judgement = match refused {
            Refused { reject: Some(code), why, .. } => Judgement::Rejected(code, why),
            Refused { dead, field, why, at, .. } => {
                let why = why.unwrap_or_default();
                let field = field.and_then(|n| field_name(handlers, decision, at - 1, n));
                let why = field.map_or(why.clone(), |field| format!("field {field}: {why}"));
                match dead.unwrap_or(DeadCode::DataError) {
                    // a handler has made what its write is given
                    DeadCode::MalformedPayload if decision.called.is_empty() => {
                        Judgement::Dead(DeadCode::HandlerFailed, format!("a write's {why}"))
                    }
                    code => Judgement::Dead(code, why),
                }
            }
        };
        Some((delivery, judgement))
    };
    refused.into_iter().filter_map(judged).collect()
}

/// Offset and command id of what is decided, or nil where there is no command.
pub(crate) fn delivery_of(item: &Routed) -> (i64, Uuid) {
    let id = item.as_ref().map_or(Uuid::nil(), |command| command.id);
    (record_of(item).offset, id)
}

/// The name of a field of what ran at this place in the database.
fn field_name<'h>(handlers: &'h EntityHandlers, decision: &Decision, at: usize, field: usize) -> Option<&'h str> {
    let call = match decision.called.get(at) {
        Some(called) => match &handlers.command(&called.delivery.command_type)?.handler {
            Handler::Sql(call) => call,
            Handler::Rust(_) => return None,
        },
        None => {
            let function = decision.writes.get(at)?.write.function;
            handlers.in_database.writes.values().find(|call| call.function == function)?
        }
    };
    call.fields.fields().get(field).map(|field| &*field.name)
}

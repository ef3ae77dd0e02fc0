//! Runs one command's handler: here, on a copy of the state, or later in the
//! database.

use std::sync::Arc;

use super::encode::{fits, storable};
use super::{Basis, Called, Caution, Entities, Entity, Judgement, OwnWrite};
use crate::command::Command;
use crate::dead_letter::DeadCode;
use crate::handlers::sql::{Call, Write};
use crate::handlers::{Context, Handle, Handler, HandlerError, Rejection};
use crate::outcome::{Delivery, ENCODING, Ending, FinalOutcome, escaped_detail};
use crate::steps::Rules;
use crate::steps::receive::Fault;

/// What a handler has made of a command.
pub(super) enum Handled {
    /// The outcome, and what is to be written with it.
    Decided(FinalOutcome, Vec<OwnWrite>),
    /// The database decides.
    InDatabase(Called),
}

impl Handled {
    pub(super) fn delivery_mut(&mut self) -> &mut Delivery {
        match self {
            Self::Decided(outcome, _) => &mut outcome.delivery,
            Self::InDatabase(called) => &mut called.delivery,
        }
    }
}

pub(super) fn handle(command: &Command, basis: &mut Basis<'_>) -> Result<Handled, Fault> {
    let Basis { rules, entities, caution, .. } = basis;
    let judged = caution.judged.get(&(command.record.offset, command.id));
    if let Some(Judgement::Dead(code, why)) = judged {
        return Err((*code, why.clone()));
    }
    match &command.command_type.handler {
        Handler::Sql(call) => Ok(Handled::InDatabase(called(command, rules, call)?)),
        Handler::Rust(handler) => {
            // the driver loads every entity of a batch: a bug of ours, but no reason
            // to lose the record
            let (entity_id, entity) = touched(entities, command.entity_id())
                .ok_or_else(|| (DeadCode::HandlerFailed, "its entity was not loaded".to_owned()))?;
            let (ending, writes) = match judged {
                Some(Judgement::Rejected(code, detail)) => {
                    (Ending::Rejected { code: code.clone().into(), detail: detail.clone() }, Vec::new())
                }
                _ => run(handler, command, rules, entity, caution)?,
            };
            let writes = writes.into_iter().map(|write| own(write, command, &entity_id)).collect();
            let delivery = delivery(command, rules, entity_id);
            Ok(Handled::Decided(FinalOutcome { delivery, version: entity.version, ending, encoding: ENCODING }, writes))
        }
    }
}

/// The call that a command in SQL becomes.
pub(crate) fn called(command: &Command, rules: &Rules, call: &Call) -> Result<Called, Fault> {
    let data = object(command.data())?;
    let arguments = call.arguments(data, &command.id).map_err(|why| (DeadCode::MalformedPayload, why))?;
    let delivery = delivery(command, rules, command.entity_id().into());
    Ok(Called { delivery, function: call.function, arguments })
}

fn delivery(command: &Command, rules: &Rules, entity_id: Arc<str>) -> Delivery {
    Delivery {
        command_id: command.id,
        command_type: command.command_type.name.clone(),
        entity_type: rules.handlers.entity_type.clone(),
        entity_id,
        fingerprint: command.fingerprint,
        source: rules.source.clone(),
        offset: command.record.offset,
        record_time_ms: command.record.time_ms(),
        traceparent: command.traceparent.clone(),
    }
}

fn own(write: Write, command: &Command, entity_id: &Arc<str>) -> OwnWrite {
    OwnWrite {
        write,
        command_id: command.id,
        entity_id: entity_id.clone(),
        offset: command.record.offset,
        record_time_ms: command.record.time_ms(),
    }
}

/// Runs the handler on a copy of the state, which replaces it only if the
/// command is applied.
fn run(
    handler: &Handle,
    command: &Command,
    rules: &Rules,
    entity: &mut Entity,
    caution: &Caution,
) -> Result<(Ending, Vec<Write>), Fault> {
    let data = object(command.data())?;
    let state = entity.state.as_ref().map_err(|why| {
        (DeadCode::HandlerFailed, format!("the stored state of {:?} does not decode: {why}", command.entity_id()))
    })?;
    let declared = &rules.handlers.in_database.writes;
    let mut cx = Context::new(command.entity_id(), command.id, command.record.time_ms(), entity.version, declared);
    let handled = handler(&**state, data, &mut cx);
    if let Some(why) = cx.failed() {
        return Err((DeadCode::HandlerFailed, why.to_owned()));
    }
    let applied = match handled {
        Ok(applied) => applied,
        Err(HandlerError::Rejected(rejection)) => {
            return Ok((rejected(rejection, rules.outcome_bytes_max)?, Vec::new()));
        }
        Err(HandlerError::Malformed(why)) => return Err((DeadCode::MalformedPayload, why)),
        Err(HandlerError::Failed(why)) => return Err((DeadCode::HandlerFailed, why)),
    };
    let (events, writes) = cx.into_effects();
    let longest = events.iter().map(|event| event.data.get().len()).chain([applied.reply.get().len()]).max();
    fits(longest.unwrap_or(0), rules.outcome_bytes_max)?;
    if caution.encode_each {
        storable(&*applied.state).map_err(|why| (DeadCode::HandlerFailed, why))?;
    }
    entity.state = Ok(applied.state);
    entity.version += 1;
    Ok((Ending::Applied { reply: applied.reply, events }, writes))
}

/// The payload, if it is a JSON object at all. (serde would also read a struct
/// from an array, and skips text that is no UTF-8 in fields that it ignores.)
fn object(data: Option<&[u8]>) -> Result<&[u8], Fault> {
    let malformed = |why: &str| (DeadCode::MalformedPayload, why.to_owned());
    let data = data.ok_or_else(|| malformed("there is no payload"))?;
    let text = std::str::from_utf8(data).map_err(|_| malformed("the payload is not UTF-8"))?;
    let is_object = text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{');
    is_object.then_some(data).ok_or_else(|| malformed("the payload is not a JSON object"))
}

fn rejected(rejection: Rejection, outcome_bytes_max: usize) -> Result<Ending, Fault> {
    let code = rejection.code().into();
    let detail = rejection.into_detail().map(|detail| escaped_detail(&detail));
    fits(detail.as_ref().map_or(0, String::len), outcome_bytes_max)?;
    Ok(Ending::Rejected { code, detail })
}

fn touched<'e>(entities: &'e mut Entities, entity_id: &str) -> Option<(Arc<str>, &'e mut Entity)> {
    let (id, _) = entities.get_key_value(entity_id)?;
    let id = id.clone();
    entities.get_mut(entity_id).map(|entity| (id, entity))
}

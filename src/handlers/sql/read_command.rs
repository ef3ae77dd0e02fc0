//! `[[command]]`.

use std::path::Path;
use std::sync::Arc;

use toml::de::DeValue;

use super::declaration::{Command, Event};
use super::kind::{COMMAND, EVENT};
use super::read_step::{check_built_ins, read_steps};
use super::reader::{Reader, Section, Text, Value, by_place};
use super::schema::{self, field, scalar};
use super::scope::Scope;
use super::template::Template;
use crate::config::nearest;

/// One command type; `None` if it is not even a table with a type.
pub(super) fn read_command(
    reader: &mut Reader,
    value: &Value<'_>,
    entity: &Arc<str>,
    directory: &Path,
) -> Option<Command> {
    let section = reader.section(value, &COMMAND)?;
    let command_type = reader.required_text(section, "type", "type = \"account.withdraw\"");
    let (steps, mut scope) = read_steps(reader, section);
    scope.incomplete |= section.has_unknown_key();
    let reply = section.table.get("reply").and_then(|reply| template(reader, &mut scope, reply));
    let events = read_events(reader, &mut scope, section);
    scope.drop_rows_after(reader, 0);
    let constraints = reader.codes(section, "constraints");
    let optional = reader.names(section, "optional");
    let schema = schema::read(reader, section, directory);
    check_optional(reader, &optional, &scope);
    check_built_ins(reader, &scope.uses, |name| schema.as_ref().is_some_and(|schema| schema.has(name)));
    if let Some(schema) = &schema {
        schema.check(reader, &scope);
    }
    let serializable = read_isolation(reader, section);
    let nondeterministic = reader.flag(section, "nondeterministic");
    let command_type = command_type?;
    Some(Command {
        place: command_type.place,
        entity: entity.clone(),
        command_type: command_type.value.into(),
        steps,
        reply,
        events,
        constraints,
        optional: optional.into_iter().map(|name| name.value).collect(),
        schema: schema.map(|schema| schema.json),
        serializable,
        nondeterministic,
        uses: scope.uses,
    })
}

fn read_events(reader: &mut Reader, scope: &mut Scope, command: Section<'_, '_>) -> Vec<Event> {
    let mut events = Vec::new();
    for event in reader.items(command, "emit", "write [[command.emit]]") {
        let Some(section) = reader.section(event, &EVENT) else { continue };
        scope.incomplete |= section.has_unknown_key();
        let event_type = reader.required_text(section, "type", "type = \"account.withdrawn\"");
        let data = reader.required(section, "data", "data = { amount = \":amount\" }");
        let data = data.and_then(|data| template(reader, scope, data));
        if let (Some(event_type), Some(data)) = (event_type, data) {
            events.push(Event { event_type: event_type.value, data });
        }
    }
    events
}

/// A TOML value as a template.
fn template(reader: &mut Reader, scope: &mut Scope, value: &Value<'_>) -> Option<Template> {
    match value.get_ref() {
        DeValue::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| template(reader, scope, item)).collect();
            Some(Template::Array(items.into_iter().collect::<Option<_>>()?))
        }
        DeValue::Table(table) => {
            let entry = |(key, value): (&str, &Value<'_>)| Some((key.to_owned(), template(reader, scope, value)?));
            let entries: Vec<_> = by_place(table).into_iter().map(entry).collect();
            Some(Template::Object(entries.into_iter().collect::<Option<_>>()?))
        }
        DeValue::String(_) => {
            let text = reader.text(value, "template")?;
            match Template::of_string(&text.value, text.place.clone()) {
                Ok(template) => {
                    if let Template::Parameter(parameter, _) = &template {
                        scope.record(reader, parameter, text.place);
                    }
                    Some(template)
                }
                Err(error) => {
                    scope.incomplete = true;
                    reader.refuse_at(text.place, error.problem, error.cure);
                    None
                }
            }
        }
        _ => {
            let place = reader.place(value.span().start);
            scalar(reader, value).map(|scalar| Template::Literal(scalar, place))
        }
    }
}

/// Refuses names of fields that nothing uses.
pub(super) fn check_optional(reader: &mut Reader, optional: &[Text], scope: &Scope) {
    if scope.incomplete {
        return;
    }
    let fields: Vec<&str> = scope.uses.iter().filter_map(field).collect();
    for name in optional.iter().filter(|name| !fields.contains(&name.value.as_str())) {
        let cure = match nearest(&name.value, &fields) {
            Some(nearest) => format!("did you mean {nearest}?"),
            None => "remove it".to_owned(),
        };
        reader.refuse_at(name.place.clone(), format!("optional names {}, which nothing uses", name.value), cure);
    }
}

/// Whether the command asks for isolation level serializable.
fn read_isolation(reader: &mut Reader, command: Section<'_, '_>) -> bool {
    let Some(isolation) = reader.optional_text(command, "isolation") else { return false };
    match isolation.value.as_str() {
        "serializable" => true,
        "read committed" => false,
        other => {
            let cure = "write \"serializable\" or \"read committed\", which is the default";
            reader.refuse_at(isolation.place, format!("there is no isolation {other:?} for commands"), cure);
            false
        }
    }
}

//! `[[write]]`: a step that handlers in Rust may name.

use std::sync::Arc;

use super::declaration::Write;
use super::kind::WRITE;
use super::parameter::Parameter;
use super::read_command::check_optional;
use super::read_step::{check_built_ins, read_expect, read_statement};
use super::reader::{Reader, Value};
use super::scope::{ParameterUse, Scope};

/// One write; `None` if something is wrong with it.
pub(super) fn read_write(reader: &mut Reader, value: &Value<'_>, entity: &Arc<str>) -> Option<Write> {
    let section = reader.section(value, &WRITE)?;
    let name = reader.required_text(section, "name", "name = \"ledger\"");
    let mut scope = Scope::default();
    scope.incomplete = section.has_unknown_key();
    let statement = read_statement(reader, &mut scope, section, "sql");
    let expect = read_expect(reader, section);
    let constraints = reader.codes(section, "constraints");
    let optional = reader.names(section, "optional");
    check_optional(reader, &optional, &scope);
    check_built_ins(reader, &scope.uses, |_| false);
    check_no_uuids(reader, &scope.uses);
    let nondeterministic = reader.flag(section, "nondeterministic");
    let name = name?;
    Some(Write {
        place: name.place,
        entity: entity.clone(),
        name: name.value.into(),
        statement: statement?,
        expect: expect?,
        constraints,
        optional: optional.into_iter().map(|name| name.value).collect(),
        nondeterministic,
    })
}

/// A command may name a write twice, and each of its own writes begins to count anew.
fn check_no_uuids(reader: &mut Reader, uses: &[ParameterUse]) {
    for used in uses.iter().filter(|used| matches!(used.parameter, Parameter::Uuid(_))) {
        let problem = format!("{} would be the same in two writes of one command", used.parameter);
        reader.refuse_at(used.place.clone(), problem, "name a field, and give it cx.new_uuid() in the handler");
    }
}

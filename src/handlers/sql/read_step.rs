//! `[[command.step]]`: a statement, how many rows it may touch, and what another number means.

use toml::de::DeValue;

use super::declaration::{Alternative, Expect, Step};
use super::kind::{ALTERNATIVE, STEP};
use super::parameter::Parameter;
use super::reader::{Reader, Section, Value};
use super::scope::{ParameterUse, Scope};
use super::statement::Statement;
use super::template::Detail;

/// In place of the last alternative: it cannot happen.
const FAIL: &str = "fail";
const OTHERWISE: &str =
    "write otherwise = { reject = \"insufficient-funds\" }, or otherwise = \"fail\" if it cannot happen";

/// The steps of a command, and what can be used after them.
pub(super) fn read_steps(reader: &mut Reader, command: Section<'_, '_>) -> (Vec<Step>, Scope) {
    let values = reader.items(command, "step", "write [[command.step]]");
    if values.is_empty() && !command.has_slip_of("step") {
        reader.refuse(command.at, "the command has no step", "add a [[command.step]] with its sql");
    }
    let name = |step: &&Value<'_>| Some(step.get_ref().as_table()?.get("into")?.get_ref().as_str()?.to_owned());
    let mut scope = Scope::new(values.iter().filter_map(name).collect());
    let steps = values.into_iter().filter_map(|value| read_step(reader, &mut scope, value)).collect();
    (steps, scope)
}

fn read_step(reader: &mut Reader, scope: &mut Scope, value: &Value<'_>) -> Option<Step> {
    let section = reader.section(value, &STEP)?;
    scope.incomplete |= section.has_unknown_key();
    scope.lacks_rows |= section.has_slip_of("into");
    let statement = read_statement(reader, scope, section, "sql");
    let expect = read_expect(reader, section);
    let Otherwise { alternatives, fails } = read_otherwise(reader, scope, section);
    if let Some(expect) = expect {
        check_otherwise(reader, section, expect, &alternatives);
    }
    let into = reader.optional_text(section, "into");
    if let Some(into) = into.clone() {
        if let Some(expect) = expect.filter(|expect| !expect.is_one_row()) {
            let problem = format!("into takes one row, and the step expects {expect}");
            reader.refuse_at(into.place.clone(), problem, "write expect = 1, or expect = \"0..1\"");
        }
        scope.take(reader, into);
    }
    let otherwise = alternatives.into_iter().filter_map(|(_, alternative)| alternative).collect();
    Some(Step { statement: statement?, expect: expect?, otherwise, fails, into: into.map(|into| into.value) })
}

/// The statement of a key; a mistake if the key is not there.
pub(super) fn read_statement(
    reader: &mut Reader,
    scope: &mut Scope,
    section: Section<'_, '_>,
    key: &str,
) -> Option<Statement> {
    let value = reader.required(section, key, "sql = \"select balance from account where id = :entity_id\"")?;
    let text = reader.text(value, key)?;
    match Statement::parse(&text.value, &text.place) {
        Ok(statement) => {
            for (parameter, place) in statement.uses() {
                scope.record(reader, parameter, place);
            }
            Some(statement)
        }
        Err(mistake) => {
            scope.incomplete = true;
            reader.mistakes.push(mistake);
            None
        }
    }
}

/// `None` only if it is there and wrong, or misspelt.
pub(super) fn read_expect(reader: &mut Reader, section: Section<'_, '_>) -> Option<Expect> {
    let Some(value) = section.table.get("expect") else {
        return Some(Expect::ANY).filter(|_| !section.has_slip_of("expect"));
    };
    let expect = match value.get_ref() {
        DeValue::Integer(count) => u32::from_str_radix(count.as_str(), count.radix()).ok().map(Expect::exactly),
        DeValue::String(range) => Expect::range(range),
        _ => None,
    };
    if expect.is_none() {
        let cure = "write a number such as 1, or a range: \"0..1\", \">=1\"; leave it out for any number";
        reader.refuse(value.span().start, "expect is no number of rows", cure);
    }
    expect
}

/// The alternatives, each with where it stands; `None` for one that is wrong in itself.
type Alternatives = Vec<(usize, Option<Alternative>)>;

/// What another row count means.
#[derive(Default)]
struct Otherwise {
    alternatives: Alternatives,
    /// `"fail"` stands in place of the last.
    fails: bool,
}

fn read_otherwise(reader: &mut Reader, scope: &mut Scope, step: Section<'_, '_>) -> Otherwise {
    let Some(value) = step.table.get("otherwise") else { return Otherwise::default() };
    let values: Vec<&Value<'_>> = match value.get_ref() {
        DeValue::Array(values) => values.iter().collect(),
        _ => vec![value],
    };
    check_reachable(reader, value, &values);
    let (fail, others): (Vec<_>, Vec<_>) = values.into_iter().partition(|value| is_fail(value));
    let read = |value: &Value<'_>| (value.span().start, read_alternative(reader, scope, value));
    Otherwise { alternatives: others.into_iter().map(read).collect(), fails: !fail.is_empty() }
}

fn is_fail(value: &Value<'_>) -> bool {
    value.get_ref().as_str() == Some(FAIL)
}

/// The last entry of `otherwise`, and no other, is without a condition.
fn check_reachable(reader: &mut Reader, otherwise: &Value<'_>, values: &[&Value<'_>]) {
    let values: Vec<(&Value<'_>, bool)> = values.iter().map(|value| (*value, has_when(value))).collect();
    if let Some(first_last) = values.iter().position(|(_, when)| !when) {
        for (unreachable, _) in &values[first_last + 1..] {
            let problem = "this entry can never be reached: the one before it has no when";
            reader.refuse(unreachable.span().start, problem, "move it up, or give the one before it a when");
        }
    } else if let Some((last, _)) = values.last() {
        let problem = "the last entry of otherwise has a when, so it may be that none holds";
        reader.refuse(last.span().start, problem, "add an entry without when at the end, or \"fail\" in its place");
    } else {
        reader.refuse(otherwise.span().start, "otherwise is empty", OTHERWISE);
    }
}

fn has_when(value: &Value<'_>) -> bool {
    let section = |table| Section { table, at: value.span().start, kind: &ALTERNATIVE };
    let holds = |section: Section<'_, '_>| section.table.contains_key("when") || section.has_slip_of("when");
    value.get_ref().as_table().map(section).is_some_and(holds)
}

fn read_alternative(reader: &mut Reader, scope: &mut Scope, value: &Value<'_>) -> Option<Alternative> {
    if value.get_ref().as_str().is_some() {
        reader.refuse(value.span().start, "the only word for otherwise is \"fail\"", OTHERWISE);
        return None;
    }
    let section = reader.section(value, &ALTERNATIVE)?;
    scope.incomplete |= section.has_unknown_key();
    let when = match section.table.contains_key("when") {
        true => Some(read_statement(reader, scope, section, "when")?),
        false => None,
    };
    if let Some(when) = when.as_ref().filter(|when| !when.is_select_only()) {
        let cure = "write a query; an update belongs in a step";
        reader.refuse_at(when.place.clone(), "when writes, and what is rejected must not", cure);
    }
    let rows = scope.row_count();
    let into = reader.optional_text(section, "into");
    if let Some(into) = into.clone() {
        match &when {
            None if !section.has_slip_of("when") => {
                scope.lacks_rows = true;
                let cure = "if it is the step's, move it above [[command.step.otherwise]]; otherwise remove it";
                reader.refuse_at(into.place, "into names the row of a when, and there is none", cure);
            }
            _ => scope.take(reader, into),
        }
    }
    let reject = reader.required_text(section, "reject", "reject = \"insufficient-funds\"");
    let reject = reject.and_then(|code| reader.code(code));
    let detail = read_detail(reader, scope, section);
    scope.drop_rows_after(reader, rows);
    Some(Alternative { when, into: into.map(|into| into.value), reject: reject?, detail })
}

fn read_detail(reader: &mut Reader, scope: &mut Scope, alternative: Section<'_, '_>) -> Option<Detail> {
    let text = reader.optional_text(alternative, "detail")?;
    match Detail::parse(&text.value, text.place.clone()) {
        Ok(detail) => {
            for parameter in detail.parameters() {
                scope.record(reader, parameter, text.place.clone());
            }
            Some(detail)
        }
        Err(error) => {
            scope.incomplete = true;
            reader.refuse_at(text.place, error.problem, error.cure);
            None
        }
    }
}

fn check_otherwise(reader: &mut Reader, step: Section<'_, '_>, expect: Expect, otherwise: &Alternatives) {
    let given = step.table.get("otherwise");
    match given {
        Some(given) if expect.is_any() => {
            let at = otherwise.first().map_or(given.span().start, |(at, _)| *at);
            let cure = "write expect, for example expect = 1, or remove otherwise";
            reader.refuse(at, "otherwise never happens: any number of rows is expected", cure);
        }
        None if !expect.is_any() && !step.has_slip_of("otherwise") => {
            let at = step.table.get("expect").map_or(step.at, |expect| expect.span().start);
            reader.refuse(at, format!("{expect} expected, and nothing says what another number means"), OTHERWISE);
        }
        _ => {}
    }
}

/// Names that are nearly those of built-in parameters would be fields that no payload has.
pub(super) fn check_built_ins(reader: &mut Reader, uses: &[ParameterUse], is_meant: impl Fn(&str) -> bool) {
    for used in uses {
        let Parameter::Field(name) = &used.parameter else { continue };
        let Some(built_in) = Parameter::misspelt(name).filter(|_| !is_meant(name)) else { continue };
        let cure = format!(
            "did you mean :{built_in}? (A field of the payload that is named so is used if it is a property of the command's schema)"
        );
        reader.refuse_at(used.place.clone(), format!("unknown parameter :{name}"), cure);
    }
}

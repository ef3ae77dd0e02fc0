//! The function of one command type: its steps, what their row counts mean, the reply and the
//! events.
//!
//! It opens no subtransaction. A command that is rejected after it has written raises `SW008`, and
//! whoever called it undoes it by itself.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::text::{literal, quoted};
use crate::handlers::sql::declaration::{Alternative, Detail, DetailPiece, Event, Expect, Template};
use crate::handlers::sql::statement::{Parameter, Piece, Statement, Verb};
use crate::handlers::sql::typed::{Field, TypedAlternative, TypedCommand, TypedStatement, TypedStep, TypedWrite};

/// A function without its name.
pub(super) struct Body {
    /// Its parameters.
    pub signature: String,
    /// `set …` clauses, each with its line end.
    pub settings: String,
    /// Its source.
    pub source: String,
    /// The line of the source at which each step begins, from 1, and that behind the last step. None
    /// if there is only one statement.
    pub step_lines: Vec<usize>,
}

const SIGNATURE: &str = "sw_entity_id text, sw_command_id uuid, sw_command_time timestamptz, sw_args jsonb, \
                         out sw_code text, out sw_detail text, out sw_reply text, out sw_events text";

/// How many UUIDs a command takes.
pub(super) fn uuids(command: &TypedCommand) -> u16 {
    let number = |parameter: &Parameter| match parameter {
        Parameter::Uuid(n) => *n,
        _ => 0,
    };
    command.declaration.uses.iter().map(|used| number(&used.parameter)).max().unwrap_or(0)
}

/// The function of a command.
pub(super) fn command(typed: &TypedCommand) -> Body {
    let mut source = Source::new(&typed.fields, uuids(typed));
    for (n, step) in typed.steps.iter().enumerate() {
        source.begin_step();
        source.step(step, n + 1, typed.declaration.nondeterministic);
    }
    source.begin_step();
    if let Some(reply) = &typed.declaration.reply {
        let reply = source.json(reply);
        source.line(&format!("sw_reply := {reply};"));
    }
    if !typed.declaration.events.is_empty() {
        let events = source.events(&typed.declaration.events);
        source.line(&format!("sw_events := {events};"));
    }
    let body = source.finish();
    match typed.statements().nth(1) {
        Some(_) => body,
        None => Body { step_lines: Vec::new(), ..body },
    }
}

/// The function of a write: a wrong row count is a failure, as there is nobody to reject.
pub(super) fn write(typed: &TypedWrite) -> Body {
    let mut source = Source::new(&typed.fields, 0);
    let declaration = &typed.declaration;
    source.run(&declaration.statement, &typed.statement, declaration.expect, None);
    if let Some(unexpected) = unexpected(declaration.expect) {
        let name = literal(&format!("write {}: ", declaration.name));
        source.line(&format!("if {unexpected} then"));
        source.line("    raise exception using errcode = 'SW010',");
        source.line(&format!("        message = {name} || sw_n || ' rows, which is not expected';"));
        source.line("end if;");
    }
    source.finish()
}

struct Source {
    fields: HashMap<String, usize>,
    declarations: String,
    /// Rows by name, with the variable that holds each.
    rows: HashMap<String, String>,
    row_count: usize,
    body: String,
    /// How many lines of the body come before each step.
    lines_before: Vec<usize>,
    indent: usize,
}

impl Source {
    fn new(fields: &[Field], uuids: u16) -> Self {
        let mut declarations = String::from("declare\n");
        let mut names = HashMap::new();
        // writing to a String cannot fail
        for (n, field) in fields.iter().enumerate() {
            let _ = writeln!(declarations, "    sw_f{n} {0} := (sw_args->>{n})::{0};", field.data_type);
            names.insert(field.name.clone(), n);
        }
        for n in 1..=usize::from(uuids) {
            let _ = writeln!(declarations, "    sw_u{n} uuid := (sw_args->>{})::uuid;", fields.len() + n - 1);
        }
        declarations += "    sw_n bigint;\n    sw_found boolean;\n    sw_wrote boolean := false;\n    sw_row record;\n";
        Self {
            fields: names,
            declarations,
            rows: HashMap::new(),
            row_count: 0,
            body: String::new(),
            lines_before: Vec::new(),
            indent: 1,
        }
    }

    fn finish(self) -> Body {
        // a column of the team's may be called like anything of PL/pgSQL, such as `found`
        let head = format!("#variable_conflict use_column\n{}begin\n", self.declarations);
        let head_lines = head.matches('\n').count();
        Body {
            signature: SIGNATURE.to_owned(),
            settings: String::new(),
            source: format!("{head}{}end", self.body),
            step_lines: self.lines_before.into_iter().map(|before| head_lines + before + 1).collect(),
        }
    }

    /// What follows is the next step, or comes behind the last.
    fn begin_step(&mut self) {
        self.lines_before.push(self.body.matches('\n').count());
    }

    fn line(&mut self, line: &str) {
        self.body.extend(std::iter::repeat_n("    ", self.indent));
        self.body += line;
        self.body.push('\n');
    }

    fn step(&mut self, step: &TypedStep, n: usize, may_write_unseen: bool) {
        let declaration = &step.declaration;
        self.line(&format!("-- step {n}"));
        self.run(&declaration.statement, &step.statement, declaration.expect, declaration.into.as_deref());
        let statement = &declaration.statement;
        match statement.verb {
            // its row count is all that it wrote
            Verb::Write if statement.begins_with_its_verb() && !may_write_unseen => {
                self.line("sw_wrote := sw_wrote or sw_n > 0;");
            }
            Verb::Read if statement.is_select_only() && !may_write_unseen => {}
            _ => self.line("sw_wrote := true;"),
        }
        let Some(unexpected) = unexpected(declaration.expect) else { return };
        self.line(&format!("if {unexpected} then"));
        self.indent += 1;
        // an alternative's row is its own, even if it is called like the step's
        let rows = self.rows.clone();
        for alternative in &step.otherwise {
            self.alternative(alternative);
            self.rows.clone_from(&rows);
        }
        if declaration.fails {
            self.fail(n, declaration.expect, &step.declaration.statement);
        }
        self.indent -= 1;
        self.line("end if;");
    }

    /// Runs a statement; `sw_n` is its row count, up to where that tells enough.
    fn run(&mut self, statement: &Statement, typed: &TypedStatement, expect: Expect, into: Option<&str>) {
        let sql = self.substituted(statement);
        if typed.columns.is_empty() && statement.verb == Verb::Write {
            self.line(&format!("{sql};"));
            self.line("get diagnostics sw_n = row_count;");
            return;
        }
        let row = into.map_or("sw_row".to_owned(), |name| self.new_row(name));
        self.line("sw_n := 0;");
        self.line(&format!("for {row} in {sql} loop"));
        self.line("    sw_n := sw_n + 1;");
        if statement.is_select_only() {
            // what writes has to run to its end
            match expect.most {
                Some(most) => self.line(&format!("    exit when sw_n > {most};")),
                None => self.line(&format!("    exit when sw_n >= {};", expect.least.max(1))),
            }
        }
        self.line("end loop;");
    }

    fn alternative(&mut self, typed: &TypedAlternative) {
        let alternative = &typed.declaration;
        let Some(when) = &alternative.when else { return self.reject(alternative) };
        let sql = self.substituted(when);
        let row = alternative.into.as_deref().map_or("sw_row".to_owned(), |name| self.new_row(name));
        self.line("sw_found := false;");
        self.line(&format!("for {row} in {sql} loop"));
        self.line("    sw_found := true;");
        self.line("    exit;");
        self.line("end loop;");
        self.line("if sw_found then");
        self.indent += 1;
        self.reject(alternative);
        self.indent -= 1;
        self.line("end if;");
    }

    fn reject(&mut self, alternative: &Alternative) {
        self.line(&format!("sw_code := {};", literal(&alternative.reject)));
        if let Some(detail) = &alternative.detail {
            let detail = self.detail(detail);
            self.line(&format!("sw_detail := {detail};"));
        }
        // what it has written has to be undone, by whoever can
        self.line("if sw_wrote then");
        self.line("    raise exception using errcode = 'SW008', message = sw_code, detail = coalesce(sw_detail, '');");
        self.line("end if;");
        self.line("return;");
    }

    /// It cannot happen, and has.
    fn fail(&mut self, n: usize, expect: Expect, statement: &Statement) {
        let are = if expect == Expect::exactly(1) { "is" } else { "are" };
        let expected = literal(&format!(", and {expect} {are} expected"));
        // a query is left when it is clear that there are too many
        let counted = match expect.most.filter(|_| statement.is_select_only()) {
            Some(most) => format!("case when sw_n > {most} then 'at least ' else '' end || sw_n"),
            None => "sw_n".to_owned(),
        };
        self.line("raise exception using errcode = 'SW010',");
        self.line(&format!(
            "    message = 'step {n}: ' || {counted} || case sw_n when 1 then ' row' else ' rows' end || {expected};"
        ));
    }

    fn new_row(&mut self, name: &str) -> String {
        let variable = format!("sw_r{}", self.row_count);
        self.row_count += 1;
        let _ = writeln!(self.declarations, "    {variable} record;");
        self.rows.insert(name.to_owned(), variable.clone());
        variable
    }

    fn substituted(&self, statement: &Statement) -> String {
        let mut sql = String::with_capacity(statement.text.len() + 32);
        for piece in &statement.pieces {
            match piece {
                Piece::Sql(text) => sql += text,
                Piece::Parameter(parameter, _) => sql += &self.variable(parameter),
            }
        }
        // a comment at the end must not swallow what follows
        sql.push('\n');
        sql
    }

    /// The variable that holds a parameter. The declaration was examined: each is known.
    fn variable(&self, parameter: &Parameter) -> String {
        match parameter {
            Parameter::EntityId => "sw_entity_id".to_owned(),
            Parameter::CommandId => "sw_command_id".to_owned(),
            Parameter::CommandTime => "sw_command_time".to_owned(),
            Parameter::Uuid(n) => format!("sw_u{n}"),
            Parameter::Field(name) => self.fields.get(name).map_or_else(|| "null".to_owned(), |n| format!("sw_f{n}")),
            Parameter::Row { row, column } => match self.rows.get(row) {
                Some(variable) => format!("{variable}.{}", quoted(column)),
                None => "null".to_owned(),
            },
        }
    }

    /// An expression for a template's JSON text. Concatenated here, so that its members stay in
    /// their order and numbers keep their digits (jsonb would keep neither).
    fn json(&self, template: &Template) -> String {
        let mut pieces = Pieces::default();
        self.json_into(template, &mut pieces);
        pieces.expression()
    }

    fn json_into(&self, template: &Template, pieces: &mut Pieces) {
        match template {
            Template::Literal(value, _) => pieces.text(&value.to_string()),
            Template::Parameter(parameter, _) => {
                pieces.value(format!("coalesce(to_json({})::text, 'null')", self.variable(parameter)));
            }
            Template::Array(items) => {
                pieces.text("[");
                for (n, item) in items.iter().enumerate() {
                    pieces.text(if n > 0 { "," } else { "" });
                    self.json_into(item, pieces);
                }
                pieces.text("]");
            }
            Template::Object(members) => {
                pieces.text("{");
                for (n, (name, member)) in members.iter().enumerate() {
                    pieces.text(if n > 0 { "," } else { "" });
                    pieces.text(&format!("{}:", serde_json::Value::from(name.as_str())));
                    self.json_into(member, pieces);
                }
                pieces.text("}");
            }
        }
    }

    /// In the shape that events are stored in.
    fn events(&self, events: &[Event]) -> String {
        let mut pieces = Pieces::default();
        for (n, event) in events.iter().enumerate() {
            pieces.text(if n > 0 { "," } else { "[" });
            pieces.text(&format!("{{\"type\":{},\"data\":", serde_json::Value::from(event.event_type.as_str())));
            self.json_into(&event.data, &mut pieces);
            pieces.text("}");
        }
        pieces.text("]");
        pieces.expression()
    }

    fn detail(&self, detail: &Detail) -> String {
        let mut pieces = Pieces::default();
        for piece in &detail.pieces {
            match piece {
                DetailPiece::Text(text) => pieces.text(text),
                DetailPiece::Parameter(parameter) => pieces.value(format!("concat({})", self.variable(parameter))),
            }
        }
        pieces.expression()
    }
}

/// Text and values, to be concatenated.
#[derive(Default)]
struct Pieces {
    expressions: Vec<String>,
    text: String,
}

impl Pieces {
    fn text(&mut self, text: &str) {
        self.text += text;
    }

    fn value(&mut self, expression: String) {
        self.flush();
        self.expressions.push(expression);
    }

    fn flush(&mut self) {
        if !self.text.is_empty() {
            self.expressions.push(literal(&std::mem::take(&mut self.text)));
        }
    }

    fn expression(mut self) -> String {
        self.flush();
        if self.expressions.is_empty() { "''".to_owned() } else { self.expressions.join(" || ") }
    }
}

/// When `sw_n` is a row count that was not expected; `None`: every one is.
fn unexpected(expect: Expect) -> Option<String> {
    let Expect { least, most } = expect;
    match most {
        Some(most) if most == least => Some(format!("sw_n <> {least}")),
        Some(most) if least == 0 => Some(format!("sw_n > {most}")),
        Some(most) => Some(format!("sw_n not between {least} and {most}")),
        None if least == 0 => None,
        None => Some(format!("sw_n < {least}")),
    }
}

//! Makes functions of typed declarations: one for each command type and write, and one for each
//! entity type that runs them in a batch's order. A name carries a hash of the function's text, so
//! that workers of two versions run side by side, and nobody runs what he does not know.

mod command;
mod runner;
mod text;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use self::command::{Body, command, write};
use self::runner::{Numbered, runner};
pub(crate) use self::text::{literal, quoted};
use super::arguments::{Field, Fields};
use super::call::{Call, InDatabase};
use super::field::FieldType;
use super::typed::{self, Typed};

/// Postgres' limit on names is 63 bytes: what is left for the readable part beside prefix and hash.
const READABLE_BYTES_MAX: usize = 38;

/// A function to be made in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name: readable, with a hash of everything else.
    pub name: String,
    /// `create or replace function …`
    pub create: String,
    /// What the catalog holds of it (`pg_proc.prosrc`).
    pub body: String,
}

/// The functions' names, with the SHA-256 of each one's body: what tells whether somebody has changed it.
pub fn digests<'f>(functions: impl IntoIterator<Item = &'f Function>) -> Vec<(String, Vec<u8>)> {
    let digest = |function: &Function| (function.name.clone(), Sha256::digest(&function.body).to_vec());
    functions.into_iter().map(digest).collect()
}

/// An entity type whose commands, or writes, run in the database.
#[derive(Clone, Debug)]
pub struct CompiledEntity {
    /// Its name.
    pub entity: Arc<str>,
    /// Its functions, those that others call first.
    pub functions: Vec<Function>,
    /// Its command types.
    pub commands: Vec<(Arc<str>, Call)>,
    /// What the data path calls.
    pub in_database: InDatabase,
}

/// Where the functions live and what they see.
#[derive(Clone, Copy, Debug)]
pub struct Schemas<'a> {
    /// solewriter's own schema: the functions'.
    pub own: &'a str,
    /// The schema of the tables that statements name.
    pub tables: &'a str,
}

/// Makes the functions of everything that is declared, an entity type each.
pub fn compile(typed: &Typed, schemas: Schemas<'_>) -> Vec<CompiledEntity> {
    let mut entities: Vec<Arc<str>> = Vec::new();
    let commands = typed.commands.iter().map(|command| &command.declaration.entity);
    for entity in commands.chain(typed.writes.iter().map(|write| &write.declaration.entity)) {
        if !entities.contains(entity) {
            entities.push(entity.clone());
        }
    }
    entities.into_iter().map(|entity| compile_entity(typed, &entity, schemas)).collect()
}

fn compile_entity(typed: &Typed, entity: &Arc<str>, schemas: Schemas<'_>) -> CompiledEntity {
    let mut compiled = CompiledEntity {
        entity: entity.clone(),
        functions: Vec::new(),
        commands: Vec::new(),
        in_database: InDatabase::default(),
    };
    let mut numbered = Vec::new();
    for declared in typed.commands.iter().filter(|command| command.declaration.entity == *entity) {
        let body = command(declared);
        let step_lines = body.step_lines.clone();
        let function = finish("command", &declared.declaration.command_type, body, schemas.own);
        let call = Call {
            function: next_number(&numbered),
            fields: fields(&declared.fields, &declared.declaration.optional, declared.declaration.schema.as_deref()),
            uuids: command::uuids(declared),
            serializable: declared.declaration.serializable,
        };
        let constraints = &declared.declaration.constraints;
        numbered.push(Numbered::new(&call, &function.name, constraints, &declared.fields, step_lines));
        compiled.commands.push((declared.declaration.command_type.clone(), call));
        compiled.functions.push(function);
    }
    let mut writes = HashMap::new();
    for declared in typed.writes.iter().filter(|write| write.declaration.entity == *entity) {
        let function = finish("write", &declared.declaration.name, write(declared), schemas.own);
        let call = Call {
            function: next_number(&numbered),
            fields: fields(&declared.fields, &declared.declaration.optional, None),
            uuids: 0,
            serializable: false,
        };
        let constraints = &declared.declaration.constraints;
        numbered.push(Numbered::new(&call, &function.name, constraints, &declared.fields, Vec::new()));
        writes.insert(declared.declaration.name.clone(), call);
        compiled.functions.push(function);
    }
    compiled.in_database.writes = writes;
    for serializable in [false, true] {
        let of_level: Vec<&Numbered> = numbered.iter().filter(|one| one.serializable == serializable).collect();
        if of_level.is_empty() {
            continue;
        }
        let prefix = if serializable { "run_serializable" } else { "run" };
        let function = finish(prefix, entity, runner(&of_level, schemas), schemas.own);
        let name: Arc<str> = function.name.as_str().into();
        compiled.functions.push(function);
        match serializable {
            true => compiled.in_database.serializable_runner = Some(name),
            false => compiled.in_database.runner = Some(name),
        }
    }
    compiled.in_database.functions = digests(&compiled.functions).into();
    compiled
}

fn next_number(numbered: &[Numbered]) -> i16 {
    i16::try_from(numbered.len() + 1).unwrap_or(i16::MAX)
}

fn fields(typed: &[typed::Field], optional: &[String], schema: Option<&serde_json::Value>) -> Arc<Fields> {
    let field = |field: &typed::Field| Field {
        field_type: FieldType::of_postgres(&field.base_type),
        optional: optional.contains(&field.name),
        name: field.name.clone(),
    };
    let fields = Fields::new(typed.iter().map(field).collect(), schema);
    Arc::new(fields.expect("whoever read the declaration has compiled its schema"))
}

/// Names a function by what it is.
fn finish(prefix: &str, readable: &str, body: Body, schema: &str) -> Function {
    let Body { signature, settings, source, .. } = body;
    let mut hasher = Sha256::new();
    for part in [schema, prefix, readable, &signature, &settings, &source] {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let hash = hasher.finalize().iter().take(6).fold(String::new(), |mut hash, byte| {
        // writing to a String cannot fail
        let _ = write!(hash, "{byte:02x}");
        hash
    });
    let name = format!("{prefix}_{}_{hash}", text::identifier(readable, READABLE_BYTES_MAX - prefix.len()));
    let tag = text::dollar_tag(&source);
    let create = format!(
        "create or replace function \"{schema}\".\"{name}\"({signature})\nlanguage plpgsql\n{settings}as {tag}{source}{tag};\n"
    );
    Function { name, create, body: source }
}

#[cfg(test)]
mod tests;

//! Every entity type of the declarations has a topic, and its commands one owner.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::declaration::Declarations;
use super::super::diagnostic::Diagnostic;
use super::listed;

/// What does not fit the configuration's topics, by the entity types that they carry, and the
/// entity types that have handlers in Rust.
#[must_use]
pub fn check(declarations: &Declarations, topics: &[&str], rust: &[&str]) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let entities = declarations.commands.iter().map(|command| (&command.entity, &command.place));
    let entities = entities.chain(declarations.writes.iter().map(|write| (&write.entity, &write.place)));
    for (entity, place) in entities {
        if !topics.contains(&&**entity) && seen.insert(Arc::clone(entity)) {
            found.push(Diagnostic {
                place: place.clone(),
                problem: format!("no topic carries commands of entity {entity}"),
                cure: format!("add [[topics]] with entity = \"{entity}\" to the configuration{}", known(topics)),
            });
        }
    }
    for command in declarations.commands.iter().filter(|command| rust.contains(&&*command.entity)) {
        let (name, entity) = (&command.command_type, &command.entity);
        found.push(Diagnostic {
            place: command.place.clone(),
            problem: format!("{name} is declared in SQL, and entity {entity} has handlers in Rust"),
            cure: format!("write it in Rust too, or declare it a [[write]] that a handler of {entity} names"),
        });
    }
    for write in declarations.writes.iter().filter(|write| !rust.contains(&&*write.entity)) {
        let (name, entity) = (&write.name, &write.entity);
        found.push(Diagnostic {
            place: write.place.clone(),
            problem: format!("nobody can name write {name}: entity {entity} has no handlers in Rust"),
            cure: "make it a [[command]], or run the binary that has those handlers".to_owned(),
        });
    }
    found
}

fn known(topics: &[&str]) -> String {
    match topics {
        [] => String::new(),
        topics => format!(", or correct the file's entity (topics carry {})", listed(topics)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::support::{command, write};
    use super::*;

    fn problems(topics: &[&str], rust: &[&str]) -> Vec<String> {
        let declarations = Declarations {
            commands: vec![command("account.open", "select 1"), command("account.close", "select 1")],
            writes: vec![write("ledger", "select 1")],
            ..Declarations::default()
        };
        check(&declarations, topics, rust).into_iter().map(|diagnostic| diagnostic.problem).collect()
    }

    #[test]
    fn commands_in_sql_and_handlers_in_rust_share_no_entity_and_writes_need_them() {
        assert_eq!(
            problems(&["account"], &[]),
            ["nobody can name write ledger: entity account has no handlers in Rust"]
        );
        assert_eq!(
            problems(&["account"], &["account"]),
            [
                "account.open is declared in SQL, and entity account has handlers in Rust",
                "account.close is declared in SQL, and entity account has handlers in Rust"
            ]
        );
    }

    #[test]
    fn an_entity_without_a_topic_is_named_once() {
        assert_eq!(problems(&["order"], &[])[0], "no topic carries commands of entity account");
        assert_eq!(problems(&["order"], &[]).len(), 2);
    }
}

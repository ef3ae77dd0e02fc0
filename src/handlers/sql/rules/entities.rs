//! The commands of an entity type have one owner.

use super::super::declaration::Declarations;
use super::super::diagnostic::Diagnostic;
use crate::config::Config;

/// What does not fit the entity types that have handlers in Rust. Of an entity that no topic carries
/// nothing is said: reading its file has told that.
#[must_use]
pub fn check(config: &Config, declarations: &Declarations, rust: &[&str]) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let carried = |entity: &str| config.topics.iter().any(|topic| topic.entity == entity);
    for command in declarations.commands.iter().filter(|command| rust.contains(&&*command.entity)) {
        let (name, entity) = (&command.command_type, &command.entity);
        found.push(Diagnostic {
            place: command.place.clone(),
            problem: format!("{name} is declared in SQL, and entity {entity} has handlers in Rust"),
            cure: format!("write it in Rust too, or declare it a [[write]] that a handler of {entity} names"),
        });
    }
    let nobodys = declarations.writes.iter().filter(|write| !rust.contains(&&*write.entity));
    for write in nobodys.filter(|write| carried(&write.entity)) {
        let (name, entity) = (&write.name, &write.entity);
        found.push(Diagnostic {
            place: write.place.clone(),
            problem: format!("nobody can name write {name}: entity {entity} has no handlers in Rust"),
            cure: "make it a [[command]], or run the binary that has those handlers".to_owned(),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::support::{command, write};
    use super::*;
    use crate::config::Topic;

    fn problems(topic: &str, rust: &[&str]) -> Vec<String> {
        let config = Config { topics: vec![Topic::new("commands", topic)], ..Config::default() };
        let declarations = Declarations {
            commands: vec![command("account.open", "select 1"), command("account.close", "select 1")],
            writes: vec![write("ledger", "select 1")],
            ..Declarations::default()
        };
        check(&config, &declarations, rust).into_iter().map(|diagnostic| diagnostic.problem).collect()
    }

    #[test]
    fn commands_in_sql_and_handlers_in_rust_share_no_entity_and_writes_need_them() {
        assert_eq!(problems("account", &[]), ["nobody can name write ledger: entity account has no handlers in Rust"]);
        assert_eq!(
            problems("account", &["account"]),
            [
                "account.open is declared in SQL, and entity account has handlers in Rust",
                "account.close is declared in SQL, and entity account has handlers in Rust"
            ]
        );
    }

    #[test]
    fn of_an_entity_that_no_topic_carries_nothing_more_is_said() {
        assert_eq!(problems("order", &[]), Vec::<String>::new());
    }
}

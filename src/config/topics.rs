//! What has to hold between topics: names are legal, and nothing is claimed twice.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::error::Invalid;
use super::topic::Topic;

/// Kafka's own limit: a name becomes the name of a directory.
const NAME_LENGTH_MAX: usize = 249;

/// Bytes of an entity type: it is part of keys in the database.
const ENTITY_LENGTH_MAX: usize = 255;

pub(super) fn validate(topics: &[Topic]) -> Result<(), Invalid> {
    topics.iter().enumerate().try_for_each(|(index, topic)| validate_names(index, topic))?;
    no_topic_twice(topics)?;
    one_topic_per_entity(topics)?;
    no_answers_on_command_topics(topics)?;
    no_dead_letters_among_answers(topics)
}

fn validate_names(index: usize, topic: &Topic) -> Result<(), Invalid> {
    let name = std::iter::once(("name", Cow::Borrowed(topic.name.as_str())));
    for (key, name) in name.chain(topic.published_to()) {
        if !is_topic_name(&name) {
            let problem = format!(
                "{name:?} is no topic name: letters, digits, dots, underscores and hyphens, at most {NAME_LENGTH_MAX}"
            );
            return Err(invalid(index, key, problem));
        }
    }
    if !is_entity_type(&topic.entity) {
        let problem = format!(
            "{:?} is no entity type: 1 to {ENTITY_LENGTH_MAX} bytes without white space or control characters",
            topic.entity
        );
        return Err(invalid(index, "entity", problem));
    }
    Ok(())
}

fn no_topic_twice(topics: &[Topic]) -> Result<(), Invalid> {
    let mut seen = BTreeMap::new();
    for (index, topic) in topics.iter().enumerate() {
        if let Some(first) = seen.insert(&topic.name, index) {
            let problem = format!("{} is already topics[{first}]", topic.name);
            return Err(invalid(index, "name", problem));
        }
    }
    Ok(())
}

/// An entity on two topics would have two writers.
fn one_topic_per_entity(topics: &[Topic]) -> Result<(), Invalid> {
    let mut owners = BTreeMap::new();
    for (index, topic) in topics.iter().enumerate() {
        if let Some(owner) = owners.insert(&topic.entity, &topic.name) {
            let problem = format!(
                "{} already belongs to {owner}: an entity type has exactly one topic, or it would have two writers",
                topic.entity
            );
            return Err(invalid(index, "entity", problem));
        }
    }
    Ok(())
}

/// An outcome on a command topic would come back as a command.
fn no_answers_on_command_topics(topics: &[Topic]) -> Result<(), Invalid> {
    let is_command_topic = |name: &str| topics.iter().any(|topic| topic.name == name);
    for (index, topic) in topics.iter().enumerate() {
        for (key, name) in topic.published_to() {
            if is_command_topic(&name) {
                let problem = format!("{name} is a command topic: what is published there would be read as commands");
                return Err(invalid(index, key, problem));
            }
        }
    }
    Ok(())
}

/// Who reads outcomes or events expects nothing else there. One topic may have the dead letters of
/// several command topics: each says where it comes from.
fn no_dead_letters_among_answers(topics: &[Topic]) -> Result<(), Invalid> {
    for (index, topic) in topics.iter().enumerate() {
        let Some(name) = topic.dead_letter_topic.as_deref() else { continue };
        if let Some(other) = topics.iter().find(|other| other.outcomes_topic() == name || other.events_topic() == name)
        {
            let problem = format!("{name} has the outcomes or events of {}: dead letters need another", other.name);
            return Err(invalid(index, "dead_letter_topic", problem));
        }
    }
    Ok(())
}

fn invalid(index: usize, key: &str, problem: String) -> Invalid {
    Invalid::new(format!("topics[{index}].{key}"), problem)
}

fn is_topic_name(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=NAME_LENGTH_MAX).contains(&name.len()) && name.chars().all(legal) && name != "." && name != ".."
}

fn is_entity_type(entity: &str) -> bool {
    (1..=ENTITY_LENGTH_MAX).contains(&entity.len()) && !entity.contains(|c: char| c.is_control() || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of_problem(topics: &[Topic]) -> Option<String> {
        validate(topics).err().map(|invalid| invalid.key)
    }

    #[test]
    fn two_topics_with_an_entity_type_each_are_fine() {
        let topics = [Topic::new("accounts.commands", "account"), Topic::new("orders", "order")];
        assert_eq!(key_of_problem(&topics), None);
    }

    #[test]
    fn a_topic_appears_once() {
        let topics = [Topic::new("accounts", "account"), Topic::new("accounts", "order")];
        assert_eq!(key_of_problem(&topics).as_deref(), Some("topics[1].name"));
    }

    #[test]
    fn an_entity_type_belongs_to_one_topic() {
        let topics = [Topic::new("a", "account"), Topic::new("b", "account")];
        assert_eq!(key_of_problem(&topics).as_deref(), Some("topics[1].entity"));
    }

    #[test]
    fn outcomes_and_events_never_come_back_as_commands() {
        let topics = [Topic::new("a", "account"), Topic::new("a.events", "order")];
        assert_eq!(key_of_problem(&topics).as_deref(), Some("topics[0].events_topic"));
        let mut own = Topic::new("a", "account");
        own.outcomes_topic = Some("a".into());
        assert_eq!(key_of_problem(&[own]).as_deref(), Some("topics[0].outcomes_topic"));
    }

    #[test]
    fn dead_letters_have_a_topic_that_nothing_else_is_on() {
        let mirrored_to = |name: &str| {
            let mut topic = Topic::new("a", "account");
            topic.dead_letter_topic = Some(name.to_owned());
            key_of_problem(&[topic, Topic::new("b", "order")])
        };
        for taken in ["a", "b", "a.outcomes", "b.events", "no name"] {
            assert_eq!(mirrored_to(taken).as_deref(), Some("topics[0].dead_letter_topic"), "{taken}");
        }
        assert_eq!(mirrored_to("a.dlq"), None);
    }

    #[test]
    fn a_name_that_kafka_would_refuse_is_refused_here() {
        for name in ["", ".", "..", "a b", "ä", &"a".repeat(250)] {
            let topics = [Topic::new(name, "account")];
            assert_eq!(key_of_problem(&topics).as_deref(), Some("topics[0].name"), "{name}");
        }
        // Long enough for itself, too long with `.outcomes` behind it.
        let topics = [Topic::new("a".repeat(245), "account")];
        assert_eq!(key_of_problem(&topics).as_deref(), Some("topics[0].outcomes_topic"));
    }
}

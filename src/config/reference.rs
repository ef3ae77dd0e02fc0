//! `config/solewriter.toml`: every key with its unit and its default, made from the doc comments.

use std::fmt::Write as _;

use super::show::Line;
use super::{Config, Topic, keys, show};

const HEAD: &str = "\
# solewriter: every key, with its unit and its default.
#
# A value that is commented out is the default; an example where there is none. Stronger than this
# file: flags, then environment variables such as SOLEWRITER__WORKER__DRAIN_TIMEOUT=30s (or
# SOLEWRITER__DATABASE__URL_FILE=/run/secrets/url, which reads the value from a file). Weaker:
# DATABASE_URL and KAFKA_BOOTSTRAP_SERVERS. `solewriter config show` prints what is in effect.
#
# Made from the doc comments in src/config: `UPDATE=1 cargo test --release --lib reference` after a
# change there.
";

/// The text of `config/solewriter.toml`. As it stands it sets nothing; with every `#key` uncommented
/// it is a configuration that works.
#[must_use]
pub fn reference_file() -> String {
    let mut text = HEAD.to_owned();
    for line in show::lines(&example()) {
        write_line(&mut text, &line);
    }
    text
}

/// The defaults, and examples where there is none.
fn example() -> Config {
    let mut config = Config::default();
    config.database.url = "postgres://solewriter@localhost:5432/app".parse().ok();
    config.kafka.bootstrap_servers = Some("localhost:9092".to_owned());
    config.kafka.properties = [("session.timeout.ms", "15000")].into_iter().collect();
    let mut topic = Topic::new("accounts.commands", "account");
    topic.resolve();
    topic.dead_letter_topic = Some("accounts.commands.dlq".to_owned());
    config.topics.push(topic);
    config
}

fn write_line(text: &mut String, line: &Line) {
    // Writing to a String cannot fail.
    let _ = match &line.key {
        None if line.text.is_empty() => writeln!(text),
        None => {
            describe(text, &line.section);
            writeln!(text, "{}", header(line))
        }
        Some(key) => {
            let _ = writeln!(text);
            describe(text, key);
            writeln!(text, "#{}", line.text)
        }
    };
}

/// A list's header would add an empty entry, so it is commented out like a value.
fn header(line: &Line) -> String {
    match line.text.starts_with("[[") {
        true => format!("#{}", line.text),
        false => line.text.clone(),
    }
}

fn describe(text: &mut String, key: &str) {
    let path: Vec<&str> = key.split('.').collect();
    // The properties of librdkafka have no description of ours.
    for line in keys::description_at(&path).unwrap_or_default().lines() {
        let _ = writeln!(text, "# {line}");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Compares a file of the repository with what is made of it; with `UPDATE` it is written.
    fn is_up_to_date(file: &str, make: impl FnOnce(&str) -> String) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let written = fs::read_to_string(&path).expect("the repository has the file");
        let made = make(&written);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(path, made).expect("the repository is writable");
        } else {
            assert_eq!(written, made, "run this test with UPDATE=1");
        }
    }

    #[test]
    fn the_reference_file_is_what_the_doc_comments_say() {
        is_up_to_date(super::super::DEFAULT_FILE, |_| reference_file());
    }

    #[test]
    fn the_reference_document_shows_every_key() {
        is_up_to_date("docs/configuration.md", |written| {
            let (before, _) = written.split_once("<!-- config/solewriter.toml -->\n").expect("its place is marked");
            let keys = reference_file();
            let (_, keys) = keys.split_once("\n\n").expect("keys behind the head");
            format!("{before}<!-- config/solewriter.toml -->\n```toml\n{keys}```\n")
        });
    }

    #[test]
    fn the_reference_file_as_it_stands_sets_nothing() {
        let config: Config = toml::from_str(&reference_file()).expect("a good file");
        assert_eq!(config.show(), Config::default().show());
    }

    #[test]
    fn the_reference_file_with_every_value_uncommented_is_the_example() {
        let is_value = |line: &&str| line.starts_with('#') && !line.starts_with("# ") && *line != "#";
        let made = reference_file();
        let uncommented: Vec<&str> = made.lines().map(|line| if is_value(&line) { &line[1..] } else { line }).collect();
        let config: Config = toml::from_str(&uncommented.join("\n")).expect("a good file");
        assert_eq!(config.show(), example().show());
        config.validate_for_run().expect("a configuration that works");
    }
}

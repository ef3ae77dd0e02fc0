//! The layers together: who wins, and what a message says.

use std::path::PathBuf;
use std::{env, fs};

use super::*;

/// A file that disappears with the test.
struct File(PathBuf);

impl File {
    fn with(text: &str) -> Self {
        let path = env::temp_dir().join(format!("solewriter-{}.toml", uuid::Uuid::new_v4()));
        fs::write(&path, text).expect("a temporary file");
        Self(path)
    }

    fn sources(&self) -> Sources {
        Sources::of_file(Some(self.0.clone()))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // Nothing depends on it: at worst a file stays behind in the temporary directory.
        let _ = fs::remove_file(&self.0);
    }
}

/// Tests run in the crate's directory, whose default file sets nothing.
fn defaults() -> Sources {
    Sources::of_file(None)
}

fn load(sources: &Sources) -> Config {
    Config::from_sources(sources).expect("a good configuration")
}

fn refusal(sources: &Sources) -> String {
    Config::from_sources(sources).expect_err("a bad configuration").to_string()
}

fn refusal_of(text: &str) -> String {
    let file = File::with(text);
    let path = file.0.display().to_string();
    refusal(&file.sources()).replace(&path, "FILE")
}

#[test]
fn no_file_and_no_environment_is_the_defaults() {
    assert_eq!(load(&defaults()).show(), Config::default().show());
}

#[test]
fn a_named_file_that_is_missing_is_an_error() {
    let missing = PathBuf::from("no/such/file.toml");
    assert_eq!(refusal(&Sources::of_file(Some(missing))), "configuration file no/such/file.toml does not exist");
    let named = defaults().variable("SOLEWRITER_CONFIG", "no/such/file.toml");
    assert!(refusal(&named).contains("does not exist"));
}

#[test]
fn a_flag_wins_over_the_environment_and_the_environment_over_the_file() {
    let file = File::with("[kafka]\ngroup_id = \"file\"");
    let sources = file.sources();
    assert_eq!(load(&sources).kafka.group_id, "file");
    let sources = sources.variable("SOLEWRITER__KAFKA__GROUP_ID", "environment");
    assert_eq!(load(&sources).kafka.group_id, "environment");
    let sources = sources.set("kafka.group_id", "flag", "--group");
    assert_eq!(load(&sources).kafka.group_id, "flag");
}

#[test]
fn the_conventional_variables_count_only_where_solewriter_s_own_are_silent() {
    let file = File::with("[database]\nurl = \"postgres://file@localhost/app\"");
    let url = |sources: Sources| load(&sources).database.url.map(|url| url.to_string());
    let conventional = |sources: Sources| sources.variable("DATABASE_URL", "postgres://conventional@localhost/app");
    let expected = |user: &str| Some(format!("postgres://{user}@localhost/app"));
    assert_eq!(url(conventional(defaults())), expected("conventional"));
    assert_eq!(url(conventional(file.sources())), expected("file"));
    let own = "SOLEWRITER__DATABASE__URL";
    let own = defaults().variable(own, "postgres://own@localhost/app");
    assert_eq!(url(conventional(own)), expected("own"));
    assert_eq!(url(defaults().variable("DATABASE_URL", "")), None);
}

#[test]
fn a_value_can_come_from_a_file() {
    let secret = File::with("postgres://app:hunter2@localhost/app\n");
    let variable = "SOLEWRITER__DATABASE__URL_FILE";
    let sources = defaults().variable(variable, secret.0.display().to_string());
    let config = load(&sources);
    let shown = config.show();
    assert!(shown.contains("postgres://app:***@localhost/app"), "{shown}");
    assert!(shown.contains(variable), "{shown}");
    assert!(!shown.contains("hunter2") && !format!("{config:?}").contains("hunter2"));
    assert_eq!(
        refusal(&sources.variable("SOLEWRITER__DATABASE__URL", "postgres://localhost")),
        "SOLEWRITER__DATABASE__URL and SOLEWRITER__DATABASE__URL_FILE are both set: unset one of them"
    );
}

#[test]
fn the_environment_is_typed_as_its_key_wants_it() {
    let config = load(
        &defaults()
            .variable("SOLEWRITER__WORKER__BATCH_COMMANDS_MAX", "500")
            .variable("SOLEWRITER__KAFKA__GROUP_ID", "42")
            .variable("SOLEWRITER__KAFKA__PROPERTIES__session.timeout.ms", "6000")
            .variable("SOLEWRITER__TOPICS", r#"[{ name = "orders", entity = "order" }]"#),
    );
    assert_eq!(config.worker.batch_commands_max.get(), 500);
    assert_eq!(config.kafka.group_id, "42");
    assert_eq!(config.kafka.properties.get("session.timeout.ms"), Some("6000"));
    assert_eq!(config.topics[0].outcomes_topic(), "orders.outcomes");
}

#[test]
fn a_key_with_a_typo_names_the_nearest_key() {
    assert_eq!(
        refusal_of("[worker]\nbatch_comands_max = 5"),
        "unknown key worker.batch_comands_max in FILE: did you mean batch_commands_max?"
    );
    assert_eq!(refusal_of("[workers]\nbatch_commands_max = 5"), "unknown key workers in FILE: did you mean worker?");
    assert_eq!(
        refusal_of("[[topics]]\nname = \"a\"\nentity = \"b\"\npartitoner = \"crc32\""),
        "unknown key topics[0].partitoner in FILE: did you mean partitioner?"
    );
    assert_eq!(
        refusal(&defaults().variable("SOLEWRITER__WORKER__DRAIN_TIMOUT", "5s")),
        "unknown key worker.drain_timout in environment variable SOLEWRITER__WORKER__DRAIN_TIMOUT: did you mean drain_timeout?"
    );
}

#[test]
fn a_key_in_the_wrong_section_is_sent_to_the_right_one() {
    assert_eq!(
        refusal_of("[http]\ncommands = []"),
        "unknown key http.commands in FILE: commands belongs at the top of the file, before the first section"
    );
    assert_eq!(
        refusal_of("[kafka]\nwindow = \"7d\""),
        "unknown key kafka.window in FILE: did you mean deduplication.window?"
    );
    assert_eq!(refusal_of("[topics]\nname = \"a\""), "topics in FILE: a list: write [[topics]]");
}

#[test]
fn a_value_of_the_wrong_type_names_its_key_and_its_place() {
    assert_eq!(
        refusal_of("[worker]\nbatch_commands_max = 0"),
        "worker.batch_commands_max in FILE: invalid value: integer `0`, expected a nonzero usize"
    );
    assert_eq!(
        refusal_of("[worker]\ndrain_timeout = \"20\""),
        "worker.drain_timeout in FILE: \"20\" is not a duration such as \"20s\" or \"7d\": time unit needed, for example 20sec or 20ms"
    );
    let refusal = refusal(&defaults().variable("SOLEWRITER__DATABASE__CONNECTIONS_MAX", "many"));
    assert!(
        refusal.starts_with("database.connections_max in environment variable SOLEWRITER__DATABASE__CONNECTIONS_MAX: "),
        "{refusal}"
    );
}

#[test]
fn an_address_to_listen_on_is_an_ip_address() {
    assert_eq!(
        refusal_of("[http]\nlisten = \"localhost:9400\""),
        "http.listen in FILE: \"localhost:9400\" is no IP address with a port, such as \"127.0.0.1:9400\""
    );
}

#[test]
fn no_refusal_quotes_a_password() {
    let refusals = [
        refusal_of("database = \"postgres://u:hunter2@db/app\""),
        refusal_of("[database]\nurl = \"postgres://u:hunter2@db/app"),
        refusal_of("[database]\nurl = \"u:hunter2@db/app\""),
        refusal_of("[database.url]\npassword = \"hunter2\""),
        refusal(&defaults().variable("SOLEWRITER__DATABASE", "hunter2")),
    ];
    for refusal in refusals {
        assert!(!refusal.contains("hunter2"), "{refusal}");
    }
}

#[test]
fn a_syntax_error_names_its_line() {
    let refusal = refusal_of("[worker]\nbatch_commands_max = = 5");
    assert!(refusal.starts_with("FILE:2:22: "), "{refusal}");
}

#[test]
fn a_property_that_solewriter_owns_is_refused_with_the_reason() {
    let refusal = refusal_of("[kafka.properties]\n\"enable.auto.commit\" = true");
    assert!(
        refusal
            .starts_with("kafka.properties.enable.auto.commit in FILE: refused: the cursor in Postgres is the truth"),
        "{refusal}"
    );
}

#[test]
fn files_are_looked_for_beside_the_configuration_file() {
    let file = File::with("commands = [\"commands/*.toml\"]");
    let config = load(&file.sources());
    assert_eq!(config.directory, env::temp_dir());
    assert_eq!(config.commands, ["commands/*.toml"]);
    assert_eq!(Config::default().directory, PathBuf::new());
}

#[test]
fn running_needs_a_database_a_cluster_and_a_topic() {
    let missing = |config: &Config| {
        let error = config.validate_for_run().expect_err("something is missing");
        error.to_string().split(' ').next().map(str::to_owned)
    };
    let mut config = Config::default();
    assert_eq!(missing(&config).as_deref(), Some("database.url"));
    config.database.url = "postgres://localhost/app".parse().ok();
    assert_eq!(missing(&config).as_deref(), Some("kafka.bootstrap_servers"));
    config.kafka.bootstrap_servers = Some("localhost:9092".into());
    assert_eq!(missing(&config).as_deref(), Some("topics"));
    config.topics.push(Topic::new("orders", "order"));
    config.validate_for_run().expect("nothing is missing");
}

#[test]
fn what_is_shown_names_where_each_value_came_from() {
    let config = load(&defaults().variable("SOLEWRITER__WORKER__DRAIN_TIMEOUT", "30s"));
    let shown = config.show();
    let line = "drain_timeout = \"30s\"  # environment variable SOLEWRITER__WORKER__DRAIN_TIMEOUT\n";
    assert!(shown.contains(line), "{shown}");
    let json = config.show_json();
    assert_eq!(json["worker"]["drain_timeout"], "30s");
    assert_eq!(json["origins"]["worker.drain_timeout"], "environment variable SOLEWRITER__WORKER__DRAIN_TIMEOUT");
}

//! The first lines: where broker and database are, and what to try from another terminal.

use std::env;
use std::path::absolute;

use crate::config::Origin;
use crate::dev::commands::Commands;
use crate::dev::services::Services;

/// As lines, short enough for 80 columns wherever names and addresses are.
pub(super) fn lines(services: &Services, commands: &Commands) -> Vec<String> {
    let schema = &services.config.database.schema;
    let (url, servers) = (services.database_in_a_shell(), services.bootstrap_servers());
    let topics: Vec<&str> = services.config.topics.iter().map(|topic| &*topic.name).collect();
    let mut lines = vec![
        format!("broker    {servers}, embedded; commands on {}", topics.join(", ")),
        format!("database  {url}, schema {schema}"),
        "try from another terminal:".to_owned(),
        format!("export SOLEWRITER__DATABASE__URL={url}"),
        format!("export SOLEWRITER__KAFKA__BOOTSTRAP_SERVERS={servers}"),
    ];
    if !services.has_private_database() {
        lines.push(format!("export SOLEWRITER__DATABASE__SCHEMA={schema}"));
    }
    let program = env::args().next().unwrap_or_else(|| "solewriter".to_owned());
    lines.extend(to_try(&program, services, commands));
    let entities = format!("{schema}.entities");
    let table = services.first_table.as_ref().unwrap_or(&entities);
    lines.push(format!("psql $SOLEWRITER__DATABASE__URL -c {}", quoted(&format!("table {table} limit 5"))));
    lines
}

/// A command to an entity of its own, and how to look at that.
fn to_try(program: &str, services: &Services, commands: &Commands) -> Vec<String> {
    let Some((entity_type, sample)) = commands.to_try() else {
        return Vec::new();
    };
    let Some(topic) = services.config.topics.iter().find(|topic| topic.entity == *entity_type) else {
        return Vec::new();
    };
    let data = String::from_utf8_lossy(&sample.data);
    let (key, command_type) = (&sample.entity_id, &sample.command_type);
    let line = quoted(&format!(r#"{{"key":"{key}","type":"{command_type}","data":{data}}}"#));
    let mut lines = configuration(services);
    lines.push(format!("echo {line} |"));
    lines.push(format!("  {program} publish --topic {}", topic.name));
    lines.push(format!("{program} inspect entity {entity_type} {key}"));
    lines
}

/// Where the topics are named, if in a file: whoever publishes, or runs a log again, has to know of them.
fn configuration(services: &Services) -> Vec<String> {
    match services.config.origins.of("topics") {
        Origin::File(file) => {
            let file = absolute(&file).unwrap_or(file);
            vec![format!("export SOLEWRITER_CONFIG={}", quoted(&file.display().to_string()))]
        }
        _ => Vec::new(),
    }
}

/// A single quote would end the shell's.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

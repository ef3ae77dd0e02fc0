//! The first lines: where broker and database are, and what to try from another terminal.

use std::env;

use crate::dev::sample::{SampleTraffic, Sampler};
use crate::dev::services::Services;

/// The key of the suggested command: nobody else sends to it, so that its entity shows what became
/// of it.
const KEY: &str = "mine";

/// As lines, short enough for 80 columns wherever names and addresses are.
pub(super) fn lines(services: &Services, samples: &[SampleTraffic]) -> Vec<String> {
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
    lines.extend(to_try(&program, services, samples));
    lines.push(format!("psql $SOLEWRITER__DATABASE__URL -c 'table {schema}.entities limit 5'"));
    lines
}

/// The first sample command, to an entity of its own, and how to look at that.
fn to_try(program: &str, services: &Services, samples: &[SampleTraffic]) -> Vec<String> {
    let Some(sample) = samples.first() else {
        return Vec::new();
    };
    let Some(topic) = services.config.topics.iter().find(|topic| topic.entity == *sample.entity_type) else {
        return Vec::new();
    };
    let first = (sample.next)(&mut Sampler::default());
    let data = String::from_utf8_lossy(&first.data);
    // a single quote would end the shell's
    let line = format!(r#"{{"key":"{KEY}","type":"{}","data":{data}}}"#, first.command_type).replace('\'', r"'\''");
    vec![
        format!("echo '{line}' |"),
        format!("  {program} publish --topic {}", topic.name),
        format!("{program} inspect entity {} {KEY}", sample.entity_type),
    ]
}

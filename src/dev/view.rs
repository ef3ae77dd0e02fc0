//! What `dev` says: plain lines, on stdout for people, on stderr where stdout is for a program.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::time::Duration;

use super::services::Services;
use super::{Balance, Difference};
use crate::postgres::PartitionStatus;

/// Where the lines go.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// A program reads stdout.
    pub to_stderr: bool,
}

/// What one line shows.
#[derive(Debug, Default)]
pub(super) struct Second {
    pub(super) at: Duration,
    pub(super) settled: u64,
    pub(super) delivered: u64,
    pub(super) repeats_answered: u64,
    pub(super) owners: String,
}

impl View {
    fn say(self, line: impl Display) {
        // whoever has closed the output has seen enough; the exit code still says it
        let _ = match self.to_stderr {
            true => writeln!(io::stderr(), "{line}"),
            false => writeln!(io::stdout(), "{line}"),
        };
    }

    pub(super) fn services(self, services: &Services) {
        let schema = &services.config.database.schema;
        let kind = if services.has_private_database() { "private, durability off" } else { "a schema of its own" };
        let (url, servers) = (&services.database_url, services.bootstrap_servers());
        let topics: Vec<&str> = services.config.topics.iter().map(|topic| &*topic.name).collect();
        let program = std::env::args().next().unwrap_or_else(|| "solewriter".to_owned());
        self.say(format_args!("broker    {servers} (embedded), commands on {}", topics.join(", ")));
        self.say(format_args!("database  {url} ({kind}), schema {schema}"));
        self.say("\ntry from another terminal:");
        self.say(format_args!("  export SOLEWRITER__DATABASE__URL={url} SOLEWRITER__DATABASE__SCHEMA={schema} SOLEWRITER__KAFKA__BOOTSTRAP_SERVERS={servers}"));
        self.say(format_args!("  {program} status"));
        self.say(format_args!(
            "  psql \"$SOLEWRITER__DATABASE__URL\" -c 'select outcome, count(*) from {schema}.processed_commands group by 1'"
        ));
        if let Some(topic) = services.config.topics.first() {
            self.say(format_args!("  kcat -b {servers} -C -e -o -5 -t {}", topic.outcomes_topic()));
        }
        self.say("\n time   settled/s   settled   repeats answered   lag   partitions per owner");
    }

    pub(super) fn line(self, before: &Second, now: &Second) {
        let elapsed = now.at.saturating_sub(before.at).as_secs_f64();
        let rate = (now.settled - before.settled.min(now.settled)) as f64 / elapsed.max(0.001);
        let lag = now.delivered.saturating_sub(now.settled);
        self.say(format_args!(
            "{:4.0}s  {rate:10.0}  {:8}  {:17}  {lag:4}   {}",
            now.at.as_secs_f64(),
            now.settled,
            now.repeats_answered,
            now.owners
        ));
    }

    pub(super) fn first_effect(self, after: Duration) {
        self.note(&format!("the first effect, {:.1} s after the start", after.as_secs_f64()));
    }

    pub(super) fn note(self, note: &str) {
        self.say(format_args!("       {note}"));
    }

    /// The end, for people.
    pub fn verdict(self, verdict: &Result<Balance, Difference>) {
        match verdict {
            Ok(balance) => self.say(summary(balance)),
            Err(difference) => self.say(format_args!("\nthe books do NOT balance: {difference}")),
        }
    }
}

/// Owners by the part of their name that differs, with how many partitions each claimed last.
pub(super) fn owners(rows: &[PartitionStatus]) -> String {
    let mut owners: BTreeMap<&str, u32> = BTreeMap::new();
    for row in rows {
        let name = row.owner.rsplit(':').next().unwrap_or(&row.owner);
        *owners.entry(name).or_default() += 1;
    }
    let shown: Vec<String> = owners.iter().map(|(name, count)| format!("{name}: {count}")).collect();
    shown.join("  ")
}

fn summary(balance: &Balance) -> String {
    let Balance { commands, repeats, applied, rejected, outcomes, entities, held, foreign, claims, take_overs } =
        balance;
    let mut text = format!(
        "\nsent       {commands} commands, {repeats} of them repeated\n\
         settled    {applied} applied, {rejected} rejected: one final outcome for each id\n\
         published  {outcomes} outcomes: every delivery answered, every repeat the same to the byte\n\
         owners     {take_overs} take-overs, {claims} claims after the first ones\n\
         versions   {entities} entities, without a gap\n"
    );
    for (entity_type, held) in held {
        text += &format!("sum        {entity_type}: {held} held = what the applied commands added\n");
    }
    if *foreign > 0 {
        text += &format!("foreign    {foreign} commands of somebody else; their entities are not in the sum\n");
    }
    text + "the books balance"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_ends_with_what_everybody_waits_for() {
        let held = BTreeMap::from([("account".to_owned(), 70)]);
        let text = summary(&Balance { held, foreign: 1, ..Balance::default() });
        assert!(text.ends_with("\nthe books balance"), "{text}");
        assert!(text.contains("account: 70 held") && text.contains("1 commands of somebody else"), "{text}");
    }
}

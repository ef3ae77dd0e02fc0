//! The end, for people.

use super::words::{counted, grouped, latency};
use crate::dev::{Balance, Difference};

pub(super) fn verdict(verdict: &Result<Balance, Difference>) -> String {
    match verdict {
        Ok(balance) => summary(balance),
        Err(difference) => format!("\nthe books do NOT balance: {difference}"),
    }
}

fn summary(balance: &Balance) -> String {
    let Balance { commands, repeats, applied, rejected, outcomes, entities, held, foreign, .. } = balance;
    let Balance { claims, take_overs, zombies, refused, latency: measured, .. } = balance;
    let [commands, repeats, applied] = [commands, repeats, applied].map(|count| grouped(*count));
    let [rejected, outcomes, entities] = [rejected, outcomes, entities].map(|count| grouped(*count));
    let [p50, p99] = [measured.map(|of| of.p50_us), measured.map(|of| of.p99_us)].map(latency);
    let mut text = format!(
        "\nsent       {commands} commands, and {repeats} repeats of them\n\
         settled    {applied} applied, {rejected} rejected: one final outcome for each id\n\
         published  {outcomes} outcomes: every delivery answered, every repeat to the byte\n\
         latency    p50 {p50}, p99 {p99}, from sending to reading the outcome\n\
         owners     {}, {}, {} after the first ones\n\
         fence      {} refused\n\
         versions   {entities} entities, without a gap\n",
        counted(*take_overs, "take-over"),
        counted(*zombies, "zombie"),
        counted(*claims, "claim"),
        counted(*refused, "late write"),
    );
    for (entity_type, held) in held {
        text += &format!("sum        {entity_type}: {} held = what the applied commands added\n", grouped(*held));
    }
    if *foreign > 0 {
        let foreign = counted(*foreign, "command");
        text += &format!("foreign    {foreign} of somebody else; their entities are not in the sum\n");
    }
    text + "the books balance"
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_summary_ends_with_what_everybody_waits_for() {
        let held = BTreeMap::from([("account".to_owned(), 70_000)]);
        let text = verdict(&Ok(Balance { held, foreign: 1, ..Balance::default() }));
        assert!(text.ends_with("\nthe books balance"), "{text}");
        assert!(text.contains("account: 70,000 held") && text.contains("1 command of somebody else"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}

//! The end, for people.

use super::words::{counted, grouped, latency};
use crate::dev::{Balance, Count, Tally, Verdict};

pub(super) fn verdict(Verdict { books, tally }: &Verdict) -> String {
    match books {
        Ok(balance) => format!("\n{}{}the books balance", summary(balance), endings(tally)),
        Err(difference) => format!("\n{}the books do NOT balance: {difference}", endings(tally)),
    }
}

/// How the commands of each type ended, and what of it somebody should look at.
fn endings(tally: &Tally) -> String {
    let width = tally.counts().map(|count| count.command_type.len()).max().unwrap_or(0);
    let mut last = "";
    let mut text = String::new();
    for (nth, Count { command_type, outcome, code, commands }) in tally.counts().enumerate() {
        let label = if nth == 0 { "by type" } else { "" };
        let shown = if command_type == last { "" } else { command_type };
        let ending = [Some(outcome), code].into_iter().flatten().collect::<Vec<_>>().join(" ");
        text += &format!("{label:<10} {shown:<width$} {:>9} {ending}\n", grouped(commands));
        last = command_type;
    }
    for command_type in tally.never_applied() {
        text += &format!("NOTE       {command_type} was never applied\n");
    }
    for code in tally.unnamed_constraints() {
        text += &format!(
            "NOTE       {code} has the name of a constraint:\n           \
             if it is a rule of business, name it in the command's `constraints`\n"
        );
    }
    text
}

fn summary(balance: &Balance) -> String {
    let Balance { commands, repeats, applied, rejected, outcomes, entities, held, foreign, .. } = balance;
    let Balance { claims, take_overs, zombies, refused, replayed, latency: measured, .. } = balance;
    let [commands, repeats, applied] = [commands, repeats, applied].map(|count| grouped(*count));
    let [rejected, outcomes, entities] = [rejected, outcomes, entities].map(|count| grouped(*count));
    let [p50, p99] = [measured.map(|of| of.p50_us), measured.map(|of| of.p99_us)].map(latency);
    let mut text = format!(
        "sent       {commands} commands, and {repeats} repeats of them\n\
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
    if let Some(replayed) = replayed {
        text += &format!("replayed   {} in a shadow database: all as in the tables\n", counted(*replayed, "command"));
    }
    if *foreign > 0 {
        let foreign = counted(*foreign, "command");
        text += &format!("foreign    {foreign} of somebody else; their entities are not in the sum\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use uuid::Uuid;

    use super::*;
    use crate::dev::Difference;
    use crate::dev::tally::tests::tally;

    #[test]
    fn the_summary_ends_with_what_everybody_waits_for() {
        let held = BTreeMap::from([("account".to_owned(), 70_000)]);
        let books = Ok(Balance { held, foreign: 1, replayed: Some(9_000), ..Balance::default() });
        let text = verdict(&Verdict { books, tally: Tally::default() });
        assert!(text.ends_with("\nthe books balance"), "{text}");
        assert!(text.contains("account: 70,000 held") && text.contains("1 command of somebody else"), "{text}");
        assert!(text.contains("9,000 commands in a shadow database"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn outcomes_stand_by_type_and_what_to_look_at_is_marked() {
        let unnamed = Some("constraint-card-balance-check");
        let endings = [
            ("card.issue", "applied", None),
            ("card.issue", "rejected", unnamed),
            ("card.redeem", "dead", Some("data-error")),
        ];
        let books = Err(Difference::NotSettled(Uuid::nil()));
        let text = verdict(&Verdict { books, tally: tally(&endings) });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[1..4],
            [
                "by type    card.issue          1 applied",
                "                               1 rejected constraint-card-balance-check",
                "           card.redeem         1 dead data-error",
            ]
        );
        assert!(
            lines[4].ends_with(" card.redeem was never applied") && lines[5].contains(" constraint-card"),
            "{text}"
        );
        assert!(lines.last().is_some_and(|last| last.starts_with("the books do NOT balance: ")), "{text}");
        assert!(lines[..7].iter().all(|line| line.chars().count() <= 80), "{text}");
    }
}

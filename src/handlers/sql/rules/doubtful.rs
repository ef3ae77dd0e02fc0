//! What is in order, and hardly meant: two fields of nearly one name, and a text that is a
//! parameter's name without its colon.

use super::super::declaration::{Command, Template};
use super::super::diagnostic::{Diagnostic, Place};
use super::super::statement::Parameter;
use super::rows::Row;

/// Names shorter than this are all near each other: characters.
const NAME_MIN: usize = 4;

/// What to look at again. `rows`: those that the steps took.
pub(in super::super) fn check(command: &Command, rows: &[Row<'_>]) -> Vec<Diagnostic> {
    let mut found = near_fields(command);
    found.extend(texts_that_name_values(command, rows));
    found
}

fn near_fields(command: &Command) -> Vec<Diagnostic> {
    let fields = command.fields();
    let mut found = Vec::new();
    for (nth, later) in fields.iter().enumerate() {
        let near = fields[..nth].iter().filter(|earlier| nearly_equal(earlier, later));
        for earlier in near.filter(|earlier| !(has_property(command, earlier) && has_property(command, later))) {
            let Some(place) = rarer(command, earlier, later) else { continue };
            found.push(Diagnostic {
                place,
                problem: format!(":{earlier} and :{later} are two fields of the payload, and their names nearly one"),
                cure: "correct one of them; if both are meant, give the command a schema whose properties name both"
                    .to_owned(),
            });
        }
    }
    found
}

/// One slip of the pen makes one name of the other: a letter too many, too few, another, or two that
/// changed places. Digits tell names apart (`street1`, `street2`); upper case and `_` do not.
fn nearly_equal(a: &str, b: &str) -> bool {
    let letters = |name: &str| name.replace('_', "").to_lowercase();
    let digits = |name: &str| name.chars().filter(char::is_ascii_digit).collect::<String>();
    let (a, b) = (letters(a), letters(b));
    let short = [&a, &b].iter().any(|name| name.chars().count() < NAME_MIN);
    let slip = strsim::osa_distance(&a, &b) == 1 && a.chars().next() == b.chars().next() && digits(&a) == digits(&b);
    a == b || (slip && !short)
}

fn has_property(command: &Command, field: &str) -> bool {
    let properties = command.schema.as_ref().and_then(|schema| schema.get("properties"));
    properties.is_some_and(|properties| properties.get(field).is_some())
}

/// Where the one stands that is used less often, or else the later one: the slip.
fn rarer(command: &Command, earlier: &str, later: &str) -> Option<Place> {
    let places = |field: &str| {
        let of_field = |parameter: &Parameter| matches!(parameter, Parameter::Field(name) if name == field);
        let uses = command.uses.iter().filter(move |used| of_field(&used.parameter));
        uses.map(|used| &used.place).collect::<Vec<_>>()
    };
    let (earlier, later) = (places(earlier), places(later));
    let slip = if earlier.len() < later.len() { earlier } else { later };
    slip.first().map(|place| Place::clone(place))
}

fn texts_that_name_values(command: &Command, rows: &[Row<'_>]) -> Vec<Diagnostic> {
    let templates = command.reply.iter().chain(command.events.iter().map(|event| &event.data));
    let texts = templates.flat_map(Template::texts).filter(|(text, _)| names_value(text, command, rows));
    let diagnostic = |(text, place): (&str, &Place)| Diagnostic {
        place: place.clone(),
        problem: format!("{text:?} is a text here, and :{text} a value"),
        cure: format!("write {:?} for the value; leave it if the text is meant", format!(":{text}")),
    };
    texts.map(diagnostic).collect()
}

fn names_value(text: &str, command: &Command, rows: &[Row<'_>]) -> bool {
    match Parameter::named(text) {
        Some(Parameter::Field(name)) => command.fields().contains(&name.as_str()),
        Some(Parameter::Row { row, column }) => {
            let columns = rows.iter().filter(|(name, _)| *name == row).filter_map(|(_, columns)| columns.as_ref());
            columns.flatten().any(|found| found.name == column)
        }
        Some(_) => true,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::super::declaration::ParameterUse;
    use super::super::super::typed::Column;
    use super::super::support::{command, place};
    use super::*;

    fn using(fields: &[&str]) -> Command {
        let text = fields.join(" ");
        let at = |field: &str| Place { at: text.rfind(field).unwrap_or_default(), ..place(&text) };
        let used = |field: &&str| ParameterUse { parameter: Parameter::Field((*field).into()), place: at(field) };
        Command { uses: fields.iter().map(used).collect(), ..command("c", "select 1") }
    }

    #[test]
    fn one_slip_of_the_pen_makes_two_names_nearly_one() {
        for (a, b) in [("order", "ordr"), ("order", "oder"), ("quantity", "quanttiy"), ("order_id", "orderId")] {
            assert!(nearly_equal(a, b), "{a} {b}");
        }
        for (a, b) in
            [("order_id", "order_no"), ("street1", "street2"), ("amount", "account"), ("to", "too"), ("rate", "date")]
        {
            assert!(!nearly_equal(a, b), "{a} {b}");
        }
    }

    #[test]
    fn the_rarer_of_two_near_names_is_shown_unless_a_schema_names_both() {
        let mut command = using(&["ordr", "order", "order", "amount"]);
        let found = check(&command, &[]);
        assert_eq!(found.len(), 1);
        assert!(found[0].problem.starts_with(":ordr and :order are two fields"), "{found:?}");
        assert_eq!(found[0].place.at, 0);
        assert_eq!(check(&using(&["order", "ordr"]), &[])[0].place.at, 6);
        command.schema = Some(Arc::new(json!({"properties": {"ordr": {}, "order": {}}})));
        assert_eq!(check(&command, &[]), []);
    }

    #[test]
    fn a_text_that_names_a_value_has_lost_its_colon() {
        let mut command = using(&["amount"]);
        let texts = ["product.available", "amount", "entity_id", "product.name", "other.available", "EUR", ":amount"];
        let literal = |text: &&str| Template::Literal((*text).into(), place(text));
        command.reply = Some(Template::Array(texts.iter().map(literal).collect()));
        let available = Column { name: "available".into(), data_type: "bigint".into() };
        let found = check(&command, &[("product", Some(vec![available]))]);
        let problems: Vec<_> = found.iter().map(|diagnostic| diagnostic.problem.as_str()).collect();
        assert_eq!(
            problems,
            [
                "\"product.available\" is a text here, and :product.available a value",
                "\"amount\" is a text here, and :amount a value",
                "\"entity_id\" is a text here, and :entity_id a value",
            ]
        );
    }
}

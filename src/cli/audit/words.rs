//! What an action was, in a line.

use serde_json::{Map, Value};

use super::Requests;

/// The detail of an action, and what became of its requests.
pub(super) fn summary(action: &str, detail: &Value, requests: Option<&Requests>) -> String {
    let none = Map::new();
    let detail = detail.as_object().unwrap_or(&none);
    let said = match action {
        "halt" => vec!["halted on purpose".to_owned()],
        "resume" => resume(detail),
        "redrive" => letters("to be run again", detail),
        "discard" => letters("to be given up", detail),
        "reproduced" => letters("produced again where it belongs", detail),
        "republish" => republish(detail),
        "checkpoint-create" => vec![format!("made checkpoint {}", named(detail))],
        "checkpoint-drop" => vec![format!("dropped checkpoint {}", named(detail))],
        "withdraw" => {
            vec![format!("{} taken back", counted(number(detail, "requests").unwrap_or(0), "request", "requests"))]
        }
        // an action of a newer version, or one that says all by itself
        _ => detail.iter().map(|(name, value)| format!("{}: {}", name.replace('_', " "), plain(value))).collect(),
    };
    let said = said.join(", ");
    match requests {
        Some(requests) => format!("{said}; {}", became(requests)),
        None => said,
    }
}

fn resume(detail: &Map<String, Value>) -> Vec<String> {
    let text = |name: &str| detail.get(name).and_then(Value::as_str).unwrap_or("?");
    let mut said = vec![format!("lifted the halt {}", text("code"))];
    if text("choice") != "plain" {
        said.push(format!("--{}", text("choice")));
    }
    if let Some(offset) = number(detail, "next_offset") {
        said.push(format!("went on at offset {offset}"));
    }
    if let Some(moved @ 1..) = number(detail, "entities_moved") {
        said.push(format!("{} brought home", counted(moved, "entity", "entities")));
    }
    said
}

fn named(detail: &Map<String, Value>) -> &str {
    detail.get("checkpoint").and_then(Value::as_str).unwrap_or("?")
}

fn republish(detail: &Map<String, Value>) -> Vec<String> {
    let text = |name: &str| detail.get(name).and_then(Value::as_str);
    let again = match detail.get("goes_on") {
        Some(Value::Bool(true)) => "published again, gone on with",
        _ => "published again",
    };
    let mut said = vec![format!("{} {again}", counted(number(detail, "batches").unwrap_or(0), "batch", "batches"))];
    if let (Some(from), Some(to)) = (number(detail, "from_offset"), number(detail, "to_offset")) {
        said.push(format!("offsets {from} to {}", to - 1));
    }
    let mut topics: Vec<_> = [text("outcomes_topic"), text("events_topic")].into_iter().flatten().collect();
    topics.dedup();
    said.push(format!("to {}", topics.join(" and ")));
    said
}

fn letters(what: &str, detail: &Map<String, Value>) -> Vec<String> {
    let keys = number(detail, "keys").unwrap_or(0);
    let single = number(detail, "requests").unwrap_or(0) - keys;
    let meant = [(keys, "parked key", "parked keys"), (single, "letter", "letters")];
    let meant = meant.iter().filter(|(count, ..)| *count > 0).map(|(count, one, many)| counted(*count, one, many));
    let mut said = vec![format!("{} {what}", meant.collect::<Vec<_>>().join(" and "))];
    if let Some(edited @ 1..) = number(detail, "edited") {
        said.push(format!("{edited} with a corrected value"));
    }
    if detail.get("accept_expired") == Some(&Value::Bool(true)) {
        said.push("ids below the horizon accepted".to_owned());
    }
    said
}

fn became(requests: &Requests) -> String {
    let parts = [
        (requests.done, "done"),
        (requests.open, "open"),
        (requests.refused, "refused"),
        (requests.withdrawn, "withdrawn"),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    let parts = parts.collect::<Vec<_>>().join(", ");
    match &requests.why {
        Some(why) if requests.refused > 1 => format!("{parts}, one because: {why}"),
        Some(why) => format!("{parts}: {why}"),
        None => parts,
    }
}

fn number(detail: &Map<String, Value>, name: &str) -> Option<i64> {
    detail.get(name).and_then(Value::as_i64)
}

fn counted(count: i64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_resume_says_which_halt_and_which_choice() {
        let plain = json!({"code": "operator", "choice": "plain", "next_offset": null, "entities_moved": 0});
        assert_eq!(summary("resume", &plain, None), "lifted the halt operator");
        let moved = json!({"code": "partitions-changed", "choice": "accept-partitions", "entities_moved": 3});
        assert_eq!(
            summary("resume", &moved, None),
            "lifted the halt partitions-changed, --accept-partitions, 3 entities brought home"
        );
        let skipped = json!({"code": "log-truncated", "choice": "skip-to", "next_offset": 8_500});
        assert_eq!(
            summary("resume", &skipped, None),
            "lifted the halt log-truncated, --skip-to, went on at offset 8500"
        );
    }

    #[test]
    fn a_redrive_says_what_became_of_it() {
        let detail = json!({"requests": 5, "keys": 2, "edited": 1, "accept_expired": true, "first_request_id": 7});
        let why = Some("too old".to_owned());
        let requests = Requests { requested: 5, open: 1, done: 2, refused: 2, withdrawn: 0, why };
        assert_eq!(
            summary("redrive", &detail, Some(&requests)),
            "2 parked keys and 3 letters to be run again, 1 with a corrected value, ids below the horizon accepted; \
             2 done, 1 open, 2 refused, one because: too old"
        );
    }

    #[test]
    fn what_was_taken_back_is_told_on_both_sides() {
        let detail = json!({"requests": 1, "keys": 1});
        let requests = Requests { requested: 1, open: 0, done: 0, refused: 0, withdrawn: 1, why: None };
        assert_eq!(summary("discard", &detail, Some(&requests)), "1 parked key to be given up; 1 withdrawn");
        assert_eq!(summary("withdraw", &json!({"requests": 2, "first_request_id": 7}), None), "2 requests taken back");
    }

    #[test]
    fn a_republication_says_what_went_where() {
        let detail = json!({"batches": 12, "from_offset": 100, "to_offset": 900, "goes_on": false,
                            "outcomes_topic": "a.again", "events_topic": "a.again"});
        assert_eq!(summary("republish", &detail, None), "12 batches published again, offsets 100 to 899, to a.again");
    }

    #[test]
    fn an_action_of_a_newer_version_shows_its_detail() {
        assert_eq!(summary("mend", &json!({"rows_moved": 3, "to": "b"}), None), "rows moved: 3, to: b");
        assert_eq!(summary("mend", &json!({}), None), "");
    }
}

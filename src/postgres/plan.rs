//! What a plan, as `explain (format json, verbose)` draws it, says: the tables that are read and
//! written, and the expressions that are worked out.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::handlers::sql::typed::Relation;

/// Keys whose texts are names or words of the plan itself, not expressions.
const NO_EXPRESSIONS: [&str; 19] = [
    "Alias",
    "CTE Name",
    "Command",
    "Conflict Arbiter Indexes",
    "Conflict Resolution",
    "Custom Plan Provider",
    "Function Name",
    "Index Name",
    "Join Type",
    "Node Type",
    "Operation",
    "Parent Relationship",
    "Partial Mode",
    "Relation Name",
    "Scan Direction",
    "Schema",
    "Strategy",
    "Subplan Name",
    "Table Function Name",
];

/// How a table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// insert
    Insert,
    /// update, or insert with `on conflict do update`
    Update,
    /// delete
    Delete,
    /// merge: any of them
    Merge,
}

/// What a plan says. Partitions are named as themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) reads: BTreeSet<Relation>,
    pub(super) writes: BTreeSet<(Relation, Operation)>,
    pub(super) expressions: Vec<String>,
    /// The columns that an insert fills with null in every row, by their number in the table.
    pub(super) left_null: Vec<(Relation, usize)>,
}

impl Plan {
    /// Of the document that `explain` returns: a plan for each statement that rules made of one.
    pub(super) fn read(document: &Value) -> Self {
        let mut plan = Self::default();
        for statement in document.as_array().into_iter().flatten() {
            if let Some(node) = statement.get("Plan").and_then(Value::as_object) {
                plan.node(node);
            }
        }
        plan
    }

    fn node(&mut self, node: &Map<String, Value>) {
        let written = operation(node);
        match written {
            Some(operation) => self.writes(node, operation),
            None => self.reads.extend(relation(node)),
        }
        for (key, value) in node {
            match value {
                Value::Array(children) if key == "Plans" => children.iter().for_each(|child| self.child(child)),
                // named by the node itself
                Value::Array(_) if key == "Target Tables" => {}
                _ if NO_EXPRESSIONS.contains(&key.as_str()) => {}
                value => self.expressions(value),
            }
        }
    }

    fn child(&mut self, child: &Value) {
        if let Some(node) = child.as_object() {
            self.node(node);
        }
    }

    fn writes(&mut self, node: &Map<String, Value>, operation: Operation) {
        let targets = node.get("Target Tables").and_then(Value::as_array).into_iter().flatten();
        let targets = targets.filter_map(Value::as_object).filter_map(relation);
        for target in relation(node).into_iter().chain(targets) {
            if node.get("Conflict Resolution").and_then(Value::as_str) == Some("UPDATE") {
                self.writes.insert((target.clone(), Operation::Update));
            }
            self.writes.insert((target, operation));
        }
        if operation == Operation::Insert {
            let null = |table: Relation| nulls(node).into_iter().map(move |number| (table.clone(), number));
            self.left_null.extend(relation(node).into_iter().flat_map(null));
        }
    }

    /// A text, a list of texts, or groups of them (grouping sets, sort keys).
    fn expressions(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.expressions.push(text.clone()),
            Value::Array(values) => values.iter().for_each(|value| self.expressions(value)),
            Value::Object(group) => group.values().for_each(|value| self.expressions(value)),
            _ => {}
        }
    }
}

/// The numbers of the columns for which an insert's rows have a constant null: what it inserts has a
/// column for each of the table's, in their order.
fn nulls(insert: &Map<String, Value>) -> Vec<usize> {
    let children = insert.get("Plans").and_then(Value::as_array).into_iter().flatten();
    let mut rows = children.filter(|child| child.get("Parent Relationship").and_then(Value::as_str) == Some("Outer"));
    let output = rows.next().and_then(|rows| rows.get("Output")).and_then(Value::as_array).into_iter().flatten();
    let null = |column: &Value| column.as_str().is_some_and(|text| text.starts_with("NULL::"));
    output.enumerate().filter(|(_, column)| null(column)).map(|(nth, _)| nth + 1).collect()
}

/// `None`: the node reads.
fn operation(node: &Map<String, Value>) -> Option<Operation> {
    Some(match node.get("Operation").and_then(Value::as_str)? {
        "Insert" => Operation::Insert,
        "Update" => Operation::Update,
        "Delete" => Operation::Delete,
        "Merge" => Operation::Merge,
        _ => return None,
    })
}

fn relation(node: &Map<String, Value>) -> Option<Relation> {
    let text = |key| node.get(key).and_then(Value::as_str).map(str::to_owned);
    Some(Relation { schema: text("Schema")?, name: text("Relation Name")? })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn relation(name: &str) -> Relation {
        Relation { schema: "public".into(), name: name.into() }
    }

    #[test]
    fn what_is_modified_is_written_and_what_is_scanned_is_read() {
        let plan = Plan::read(&json!([{"Plan": {
            "Node Type": "ModifyTable", "Operation": "Insert", "Relation Name": "ledger", "Schema": "public",
            "Alias": "ledger", "Conflict Resolution": "UPDATE", "Conflict Arbiter Indexes": ["ledger_pkey"],
            "Conflict Filter": "(ledger.n > 1)",
            "Plans": [{"Node Type": "Seq Scan", "Relation Name": "account", "Schema": "public", "Alias": "now()",
                       "Output": ["account.id", "nextval('x'::regclass)"], "Parallel Aware": false}]
        }}]));
        assert_eq!(plan.reads, BTreeSet::from([relation("account")]));
        let writes = [Operation::Insert, Operation::Update].map(|operation| (relation("ledger"), operation));
        assert_eq!(plan.writes, BTreeSet::from(writes));
        assert_eq!(plan.expressions, ["(ledger.n > 1)", "account.id", "nextval('x'::regclass)"]);
    }

    #[test]
    fn a_column_that_an_insert_leaves_out_is_a_null_of_its_rows() {
        let plan = Plan::read(&json!([{"Plan": {
            "Node Type": "ModifyTable", "Operation": "Insert", "Relation Name": "ledger", "Schema": "public",
            "Plans": [
                {"Node Type": "Result", "Parent Relationship": "InitPlan", "Output": ["NULL::text"]},
                {"Node Type": "Result", "Parent Relationship": "Outer",
                 "Output": ["$1", "NULL::bigint", "(NULL::text)", "'NULL::text'::text"]}]
        }}]));
        assert_eq!(plan.left_null, [(relation("ledger"), 2)]);
    }

    #[test]
    fn every_target_of_an_update_of_a_partitioned_table_is_written() {
        let plan = Plan::read(&json!([{"Plan": {
            "Node Type": "ModifyTable", "Operation": "Update", "Relation Name": "part", "Schema": "public",
            "Target Tables": [{"Relation Name": "part1", "Schema": "public", "Alias": "part_1"},
                              {"Relation Name": "part2", "Schema": "public", "Alias": "part_2"}]
        }}]));
        let names: Vec<_> = plan.writes.iter().map(|(relation, _)| relation.name.as_str()).collect();
        assert_eq!(names, ["part", "part1", "part2"]);
        assert_eq!(plan.expressions, Vec::<String>::new());
    }

    #[test]
    fn a_statement_without_tables_has_expressions_only() {
        let plan = Plan::read(&json!([{"Plan": {"Node Type": "Result", "Output": ["CURRENT_TIMESTAMP"]}}]));
        assert_eq!(plan, Plan { expressions: vec!["CURRENT_TIMESTAMP".into()], ..Plan::default() });
    }
}

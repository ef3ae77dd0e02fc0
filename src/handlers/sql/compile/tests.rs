use super::*;
use crate::handlers::sql::declaration::{Alternative, Command, Detail, DetailPiece, Event, Expect, Step, Template};
use crate::handlers::sql::diagnostic::Place;
use crate::handlers::sql::statement::{Parameter, Statement};
use crate::handlers::sql::typed::{Column, Field, TypedAlternative, TypedCommand, TypedStatement, TypedStep};

const OWN: Schemas<'_> = Schemas { own: "solewriter", tables: "public" };

fn place() -> Place {
    Place::of_file("account.toml")
}

fn statement(sql: &str) -> Statement {
    Statement::parse(sql, &place()).unwrap_or_else(|error| panic!("{sql}: {error:?}"))
}

fn typed_statement(columns: &[&str]) -> TypedStatement {
    let column = |name: &&str| Column { name: (*name).to_owned(), data_type: "bigint".to_owned() };
    TypedStatement { columns: columns.iter().map(column).collect(), reads: Vec::new(), writes: Vec::new() }
}

/// Withdraws, if there is enough; says how much there is, if not.
fn withdraw() -> TypedCommand {
    let update = "update account set balance = balance - :amount where id = :entity_id and balance >= :amount \
                  returning balance -- what is left";
    let look = "select balance from account where id = :entity_id";
    let held = Parameter::Row { row: "held".to_owned(), column: "balance".to_owned() };
    let after = Parameter::Row { row: "account".to_owned(), column: "balance".to_owned() };
    let amount = Parameter::Field("amount".to_owned());
    let detail = Detail {
        pieces: vec![
            DetailPiece::Text("balance ".to_owned()),
            DetailPiece::Parameter(held),
            DetailPiece::Text(" is less than ".to_owned()),
            DetailPiece::Parameter(amount.clone()),
        ],
        place: place(),
    };
    let otherwise = vec![
        Alternative {
            when: Some(statement(look)),
            into: Some("held".to_owned()),
            reject: "insufficient-funds".to_owned(),
            detail: Some(detail),
        },
        Alternative { when: None, into: None, reject: "not-open".to_owned(), detail: None },
    ];
    let whens = [Some(typed_statement(&["balance"])), None];
    let typed_otherwise = otherwise.iter().cloned().zip(whens);
    let typed_otherwise = typed_otherwise.map(|(declaration, when)| TypedAlternative { declaration, when }).collect();
    let step = Step {
        statement: statement(update),
        expect: Expect { least: 1, most: Some(1) },
        otherwise,
        fails: false,
        into: Some("account".to_owned()),
    };
    let declaration = Command {
        place: place(),
        entity: "account".into(),
        command_type: "account.withdraw".into(),
        steps: vec![step.clone()],
        reply: Some(Template::Object(vec![("balance".to_owned(), Template::Parameter(after, place()))])),
        events: vec![Event {
            event_type: "account.withdrawn".to_owned(),
            data: Template::Object(vec![("amount".to_owned(), Template::Parameter(amount, place()))]),
        }],
        constraints: [("account_balance_check".to_owned(), "it's-empty".to_owned())].into(),
        optional: Vec::new(),
        schema: None,
        serializable: false,
        nondeterministic: false,
        uses: Vec::new(),
    };
    TypedCommand {
        declaration,
        fields: vec![Field {
            name: "amount".to_owned(),
            data_type: "bigint".to_owned(),
            base_type: "bigint".to_owned(),
        }],
        steps: vec![TypedStep {
            declaration: step,
            statement: typed_statement(&["balance"]),
            otherwise: typed_otherwise,
        }],
    }
}

fn compiled(command: TypedCommand) -> CompiledEntity {
    let typed = Typed { commands: vec![command], writes: Vec::new() };
    compile(&typed, OWN).remove(0)
}

#[test]
fn a_name_says_what_it_is_and_changes_with_every_change() {
    let first = compiled(withdraw());
    let name = &first.functions[0].name;
    assert!(name.starts_with("command_account_withdraw_"), "{name}");
    let again = compiled(withdraw());
    assert_eq!(first.functions, again.functions);
    let mut other = withdraw();
    other.fields[0].data_type = "integer".to_owned();
    let other = compiled(other);
    assert_ne!(other.functions[0].name, *name);
    assert_ne!(other.in_database.runner, first.in_database.runner, "a runner knows whom it runs");
}

#[test]
fn the_line_of_each_step_and_of_what_follows_them_is_known() {
    let mut command = withdraw();
    command.steps.push(command.steps[0].clone());
    let body = command::command(&command);
    let lines: Vec<&str> = body.source.lines().collect();
    let [first, second, behind] = body.step_lines[..] else { panic!("two steps and an end: {:?}", body.step_lines) };
    assert_eq!((lines[first - 1].trim(), lines[second - 1].trim()), ("-- step 1", "-- step 2"));
    assert!(lines[behind - 1].trim().starts_with("sw_reply := "), "{}", lines[behind - 1]);
}

#[test]
fn what_cannot_happen_raises_with_its_step_and_its_rows() {
    let mut command = withdraw();
    command.steps[0].declaration.fails = true;
    command.steps[0].otherwise.truncate(1);
    let source = command::command(&command).source;
    assert!(source.contains("using errcode = 'SW010'"), "{source}");
    assert!(source.contains("'step 1: ' || sw_n || case sw_n when 1"), "{source}");
    assert!(source.contains("', and 1 row is expected'"), "{source}");
}

#[test]
fn names_fit_into_what_postgres_takes() {
    let mut long = withdraw();
    long.declaration.command_type = "x".repeat(200).into();
    long.declaration.entity = "Ä".repeat(100).into();
    long.declaration.serializable = true;
    let compiled = compiled(long);
    for function in &compiled.functions {
        assert!(function.name.len() <= 63, "{}", function.name);
    }
    assert!(compiled.in_database.runner.is_none() && compiled.in_database.serializable_runner.is_some());
}

#[test]
fn what_a_file_says_is_never_part_of_a_statement_s_structure() {
    let mut sly = withdraw();
    sly.declaration.events[0].event_type = "'; drop table account; --".to_owned();
    let body = &compiled(sly).functions[0].body;
    assert!(body.contains(r#"'[{"type":"''; drop table account; --""#), "{body}");
}

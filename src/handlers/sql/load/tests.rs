use std::path::PathBuf;
use std::{env, fs};

use super::*;
use crate::config::Topic;
use crate::handlers::sql::declaration::{Expect, Template};
use crate::handlers::sql::parameter::Parameter;

/// A directory of files that disappears with the test.
struct Files(PathBuf);

impl Files {
    fn with(files: &[(&str, &str)]) -> Self {
        let directory = env::temp_dir().join(format!("solewriter-{}", uuid::Uuid::new_v4()));
        for (name, text) in files {
            let path = directory.join(name);
            fs::create_dir_all(path.parent().unwrap()).expect("a temporary directory");
            fs::write(path, text).expect("a temporary file");
        }
        Self(directory)
    }

    fn load(&self, commands: &[&str]) -> Result<Declarations, Diagnostics> {
        let config = Config {
            commands: commands.iter().map(|pattern| (*pattern).to_owned()).collect(),
            topics: vec![Topic::new("accounts.commands", "account"), Topic::new("orders.commands", "order")],
            directory: self.0.clone(),
            ..Config::default()
        };
        let (declarations, mistakes) = Declarations::load(&config);
        mistakes.or(declarations)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // Nothing depends on it: at worst files stay behind in the temporary directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn load(text: &str) -> Result<Declarations, Diagnostics> {
    Files::with(&[("a.toml", text)]).load(&["a.toml"])
}

/// Each mistake as `line:column problem (cure)`.
fn mistakes(text: &str) -> Vec<String> {
    let diagnostics = load(text).expect_err(text);
    let shown = diagnostics.0.iter().map(|diagnostic| {
        let (line, column) = diagnostic.place.line_column();
        format!("{line}:{column} {} ({})", diagnostic.problem, diagnostic.cure)
    });
    shown.collect()
}

/// The mistakes of a command with this in it, lines counted from its first.
fn mistakes_in(command: &str) -> Vec<String> {
    let shown = mistakes(&format!("entity = \"account\"\n[[command]]\ntype = \"c\"\n{command}"));
    let counted = shown.iter().map(|mistake| {
        let (line, rest) = mistake.split_once(':').unwrap();
        format!("{}:{rest}", line.parse::<usize>().unwrap().saturating_sub(3))
    });
    counted.collect()
}

#[track_caller]
fn one_mistake_in(command: &str, expected: &str) {
    let found = mistakes_in(command);
    assert!(found.len() == 1 && found[0].starts_with(expected), "{command}\nexpected {expected}\nfound {found:#?}");
}

const GOOD: &str = r#"
entity = "account"

[[command]]
type  = "account.withdraw"
reply = { balance = ":account.balance", note = "::x", z = [1, 2.5, true, ":uuid1"], a = 0x10 }
constraints = { account_balance_check = "insufficient-funds" }
optional = ["note"]
isolation = "serializable"

[[command.step]]
sql = '''
  -- é
  update account set balance = balance - :amount, note = :note
  where id = :entity_id returning balance;
'''
expect = 1
otherwise = [
    { when = "select state from account where id = :entity_id", into = "seen", reject = "closed", detail = "it is {seen.state}" },
    { reject = "no-account" },
]
into = "account"

[[command.step]]
sql = "insert into ledger values (:command_id, :account.balance)"

[[command.emit]]
type = "account.withdrawn"
data = { amount = ":amount" }

[[write]]
name = "ledger"
sql = "insert into ledger values (:id)"
expect = 1
"#;

#[test]
fn a_file_is_read_whole_with_the_place_of_everything() {
    let declarations = load(GOOD).unwrap_or_else(|error| panic!("{error}"));
    let [command] = &declarations.commands[..] else { panic!("one command") };
    assert_eq!((&*command.entity, &*command.command_type), ("account", "account.withdraw"));
    assert_eq!(command.place.line_column(), (5, 10));
    assert!(command.serializable && !command.nondeterministic);
    assert_eq!(command.optional, ["note"]);
    assert_eq!(command.constraints["account_balance_check"], "insufficient-funds");
    assert_eq!(command.fields(), ["amount", "note"]);
    let step = &command.steps[0];
    assert_eq!((step.expect, step.into.as_deref()), (Expect::exactly(1), Some("account")));
    assert!(step.statement.text.starts_with("update") && step.statement.text.ends_with("balance"));
    let (parameter, place) = step.statement.uses().next().unwrap();
    assert_eq!((parameter, place.line_column()), (&Parameter::Field("amount".into()), (14, 42)));
    assert_eq!(step.otherwise.iter().map(|o| o.reject.as_str()).collect::<Vec<_>>(), ["closed", "no-account"]);
    assert_eq!(step.otherwise[0].when.as_ref().unwrap().place.line_column(), (19, 15));
    assert!(command.steps[1].expect.is_any());
    assert_eq!(command.events[0].event_type, "account.withdrawn");
    let Some(Template::Object(reply)) = &command.reply else { panic!("an object") };
    assert_eq!(reply.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["balance", "note", "z", "a"]);
    assert!(matches!(&reply[1].1, Template::Literal(text, _) if text == ":x"));
    assert!(matches!(&reply[3].1, Template::Literal(number, place) if number == 16 && place.line_column() == (6, 89)));
    let (parameter, _) = declarations.writes[0].statement.uses().next().unwrap();
    assert_eq!(*parameter, Parameter::Field("id".into()));
}

#[test]
fn the_sections_may_be_dotted_or_inline() {
    let text = "entity = \"account\"\ncommand = [{ type = \"c\", step = [{ sql = \"select 1\" }] }]\n";
    assert_eq!(load(text).unwrap().commands[0].steps.len(), 1);
}

#[test]
fn all_mistakes_of_all_files_are_found_in_one_go() {
    let bad = "entity = \"acount\"\n[[command]]\nstep = []\ntyp = \"x\"\n[[write]]\n";
    let files = Files::with(&[("c/a.toml", bad), ("c/b.toml", "x = = 1\n"), ("c/c.txt", "no")]);
    let diagnostics = files.load(&["c/*.toml", "none/*.toml", "gone.toml"]).unwrap_err();
    let problems: Vec<&str> = diagnostics.0.iter().map(|diagnostic| diagnostic.problem.as_str()).collect();
    assert_eq!(
        problems[..5],
        [
            "no topic carries the entity acount",
            "the command has no step",
            "unknown key typ in command",
            "write has no name",
            "write has no sql",
        ]
    );
    assert!(diagnostics.0[5].place.to_string().ends_with("c/b.toml:1:5"), "{diagnostics}");
    assert!(diagnostics.0[7].problem.contains("no file matches"), "{diagnostics}");
    assert!(diagnostics.0[8].problem.contains("there is no such file"), "{diagnostics}");
    assert_eq!(diagnostics.0.len(), 9, "{diagnostics}");
}

#[test]
fn a_write_is_given_its_uuids_by_the_handler() {
    let write = "\n[[write]]\nname = \"w\"\nsql = \"insert into w values (:uuid1)\"";
    let found = mistakes(&format!("entity = \"account\"{write}"));
    assert!(found[0].contains(":uuid1 would be the same in two writes of one command"), "{found:?}");
}

#[test]
fn files_are_read_in_order_and_each_once() {
    let command =
        |name: &str| format!("entity = \"order\"\n[[command]]\ntype = \"{name}\"\nstep = [{{ sql = \"select 1\" }}]");
    let (a, b) = (command("a"), command("b"));
    let files = Files::with(&[("c/b.toml", &b), ("c/a.toml", &a)]);
    let names = |commands: &[&str]| -> Vec<String> {
        files.load(commands).unwrap().commands.iter().map(|c| c.command_type.to_string()).collect()
    };
    assert_eq!(names(&["c/*.toml"]), ["a", "b"]);
    assert_eq!(names(&["c/b.toml", "c/*.toml", "c/../c/a.toml"]), ["b", "a"]);
    assert!(names(&[]).is_empty());
    let absolute = files.0.join("c/[ab].toml").display().to_string();
    assert_eq!(names(&[&absolute]), ["a", "b"]);
}

#[test]
fn a_directory_with_a_patterns_characters_in_its_name_is_found() {
    let files = Files::with(&[(
        "[x]*/a.toml",
        "entity = \"order\"\ncommand = [{ type = \"a\", step = [{ sql = \"select 1\" }] }]",
    )]);
    let inner = Files(files.0.join("[x]*"));
    assert_eq!(inner.load(&["*.toml"]).unwrap().commands.len(), 1);
}

#[test]
fn windows_line_ends_do_not_move_places() {
    let text = GOOD.replace('\n', "\r\n");
    let declarations = load(&text).unwrap();
    let place = declarations.commands[0].steps[0].statement.uses().next().unwrap().1;
    assert_eq!(place.line_column(), (14, 42));
}

#[test]
fn a_name_is_declared_once_for_an_entity() {
    let command = "\n[[command]]\ntype = \"c\"\nstep = [{ sql = \"select 1\" }]";
    let write = "\n[[write]]\nname = \"w\"\nsql = \"select 1\"";
    let found = mistakes(&format!("entity = \"account\"{command}{command}{write}{write}"));
    assert!(found[0].starts_with("6:9 the command type c is declared twice for account (remove"), "{found:?}");
    assert!(found[0].contains("a.toml:3:9"), "{found:?}");
    assert!(found[1].starts_with("12:9 the write w is declared twice for account"), "{found:?}");
    let other = format!("entity = \"order\"{command}");
    Files::with(&[("a.toml", &format!("entity = \"account\"{command}")), ("b.toml", &other)])
        .load(&["*.toml"])
        .unwrap();
}

#[test]
fn an_unknown_key_names_the_nearest() {
    let step = "step = [{ sql = \"select 1\" }]";
    one_mistake_in(&format!("{step}\nreplay = 1"), "2:1 unknown key replay in command (did you mean reply?)");
    one_mistake_in(
        &format!("{step}\n[[command.emit]]\ntype = \"t\"\ndata = 1\ndatas = 1"),
        "5:1 unknown key datas in emit",
    );
    one_mistake_in(
        "[[command.step]]\nsql = \"select 1\"\nexpects = 1",
        "3:1 unknown key expects in step (did you mean expect?)",
    );
    one_mistake_in(&format!("{step}\nzzz = 1"), "2:1 unknown key zzz in command (the keys of command are type, step");
}

#[test]
fn a_misspelt_key_is_told_and_nothing_that_comes_of_it() {
    let row = "[[command.step]]\nsql = \"select 1 as x\"\n";
    let use_row = "\n[[command.step]]\nsql = \"select :a.x\"\n";
    let reject = "otherwise = { reject = \"no\" }\n";
    one_mistake_in(&format!("{row}expects = 1\n{reject}into = \"a\"{use_row}"), "3:1 unknown key expects in step");
    one_mistake_in(&format!("{row}expect = 1\notherwize = {{ reject = \"no\" }}"), "4:1 unknown key otherwize");
    one_mistake_in(&format!("{row}expect = 1\n{reject}intoo = \"a\"{use_row}"), "5:1 unknown key intoo in step");
    one_mistake_in(&format!("replay = \":a.x\"\n{row}expect = 1\n{reject}into = \"a\""), "1:1 unknown key replay");
    one_mistake_in("[[command.step]]\nsqll = \"select 1\"", "2:1 unknown key sqll in step");
    let when = "otherwise = [{ whne = \"select 1\", into = \"b\", reject = \"no\" }, { reject = \"x\" }]";
    one_mistake_in(&format!("{row}expect = 1\n{when}"), "4:16 unknown key whne in otherwise (did you mean when?)");
}

#[test]
fn a_key_in_the_wrong_table_is_sent_to_its_own_and_nothing_comes_of_it() {
    let row = "[[command.step]]\nsql = \"select 1 as x\"\nexpect = 1\ninto = \"a\"\n";
    let otherwise = "[[command.step.otherwise]]\nreject = \"no\"\n";
    let expected = "(reply is a key of the command: put it before the first [[command.step]])";
    one_mistake_in(
        &format!("{row}otherwise = {{ reject = \"no\" }}\nreply = \":a.x\""),
        &format!("6:1 unknown key reply in step {expected}"),
    );
    one_mistake_in(
        &format!("{row}{otherwise}reply = \":a.x\""),
        &format!("7:1 unknown key reply in otherwise {expected}"),
    );
    let behind = row.replace("into = \"a\"\n", "") + otherwise + "into = \"a\"\n";
    one_mistake_in(
        &format!("{behind}[[command.emit]]\ntype = \"t\"\ndata = \":a.x\""),
        "6:9 into names the row of a when, and there is none (if it is the step's, move it above [[command.step.otherwise]]",
    );
    one_mistake_in(
        &format!("[[command.step]]\nsql = \"select 1\"\n{otherwise}expect = 1"),
        "5:1 unknown key expect in otherwise (expect is a key of the step: put it above its [[command.step.otherwise]])",
    );
    let found = mistakes("entity = \"account\"\n[[command]]\n[[command.step]]\nsql = \"select 1\"\ntype = \"c\"");
    assert_eq!(found.len(), 1, "{found:#?}");
}

#[test]
fn a_row_count_is_a_number_or_a_range() {
    for bad in ["\"1\"", "-1", "1.5", "true", "\"2..1\"", "[1]"] {
        one_mistake_in(
            &format!("[[command.step]]\nsql = \"select 1\"\nexpect = {bad}"),
            "3:10 expect is no number of rows",
        );
    }
}

#[test]
fn what_was_not_expected_has_a_meaning_and_only_then() {
    let step = |rest: &str| format!("[[command.step]]\nsql = \"select 1\"\n{rest}");
    one_mistake_in(&step("expect = 1"), "3:10 1 row expected, and nothing says what another number means");
    one_mistake_in(&step("otherwise = { reject = \"no\" }"), "3:13 otherwise never happens");
    one_mistake_in(&step("expect = \">=0\"\notherwise = { reject = \"no\" }"), "4:13 otherwise never happens");
    one_mistake_in(&step("expect = 1\notherwise = []"), "4:13 otherwise is empty");
    one_mistake_in(
        &step("expect = 1\notherwise = { when = \"select 1\", reject = \"no\" }"),
        "4:13 the last entry of otherwise has a when",
    );
    one_mistake_in(
        &step("expect = 1\notherwise = [{ reject = \"no\" }, { reject = \"never\" }]"),
        "4:33 this entry can never be reached",
    );
    one_mistake_in(
        &step("expect = 1\notherwise = { reject = \"No Funds\" }"),
        "4:25 \"No Funds\" is no rejection code",
    );
    one_mistake_in(&step("expect = 1\notherwise = { detail = \"x\" }"), "4:13 otherwise has no reject");
    one_mistake_in(
        &step("expect = 1\notherwise = { reject = \"no\", detail = \"{\" }"),
        "4:40 a { that belongs to no {name}",
    );
    one_mistake_in(
        &step("expect = 1\notherwise = { reject = \"no\", into = \"x\" }"),
        "4:38 into names the row of a when",
    );
    one_mistake_in(
        &step("expect = 1\notherwise = [{ when = \"delete from t\", reject = \"no\" }, { reject = \"x\" }]"),
        "4:24 when writes",
    );
}

#[test]
fn what_cannot_happen_fails_in_place_of_the_last_alternative() {
    let step = |otherwise: &str| format!("[[command.step]]\nsql = \"select 1\"\nexpect = 1\notherwise = {otherwise}");
    let read = |otherwise: &str| {
        let text = format!("entity = \"account\"\n[[command]]\ntype = \"c\"\n{}", step(otherwise));
        let step = load(&text).unwrap_or_else(|error| panic!("{error}")).commands.remove(0).steps.remove(0);
        (step.otherwise.len(), step.fails)
    };
    assert_eq!(read("\"fail\""), (0, true));
    assert_eq!(read("[{ when = \"select 1\", reject = \"no\" }, \"fail\"]"), (1, true));
    assert_eq!(read("{ reject = \"no\" }"), (1, false));
    one_mistake_in(&step("\"fial\""), "4:13 the only word for otherwise is \"fail\"");
    one_mistake_in(&step("[\"fail\", { reject = \"no\" }]"), "4:22 this entry can never be reached");
    one_mistake_in("[[command.step]]\nsql = \"select 1\"\notherwise = \"fail\"", "3:13 otherwise never happens");
}

#[test]
fn a_row_has_one_name_that_is_used_after_it_was_taken() {
    let take = |into: &str, expect: &str| {
        let otherwise = if expect.is_empty() { "" } else { "otherwise = { reject = \"no\" }" };
        format!("[[command.step]]\nsql = \"select 1\"\n{expect}\n{otherwise}\ninto = \"{into}\"\n")
    };
    let one = "expect = 1";
    let using = |row: &str| format!("[[command.step]]\nsql = \"select :{row}.x\"\n");
    one_mistake_in(&take("a", one), "5:9 into = \"a\" is never used");
    one_mistake_in(&(take("a", one) + &take("a", one) + &using("a")), "10:9 into = \"a\" is used twice");
    one_mistake_in(&(take("entity_id", one)), "5:9 :entity_id is a parameter of every command");
    one_mistake_in(&(take("a b", one)), "5:9 \"a b\" is no name for a row");
    one_mistake_in(&(take("a", "expect = 2") + &using("a")), "5:9 into takes one row, and the step expects 2 rows");
    one_mistake_in(&(take("a", "") + &using("a")), "5:9 into takes one row, and the step expects any number of rows");
    one_mistake_in(
        &(take("account", one) + &using("acount")),
        "7:15 :acount.x: there is no row acount (did you mean account?)",
    );
    one_mistake_in(&using("a"), "2:15 :a.x: there is no row a (take it");
    let late = using("a") + &take("a", one) + &using("a");
    one_mistake_in(&late, "2:15 :a.x: the row a is not there yet");
    let own = take("a", one).replace("select 1", "select :a.x") + &using("a");
    one_mistake_in(&own, "2:15 :a.x: the row a is not there yet");
    let zero_or_one = take("a", "expect = \"0..1\"") + &using("a");
    load(&format!("entity = \"account\"\n[[command]]\ntype = \"c\"\n{zero_or_one}")).unwrap();
}

#[test]
fn the_row_of_a_when_is_for_its_own_detail() {
    let step = |detail: &str, rest: &str| {
        format!(
            "[[command.step]]\nsql = \"select 1\"\nexpect = 1\notherwise = [{{ when = \"select 1\", into = \"seen\", reject = \"no\", detail = \"{detail}\" }}, {{ reject = \"x\", detail = \"{rest}\" }}]"
        )
    };
    one_mistake_in(&step("x", "x"), "4:43 into = \"seen\" is never used");
    one_mistake_in(&step("{seen.x}", "{seen.x}"), "4:114 :seen.x: there is no row seen");
}

#[test]
fn a_misspelt_built_in_is_no_field_of_the_payload() {
    one_mistake_in(
        "[[command.step]]\nsql = \"select 1 where a = :entityid\"",
        "2:27 unknown parameter :entityid (did you mean :entity_id?",
    );
    one_mistake_in("reply = \":comand_id\"\n[[command.step]]\nsql = \"select 1\"", "1:10 unknown parameter :comand_id");
    let meant = "schema = { properties = { entityid = {} } }\nstep = [{ sql = \"select :entityid\" }]";
    load(&format!("entity = \"account\"\n[[command]]\ntype = \"c\"\n{meant}")).unwrap();
}

#[test]
fn a_schema_and_the_command_agree_about_the_fields() {
    let step = "step = [{ sql = \"select :amount, :note\" }]\n";
    let schema = |schema: &str| format!("{step}schema = {schema}");
    one_mistake_in(&schema("{ properties = { amount = {}, note = {}, more = {} } }"), "2:51 unused parameter more");
    one_mistake_in(
        &schema("{ properties = { amount = {}, nota = {} }, additionalProperties = false }"),
        "1:34 unknown parameter :note: the schema does not name it (did you mean :nota?)",
    );
    let misspelt = "step = [{ sql = \"select :amuont\" }]\nschema = { properties = { amount = {} } }";
    one_mistake_in(misspelt, "1:25 unknown parameter :amuont: the schema does not name it (did you mean :amount?)");
    one_mistake_in(
        &schema("{ properties = { amount = {} } }"),
        "1:34 unknown parameter :note: the schema does not name it (add it to the schema's properties, or say additionalProperties",
    );
    one_mistake_in(&schema("{ type = \"nonsense\" }"), "2:10 no JSON Schema: ");
    one_mistake_in(&schema("\"gone.json\""), "2:11 ");
    one_mistake_in(&schema("1"), "2:10 schema is a file or a table, not an integer");
    let text = format!("entity = \"account\"\n[[command]]\ntype = \"c\"\n{}", schema("\"s.json\""));
    let files = Files::with(&[
        ("a.toml", &text),
        ("s.json", "{\"properties\": {\"amount\": {\"type\": \"integer\"}, \"note\": {}}}"),
    ]);
    assert!(files.load(&["a.toml"]).unwrap().commands[0].schema.is_some());
    let files = Files::with(&[("a.toml", &text), ("s.json", "{")]);
    assert!(files.load(&["a.toml"]).unwrap_err().0[0].problem.contains("is no JSON"));
}

#[test]
fn a_schema_that_takes_more_than_it_names_is_believed() {
    for open in [
        "additionalProperties = true",
        "additionalProperties = { type = \"string\" }",
        "patternProperties = { \"^n\" = {} }",
        "allOf = [{ properties = { note = {} } }]",
        "\"$ref\" = \"#/$defs/more\"\n\"$defs\".more = {}",
    ] {
        let step = "step = [{ sql = \"select :amount, :note\" }]\n";
        let text = format!("entity = \"account\"\n[[command]]\ntype = \"c\"\n{step}");
        load(&format!("{text}[command.schema]\nproperties = {{ amount = {{}} }}\n{open}")).unwrap();
    }
}

#[test]
fn the_other_keys_are_checked_too() {
    let step = "step = [{ sql = \"select :amount\" }]\n";
    one_mistake_in(
        &format!("{step}optional = [\"amuont\"]"),
        "2:14 optional names amuont, which nothing uses (did you mean amount?)",
    );
    one_mistake_in(&format!("{step}optional = [\"amount\", \"amount\"]"), "2:24 amount is in optional twice");
    one_mistake_in(&format!("{step}optional = \"amount\""), "2:12 optional is a list, not a string");
    one_mistake_in(&format!("{step}isolation = \"snapshot\""), "2:14 there is no isolation \"snapshot\"");
    one_mistake_in(&format!("{step}nondeterministic = 1"), "2:20 nondeterministic is true or false, not an integer");
    one_mistake_in(&format!("{step}constraints = {{ a = \"A\" }}"), "2:22 \"A\" is no rejection code");
    one_mistake_in(&format!("{step}reply = [\":a b\"]"), "2:11 \":a b\" begins with a colon");
    one_mistake_in(&format!("{step}reply = inf"), "2:9 JSON has no such number");
    one_mistake_in("step = [1]", "1:9 step is a table, not an integer");
    one_mistake_in("step = [{ sql = \"select 1; select 2\" }]", "1:28 a second statement");
    one_mistake_in("step = [{ sql = \"select 'a\\\\', $1\" }]", "1:17 $1 is no parameter");
    assert_eq!(
        mistakes("entity = \"account\""),
        ["1:1 the file declares nothing (add a [[command]], or do not name the file in commands)"]
    );
    assert!(mistakes("")[0].contains("the file has no entity"));
}

#[test]
fn a_script_of_tables_is_read_beside_its_file() {
    let files =
        Files::with(&[("c/a.toml", "entity = \"account\"\ntables = \"../t.sql\""), ("t.sql", "create table t ()")]);
    let tables = files.load(&["c/a.toml"]).unwrap().tables;
    assert_eq!(tables[0].sql, "create table t ()");
    assert!(tables[0].path.ends_with("c/../t.sql"), "{}", tables[0].path);
    let found = mistakes("entity = \"account\"\ntables = \"gone.sql\"");
    assert!(found[0].starts_with("2:11 ") && found[0].contains("cannot be read"), "{found:?}");
}

#[test]
fn a_statement_that_cannot_be_read_hides_no_use() {
    let command =
        "optional = [\"a\"]\nschema = { properties = { a = {} } }\nstep = [{ sql = \"select :a; select 1\" }]";
    one_mistake_in(command, "3:29 a second statement");
}

//! The command line as its users type it.

use clap::CommandFactory as _;

use super::operator::{SkipTo, Target};
use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split(' '))
}

fn refusal(line: &str) -> String {
    parse(line).expect_err("wrong usage").to_string()
}

#[test]
fn the_definition_of_the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_verb_has_an_example() {
    for verb in Cli::command().get_subcommands() {
        let help = verb.get_after_help().map(ToString::to_string);
        let help = help.unwrap_or_default();
        assert!(help.starts_with("Example"), "{}", verb.get_name());
    }
}

#[test]
fn the_global_flags_stand_before_or_behind_the_verb() {
    let before = parse("solewriter --config a.toml -o json status").expect("good");
    let behind = parse("solewriter status --config a.toml --output json").expect("good");
    for cli in [before, behind] {
        assert_eq!(cli.config, Some(PathBuf::from("a.toml")));
        assert_eq!(cli.output, Output::Json);
    }
}

#[test]
fn whoever_changes_something_says_why() {
    assert!(refusal("solewriter halt accounts:3").contains("--reason"));
    assert!(refusal("solewriter resume accounts:3").contains("--reason"));
    let empty = Cli::try_parse_from(["solewriter", "halt", "accounts", "--reason", "  "]);
    assert!(empty.is_err());
}

#[test]
fn a_target_is_a_topic_or_one_partition_of_it() {
    let target = |text: &str| text.parse::<Target>().ok();
    let of = |partition| {
        let topic = "accounts.commands".to_owned();
        Some(Target { topic, partition })
    };
    assert_eq!(target("accounts.commands"), of(None));
    assert_eq!(target("accounts.commands:3"), of(Some(3)));
    for wrong in ["", ":3", "accounts:", "accounts:x", "accounts:-1"] {
        assert_eq!(target(wrong), None, "{wrong}");
    }
}

#[test]
fn the_place_to_skip_to_is_an_offset_or_a_word() {
    assert_eq!("8500".parse(), Ok(SkipTo::Offset(8_500)));
    assert_eq!("latest".parse(), Ok(SkipTo::Latest));
    assert!("-1".parse::<SkipTo>().is_err());
    assert!(refusal("solewriter resume a:1 --reason x --skip-to newest").contains("earliest"));
}

//! The promises, each kept or broken on a real Kafka and a real Postgres. Run them with `./dev
//! test`.

mod cost_stays_flat;
mod dead_letters_keep_everything;
mod demo;
mod errors_name_the_cure;
mod halts_are_explicit;
mod no_stale_decision;
mod nothing_lost;
mod one_effect;
mod one_writer;
mod operators_see_why;
mod outcomes_are_published;
mod publishing;
mod publishing_and_asking;
mod secured;
mod sql_constraints;
mod sql_examples;
mod sql_failures;
mod sql_payloads;
mod sql_rules;
mod sql_steps;
mod sql_writes;
mod starter;
mod support;
mod support_works;
mod trying;

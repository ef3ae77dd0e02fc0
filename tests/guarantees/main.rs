//! The promises, each kept or broken on a real Kafka and a real Postgres. Run them with `./dev
//! test`.

mod dead_letters_keep_everything;
mod demo;
mod halts_are_explicit;
mod no_stale_decision;
mod nothing_lost;
mod one_effect;
mod one_writer;
mod outcomes_are_published;
mod publishing_and_asking;
mod secured;
mod support;
mod support_works;

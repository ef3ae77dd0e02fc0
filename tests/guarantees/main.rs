//! The promises, each kept or broken on a real Kafka and a real Postgres. Run them with `./dev
//! test`.

mod dead_letters_keep_everything;
mod demo;
mod no_stale_decision;
mod one_effect;
mod outcomes_are_published;
mod support;
mod support_works;

//! The promises, each kept or broken on a real Kafka and a real Postgres. Run them with `./dev
//! test`.

mod demo;
mod halts_are_explicit;
mod nothing_lost;
mod one_writer;
mod secured;
mod support;
mod support_works;

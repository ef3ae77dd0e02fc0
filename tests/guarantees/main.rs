//! The promises, each kept or broken on a real Kafka and a real Postgres. Run them with `./dev
//! test`.

mod demo;
mod support;
mod support_works;

//! The command line: one file per verb. A team's own binary has the same verbs through [`main`].
//!
//! A verb parses, gathers (through `backend`) and prints; what it prints on stdout is its result and
//! nothing else. Errors are `anyhow` here and become exit codes in `exit`, nowhere else.

mod audit;
mod backend;
#[cfg(feature = "bench")]
mod bench;
mod check;
mod check_config;
mod check_database;
mod check_kafka;
mod check_sample;
mod check_sql;
mod checkpoint;
mod completions;
mod config;
mod dead_letters;
#[cfg(feature = "dev")]
mod dev;
mod exit;
mod halt;
mod healthcheck;
mod inspect;
mod migrate;
mod new;
mod operator;
mod output;
mod publish;
mod repartition;
mod replay;
mod resume;
mod run;
mod signals;
mod status;
mod try_command;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use self::exit::Exit;
use self::output::Output;
use crate::config::Config;
use crate::telemetry::logging::{self, Reader};
use crate::worker::Worker;

/// Commands from Kafka, one writer per partition, one effect per command in Postgres.
#[derive(Debug, Parser)]
#[command(name = "solewriter", version, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Cli {
    /// The configuration file. Default: $SOLEWRITER_CONFIG, or else config/solewriter.toml if it
    /// exists.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How the result is printed on stdout: for people, or as one JSON document.
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: Output,
    #[command(subcommand)]
    verb: Verb,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed for the reason that the message names
  2  wrong usage or configuration, or a schema that needs `migrate`
  3  a check found a difference
  4  a dependency could not be reached in time (`run` waits instead)
  5  the Kafka client reported a fatal error";

#[derive(Debug, Subcommand)]
enum Verb {
    New(new::Args),
    #[cfg(feature = "dev")]
    Dev(dev::Args),
    Run(run::Args),
    Migrate(migrate::Args),
    Check(check::Args),
    Publish(publish::Args),
    Try(try_command::Args),
    Status(status::Args),
    Inspect(inspect::Args),
    DeadLetters(dead_letters::Args),
    Halt(halt::Args),
    Resume(resume::Args),
    Audit(audit::Args),
    Repartition(repartition::Args),
    Replay(replay::Args),
    Checkpoint(checkpoint::Args),
    #[cfg(feature = "bench")]
    Bench(bench::Args),
    Config(config::Args),
    Healthcheck(healthcheck::Args),
    Completions(completions::Args),
}

/// Runs the verb of this process's command line; the whole `main` of a program.
#[must_use]
pub fn main(worker: Worker) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => return usage_or_help(&usage),
    };
    logging::init(cli.verb.log_directives(), cli.verb.log_reader());
    match cli.dispatch(worker) {
        Ok(exit) => exit.into(),
        Err(error) => {
            // stderr may be closed; the exit code still says it.
            let _ = writeln!(std::io::stderr(), "error: {}", exit::message(&error));
            Exit::of(&error).into()
        }
    }
}

/// Help and version are results, so they go to stdout and end with 0; clap knows which is which.
fn usage_or_help(usage: &clap::Error) -> ExitCode {
    let _ = usage.print();
    match usage.exit_code() {
        0 => Exit::Done.into(),
        _ => Exit::Usage.into(),
    }
}

impl Verb {
    /// Only the worker narrates; the other verbs have a result, and people read it.
    fn log_directives(&self) -> &'static str {
        match self {
            // rdkafka repeats what its clients here report themselves
            Self::Run(_) => "info,rdkafka=off,sqlx=error",
            // each rebalance makes a client warn of a commit that came too late, and the end of
            // the broker makes those warn that are just being closed; dead letters stand in the view,
            // the first of each kind, with their number at the end
            #[cfg(feature = "dev")]
            Self::Dev(_) => {
                "warn,librdkafka=error,rdkafka=off,solewriter::kafka::producer=error,\
                 solewriter::writer::report=error"
            }
            _ => "warn,librdkafka=off,rdkafka=off",
        }
    }

    fn log_reader(&self) -> Reader {
        match self {
            Self::Run(_) => Reader::Collector,
            // it reads when its workers settled something
            #[cfg(feature = "bench")]
            Self::Bench(args) if args.is_worker() => Reader::Collector,
            _ => Reader::People,
        }
    }
}

impl Cli {
    fn dispatch(self, worker: Worker) -> anyhow::Result<Exit> {
        let (file, output) = (self.config, self.output);
        let load = || Config::load(file);
        match self.verb {
            Verb::New(args) => new::run(&args, output),
            Verb::Completions(args) => completions::run(&args),
            Verb::Config(args) => config::run(&args, output, load),
            Verb::Healthcheck(args) => healthcheck::run(&args, output, &load()?),
            Verb::Run(_) => wait_for(run::run(worker, load()?)),
            #[cfg(feature = "dev")]
            Verb::Dev(args) => wait_for(dev::run(args, output, worker, load)),
            Verb::Migrate(args) => wait_for(migrate::run(&args, output, &worker, &load()?)),
            Verb::Check(_) => wait_for(check::run(output, &worker, &load()?)),
            Verb::Publish(args) => wait_for(publish::run(args, output, load()?)),
            Verb::Try(args) => wait_for(try_command::run(&args, output, &worker, &load()?)),
            Verb::Status(_) => wait_for(status::run(output, &load()?)),
            Verb::Inspect(args) => wait_for(inspect::run(args, output, load()?)),
            Verb::DeadLetters(args) => wait_for(dead_letters::run(args, output, &load()?)),
            Verb::Halt(args) => wait_for(halt::run(&args, output, &load()?)),
            Verb::Resume(args) => wait_for(resume::run(&args, output, &load()?)),
            Verb::Audit(args) => wait_for(audit::run(&args, output, &load()?)),
            #[cfg(feature = "bench")]
            Verb::Bench(args) => wait_for(bench::run(args, output, load()?)),
            Verb::Repartition(args) => wait_for(repartition::run(&args, output, &load()?)),
            Verb::Replay(args) => wait_for(replay::run(args, output, &worker, &load()?)),
            Verb::Checkpoint(args) => wait_for(checkpoint::run(args, output, &worker, &load()?)),
        }
    }
}

fn wait_for(verb: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Runtime::new().context("no threads for the worker")?;
    let result = runtime.block_on(verb);
    // A blocking call that is still under way (a name look-up) must not hold up the exit.
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests;

//! `config show` and `config schema`.

use clap::Subcommand;

use super::exit::Exit;
use super::output;
use super::output::Output;
use crate::config;
use crate::config::Config;

/// Show the configuration in effect, or its JSON Schema
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  solewriter config show
  solewriter config schema > solewriter.schema.json")]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print the configuration in effect, secrets hidden, and where each value came from
    #[command(after_help = "Example:\n  SOLEWRITER__WORKER__DRAIN_TIMEOUT=30s solewriter config show")]
    Show,
    /// Print the JSON Schema of the file, for editors and CI; always JSON
    #[command(after_help = "Example:\n  solewriter config schema > solewriter.schema.json")]
    Schema,
}

pub(super) fn run(
    args: &Args,
    output: Output,
    load: impl FnOnce() -> Result<Config, config::Error>,
) -> anyhow::Result<Exit> {
    match args.what {
        // The schema is asked for when the file is wrong, so it must not depend on the file.
        What::Schema => Output::Json.print(&Config::schema(), ToString::to_string)?,
        What::Show => {
            let config = load()?;
            match output {
                Output::Table => output::print(&config.show())?,
                Output::Json => output.print(&config.show_json(), ToString::to_string)?,
            }
        }
    }
    Ok(Exit::Done)
}

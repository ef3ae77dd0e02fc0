//! `completions`: for the shell.

use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::exit::Exit;
use super::{Cli, output};

/// Print completions for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  solewriter completions bash > ~/.local/share/bash-completion/completions/solewriter")]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    output::print(&script(args.shell, &program_name()))?;
    Ok(Exit::Done)
}

/// A team's own binary has its own name, and that is what its users type.
fn program_name() -> String {
    let path = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&path).file_name();
    name.map_or_else(|| "solewriter".into(), |name| name.to_string_lossy().into_owned())
}

fn script(shell: Shell, program: &str) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), program, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_are_for_the_binary_that_printed_them() {
        let script = script(Shell::Bash, "bank");
        assert!(script.contains("_bank") && script.contains("healthcheck"));
    }
}

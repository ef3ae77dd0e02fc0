//! Which of the declared commands is meant.

use std::sync::Arc;

use super::Args;
use crate::cli::exit::Problem;
use crate::config::nearest;
use crate::handlers::sql::declaration::Declarations;
use crate::worker::Worker;

/// The entity type whose command is meant.
pub(super) fn entity<'d>(
    args: &Args,
    worker: &Worker,
    declarations: &'d Declarations,
) -> Result<&'d Arc<str>, Problem> {
    let of_type = declarations.commands.iter().filter(|command| *command.command_type == *args.command_type);
    let wanted = |entity: &str| args.entity.as_ref().is_none_or(|wanted| *wanted == *entity);
    let entities: Vec<_> = of_type.map(|command| &command.entity).filter(|entity| wanted(entity)).collect();
    match entities[..] {
        [entity] => Ok(entity),
        [] => Err(Problem::usage(unknown(args, worker, declarations))),
        _ => {
            let entities: Vec<_> = entities.iter().map(|entity| &***entity).collect();
            let named = entities.join(", ");
            Err(Problem::usage(format!("{} is declared for {named}: say --entity which", args.command_type)))
        }
    }
}

fn unknown(args: &Args, worker: &Worker, declarations: &Declarations) -> String {
    let name = &args.command_type;
    let in_rust = |entity: &str| worker.handlers(entity).is_some_and(|handlers| handlers.command(name).is_some());
    if worker.entity_types().any(in_rust) {
        return format!("{name} has a handler in Rust; only commands in SQL can be tried");
    }
    let known: Vec<&str> = declarations.commands.iter().map(|command| &*command.command_type).collect();
    if known.is_empty() {
        return format!("no command {name} is declared, nor any other: name the files in commands");
    }
    let entity = args.entity.as_ref().map(|entity| format!(" for {entity}")).unwrap_or_default();
    let meant = nearest(name, &known).filter(|nearest| nearest != name);
    let meant = meant.map(|nearest| format!("; did you mean {nearest}?")).unwrap_or_default();
    format!("no command {name} is declared{entity}{meant} (declared: {})", known.join(", "))
}

//! The ids that the input names. One that comes again with the same command is a wanted repeat; with
//! another it would be dead, and the first one's outcome would pass for its own.

use std::collections::{HashMap, VecDeque};

use uuid::Uuid;

use crate::client::Command;
use crate::command::Fingerprint;

/// Ids that are remembered: the newest, as the input may never end.
const IDS_MAX: usize = 1_000_000;

/// Which line named which id first, and for which command.
#[derive(Debug, Default)]
pub(super) struct NamedIds {
    first: HashMap<Uuid, (u64, Fingerprint)>,
    in_order: VecDeque<Uuid>,
}

impl NamedIds {
    /// Takes in the id of line `number`.
    ///
    /// # Errors
    /// If an earlier line named it for another command.
    pub(super) fn name(&mut self, number: u64, command: &Command) -> Result<(), String> {
        let (key, data) = (command.key().as_bytes(), command.data().get().as_bytes());
        // one topic has one entity type
        let fingerprint = Fingerprint::of("", key, command.command_type(), Some(data));
        match self.first.get(&command.id()) {
            Some((_, known)) if *known == fingerprint => Ok(()),
            Some((line, _)) => Err(format!(
                "the id of line {line}, with another key, type or data: it would be dead id-reuse; \
                 cure: leave the id out, or make a new one"
            )),
            None => {
                self.remember(command.id(), number, fingerprint);
                Ok(())
            }
        }
    }

    fn remember(&mut self, id: Uuid, number: u64, fingerprint: Fingerprint) {
        self.first.insert(id, (number, fingerprint));
        self.in_order.push_back(id);
        if self.in_order.len() > IDS_MAX
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.first.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn command(id: u128, command_type: &str, key: &str, amount: u64) -> Command {
        let command = Command::new(command_type, key, &json!({ "amount": amount })).expect("a command");
        command.with_id(Uuid::from_u128(id)).expect("an id")
    }

    #[test]
    fn an_id_may_be_repeated_but_not_reused() {
        let mut ids = NamedIds::default();
        assert_eq!(ids.name(1, &command(1, "t", "a", 5)), Ok(()));
        assert_eq!(ids.name(2, &command(2, "t", "a", 5)), Ok(()));
        assert_eq!(ids.name(3, &command(1, "t", "a", 5)), Ok(()), "a wanted repeat");
        for other in [command(1, "t", "a", 6), command(1, "t", "b", 5), command(1, "u", "a", 5)] {
            let refused = ids.name(4, &other).expect_err("another command");
            assert!(refused.starts_with("the id of line 1, ") && refused.contains("id-reuse"), "{refused}");
        }
    }
}

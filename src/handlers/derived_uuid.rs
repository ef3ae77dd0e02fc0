//! UUIDs that are the same whenever a command is run.

use uuid::Uuid;

/// The n-th UUID that is made of a command's id, from 1.
pub(super) fn nth_uuid(command_id: &Uuid, n: u32) -> Uuid {
    Uuid::new_v5(command_id, format!("uuid:{n}").as_bytes())
}

//! What solewriter is measured against: what the machine can do at best, and what people write.

pub(super) mod commit;
pub(super) mod consume;
pub(super) mod copy;
mod group;
pub(super) mod per_command;
pub(super) mod per_poll;
mod publish;
mod read;

//! `replay`: what its verbs share: how a range is written ([`range`]), and how long work is shown and stopped
//! ([`watch`]).

pub(super) mod range;
pub(super) mod watch;

//! The fencing token: what a stale owner no longer has.
//!
//! Each claim of a partition adds one to the token in the partition's row.
//! Every write names the token that its writer holds, and the database compares
//! inside the statement that writes; so a writer that was paused while another
//! took over changes nothing when it wakes up, however long it slept. (Martin
//! Kleppmann, *How to do distributed locking*, 2016, has the picture.)

use std::fmt;

use uuid::Uuid;

/// Grows by one at each claim of a partition and at each operator's action on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken(pub i64);

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Random, one per claim. Two claims can hold the same token where a database
/// was restored to an earlier time; they never share a claim id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClaimId(pub Uuid);

impl ClaimId {
    /// A fresh claim id.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

//! The Postgres adapter: the only place with SQL. One function per statement,
//! named as what it does.

mod audit;
mod catalog;
mod checkpoint;
mod claim;
mod compare;
mod connect;
mod cut;
mod error;
mod fates;
mod functions;
mod history;
mod homes;
mod letters;
mod lookup;
mod migrate;
mod nodelay;
mod operate;
mod owed;
mod plan;
mod prune;
mod published;
mod reach;
#[cfg(feature = "dev")]
mod reckoning;
mod repartition;
mod republications;
mod requests;
mod settings;
mod settle;
mod settled;
mod shadow;
mod snapshot;
mod standing;
mod statements;
mod trial;
mod watch;

pub use audit::{AuditFilter, Audited};
pub use catalog::{ColumnDefault, Deferrable, Trigger, WrittenTable};
pub use checkpoint::{
    CheckpointAbout, CheckpointCursor, CheckpointError, CheckpointName, CheckpointRow, CheckpointState,
    ListedCheckpoint, NewCheckpoint, schema_prefix,
};
pub use claim::{Beginning, ClaimRequest, Row};
pub use compare::{CutTable, EntityDifference, LastCommand, RowDifference, TableDifferences};
pub use connect::ConnectError;
pub use cut::{Cut, CutBatch, CutLetter, CutPartition, KeptCut};
pub use error::{Error, Refusal, Refused};
pub use fates::{LetterAt, SettledDelivery};
pub use history::{BatchRow, EntityQuery, Ids, StoredLetter};
pub use homes::{Homed, HomedRow};
pub use letters::{LetterFilter, LetterRequest, RawLetter, RequestsEnded};
pub use lookup::{CommandTypeRow, Known, StoredEntity};
pub use migrate::{MigrateError, Migrated, SchemaState, script};
pub use operate::{Layout, OperatorAction, Resume};
pub use owed::OwedBatch;
pub use plan::Operation;
pub use prune::{HorizonRow, LogTime};
pub use published::{EmittedEvent, PublishedRow};
pub use reach::ReachError;
#[cfg(feature = "dev")]
pub use reckoning::{DeadCommand, EntityState, Held, HeldQuery, SettledCommand, Snapshot};
pub use repartition::{PlacedPartition, TopicAction};
pub use republications::Republication;
pub use requests::LetterSpan;
pub use settings::{Holder, Settings};
#[cfg(feature = "dev")]
pub(crate) use settle::arguments;
pub use settle::{Progress, Settling};
pub use settled::{DeadOf, Kept, SettledBatch, SettledItem};
pub use shadow::{SHADOW_PREFIX, ShadowLetter};
use sqlx::PgPool;
pub use standing::PartitionSeen;
pub use statements::{Examined, Examiner, StatementError};
pub use trial::{ChangedRow, Changes, Trial, TrialEnding, Tried};
pub use watch::{PartitionStatus, Watched};

/// What a value of this adapter returns.
pub type Result<T> = std::result::Result<T, Error>;

/// The database, as the worker uses it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
    /// Connections whose transactions are serializable; none, unless a batch asks.
    serializable: PgPool,
    /// The schema that holds solewriter's tables.
    schema: String,
}

impl Store {
    /// Ends all connections.
    pub async fn close(&self) {
        tokio::join!(self.pool.close(), self.serializable.close());
    }
}

//! What `dev` reads when it checks its books, and how it leaves no schema behind.

use sqlx::{AssertSqlSafe, FromRow};
use uuid::Uuid;

use super::{Result, Store};

/// A row of `processed_commands`, as far as the books go.
#[derive(Clone, Debug, FromRow)]
pub struct SettledCommand {
    /// The command's id.
    pub command_id: Uuid,
    /// The entity's type.
    pub entity_type: String,
    /// The entity's id.
    pub entity_id: String,
    /// Applied, or else rejected.
    pub applied: bool,
    /// The entity's version.
    pub version: i64,
}

/// A dead letter, as far as the books go.
#[derive(Clone, Debug, FromRow)]
pub struct DeadCommand {
    /// The command's id, if it could be read.
    pub command_id: Option<Uuid>,
    /// Why.
    pub code: String,
}

/// An entity as it is stored.
#[derive(Clone, Debug, FromRow)]
pub struct EntityState {
    /// Its type.
    pub entity_type: String,
    /// Its id.
    pub entity_id: String,
    /// How many commands were applied to it.
    pub version: i64,
    /// JSON.
    pub state: Option<String>,
}

/// What the tables held at one instant.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The final outcomes that were asked for.
    pub settled: Vec<SettledCommand>,
    /// Every entity.
    pub entities: Vec<EntityState>,
}

const SETTLED: &str = "select command_id, entity_type, entity_id, outcome = 'applied' as applied, version
       from processed_commands where command_id >= $1";
const ENTITIES: &str = "select entity_type, entity_id, version, state::text as state from entities";

impl Store {
    /// The final outcomes of the ids from `floor` on, and every entity, as of one instant: between
    /// two statements a worker would commit.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn snapshot(&self, floor: Uuid) -> Result<Snapshot> {
        let mut instant = self.pool.begin_with("begin isolation level repeatable read read only").await?;
        let settled = sqlx::query_as(SETTLED).bind(floor).fetch_all(&mut *instant).await?;
        let entities = sqlx::query_as(ENTITIES).fetch_all(&mut *instant).await?;
        instant.commit().await?;
        Ok(Snapshot { settled, entities })
    }

    /// Every dead letter.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn dead_commands(&self) -> Result<Vec<DeadCommand>> {
        Ok(sqlx::query_as("select command_id, code from dead_letters").fetch_all(&self.pool).await?)
    }

    /// Drops the schema with all that is in it, if it is there.
    ///
    /// # Errors
    /// If the database refuses or cannot be reached.
    pub async fn drop_schema(&self) -> Result<()> {
        // the pool's lock time-out is too short for a predecessor's last statement
        let mut connection = self.patient_connection().await?;
        // the name is checked by the configuration: ^[a-z_][a-z0-9_]*$
        let drop = format!("drop schema if exists \"{}\" cascade", self.schema);
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut connection).await?;
        Ok(())
    }
}

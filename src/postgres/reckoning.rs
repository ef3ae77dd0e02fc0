//! What `dev` reads when it checks its books, and how it leaves no schema behind.

use std::sync::Arc;

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
    /// Its type, if it could be read.
    pub command_type: Option<String>,
    /// Whom it was for, if that could be read.
    pub entity_id: Option<String>,
    /// Why.
    pub code: String,
    /// The same at length.
    pub detail: Option<String>,
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

/// What one entity holds, as a query over a team's tables says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its type.
    pub entity_type: Arc<str>,
    /// Its id.
    pub entity_id: String,
    /// How much.
    pub held: i64,
}

/// A query over a team's tables: ids (text), and what each entity holds (bigint).
#[derive(Clone, Debug)]
pub struct HeldQuery {
    /// Whose.
    pub entity_type: Arc<str>,
    /// The query.
    pub sql: &'static str,
    /// Where its tables are.
    pub tables_schema: String,
}

/// What the tables held at one instant.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The final outcomes that were asked for.
    pub settled: Vec<SettledCommand>,
    /// Every entity.
    pub entities: Vec<EntityState>,
    /// What the queries say.
    pub held: Vec<Held>,
}

const SETTLED: &str = "select command_id, entity_type, entity_id, outcome = 'applied' as applied, version
       from processed_commands where command_id >= $1";
const ENTITIES: &str = "select entity_type, entity_id, version, state::text as state from entities";

impl Store {
    /// The final outcomes of the ids from `floor` on, every entity and the answers of the queries, as
    /// of one instant: between two statements a worker would commit.
    ///
    /// # Errors
    /// If the database cannot be reached, or refuses a query.
    pub async fn snapshot(&self, floor: Uuid, queries: &[HeldQuery]) -> Result<Snapshot> {
        let mut instant = self.pool.begin_with("begin isolation level repeatable read read only").await?;
        let settled = sqlx::query_as(SETTLED).bind(floor).fetch_all(&mut *instant).await?;
        let entities = sqlx::query_as(ENTITIES).fetch_all(&mut *instant).await?;
        let mut held = Vec::new();
        for HeldQuery { entity_type, sql, tables_schema } in queries {
            sqlx::query("select set_config('search_path', $1, true)")
                .bind(format!("\"{tables_schema}\", pg_temp"))
                .execute(&mut *instant)
                .await?;
            let rows: Vec<(String, i64)> = sqlx::query_as(*sql).fetch_all(&mut *instant).await?;
            let of = |(entity_id, held)| Held { entity_type: entity_type.clone(), entity_id, held };
            held.extend(rows.into_iter().map(of));
        }
        instant.commit().await?;
        Ok(Snapshot { settled, entities, held })
    }

    /// Every dead letter, the oldest first.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn dead_commands(&self) -> Result<Vec<DeadCommand>> {
        let every = "select command_id, command_type, entity_id, code, detail
               from dead_letters order by dead_letter_id";
        Ok(sqlx::query_as(every).fetch_all(&self.pool).await?)
    }

    /// The table of a schema that was made first, as a statement names it.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn first_table(&self, schema: &str) -> Result<Option<String>> {
        let first = "select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
                      where n.nspname = $1 and c.relkind in ('r', 'p') order by c.oid limit 1";
        Ok(sqlx::query_scalar(first).bind(schema).fetch_optional(&self.pool).await?)
    }

    /// Drops these schemas with all that is in them, as far as they are there.
    ///
    /// # Errors
    /// If the database refuses or cannot be reached.
    pub async fn drop_schemas(&self, schemas: &[String]) -> Result<()> {
        // the pool's lock time-out is too short for a predecessor's last statement
        let mut connection = self.patient_connection().await?;
        // the caller has made the names: ^[a-z_][a-z0-9_]*$
        let drop = format!("drop schema if exists \"{}\" cascade", schemas.join("\", \""));
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut connection).await?;
        Ok(())
    }
}

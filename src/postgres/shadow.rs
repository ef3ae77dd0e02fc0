//! A shadow: a database of its own on the same server, in which commands are run again. Whatever a statement
//! names there, a schema, a sequence or a default, is in the shadow: live data is out of its reach.

use sqlx::{AssertSqlSafe, FromRow};
use uuid::Uuid;

use super::connect::{ConnectError, Sessions};
use super::{Result, Store};
use crate::config::Database;

/// What the names of all shadows begin with.
pub const SHADOW_PREFIX: &str = "solewriter_shadow_";

/// An entity as the live tables and the rebuilt ones have it. `None`: there is no row.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct EntityDifference {
    /// The entity's type.
    pub entity_type: String,
    /// The entity's id.
    pub entity_id: String,
    /// How many commands the live row says were applied.
    pub live_version: Option<i64>,
    /// Its state, JSON.
    pub live_state: Option<String>,
    /// How many commands were applied in the shadow.
    pub rebuilt_version: Option<i64>,
    /// Its state, JSON.
    pub rebuilt_state: Option<String>,
}

/// The last command of an entity.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct LastCommand {
    /// The entity's id.
    pub entity_id: String,
    /// The command's id.
    pub command_id: Uuid,
    /// Its type.
    pub command_type: String,
    /// Where it came from.
    pub topic: String,
    /// Where it came from.
    pub partition: i32,
    /// Its offset.
    #[sqlx(rename = "offset")]
    pub log_offset: i64,
}

impl Store {
    /// Makes an empty database with the locale of this one. The name is one of ours: [`SHADOW_PREFIX`] and
    /// hexadecimal digits.
    ///
    /// # Errors
    /// If the role may not create databases, or the database cannot be reached.
    pub async fn create_shadow(&self, name: &str) -> Result<()> {
        // template0 alone takes a locale, and has nothing that somebody has put into it
        let create: String = sqlx::query_scalar(
            "select format('create database %I template template0 encoding %L lc_collate %L lc_ctype %L',
                           $1, pg_encoding_to_char(encoding), datcollate, datctype)
               from pg_database where datname = current_database()",
        )
        .bind(name)
        .fetch_one(&self.pool)
        .await?;
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&self.pool).await?;
        Ok(())
    }

    /// Drops a shadow, whoever is connected to it.
    ///
    /// # Errors
    /// If the database refuses or cannot be reached.
    pub async fn drop_shadow(&self, name: &str) -> Result<()> {
        let drop: String = sqlx::query_scalar("select format('drop database if exists %I with (force)', $1::text)")
            .bind(name)
            .fetch_one(&self.pool)
            .await?;
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(&self.pool).await?;
        Ok(())
    }

    /// The shadows on this server, by name: left behind by a process that was killed, or kept.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn shadows(&self) -> Result<Vec<String>> {
        Ok(sqlx::query_scalar("select datname::text from pg_database where starts_with(datname, $1) order by 1")
            .bind(SHADOW_PREFIX)
            .fetch_all(&self.pool)
            .await?)
    }

    /// The tables of another database of the same server.
    ///
    /// # Errors
    /// If the address cannot be used; nothing is connected yet.
    pub fn of_shadow(database: &Database, name: &str) -> std::result::Result<Self, ConnectError> {
        Self::connect_to(database, "solewriter replay", Sessions::Shadow(name))
    }

    /// The same tables, in sessions that refuse to write.
    ///
    /// # Errors
    /// If the address cannot be used; nothing is connected yet.
    pub fn read_only(database: &Database, application_name: &str) -> std::result::Result<Self, ConnectError> {
        Self::connect_to(database, application_name, Sessions::ReadOnly)
    }

    /// Makes a shadow's own tables: what the live ones hold at the cut. Every id may be settled again there,
    /// however old.
    ///
    /// # Errors
    /// If the database refuses or cannot be reached.
    pub async fn prepare_shadow(&self) -> Result<()> {
        sqlx::raw_sql(
            "create table cut_entities (like entities including all);
             create table cut_letters (
                 dead_letter_id bigint primary key,
                 topic          text   not null,
                 partition      int    not null,
                 \"offset\"     bigint not null,
                 record_time_ms bigint not null,
                 code           text   not null,
                 state          text   not null,
                 edited_value   bytea,
                 command_id     uuid
             );
             create index on cut_letters (topic, partition, \"offset\");
             create table cut_batches (
                 topic        text   not null,
                 partition    int    not null,
                 batch_seq    bigint not null,
                 settled_lsn  bigint not null,
                 first_offset bigint not null,
                 next_offset  bigint not null,
                 letters      uuid[] not null,
                 primary key (topic, partition, batch_seq)
             );",
        )
        .execute(&self.pool)
        .await?;
        self.begin_anew().await
    }

    /// Forgets, in a shadow, who owned what, and what a checkpoint says of letters: no key is parked, and no id is too old.
    ///
    /// # Errors
    /// If the database refuses or cannot be reached.
    pub async fn begin_anew(&self) -> Result<()> {
        sqlx::raw_sql(
            "delete from partitions; delete from parked_keys; delete from dead_letters; delete from requests;
             update horizon set at = to_timestamp(0), floor_id = uuid_floor(to_timestamp(0)),
                                dropping_below = null, drop_after = null;",
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Entities that differ, in a shadow: their number, and the first `rows_max` of them by type and id.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn entity_differences(&self, rows_max: i64) -> Result<(i64, Vec<EntityDifference>)> {
        let mut scan = self.pool.begin().await?;
        sqlx::query("select set_config('statement_timeout', '0', true), set_config('enable_seqscan', 'on', true)")
            .execute(&mut *scan)
            .await?;
        let differing = "
              from cut_entities l full join entities r
                on (l.entity_type, l.entity_id) = (r.entity_type, r.entity_id)
             where l.version is distinct from r.version or l.state is distinct from r.state
                or (l.topic, l.partition) is distinct from (r.topic, r.partition)";
        let count: i64 =
            sqlx::query_scalar(AssertSqlSafe(format!("select count(*) {differing}"))).fetch_one(&mut *scan).await?;
        let rows = format!(
            "select coalesce(l.entity_type, r.entity_type) as entity_type,
                    coalesce(l.entity_id, r.entity_id) as entity_id,
                    l.version as live_version, l.state::text as live_state,
                    r.version as rebuilt_version, r.state::text as rebuilt_state {differing}
              order by 1, 2 limit $1"
        );
        let rows = sqlx::query_as(AssertSqlSafe(rows)).bind(rows_max).fetch_all(&mut *scan).await?;
        Ok((count, rows))
    }

    /// The last command of each of these entities of one type, in a shadow.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn last_commands(&self, entity_type: &str, entity_ids: &[String]) -> Result<Vec<LastCommand>> {
        let mut scan = self.pool.begin().await?;
        sqlx::query("select set_config('statement_timeout', '0', true), set_config('enable_seqscan', 'on', true)")
            .execute(&mut *scan)
            .await?;
        Ok(sqlx::query_as(
            "select distinct on (entity_id) entity_id, command_id, command_type, topic, partition, \"offset\"
               from processed_commands where entity_type = $1 and entity_id = any ($2)
              order by entity_id, version desc, \"offset\" desc",
        )
        .bind(entity_type)
        .bind(entity_ids)
        .fetch_all(&mut *scan)
        .await?)
    }
}

//! What `check` asks the server: settings that the promises rest on, and whether
//! this role may do what a worker does.

use sqlx::FromRow;

use super::{Result, Store};

/// The server, as far as the promises rest on it.
#[derive(Clone, Debug, FromRow)]
pub struct Settings {
    /// Its version.
    pub server_version: String,
    /// The same as a number, such as 150018.
    pub server_version_num: i32,
    /// Whether a commit reaches the disk.
    pub fsync: String,
    /// Whether a torn page can be repaired.
    pub full_page_writes: String,
    /// What commits wait for, unless a session says otherwise.
    pub synchronous_commit: String,
    /// A standby: nothing can be written.
    pub in_recovery: bool,
    /// Its clock, milliseconds since 1970.
    pub time_ms: i64,
    /// How many connections it takes, of everybody.
    pub max_connections: i32,
}

/// Whose rows the partitions table holds.
#[derive(Clone, Debug, FromRow)]
pub struct Holder {
    /// The consumer group.
    pub group_id: String,
    /// Its cluster.
    pub cluster_id: String,
}

impl Store {
    /// The server's settings.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn settings(&self) -> Result<Settings> {
        Ok(sqlx::query_as(
            "select current_setting('server_version') as server_version,
                    current_setting('server_version_num')::int as server_version_num,
                    current_setting('fsync') as fsync, current_setting('full_page_writes') as full_page_writes,
                    -- the role's and the database's, not what this session was given
                    (select coalesce(s.reset_val, s.boot_val) from pg_settings s
                      where s.name = 'synchronous_commit') as synchronous_commit,
                    pg_is_in_recovery() as in_recovery,
                    (extract(epoch from clock_timestamp()) * 1000)::bigint as time_ms,
                    current_setting('max_connections')::int as max_connections",
        )
        .fetch_one(&self.pool)
        .await?)
    }

    /// What a worker does and this role may not, such as `insert on batches`.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn missing_privileges(&self) -> Result<Vec<String>> {
        let rows: Vec<(String,)> = sqlx::query_as(
            "with needed (name, privileges) as (values
                 ('partitions', 'select,insert,update'), ('command_types', 'select,insert'),
                 ('processed_timed', 'select,insert'), ('processed_untimed', 'select,insert'),
                 ('processed_commands', 'select'), ('entities', 'select,insert,update'),
                 ('dead_letters', 'select,insert,update'),
                 ('parked_keys', 'select,insert,update,delete'), ('requests', 'select,update'), ('batches', 'select,insert,delete'),
                 ('horizon', 'select,update'))
             select privilege || ' on ' || name
               from needed, unnest(string_to_array(privileges, ',')) as privilege
              where not has_table_privilege(to_regclass(name), privilege)
             union all
             select 'create on schema ' || current_schema() || ' (a table for each day)'
              where not has_schema_privilege(current_schema(), 'create')
             union all
             select 'ownership of ' || relname || ' (its days are made and dropped)'
               from pg_class where oid = to_regclass('processed_timed')
                and not pg_has_role(relowner, 'usage')",
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|(what,)| what).collect())
    }

    /// The groups whose partitions this schema holds.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn holders(&self) -> Result<Vec<Holder>> {
        Ok(sqlx::query_as("select distinct group_id, cluster_id from partitions").fetch_all(&self.pool).await?)
    }

    /// The partition count that each topic's keys were placed for.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn partition_counts(&self) -> Result<Vec<(String, i32)>> {
        let counts = "select distinct topic, partition_count from partitions where partition_count > 0";
        Ok(sqlx::query_as(counts).fetch_all(&self.pool).await?)
    }

    /// Whether the table of this day and the next is there.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn days_ahead(&self) -> Result<bool> {
        let (made,): (bool,) = sqlx::query_as(
            "select bool_and(to_regclass('processed_' || to_char((now() + n * interval '1 day') at time zone 'UTC',
                                                                'YYYYMMDD')) is not null)
               from generate_series(0, 1) as n",
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(made)
    }
}

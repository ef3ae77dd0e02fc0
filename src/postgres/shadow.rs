//! A shadow: a database of its own on the same server, in which commands are run again. Whatever a statement
//! names there, a schema, a sequence or a default, is in the shadow: live data is out of its reach.

use sqlx::{AssertSqlSafe, FromRow};
use uuid::Uuid;

use super::connect::{ConnectError, Sessions};
use super::{Result, Store};
use crate::config::Database;
use crate::record::TopicPartition;

/// What the names of all shadows begin with.
pub const SHADOW_PREFIX: &str = "solewriter_shadow_";

/// A dead letter of the shadow's own.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct ShadowLetter {
    /// The record's offset.
    #[sqlx(rename = "offset")]
    pub log_offset: i64,
    /// The record's own time, milliseconds since 1970.
    pub record_time_ms: i64,
    /// Why it is dead.
    pub code: String,
    /// The same at length.
    pub detail: Option<String>,
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
            // (the column of the locale has another name since Postgres 17)
            "select format('create database %I template template0 encoding %L lc_collate %L lc_ctype %L',
                           $1, pg_encoding_to_char(encoding), datcollate, datctype)
                 || case here ->> 'datlocprovider'
                        when 'i' then format(' locale_provider icu icu_locale %L', locale)
                        when 'b' then format(' locale_provider builtin builtin_locale %L', locale)
                        else '' end
                 || coalesce(' icu_rules ' || quote_literal(here ->> 'daticurules'), '')
               from pg_database d, to_jsonb(d) here, coalesce(here ->> 'datlocale', here ->> 'daticulocale') locale
              where datname = current_database()",
        )
        .bind(name)
        .fetch_one(&self.pool)
        .await?;
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut self.patient_connection().await?).await?;
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
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut self.patient_connection().await?).await?;
        Ok(())
    }

    /// The shadows on this server that nobody is connected to, by name: left behind by a process that was stopped or
    /// killed, or kept.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn shadows(&self) -> Result<Vec<String>> {
        Ok(sqlx::query_scalar(
            "select d.datname::text from pg_database d
              where starts_with(d.datname, $1) and not exists (select from pg_stat_activity a where a.datid = d.oid and a.usesysid is not null)
              order by 1",
        )
        .bind(SHADOW_PREFIX)
        .fetch_all(&self.pool)
        .await?)
    }

    /// Says in the comment of a shadow what it is, beside the number of this database, as another one may get its name.
    ///
    /// # Errors
    /// If the database refuses or cannot be reached.
    pub async fn note_shadow(&self, name: &str, asked: &str) -> Result<()> {
        let comment: String = sqlx::query_scalar(
            "select format('comment on database %I is %L', $1::text, (select oid from pg_database where datname = current_database()) || ' ' || $2)",
        )
        .bind(name)
        .bind(asked)
        .fetch_one(&self.pool)
        .await?;
        sqlx::raw_sql(AssertSqlSafe(comment)).execute(&self.pool).await?;
        Ok(())
    }

    /// A shadow that was made for this, of this database, and that nobody is connected to: autovacuum is nobody, and has
    /// no user (its kind is hidden from roles that may not read statistics).
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn unfinished_shadow(&self, asked: &str) -> Result<Option<String>> {
        Ok(sqlx::query_scalar(
            "select d.datname::text from pg_database d
              where starts_with(d.datname, $1) and shobj_description(d.oid, 'pg_database') = (select oid from pg_database where datname = current_database()) || ' ' || $2
                and not exists (select from pg_stat_activity a where a.datid = d.oid and a.usesysid is not null)
              order by 1 limit 1",
        )
        .bind(SHADOW_PREFIX)
        .bind(asked)
        .fetch_optional(&self.pool)
        .await?)
    }

    /// Drops the shadows in whose comments `words` stands.
    ///
    /// # Errors
    /// If the database refuses or cannot be reached.
    pub async fn drop_shadows_of(&self, words: &str) -> Result<()> {
        let names: Vec<String> = sqlx::query_scalar(
            "select datname::text from pg_database
              where starts_with(datname, $1) and position($2 in shobj_description(oid, 'pg_database')) > 0",
        )
        .bind(SHADOW_PREFIX)
        .bind(words)
        .fetch_all(&self.pool)
        .await?;
        for name in names {
            self.drop_shadow(&name).await?;
        }
        Ok(())
    }

    /// The oldest id with a time of its own that is settled.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn oldest_timed_id(&self) -> Result<Option<Uuid>> {
        Ok(sqlx::query_scalar("select command_id from processed_timed order by 1 limit 1")
            .fetch_optional(&self.pool)
            .await?)
    }

    /// The number of the newest dead letter, 0 if there is none.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn newest_letter(&self) -> Result<i64> {
        let newest = "select coalesce(max(dead_letter_id), 0) from dead_letters";
        Ok(sqlx::query_scalar(newest).fetch_one(&self.pool).await?)
    }

    /// The dead letters with greater numbers than `newest`, at these offsets.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn letters_behind(
        &self,
        newest: i64,
        source: &TopicPartition,
        offsets: &[i64],
    ) -> Result<Vec<ShadowLetter>> {
        Ok(sqlx::query_as(
            "select \"offset\", (extract(epoch from record_time) * 1000)::bigint as record_time_ms, code, detail
               from dead_letters
              where topic = $1 and partition = $2 and \"offset\" = any ($3) and dead_letter_id > $4",
        )
        .bind(&*source.topic)
        .bind(source.partition)
        .bind(offsets)
        .bind(newest)
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

    /// Makes a shadow's own tables: what the live ones hold at the cut. Every id may be settled again there,
    /// however old. A crash of the server empties them all, with the row of `cut` that tells.
    ///
    /// # Errors
    /// If the database refuses or cannot be reached.
    pub async fn prepare_shadow(&self) -> Result<()> {
        sqlx::raw_sql(
            "create unlogged table cut (said text);
             insert into cut values (null);
             create table cut_entities (like entities including all);
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
             create table cut_stretches (
                 topic        text   not null,
                 partition    int    not null,
                 first_offset bigint not null,
                 next_offset  bigint not null,
                 primary key (topic, partition, first_offset)
             );
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
        self.set_unlogged().await?;
        self.begin_anew().await
    }

    /// Keeps what is written to the tables of a shadow out of the server's write-ahead log, which standbys would have to
    /// receive: after a crash of the server they are empty.
    ///
    /// # Errors
    /// If the database refuses or cannot be reached.
    pub async fn set_unlogged(&self) -> Result<()> {
        let alter: Vec<String> = sqlx::query_scalar(
            // what refers to another one first: nothing that is logged may refer to what is not
            "select format('alter table %s set unlogged', t.oid::regclass) from pg_class t
              where t.relnamespace = current_schema::regnamespace and t.relkind = 'r' and t.relpersistence = 'p'
              order by not exists (select from pg_constraint c where c.conrelid = t.oid and c.contype = 'f'), t.relname",
        )
        .fetch_all(&self.pool)
        .await?;
        for alter in alter {
            sqlx::raw_sql(AssertSqlSafe(alter)).execute(&mut self.patient_connection().await?).await?;
        }
        Ok(())
    }

    /// Forgets, in a shadow, who owned what, and what a checkpoint says of letters: no key is parked, and no id is too old.
    ///
    /// # Errors
    /// If the database refuses or cannot be reached.
    pub async fn begin_anew(&self) -> Result<()> {
        sqlx::raw_sql(
            "delete from partitions; delete from parked_keys; delete from requests; delete from dead_letters;
             update horizon set at = to_timestamp(0), floor_id = uuid_floor(to_timestamp(0)),
                                dropping_below = null, drop_after = null;",
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Forgets, in a shadow, entities of other topics than these.
    ///
    /// # Errors
    /// If the database refuses or cannot be reached.
    pub async fn keep_entities_of(&self, topics: &[&str]) -> Result<()> {
        let mut connection = self.patient_connection().await?;
        sqlx::query("delete from entities where topic <> all ($1)").bind(topics).execute(&mut connection).await?;
        Ok(())
    }

    /// Keeps what was read at the cut in a shadow. False: the server has crashed since it was prepared.
    ///
    /// # Errors
    /// If the database refuses or cannot be reached.
    pub async fn keep_cut(&self, cut: &str) -> Result<bool> {
        let kept = sqlx::query("update cut set said = $1").bind(cut).execute(&self.pool).await?;
        Ok(kept.rows_affected() == 1)
    }

    /// What [`Self::keep_cut`] has kept; `None`: nothing, or the server has crashed since.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn cut_said(&self) -> Result<Option<String>> {
        let said: Option<Option<String>> =
            sqlx::query_scalar("select said from cut").fetch_optional(&self.pool).await?;
        Ok(said.flatten())
    }

    /// Whether a shadow has everything that was written to it. A crash of the server empties it, also one that has ended
    /// no process but a backend.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn is_whole(&self) -> Result<bool> {
        Ok(sqlx::query_scalar("select exists (select from cut)").fetch_one(&self.pool).await?)
    }
}

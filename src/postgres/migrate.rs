//! Creating and upgrading the schema, and telling whether it fits.

use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, PgConnection};

use super::{Result, Store};
use crate::handlers::sql::compile::quoted;

/// The migrations table has a name of its own: the schema may be shared.
const MIGRATIONS_TABLE: &str = "_solewriter_migrations";

static MIGRATIONS: Migrator = sqlx::migrate!();

/// Migrating failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// The database refused or cannot be reached.
    #[error(transparent)]
    Database(#[from] super::Error),
    /// A migration failed, or one that was applied reads differently now.
    #[error("migrating schema failed: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
}

impl From<sqlx::Error> for MigrateError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

/// What a migration did.
#[derive(Clone, Debug)]
pub struct Migrated {
    /// The schema was not there and was made.
    pub made_schema: bool,
    /// The newest migration that is applied now.
    pub version: i64,
    /// The names of those that were applied now, in order.
    pub applied: Vec<String>,
}

/// Makes a schema if it is not there. Whether it was made.
pub(super) async fn make_schema(connection: &mut PgConnection, schema: &str) -> Result<bool> {
    let exists: bool = sqlx::query_scalar(SCHEMA_EXISTS).bind(schema).fetch_one(&mut *connection).await?;
    if !exists {
        // not asked of a role that need not have the right: `if not exists` checks it first.
        // The schema's name is checked by the configuration: ^[a-z_][a-z0-9_]*$
        let create = format!("create schema if not exists \"{schema}\"");
        sqlx::raw_sql(AssertSqlSafe(create)).execute(connection).await?;
    }
    Ok(!exists)
}

const SCHEMA_EXISTS: &str = "select to_regnamespace(quote_ident($1)) is not null";

/// The newest migration that is applied, 0 if none is.
async fn applied(connection: &mut PgConnection) -> Result<i64> {
    let (exists,): (bool,) =
        sqlx::query_as("select to_regclass($1) is not null").bind(MIGRATIONS_TABLE).fetch_one(&mut *connection).await?;
    if !exists {
        return Ok(0);
    }
    let (version,) = sqlx::query_as("select coalesce(max(version), 0) from _solewriter_migrations where success")
        .fetch_one(connection)
        .await?;
    Ok(version)
}

/// Whether the schema in the database is the one that this worker needs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SchemaState {
    /// It fits.
    Fits,
    /// There is none.
    Missing,
    /// It is there, and this role may not look into it.
    Forbidden {
        /// The role.
        role: String,
    },
    /// It lacks migrations.
    Older {
        /// The newest migration that was applied.
        applied: i64,
        /// The newest that is needed.
        needed: i64,
    },
    /// It is marked as too new for this worker.
    TooNew {
        /// The least migration that a worker must know.
        least: i64,
        /// The newest that this one knows.
        known: i64,
    },
}

impl SchemaState {
    /// Why the schema does not fit this `program`, to be said after the schema's name. `None`: it fits.
    pub fn misfit(&self, program: &str) -> Option<String> {
        Some(match self {
            Self::Fits => return None,
            Self::Missing => "has no solewriter tables".to_owned(),
            Self::Forbidden { role } => format!("is there, but role {role:?} has no right to use it"),
            Self::Older { applied, needed } => format!("is at migration {applied}, this {program} needs {needed}"),
            Self::TooNew { least, known } => {
                format!("needs a {program} that knows migration {least}, this one knows {known}")
            }
        })
    }

    /// What helps against it: a command to type, or something to do.
    pub fn cure(&self, schema: &str, program: &str) -> String {
        match self {
            Self::Fits | Self::Missing | Self::Older { .. } => "solewriter migrate".to_owned(),
            Self::Forbidden { role } => format!("grant usage on schema {} to {}", quoted(schema), quoted(role)),
            Self::TooNew { .. } => format!("upgrade this {program}"),
        }
    }

    /// Why, and what helps against it, in a sentence. `None`: it fits.
    pub fn refusal(&self, schema: &str, program: &str) -> Option<String> {
        let (misfit, cure) = (self.misfit(program)?, self.cure(schema, program));
        let by = match self {
            Self::TooNew { .. } => "",
            Self::Forbidden { .. } => "its owner types: ",
            Self::Fits | Self::Missing | Self::Older { .. } => "type: ",
        };
        Some(format!("schema {schema:?} {misfit}; {by}{cure}"))
    }
}

/// Everything that [`Store::migrate`] does to an empty database, as one script for
/// those who apply it by hand; with its books, so that the next `migrate` goes on
/// from there.
pub fn script(schema: &str, window_ms: i64) -> String {
    let mut script = format!(
        "begin;\ncreate schema if not exists \"{schema}\";\nset local search_path to \"{schema}\", pg_temp;\n\n{BOOKS}"
    );
    for migration in MIGRATIONS.iter() {
        let (version, description) = (migration.version, &migration.description);
        let checksum: String = migration.checksum.iter().map(|byte| format!("{byte:02x}")).collect();
        script.push_str(&format!(
            "\n-- migration {version} {description}\n{}\ninsert into {MIGRATIONS_TABLE} \
             (version, description, success, checksum, execution_time)\n\
             values ({version}, '{description}', true, '\\x{checksum}', 0);\n",
            migration.sql.as_str()
        ));
    }
    script + &format!("\n{};\n{FIRST_DAYS};\ncommit;\n", FIRST_HORIZON.replace("$1", &window_ms.to_string()))
}

/// As sqlx makes it (sqlx-postgres, `ensure_migrations_table`).
const BOOKS: &str = "\
create table _solewriter_migrations (
    version        bigint primary key,
    description    text not null,
    installed_on   timestamptz not null default now(),
    success        boolean not null,
    checksum       bytea not null,
    execution_time bigint not null
);
";

/// A new schema remembers ids from one window ago on.
const FIRST_HORIZON: &str = "\
insert into horizon (at, floor_id)
select at, uuid_floor(at) from (select now() - $1 * interval '1 ms' as at) start on conflict do nothing";

const FIRST_DAYS: &str = "select make_day_v1(now() + day * interval '1 day') from generate_series(-1, 2) as day";

impl Store {
    /// Creates or upgrades the schema, with the day partitions of the next days.
    /// The horizon of a new schema begins `window_ms` ago.
    ///
    /// # Errors
    /// If the database refuses or cannot be reached.
    pub async fn migrate(&self, window_ms: i64) -> std::result::Result<Migrated, MigrateError> {
        let connection = &mut self.patient_connection().await?;
        let made_schema = make_schema(connection, &self.schema).await?;
        let mut migrator = Migrator { migrations: MIGRATIONS.migrations.clone(), ..Migrator::DEFAULT };
        migrator.dangerous_set_table_name(MIGRATIONS_TABLE);
        // an older worker may migrate a newer schema: that is nothing to do
        migrator.set_ignore_missing(true);
        let before = applied(&mut *connection).await?;
        migrator.run(&mut *connection).await?;
        sqlx::query(FIRST_HORIZON).bind(window_ms as f64).execute(&mut *connection).await?;
        sqlx::query(FIRST_DAYS).execute(&mut *connection).await?;
        let new = MIGRATIONS.iter().filter(|migration| migration.version > before);
        Ok(Migrated {
            made_schema,
            version: applied(&mut *connection).await?,
            applied: new.map(|migration| migration.description.to_string()).collect(),
        })
    }

    /// Whether there is a schema of this name.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn has_schema(&self, schema: &str) -> Result<bool> {
        Ok(sqlx::query_scalar(SCHEMA_EXISTS).bind(schema).fetch_one(&self.pool).await?)
    }

    /// The role of these sessions, if the schema is there and it may not use it.
    async fn forbidden_to(&self) -> Result<Option<String>> {
        let role = "select current_user::text from pg_namespace n
                     where n.nspname = $1 and not has_schema_privilege(n.oid, 'usage')";
        Ok(sqlx::query_scalar(role).bind(&self.schema).fetch_optional(&self.pool).await?)
    }

    /// Whether the schema is there and fits this worker.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn schema_state(&self) -> Result<SchemaState> {
        let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
        let exists: (bool,) =
            sqlx::query_as("select to_regclass('schema_compatibility') is not null and to_regclass($1) is not null")
                .bind(MIGRATIONS_TABLE)
                .fetch_one(&self.pool)
                .await?;
        if !exists.0 {
            return Ok(match self.forbidden_to().await? {
                Some(role) => SchemaState::Forbidden { role },
                None => SchemaState::Missing,
            });
        }
        let (applied, least): (i64, i64) = sqlx::query_as(
            "select (select coalesce(max(version), 0) from _solewriter_migrations where success),
                    (select least_version from schema_compatibility)",
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(match () {
            () if least > known => SchemaState::TooNew { least, known },
            () if applied < known => SchemaState::Older { applied, needed: known },
            () => SchemaState::Fits,
        })
    }
}

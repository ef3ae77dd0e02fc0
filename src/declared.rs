//! From the files of `commands` to functions in the database: what `migrate` makes, and `run`
//! finds there.

pub mod scripts;

use std::sync::Arc;

use crate::config::{Config, Database};
use crate::handlers::EntityHandlers;
use crate::handlers::sql::compile::{CompiledEntity, Function, Schemas, compile, digests};
use crate::handlers::sql::declaration::Declarations;
use crate::handlers::sql::diagnostic::{Diagnostic, Diagnostics};
use crate::handlers::sql::examine::{Examination, examine};
use crate::handlers::sql::rules::entities;
use crate::handlers::sql::typed::Typed;
use crate::postgres::{self, Store};

/// The declarations cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeclaredError {
    /// Mistakes in the files, all of them.
    #[error("{0}")]
    Mistakes(#[from] Diagnostics),
    /// The functions of these names are missing, or are not what the files say.
    #[error(
        "commands in SQL have changed since the last migration, or somebody has changed what it made ({}); \
         type: solewriter migrate", .0.join(", ")
    )]
    NotMigrated(Vec<String>),
    /// The database does not answer.
    #[error(transparent)]
    Database(#[from] postgres::Error),
}

impl DeclaredError {
    /// Whether waiting may help.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_passing())
    }
}

/// What the files declare, with the configuration that names them.
#[derive(Clone, Debug)]
pub struct Declared {
    declarations: Declarations,
    database: Database,
}

impl Declared {
    /// Reads the files and checks what needs no database: what is in order, and all mistakes of all
    /// files. `rust` are the entity types that have handlers in Rust.
    pub fn read(config: &Config, rust: &[&str]) -> (Self, Diagnostics) {
        let (declarations, mut mistakes) = Declarations::load(config);
        mistakes.0.extend(entities::check(config, &declarations, rust));
        (Self { declarations, database: config.database.clone() }, mistakes)
    }

    /// The same, if everything is in order.
    ///
    /// # Errors
    /// All mistakes of all files.
    pub fn load(config: &Config, rust: &[&str]) -> Result<Self, Diagnostics> {
        let (declared, mistakes) = Self::read(config, rust);
        mistakes.or(declared)
    }

    /// The same in another database.
    #[must_use]
    pub fn in_database(self, database: &Database) -> Self {
        Self { database: database.clone(), ..self }
    }

    /// Whether nothing is declared.
    pub fn is_empty(&self) -> bool {
        self.declarations.commands.is_empty() && self.declarations.writes.is_empty()
    }

    /// The entity types whose commands are declared.
    pub fn entity_types(&self) -> impl Iterator<Item = &Arc<str>> {
        self.declarations.commands.iter().map(|command| &command.entity)
    }

    /// What is declared, as the files say it.
    pub fn declarations(&self) -> &Declarations {
        &self.declarations
    }

    /// Runs the scripts that make the tables, in their schema, which is made if it is not there.
    ///
    /// # Errors
    /// What the database refuses of the first that is not in order, or that it cannot be reached.
    pub async fn make_tables(&self, store: &Store) -> Result<MadeTables, DeclaredError> {
        let mut made = MadeTables::default();
        for script in &self.declarations.tables {
            let ran = store.make_tables(&self.database.tables_schema, &script.sql).await?;
            let made_schema = ran.map_err(|error| Diagnostics(vec![scripts::refused(script, &error)]))?;
            made.schema = made.schema.or(made_schema.then(|| self.database.tables_schema.clone()));
            made.scripts.push(scripts::path(script));
        }
        Ok(made)
    }

    /// What is no SQL in the scripts, of which nothing is run: the first of each.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn parse_scripts(&self, store: &Store) -> postgres::Result<Vec<Diagnostic>> {
        let mut examiner = store.examiner(&self.database.tables_schema).await?;
        let mut mistakes = Vec::new();
        for script in &self.declarations.tables {
            let parsed = examiner.parse(&script.sql).await?;
            mistakes.extend(parsed.err().map(|error| scripts::refused(script, &error)));
        }
        examiner.close().await;
        Ok(mistakes)
    }

    /// Examines every statement and makes functions of all, in memory.
    ///
    /// # Errors
    /// All mistakes, or a database that does not answer.
    pub async fn compile(&self, store: &Store) -> Result<Compiled, DeclaredError> {
        if self.is_empty() {
            return Ok(Compiled::default());
        }
        Ok(Compiled::of(&self.database, &self.typed(store).await?))
    }

    /// Examines every statement.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn examine(&self, store: &Store) -> postgres::Result<Examination> {
        let mut found = examine(store, &self.database.tables_schema, &self.declarations).await?;
        found.problems.iter_mut().for_each(|it| scripts::mention_new_column(it, &self.declarations.tables));
        Ok(found)
    }

    /// The same, if everything is in order.
    ///
    /// # Errors
    /// All mistakes, or a database that does not answer.
    pub async fn typed(&self, store: &Store) -> Result<Typed, DeclaredError> {
        Ok(self.examine(store).await?.into_typed()?)
    }

    /// The same; nothing is asked of the database if nothing is declared.
    ///
    /// # Errors
    /// All mistakes, or a database that does not answer.
    pub async fn typed_if_any(&self, store: &Store) -> Result<Typed, DeclaredError> {
        if self.is_empty() { Ok(Typed::default()) } else { self.typed(store).await }
    }
}

/// What the scripts have made.
#[derive(Clone, Debug, Default)]
pub struct MadeTables {
    /// The schema of the tables, if it was not there.
    pub schema: Option<String>,
    /// The paths of the scripts that were run, in order.
    pub scripts: Vec<String>,
}

/// The functions of all that is declared, and how the data path calls them.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    entities: Vec<CompiledEntity>,
    tables_schema: String,
}

impl Compiled {
    /// Makes functions of what the database has said, in memory.
    pub fn of(database: &Database, typed: &Typed) -> Self {
        let schemas = Schemas { own: &database.schema, tables: &database.tables_schema };
        Self { entities: compile(typed, schemas), tables_schema: database.tables_schema.clone() }
    }

    /// All functions, those that others call first.
    pub fn functions(&self) -> Vec<&Function> {
        self.entities.iter().flat_map(|entity| &entity.functions).collect()
    }

    /// Those of an entity type.
    pub fn functions_of(&self, entity: &str) -> Vec<&Function> {
        let compiled = self.entities.iter().filter(|compiled| *compiled.entity == *entity);
        compiled.flat_map(|compiled| &compiled.functions).collect()
    }

    /// Makes those that are not in the database. Their names.
    ///
    /// # Errors
    /// If the database refuses or cannot be reached.
    pub async fn make(&self, store: &Store) -> postgres::Result<Vec<String>> {
        store.make_functions(&self.functions(), &self.tables_schema).await
    }

    /// Those that are not in the database as they should be.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn absent(&self, store: &Store) -> postgres::Result<Vec<String>> {
        store.absent_functions(&digests(self.functions())).await
    }

    /// The handlers of an entity type: those in Rust with the writes that they may name, or those in
    /// SQL.
    pub fn handlers(&self, entity: &str, rust: Option<&Arc<EntityHandlers>>) -> Option<Arc<EntityHandlers>> {
        let compiled = self.entities.iter().find(|compiled| *compiled.entity == *entity);
        match (rust, compiled) {
            (Some(rust), Some(compiled)) => Some(Arc::new(rust.with_writes(compiled.in_database.clone()))),
            (Some(rust), None) => Some(rust.clone()),
            (None, compiled) => {
                let CompiledEntity { entity, commands, in_database, .. } = compiled?.clone();
                Some(Arc::new(EntityHandlers::in_sql(entity, commands, in_database)))
            }
        }
    }
}

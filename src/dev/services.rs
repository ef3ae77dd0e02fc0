//! The broker and the database of `dev`, and the configuration that names them.

use super::Error;
use super::project::Project;
use crate::config::{Config, Database, DatabaseUrl, Kafka};
use crate::declared::DeclaredError;
use crate::local::broker::Embedded;
use crate::local::own_schema::{self, OwnSchema, Purpose};
use crate::local::postgres::{Options, Postgres};
use crate::postgres::Store;
use crate::worker::Worker;

/// Enough for two workers to share. The embedded broker keeps 5 MiB of each in memory.
const PARTITIONS: u16 = 8;

/// The settings that fit the embedded broker: an idle fetch waits all of its `fetch.wait.max.ms`,
/// and a rebalance waits for the session time-out less a second, in which nobody settles what changes
/// hands.
const PROPERTIES: [(&str, &str); 3] =
    [("fetch.wait.max.ms", "10"), ("session.timeout.ms", "2000"), ("heartbeat.interval.ms", "300")];

/// Broker and database, running.
pub struct Services {
    /// Names them, and the topics.
    pub(super) config: Config,
    /// Where the database is, with the password if it has one: not for eyes.
    pub(super) database_url: String,
    /// Of the tables that commands in SQL write, if there are any: something to look at.
    pub(super) first_table: Option<String>,
    broker: Embedded,
    database: Home,
}

/// Where the tables are.
#[derive(Debug)]
enum Home {
    Private(Postgres),
    Schema(OwnSchema),
}

impl Services {
    /// Starts the broker, finds or starts a Postgres, and makes the project's topics, tables and
    /// functions.
    pub(super) async fn start(project: &mut Project) -> Result<Self, Error> {
        let broker = Embedded::start(1)?;
        for topic in &project.config.topics {
            broker.create_topic(&topic.name, PARTITIONS)?;
            for (_, name) in topic.published_to() {
                broker.create_topic(&name, PARTITIONS)?;
            }
        }
        let (database, home, database_url) = match own_schema::named_database() {
            Some(url) => in_a_schema(url)?,
            None => privately().await?,
        };
        project.move_to(&database);
        let kafka = Kafka {
            bootstrap_servers: Some(broker.bootstrap_servers().to_owned()),
            group_id: "solewriter-dev".to_owned(),
            properties: PROPERTIES.into_iter().collect(),
        };
        let config = Config { database, kafka, ..project.config.clone() };
        let mut services = Self { config, database_url, first_table: None, broker, database: home };
        match services.make_tables(&project.worker).await {
            Ok(first_table) => services.first_table = first_table,
            Err(error) => {
                services.stop().await?;
                return Err(error);
            }
        }
        Ok(services)
    }

    /// As `migrate` does. Returns the first of the team's tables.
    async fn make_tables(&self, worker: &Worker) -> Result<Option<String>, Error> {
        let store = Store::new(&self.config.database, "solewriter dev")?;
        store.migrate(self.config.deduplication.window_ms()).await?;
        let declared = worker.declared(&self.config).map_err(DeclaredError::from)?;
        declared.make_tables(&store).await?;
        declared.compile(&store).await?.make(&store).await?;
        let first_table = match declared.is_empty() {
            true => None,
            false => store.first_table(&self.config.database.tables_schema).await?,
        };
        store.close().await;
        Ok(first_table)
    }

    /// Where the broker is.
    pub(super) fn bootstrap_servers(&self) -> &str {
        self.broker.bootstrap_servers()
    }

    /// Whether the database is this process's own.
    pub(super) fn has_private_database(&self) -> bool {
        matches!(self.database, Home::Private(_))
    }

    /// Where the database is, as a shell writes it: a password stays in its variable.
    pub(super) fn database_in_a_shell(&self) -> &str {
        if self.has_private_database() { &self.database_url } else { "$DATABASE_URL" }
    }

    /// Leaves nothing behind.
    pub(super) async fn stop(self) -> Result<(), Error> {
        match self.database {
            Home::Private(postgres) => {
                // stopping waits for processes
                let stopped = tokio::task::spawn_blocking(move || drop(postgres)).await;
                stopped.map_err(std::io::Error::other).map_err(Error::io("stop Postgres"))
            }
            Home::Schema(schema) => schema.end().await.map_err(Error::io("drop the schemas of this run")),
        }
    }
}

type Found = (Database, Home, String);

fn in_a_schema(url: String) -> Result<Found, Error> {
    let begun = OwnSchema::begin(Purpose::Dev, &url);
    let schema = begun.map_err(Error::io("start the process that drops the schema at the end"))?;
    let database = own_schema::database(schema.name.clone())?;
    Ok((database, Home::Schema(schema), url))
}

async fn privately() -> Result<Found, Error> {
    let starting = tokio::task::spawn_blocking(|| Postgres::start(Options::default())).await;
    let postgres = starting.map_err(std::io::Error::other).map_err(Error::io("start Postgres"))??;
    let url = postgres.url();
    let database = Database { url: Some(url.parse::<DatabaseUrl>()?), ..Database::default() };
    Ok((database, Home::Private(postgres), url))
}

//! The Kafka and the Postgres that are measured: those of the configuration, or private ones where it
//! names none.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::groups::GroupInfo;
use rdkafka::metadata::MetadataTopic;
use serde::Serialize;
use sqlx::postgres::{PgConnection, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgPool};
use tokio::task::spawn_blocking;

use super::cost::{self, Parts};
use super::{Error, bank, checkpoint};
use crate::config::{Config, Database, DatabaseUrl, Kafka, Topic};
use crate::kafka;
use crate::local::kafka as broker;
use crate::local::own_schema::{OwnSchema, Purpose};
use crate::local::postgres::{self, Postgres};
use crate::postgres::Store;
use crate::postgres::schema_prefix;

/// How long the broker may take to make or drop topics.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Of the harness itself; workers have connections of their own.
const CONNECTIONS_MAX: u32 = 10;

/// What a private Postgres is given beside its defaults: memory and checkpoints as a small server in
/// production has them.
const POSTGRES_SETTINGS: [(&str, &str); 4] =
    [("shared_buffers", "512MB"), ("max_wal_size", "4GB"), ("min_wal_size", "1GB"), ("checkpoint_timeout", "15min")];
/// Files of the write-ahead log, 16 MB each, that a server keeps for another use with that setting.
const WAL_FILES: usize = 64;

/// Both, running.
pub(crate) struct Services {
    /// Names both, and the schemas; without topics.
    config: Config,
    database_url: String,
    pub(super) pool: PgPool,
    pub(super) parts: Parts,
    admin: AdminClient<DefaultClientContext>,
    /// Of this run's topics and groups.
    prefix: String,
    schema: OwnSchema,
    /// Kept for their ends.
    broker: Option<broker::Kafka>,
    postgres: Option<Postgres>,
    pub(super) setting: Setting,
}

/// Where it was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Setting {
    /// Of the processor.
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) system: String,
    pub(crate) solewriter: &'static str,
    pub(crate) librdkafka: String,
    /// Version and the settings that decide on speed.
    pub(crate) postgres: Vec<(String, String)>,
    /// `private`, or where it is.
    pub(crate) database: String,
    pub(crate) kafka: String,
}

impl Services {
    /// Finds or starts both.
    pub(crate) async fn start(config: &Config) -> Result<Self, Error> {
        let (database_url, own_postgres) = match &config.database.url {
            Some(url) => (url.exposed().to_owned(), None),
            None => {
                let own = started(private_postgres).await?;
                make_wal_files(&own.url()).await?;
                (own.url(), Some(own))
            }
        };
        let (bootstrap_servers, own_broker) = match &config.kafka.bootstrap_servers {
            Some(servers) => (servers.clone(), None),
            None => {
                let own = started(private_broker).await?;
                (own.bootstrap_servers(), Some(own))
            }
        };
        let schema = OwnSchema::begin(Purpose::Bench, &database_url)
            .map_err(Error::io("start the process that drops the schema at the end"))?;
        let [own_schema, tables_schema] = schema.schemas();
        let url: DatabaseUrl = database_url.parse()?;
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .connect_lazy_with(url.connect_options()?.application_name("solewriter bench").disable_statement_logging());
        let prefix = format!("solewriter-bench-{:08x}", fastrand::u32(..));
        let config = Config {
            commands: Vec::new(),
            topics: Vec::new(),
            database: Database { url: Some(url), schema: own_schema, tables_schema, ..config.database.clone() },
            kafka: Kafka { bootstrap_servers: Some(bootstrap_servers.clone()), ..config.kafka.clone() },
            ..config.clone()
        };
        let admin = kafka::Client::new(&config.kafka, &prefix)?.admin().create()?;
        let parts = cost::parts(&pool, own_broker.as_ref().map(broker::Kafka::id), &bootstrap_servers).await?;
        let setting = Setting {
            database: if own_postgres.is_some() { "private".to_owned() } else { shown(&config) },
            kafka: if own_broker.is_some() { "private".to_owned() } else { bootstrap_servers },
            postgres: settings(&pool).await?,
            ..Setting::of_this_machine()
        };
        Ok(Self {
            config,
            database_url,
            pool,
            parts,
            admin,
            prefix,
            schema,
            broker: own_broker,
            postgres: own_postgres,
            setting,
        })
    }

    /// Drops what was made, also topics that an error has left. What is private ends with this value.
    pub(crate) async fn stop(self) -> Result<(), Error> {
        let left = self.delete_own_topics().await.and(self.delete_own_groups().await);
        let left = left.and(self.drop_own_shadows().await).and(self.drop_own_checkpoint().await);
        self.pool.close().await;
        self.schema.end().await.map_err(Error::io("drop the schemas of this run"))?;
        let (broker, postgres) = (self.broker, self.postgres);
        // stopping waits for processes
        let stopped = spawn_blocking(move || drop((broker, postgres))).await;
        stopped.map_err(std::io::Error::other).map_err(Error::io("stop Kafka and Postgres"))?;
        left
    }

    /// Those of verifications that were stopped.
    async fn drop_own_shadows(&self) -> Result<(), Error> {
        let store = Store::new(&self.config.database, "solewriter bench")?;
        let [schema, _] = self.schemas();
        let dropped = store.drop_shadows_of(&format!("\"schema\":\"{schema}\"")).await;
        store.close().await;
        Ok(dropped?)
    }

    /// The one that was in the making; this waits until the server has noticed that nobody makes it any more.
    async fn drop_own_checkpoint(&self) -> Result<(), Error> {
        let [schema, _] = self.schemas();
        let drop = format!("drop schema if exists {}{} cascade", schema_prefix(schema), checkpoint::NAME);
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(&self.pool).await?;
        Ok(())
    }

    /// The configuration of a worker in a group of its own, which settles `topic`.
    pub(super) fn config(&self, topic: &str, run: &str) -> Config {
        let mut config = self.config.clone();
        config.kafka.group_id = format!("{}-{run}", self.prefix);
        config.topics = vec![Topic {
            outcomes_topic: Some(format!("{topic}-{run}-outcomes")),
            events_topic: Some(format!("{topic}-{run}-events")),
            ..Topic::new(topic, bank::ACCOUNT)
        }];
        config
    }

    /// Whether Kafka was started for this run.
    pub(super) fn has_private_broker(&self) -> bool {
        self.broker.is_some()
    }

    pub(super) fn database_url(&self) -> &str {
        &self.database_url
    }

    /// A client for this run's own reading and writing.
    pub(super) fn client(&self, name: &str) -> Result<kafka::Client, Error> {
        let kafka = Kafka { group_id: format!("{}-{name}", self.prefix), ..self.config.kafka.clone() };
        Ok(kafka::Client::new(&kafka, name)?)
    }

    /// The name of a topic of this run.
    pub(super) fn topic(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// Makes a topic with the broker's default replication.
    pub(super) async fn create_topic(&self, topic: &str, partitions: i32) -> Result<(), Error> {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1)).set("cleanup.policy", "delete");
        let options = AdminOptions::new().operation_timeout(Some(ADMIN_TIMEOUT));
        for made in self.admin.create_topics([&new], &options).await? {
            made.map_err(|(topic, code)| Error::Topic { doing: "create", topic, code })?;
        }
        Ok(())
    }

    /// Drops topics; one that is not there is as good.
    pub(super) async fn delete_topics(&self, topics: &[&str]) -> Result<(), Error> {
        let options = AdminOptions::new().operation_timeout(Some(ADMIN_TIMEOUT));
        for dropped in self.admin.delete_topics(topics, &options).await? {
            match dropped {
                Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
                Err((topic, code)) => return Err(Error::Topic { doing: "delete", topic, code }),
            }
        }
        Ok(())
    }

    async fn delete_own_topics(&self) -> Result<(), Error> {
        let all = tokio::task::block_in_place(|| self.admin.inner().fetch_metadata(None, ADMIN_TIMEOUT))?;
        let own: Vec<&str> =
            all.topics().iter().map(MetadataTopic::name).filter(|topic| topic.starts_with(&self.prefix)).collect();
        if own.is_empty() { Ok(()) } else { self.delete_topics(&own).await }
    }

    /// A group whose members were killed has them until their sessions end: Kafka forgets it by itself.
    async fn delete_own_groups(&self) -> Result<(), Error> {
        let all = tokio::task::block_in_place(|| self.admin.inner().fetch_group_list(None, ADMIN_TIMEOUT))?;
        let own: Vec<&str> =
            all.groups().iter().map(GroupInfo::name).filter(|group| group.starts_with(&self.prefix)).collect();
        if own.is_empty() {
            return Ok(());
        }
        let options = AdminOptions::new().operation_timeout(Some(ADMIN_TIMEOUT));
        for deleted in self.admin.delete_groups(&own, &options).await? {
            match deleted {
                Ok(_) | Err((_, RDKafkaErrorCode::NonEmptyGroup | RDKafkaErrorCode::GroupIdNotFound)) => {}
                Err((group, code)) => return Err(Error::Group { group, code }),
            }
        }
        Ok(())
    }

    /// The schemas of solewriter and of the team's tables, without what an earlier row left.
    pub(super) async fn empty_schemas(&self) -> Result<(), Error> {
        let Database { schema, tables_schema, .. } = &self.config.database;
        // the names are this program's: letters, digits and underscores
        let statements = format!(
            "drop schema if exists {schema}, {tables_schema} cascade; create schema {schema}; create schema {tables_schema}"
        );
        sqlx::raw_sql(AssertSqlSafe(statements)).execute(&self.pool).await?;
        Ok(())
    }

    /// A connection with the schema of this run on its search path.
    pub(super) async fn connection(&self) -> Result<PgConnection, Error> {
        connection(&self.config).await
    }

    /// The two schemas.
    pub(super) fn schemas(&self) -> [&str; 2] {
        [&self.config.database.schema, &self.config.database.tables_schema]
    }

    /// So that each row finds a log without work left over. Not every role may ask for it; then the
    /// rows share their checkpoints.
    pub(super) async fn checkpoint(&self) {
        if let Err(error) = sqlx::raw_sql("checkpoint").execute(&self.pool).await {
            tracing::debug!(%error, "no checkpoint between rows");
        }
    }
}

/// A connection of a configuration, with its schema on the search path.
pub(super) async fn connection(config: &Config) -> Result<PgConnection, Error> {
    let options = config.database.require_url()?.connect_options()?;
    let path = [("search_path", format!("{}, {}", config.database.schema, config.database.tables_schema))];
    Ok(options.options(path).disable_statement_logging().connect().await?)
}

fn private_postgres() -> Result<Postgres, postgres::Error> {
    let settings = POSTGRES_SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    Postgres::start(postgres::Options { durable: true, settings, ..postgres::Options::default() })
}

/// A server that has run for a while uses the files of its write-ahead log again; a fresh one makes
/// each while somebody waits for his commit: 16 MB of zeros, 50 to 150 ms on a slow disk.
async fn make_wal_files(url: &str) -> Result<(), Error> {
    let mut connection = url.parse::<DatabaseUrl>()?.connect_options()?.disable_statement_logging().connect().await?;
    for _ in 0..WAL_FILES {
        // a file without a record is not changed for the next one
        sqlx::raw_sql("select pg_logical_emit_message(false, 'bench', '')").execute(&mut connection).await?;
        sqlx::raw_sql("select pg_switch_wal()").execute(&mut connection).await?;
    }
    sqlx::raw_sql("checkpoint").execute(&mut connection).await?;
    Ok(connection.close().await?)
}

fn private_broker() -> Result<broker::Kafka, broker::Error> {
    broker::Kafka::start(broker::Options::for_a_benchmark())
}

/// Starting waits for processes.
async fn started<T, E>(start: fn() -> Result<T, E>) -> Result<T, Error>
where
    T: Send + 'static,
    E: Send + 'static,
    Error: From<E>,
{
    let joined = spawn_blocking(start).await;
    Ok(joined.map_err(std::io::Error::other).map_err(Error::io("start Kafka and Postgres"))??)
}

fn shown(config: &Config) -> String {
    config.database.url.as_ref().map(ToString::to_string).unwrap_or_default()
}

async fn settings(pool: &PgPool) -> Result<Vec<(String, String)>, Error> {
    Ok(sqlx::query_as(
        "select name, current_setting(name) from unnest(array['server_version', 'fsync', 'synchronous_commit',
             'full_page_writes', 'wal_level', 'shared_buffers', 'max_wal_size', 'checkpoint_timeout']) as name",
    )
    .fetch_all(pool)
    .await?)
}

impl Setting {
    /// In a few words, for a picture.
    pub(crate) fn note(&self) -> String {
        let memory = self.memory_bytes.map_or_else(String::new, |bytes| format!(", {} GiB", bytes >> 30));
        let setting = |name: &str| {
            let found = self.postgres.iter().find(|(known, _)| known == name);
            found.map_or("unknown", |(_, value)| value)
        };
        let (postgres, fsync) = (setting("server_version"), setting("fsync"));
        // a packager adds the system's name
        let postgres = postgres.split(' ').next().unwrap_or(postgres);
        format!("{}, {} cores{memory}; Postgres {postgres}, fsync {fsync}", self.cpu, self.cores)
    }

    pub(super) fn of_this_machine() -> Self {
        let name = rustix::system::uname();
        let system = [name.sysname(), name.release(), name.machine()].map(std::ffi::CStr::to_string_lossy);
        let (_, librdkafka) = rdkafka::util::get_rdkafka_version();
        Self {
            cpu: cpu_model(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory_bytes(),
            system: system.join(" "),
            solewriter: env!("CARGO_PKG_VERSION"),
            librdkafka,
            postgres: Vec::new(),
            database: String::new(),
            kafka: String::new(),
        }
    }
}

fn cpu_model() -> String {
    let described = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = described.lines().find_map(|line| line.strip_prefix("model name"));
    model.map_or_else(|| "unknown".to_owned(), |model| model.trim_start_matches([' ', '\t', ':']).to_owned())
}

fn memory_bytes() -> Option<u64> {
    let described = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kibibytes = described.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(kibibytes.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

/// The outcomes that stand on a topic.
pub(super) struct Ends {
    consumer: rdkafka::consumer::BaseConsumer,
    list: rdkafka::TopicPartitionList,
}

impl Ends {
    pub(super) fn of(services: &Services, topic: &str, partitions: i32) -> Result<Self, Error> {
        let mut list = rdkafka::TopicPartitionList::new();
        for partition in 0..partitions {
            // asked for the latest time, the broker answers with the end
            list.add_partition_offset(topic, partition, rdkafka::Offset::End)?;
        }
        Ok(Self { consumer: services.client("ends")?.reader().create()?, list })
    }

    /// How many records there are in all.
    pub(super) fn count(&self) -> Result<u64, KafkaError> {
        use rdkafka::consumer::Consumer as _;
        let ends = match self.consumer.offsets_for_times(self.list.clone(), ADMIN_TIMEOUT) {
            // a topic that has just been made has no leader for a moment, and nothing on it
            Err(error) if is_without_leader(&error) => return Ok(0),
            ends => ends?,
        };
        let offsets = ends.elements().into_iter().map(|end| match end.offset() {
            rdkafka::Offset::Offset(offset) => u64::try_from(offset).unwrap_or(0),
            _ => 0,
        });
        Ok(offsets.sum())
    }
}

fn is_without_leader(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{
        LeaderNotAvailable, NotLeaderForPartition, UnknownPartition, UnknownTopic, UnknownTopicOrPartition,
    };
    matches!(
        error.rdkafka_error_code(),
        Some(LeaderNotAvailable | NotLeaderForPartition | UnknownPartition | UnknownTopic | UnknownTopicOrPartition)
    )
}

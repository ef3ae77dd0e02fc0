//! One Postgres for all tests, a schema of its own for each.

use std::sync::OnceLock;
use std::time::Duration;
use std::{env, thread};

use solewriter::local::postgres::{Options, Postgres};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgPool};
use url::Url;

use super::scratch::unique;

/// `DATABASE_URL` when set, otherwise a private Postgres that the first who asks starts.
pub fn shared_url() -> String {
    static SHARED: OnceLock<Postgres> = OnceLock::new();
    match env::var("DATABASE_URL") {
        Ok(url) if !url.is_empty() => url,
        _ => SHARED.get_or_init(start_shared).url(),
    }
}

fn start_shared() -> Postgres {
    let settings = vec![("max_connections".to_owned(), "400".to_owned())];
    let options = Options { settings, ..Options::default() };
    Postgres::start(options).unwrap_or_else(|error| panic!("{error}"))
}

/// A test's own schema name and connections whose `search_path` begins with it. The schema is the
/// worker's to make.
pub struct Database {
    pub url: String,
    pub schema: String,
    pub pool: PgPool,
}

/// Where a test's commands in SQL keep their tables.
pub fn tables_schema(schema: &str) -> String {
    format!("{schema}_tables")
}

impl Database {
    /// In the shared Postgres.
    pub async fn fresh(name: &str) -> Self {
        Self::fresh_in(&shared_url(), name).await
    }

    /// In another one: a private Postgres that the test stops and starts.
    pub async fn fresh_in(url: &str, name: &str) -> Self {
        let schema = unique(name);
        let connect: PgConnectOptions = url.parse().expect("a database URL");
        let search_path = format!("{schema},{},public", tables_schema(&schema));
        let pool = PgPoolOptions::new()
            .max_connections(4)
            .acquire_timeout(Duration::from_secs(60))
            .connect_with(connect.options([("search_path", search_path)]))
            .await
            .expect("connect to the test's Postgres");
        Self { url: url.to_owned(), schema, pool }
    }

    /// Its address for a role that may log in without a password.
    pub fn url_of(&self, role: &str) -> String {
        let mut url = Url::parse(&self.url).expect("an address");
        url.set_username(role).expect("a role");
        url.to_string()
    }

    /// Runs statements that return nothing; several may be separated by semicolons.
    pub async fn execute(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        sqlx::raw_sql(sql).execute(&self.pool).await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// How many rows: `count("processed_commands where outcome = 'applied'")`.
    pub async fn count(&self, table_and_condition: &str) -> i64 {
        self.number(&format!("select count(*) from {table_and_condition}")).await.unwrap_or(0)
    }

    /// The one number that a query returns; `None` for null or no row.
    pub async fn number(&self, sql: &str) -> Option<i64> {
        let query = sqlx::query_scalar::<_, Option<i64>>(AssertSqlSafe(sql.to_owned()));
        let answer = query.fetch_optional(&self.pool).await;
        answer.unwrap_or_else(|error| panic!("{sql}: {error}")).flatten()
    }

    /// The rows of a query as JSON objects.
    pub async fn rows(&self, sql: &str) -> Vec<serde_json::Value> {
        let sql = AssertSqlSafe(format!("select to_jsonb(r) from ({sql}) as r"));
        sqlx::query_scalar(sql).fetch_all(&self.pool).await.unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Drop for Database {
    /// A Postgres that is not ours gets its space back. The private one ends with the run anyway.
    fn drop(&mut self) {
        if env::var("DATABASE_URL").is_ok_and(|url| url == self.url) {
            let (url, schema) = (self.url.clone(), self.schema.clone());
            // A destructor cannot await, and the test's runtime may be ending.
            let _ = thread::spawn(move || drop_schema(&url, &schema)).join();
        }
    }
}

fn drop_schema(url: &str, schema: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let sql = AssertSqlSafe(format!("drop schema if exists {schema}, {} cascade", tables_schema(schema)));
    let done = runtime.block_on(async { sqlx::raw_sql(sql).execute(&PgPool::connect(url).await?).await });
    if let Err(error) = done {
        eprintln!("could not drop the schema {schema}: {error}");
    }
}

//! What an operator restores a database from: a dump of a schema, a standby.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use solewriter::local::guarded::Program;
use solewriter::local::postgres::{Options, Postgres};
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;

use super::patience::{PATIENCE, wait_until};
use super::postgres::{Database, tables_schema};
use super::scratch::{Scratch, unique};

/// A schema as it was, with that of the tables of commands in SQL, if there is one.
pub struct Dump {
    scratch: Scratch,
    url: String,
    programs: PathBuf,
}

impl Dump {
    /// With `pg_dump`.
    pub fn take(postgres: &Postgres, database: &Database) -> Self {
        let (scratch, programs) = (Scratch::new("dump"), postgres.programs().to_owned());
        let dump = Self { scratch, url: database.url.clone(), programs };
        let (file, schema) = (format!("--file={}", dump.file()), format!("--schema={}", database.schema));
        let tables = format!("--schema={}", tables_schema(&database.schema));
        dump.run("pg_dump", &["--format=custom", &file, &schema, &tables, &dump.url]);
        dump
    }

    /// With `pg_restore`, in the place of what is there now.
    pub async fn restore(&self, database: &Database) {
        let (schema, tables) = (&database.schema, tables_schema(&database.schema));
        database.execute(&format!("drop schema {schema} cascade; drop schema if exists {tables} cascade")).await;
        self.run("pg_restore", &["--single-transaction", &format!("--dbname={}", self.url), &self.file()]);
    }

    fn file(&self) -> String {
        self.scratch.path().join("dump").display().to_string()
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = vec![self.programs.join(program)];
        command.extend(arguments.iter().map(PathBuf::from));
        run(Program::new(command), self.scratch.path());
    }
}

/// Its output goes to a file in `directory`.
fn run(program: Program, directory: &Path) {
    let log = directory.join("log");
    let program = Program { stdout: log.clone(), stderr: log.clone(), ..program };
    let ended = program.spawn().expect("run a program of Postgres").wait(PATIENCE).expect("wait for it");
    let said = || fs::read_to_string(&log).unwrap_or_default();
    assert!(ended.is_some_and(|status| status.success()), "{:?} ended with {ended:?}:\n{}", program.command, said());
}

/// A streaming standby of a private Postgres.
pub struct Standby {
    pub postgres: Postgres,
    pool: PgPool,
    /// Dropped last.
    _home: Home,
}

/// A directory that Postgres's own account can reach.
struct Home(PathBuf);

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Standby {
    /// With `pg_basebackup`; it follows the primary on return.
    pub async fn of(primary: &Postgres) -> Self {
        let beside =
            primary.data_dir().parent().and_then(|home| home.parent()).expect("a directory of private servers");
        let home = Home(beside.join(unique("solewriter-standby")));
        fs::create_dir(&home.0).expect("make the standby's directory");
        let owner = fs::metadata(primary.data_dir()).expect("the primary's data");
        chown(&home.0, Some(owner.uid()), Some(owner.gid())).expect("give it to the server's account");
        let source: PgConnectOptions = primary.url().parse().expect("a database URL");
        let command = [
            primary.programs().join("pg_basebackup").into_os_string(),
            format!("--pgdata={}", home.0.join("cluster").display()).into(),
            "--write-recovery-conf".into(),
            "--checkpoint=fast".into(),
            format!("--host={}", source.get_host()).into(),
            format!("--port={}", source.get_port()).into(),
            format!("--username={}", source.get_username()).into(),
        ];
        let program = Program {
            user: rustix::process::geteuid().is_root().then(|| (owner.uid(), owner.gid())),
            directory: home.0.clone(),
            ..Program::new(command)
        };
        run(program, &home.0);
        let options = Options { data_dir: Some(home.0.clone()), ..Options::default() };
        let postgres = Postgres::start(options).unwrap_or_else(|error| panic!("{error}"));
        let pool = PgPool::connect(&postgres.url()).await.expect("connect to the standby");
        let standby = Self { postgres, pool, _home: home };
        standby
            .wait_for(
                "the standby to follow",
                "select exists (select from pg_stat_wal_receiver where status = 'streaming')",
            )
            .await;
        standby
    }

    /// What the primary commits from now on does not arrive.
    pub async fn lag(&self) {
        self.execute("alter system set primary_conninfo = ''").await;
        self.execute("select pg_reload_conf()").await;
        self.wait_for("the standby to lag", "select not exists (select from pg_stat_wal_receiver)").await;
    }

    /// Becomes a primary.
    pub async fn promote(&self) {
        self.execute("select pg_promote()").await;
        self.wait_for("the promotion", "select not pg_is_in_recovery()").await;
    }

    async fn execute(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&self.pool).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    async fn wait_for(&self, what: &str, sql: &'static str) {
        wait_until(what, PATIENCE, async || {
            sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
        })
        .await;
    }
}

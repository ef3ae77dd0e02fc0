//! Commits one row at a time: no consumer with a transaction per command can be faster.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::super::Error;
use super::super::services::Services;
use super::super::trial::Worked;

/// As many as the tasks of the consumer with a transaction per command.
const CONNECTIONS: usize = 8;

/// Commits for so long.
pub(crate) async fn run(services: &Services, length: Duration) -> Result<Worked, Error> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(services.connection().await?);
    }
    sqlx::raw_sql("create table committed (id bigint generated always as identity primary key, row bigint not null)")
        .execute(&mut connections[0])
        .await?;
    let began = Instant::now();
    let mut committing = JoinSet::new();
    for mut connection in connections {
        committing.spawn(async move {
            let mut commits = 0_u64;
            while began.elapsed() < length {
                sqlx::query("insert into committed (row) values ($1)").bind(1_i64).execute(&mut connection).await?;
                commits += 1;
            }
            Ok::<_, sqlx::Error>(commits)
        });
    }
    let mut commands = 0;
    while let Some(joined) = committing.join_next().await {
        commands += joined.map_err(std::io::Error::other).map_err(Error::io("commit"))??;
    }
    Ok(Worked { commands, took: began.elapsed() })
}

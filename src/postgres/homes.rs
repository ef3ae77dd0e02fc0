//! What has a home, that is the partition that its key lives on: entities, dead letters that can
//! still run, parked keys. Read and moved in pages, by primary key.

use std::collections::BTreeMap;

use sqlx::{FromRow, PgExecutor};

use super::operate::HOMES_PAGE;
use super::{Layout, Result, Store};

/// A kind of rows that have a home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Homed {
    /// Entities.
    Entities,
    /// Dead letters that can still run, or be given up. One that is misrouted stays where it was found:
    /// only produced anew it gets to the partition of its key.
    Letters,
    /// Parked keys.
    ParkedKeys,
}

/// A row that has a home; also the place where the next page begins.
#[derive(Clone, Debug, FromRow)]
pub struct HomedRow {
    /// What the primary key begins with.
    at: i64,
    /// Its key.
    pub entity_id: String,
    /// The partition that it lives on, as the database has it.
    pub home: i32,
}

impl Homed {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Entities, Self::Letters, Self::ParkedKeys];

    /// A page: those of a topic and entity type after a place, in the order of the primary key.
    fn page(self) -> &'static str {
        match self {
            Self::Entities => {
                "select 0::bigint as at, entity_id, partition as home from entities
                  where topic = $1 and entity_type = $2 and $3::bigint is not null and entity_id > $4
                  order by entity_id limit $5"
            }
            Self::Letters => {
                "select dead_letter_id as at, entity_id, home from dead_letters
                  where topic = $1 and $2::text is not null and dead_letter_id > $3 and $4::text is not null
                    and entity_id is not null and state in ('dead', 'parked', 'waiting')
                    and code <> 'misrouted'
                  order by dead_letter_id limit $5"
            }
            Self::ParkedKeys => {
                "select partition::bigint as at, entity_id, partition as home from parked_keys
                  where topic = $1 and $2::text is not null and (partition, entity_id) > ($3, $4)
                  order by partition, entity_id limit $5"
            }
        }
    }

    /// Gives rows of a page one new home. Each is found by its key, whatever the statistics say.
    fn moves(self) -> &'static str {
        match self {
            Self::Entities => {
                "update entities set partition = $3
                  where topic = $1 and entity_type = $2 and $4::bigint[] is not null and entity_id = any ($5)"
            }
            Self::Letters => {
                "update dead_letters set home = $3
                  where topic = $1 and $2::text is not null and dead_letter_id = any ($4) and $5::text[] is not null"
            }
            Self::ParkedKeys => {
                "with left_behind as (
                     delete from parked_keys
                      where topic = $1 and $2::text is not null and partition <> $3
                        and $4::bigint[] is not null and entity_id = any ($5)
                     returning entity_id, waiting, since
                 )
                 insert into parked_keys as k (topic, partition, entity_id, waiting, since)
                 select $1, $3, entity_id, sum(waiting), min(since) from left_behind group by entity_id
                     on conflict (topic, partition, entity_id)
                     do update set waiting = k.waiting + excluded.waiting, since = least(k.since, excluded.since)"
            }
        }
    }
}

impl Store {
    /// The next page of rows that have a home; empty at the end.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn homes(&self, kind: Homed, layout: &Layout<'_>, after: Option<&HomedRow>) -> Result<Vec<HomedRow>> {
        page(&self.pool, kind, layout, after).await
    }

    /// Moves the rows of the next page that do not live where their key does. Returns the page as it
    /// was. `None`: somebody has resumed a partition of the topic, and nothing was moved.
    ///
    /// # Errors
    /// If the database cannot be reached.
    pub async fn move_home(
        &self,
        kind: Homed,
        layout: &Layout<'_>,
        after: Option<&HomedRow>,
    ) -> Result<Option<Vec<HomedRow>>> {
        let mut transaction = self.pool.begin().await?;
        if !super::repartition::is_held(&mut transaction, layout.topic).await? {
            return Ok(None);
        }
        let rows = page(&mut *transaction, kind, layout, after).await?;
        for (home, rows) in misplaced(&rows, layout) {
            give_home(&mut *transaction, kind, layout, home, &rows).await?;
        }
        transaction.commit().await?;
        Ok(Some(rows))
    }

    /// Keys of which `parked_keys` says something else than the letters do: some of them.
    ///
    /// # Errors
    /// If the database cannot be reached, or takes too long.
    pub async fn parked_otherwise(&self, topic: &str) -> Result<Vec<String>> {
        Ok(sqlx::query_scalar(
            "select coalesce(k.entity_id, d.entity_id)
               from (select home, entity_id, count(*) filter (where state = 'waiting') as waiting
                       from dead_letters where topic = $1 and state in ('parked', 'waiting')
                      group by home, entity_id) d
               full join (select * from parked_keys where topic = $1) k
                 on (k.partition, k.entity_id) = (d.home, d.entity_id)
              where k.waiting is distinct from d.waiting
              order by 1 limit 10",
        )
        .bind(topic)
        .fetch_all(&self.pool)
        .await?)
    }
}

/// The rows that do not live where their key does, by where that is.
pub(super) fn misplaced<'r>(rows: &'r [HomedRow], layout: &Layout<'_>) -> BTreeMap<i32, Vec<&'r HomedRow>> {
    let mut misplaced: BTreeMap<i32, Vec<&HomedRow>> = BTreeMap::new();
    for row in rows {
        let home = layout.home(&row.entity_id);
        if home != row.home {
            misplaced.entry(home).or_default().push(row);
        }
    }
    misplaced
}

/// Gives rows of a page one new home.
pub(super) async fn give_home<'e>(
    executor: impl PgExecutor<'e>,
    kind: Homed,
    layout: &Layout<'_>,
    home: i32,
    rows: &[&HomedRow],
) -> Result<()> {
    sqlx::query(kind.moves())
        .bind(layout.topic)
        .bind(layout.entity_type)
        .bind(home)
        .bind(rows.iter().map(|row| row.at).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| &*row.entity_id).collect::<Vec<_>>())
        .execute(executor)
        .await?;
    Ok(())
}

pub(super) async fn page<'e>(
    executor: impl PgExecutor<'e>,
    kind: Homed,
    layout: &Layout<'_>,
    after: Option<&HomedRow>,
) -> Result<Vec<HomedRow>> {
    let (at, entity_id) = after.map_or((-1, ""), |row| (row.at, &row.entity_id));
    Ok(sqlx::query_as(kind.page())
        .bind(layout.topic)
        .bind(layout.entity_type)
        .bind(at)
        .bind(entity_id)
        .bind(HOMES_PAGE)
        .fetch_all(executor)
        .await?)
}

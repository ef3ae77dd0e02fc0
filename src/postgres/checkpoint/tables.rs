//! The tables that belong into a checkpoint: ours, and the team's.

use sqlx::{FromRow, PgConnection};

use super::CheckpointError;
use crate::handlers::sql::typed::Relation;
use crate::postgres::Result;

/// What of solewriter's own tables is copied: name, and which rows. No letter that has ended can run again; a request
/// is kept with its letter. Those first that others refer to.
pub(super) const OWN: [(&str, &str); 7] = [
    ("partitions", ""),
    ("command_types", ""),
    ("horizon", ""),
    ("parked_keys", ""),
    ("dead_letters", "t where t.state in ('dead', 'parked', 'waiting')"),
    (
        "requests",
        "t where t.state = 'open'
           and (t.dead_letter_id is null
                or exists (select from dead_letters d where d.dead_letter_id = t.dead_letter_id
                              and d.state in ('dead', 'parked', 'waiting')))",
    ),
    // last, as the largest: what is wrong with the others is found first
    ("entities", ""),
];

/// A sequence that a copied table draws from.
#[derive(Clone, Debug, FromRow)]
pub(super) struct Sequence {
    pub(super) schema: String,
    pub(super) name: String,
    /// The last number that was drawn; `None`: none was.
    pub(super) last_value: Option<i64>,
}

/// The tables `$1`.`$2` (side by side), those that they refer to, and those that a change of one of them changes
/// through a foreign key, and so on; and those whose foreign keys may refuse a change of what commands write: of `$3`.`$4`
/// (side by side).
const BELONGING: &str = "
    with recursive written as (
        select c.oid from unnest($3::text[], $4::text[]) as t (schema, name)
          join pg_namespace n on n.nspname = t.schema
          join pg_class c on c.relnamespace = n.oid and c.relname = t.name
    ), named as (
        select c.oid from unnest($1::text[], $2::text[]) as t (schema, name)
          join pg_namespace n on n.nspname = t.schema
          join pg_class c on c.relnamespace = n.oid and c.relname = t.name and c.relkind in ('r', 'p')
    ), belonging (oid) as (
        select oid from named
        union
        select case when k.conrelid = b.oid then k.confrelid else k.conrelid end
          from belonging b
          join pg_constraint k on k.contype = 'f' and k.conparentid = 0
           and (k.conrelid = b.oid
                or k.confrelid = b.oid and (b.oid in (select oid from written)
                                            or k.confdeltype in ('c', 'n', 'd') or k.confupdtype in ('c', 'n', 'd')))
    )
    select n.nspname::text as schema, c.relname::text as name
      from belonging join pg_class c using (oid) join pg_namespace n on n.oid = c.relnamespace
     order by 1, 2";

/// Those of `$1`.`$2` (side by side) that are no table.
const NO_TABLES: &str = "
    select format('%I.%I', t.schema, t.name)
      from unnest($1::text[], $2::text[]) as t (schema, name)
     where not exists (select from pg_namespace n join pg_class c on c.relnamespace = n.oid
                        where n.nspname = t.schema and c.relname = t.name and c.relkind in ('r', 'p'))
     limit 1";

/// The sequences behind the columns of `$1`.`$2` (side by side): of an identity or serial column (they belong to it),
/// and those that a default names.
const SEQUENCES: &str = "
    select distinct n.nspname::text as schema, s.relname::text as name, pg_sequence_last_value(s.oid) as last_value
      from unnest($1::text[], $2::text[]) as t (schema, name)
      join pg_namespace tn on tn.nspname = t.schema
      join pg_class c on c.relnamespace = tn.oid and c.relname = t.name
      left join pg_attrdef a on a.adrelid = c.oid
      join pg_depend d on d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass
                      and d.refobjid = c.oid and d.deptype in ('a', 'i')
                       or d.classid = 'pg_attrdef'::regclass and d.objid = a.oid and d.refclassid = 'pg_class'::regclass
      join pg_class s on s.relkind = 'S' and s.oid in (d.objid, d.refobjid)
      join pg_namespace n on n.oid = s.relnamespace
     order by 1, 2";

/// All tables that belong into a checkpoint of commands that use `used`; those that they write must be tables.
pub(super) async fn belonging(
    connection: &mut PgConnection,
    written: &[Relation],
    used: &[Relation],
) -> std::result::Result<Vec<Relation>, CheckpointError> {
    let (schemas, names) = sides(written);
    let odd: Option<String> =
        sqlx::query_scalar(NO_TABLES).bind(schemas).bind(names).fetch_optional(&mut *connection).await?;
    if let Some(odd) = odd {
        return Err(CheckpointError::NotATable(odd));
    }
    let ((schemas, names), (written_schemas, written_names)) = (sides(used), sides(written));
    let belonging = sqlx::query_as(BELONGING).bind(schemas).bind(names).bind(written_schemas).bind(written_names);
    let belonging: Vec<(String, String)> = belonging.fetch_all(connection).await?;
    Ok(belonging.into_iter().map(|(schema, name)| Relation { schema, name }).collect())
}

/// How far the sequences of these tables have come.
pub(super) async fn sequences(connection: &mut PgConnection, tables: &[Relation]) -> Result<Vec<Sequence>> {
    let (schemas, names) = sides(tables);
    Ok(sqlx::query_as(SEQUENCES).bind(schemas).bind(names).fetch_all(connection).await?)
}

fn sides(relations: &[Relation]) -> (Vec<&str>, Vec<&str>) {
    relations.iter().map(|relation| (&*relation.schema, &*relation.name)).unzip()
}

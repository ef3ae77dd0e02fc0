-- The tables of solewriter. Run through `solewriter migrate`, which creates the
-- schema and puts it first on the search path: no name here is qualified, so
-- that the schema's name stays a setting.

-- Who may write, and how far each log has been settled. One row per partition
-- of a command topic; the only rows that every batch updates, so they carry no
-- index but the key (updates stay HOT) and room for new versions on the page.
create table partitions (
    topic                   text        not null,
    partition               int         not null,
    -- grows by one at each claim and at each operator's action: the fence
    fencing_token           bigint      not null,
    -- random, one per claim: tells two claims apart that a restored database
    -- gave the same token
    claim_id                uuid        not null,
    owner                   text        not null,
    cluster_id              text        not null,
    group_id                text        not null,
    claimed_at              timestamptz not null default now(),
    claims_without_progress int         not null default 0,
    -- the cursor: every record below it is settled
    next_offset             bigint      not null,
    batch_seq               bigint      not null default 0,
    -- random, one per decision of a batch: whose attempt it was that committed
    decision_id             uuid,
    -- every batch up to published_seq, so every record below published_offset,
    -- has its outcomes and events on their topics
    published_seq           bigint      not null default 0,
    published_offset        bigint      not null,
    -- which log the cursor belongs to; the last settled record is read again
    -- at each claim (null until a record is settled)
    topic_id                text,
    partition_count         int         not null,
    -- what `repartition` does with a topic that has another count. draining: records that were
    -- placed for this row's count are settled under it. moving: they are, and homes change; no
    -- longer set if somebody has resumed the partition meanwhile
    repartitioning          text        check (repartitioning in ('draining', 'moving')),
    last_offset             bigint,
    last_timestamp          bigint,
    last_checksum           bigint,
    -- everything that the log held at this time is settled and published;
    -- null (never looked at) holds the horizon back
    log_time                timestamptz,
    -- why the partition refuses to go on; null while it runs
    halted_code             text,
    halted_detail           text,
    halted_at               timestamptz,
    -- what to type
    halted_resolve          text,
    -- the highest offset that a witness (a worker's memory, the group's
    -- committed offset) has reported settled when it halted, and the one that
    -- an operator has accepted as lost
    witnessed_offset        bigint,
    -- the letter that the latest batch of requested letters began with, and how often in a row: a
    -- letter whose redrive ends the process is found by it. From the second time on letters run one
    -- by one, through the last one of the batch that was begun first
    letters_begun_with      bigint,
    letters_begun_through   bigint,
    letters_begun           int         not null default 0,
    accepted_offset         bigint      not null default 0,
    primary key (topic, partition)
) with (fillfactor = 40, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- The names behind processed commands' type_id: two bytes a row, not forty.
create table command_types (
    type_id      smallint generated always as identity primary key,
    topic        text not null,
    entity_type  text not null,
    command_type text not null,
    unique (topic, entity_type, command_type)
);

-- The idempotency table: final outcomes only. One row is at once the
-- idempotency key, the audit record, the stored reply and the outbox entry.
-- Wide columns first, so that no byte is lost to alignment.
--
-- Ids of UUID version 7, RANGE-partitioned by day on the id itself: uniqueness
-- stays exact, inserts stay at the right edge, pruning is DROP. There is no
-- default partition: it would swallow the duplicates of a dropped day.
create table processed_timed (
    "offset"      bigint      not null,
    version       bigint      not null,
    fencing_token bigint      not null,
    record_time   timestamptz not null,
    partition     int         not null,
    type_id       smallint    not null,
    -- which encoder makes the published bytes of this row
    encoding      smallint    not null,
    applied       boolean     not null,
    command_id    uuid        not null primary key,
    -- the first 16 bytes of a SHA-256, held as uuid: fixed width, no header
    fingerprint   uuid        not null,
    entity_id     text        not null,
    code          text,
    detail        text,
    reply         bytea,
    events        bytea,
    traceparent   text
) partition by range (command_id);

-- Ids of any other version carry no time: kept for ever.
create table processed_untimed (like processed_timed including all);

create view processed_commands as
select c.command_id, t.command_type, t.entity_type, c.entity_id,
       t.topic, c.partition, c."offset",
       case when c.applied then 'applied' else 'rejected' end as outcome,
       c.code, c.version, c.fencing_token, c.record_time,
       c.fingerprint, c.detail, c.reply, c.events, c.traceparent, c.encoding
from (select * from processed_timed union all select * from processed_untimed) c
join command_types t using (type_id);

-- State and version of each entity. (topic, partition) is its home: an entity
-- that turns up elsewhere means that the layout changed.
create table entities (
    entity_type text   not null,
    entity_id   text   not null,
    topic       text   not null,
    partition   int    not null,
    version     bigint not null,
    state       jsonb,
    primary key (entity_type, entity_id)
) with (fillfactor = 80);

-- Records that had no effect, with their raw bytes.
create table dead_letters (
    dead_letter_id bigint      generated always as identity primary key,
    topic          text        not null,
    partition      int         not null,
    "offset"       bigint      not null,
    -- the partition that its key lives on: not where it came from, once the layout has changed
    home           int         not null,
    key            bytea,
    value          bytea,
    headers        jsonb       not null,
    code           text        not null,
    detail         text,
    attempts       int         not null default 1,
    -- dead: parks nothing. parked: its key waits behind it. waiting: behind a parked one
    state          text        not null
        check (state in ('dead', 'parked', 'waiting', 'redriven', 'discarded')),
    -- the payload that an operator has put in its place
    edited_value   bytea,
    at             timestamptz not null default now(),
    record_time    timestamptz not null,
    fencing_token  bigint      not null,
    -- as far as they could be read
    command_id     uuid,
    command_type   text,
    entity_type    text        not null,
    entity_id      text,
    traceparent    text
);
create index dead_letters_position on dead_letters (topic, partition, "offset");
-- the letters of parked keys, in the order in which they run again
create index dead_letters_parked on dead_letters (topic, home, entity_id, dead_letter_id)
    where state in ('parked', 'waiting');
-- and those that can still run, apart from the many that have ended
create index dead_letters_open on dead_letters (topic, dead_letter_id)
    where state in ('dead', 'parked', 'waiting');

-- The keys behind a dead letter: a command of such a key waits until the letters
-- before it are redriven or discarded. Written by the owner, in its commits.
create table parked_keys (
    topic     text        not null,
    partition int         not null,
    entity_id text        not null,
    waiting   bigint      not null,
    since     timestamptz not null default now(),
    primary key (topic, partition, entity_id)
);

-- What operators want done with dead letters. The partition's owner does it, in
-- batches of its own.
create table requests (
    request_id     bigint      generated always as identity primary key,
    at             timestamptz not null default now(),
    actor          text        not null,
    reason         text        not null,
    action         text        not null check (action in ('redrive', 'reproduced', 'discard')),
    -- of operator_actions
    action_id      bigint      not null,
    topic          text        not null,
    -- whose owner does it: the letters' home
    partition      int         not null,
    -- one letter; or all letters of a parked key, and then perhaps one of them that is edited
    dead_letter_id bigint      references dead_letters,
    entity_id      text,
    edited_value   bytea,
    accept_expired boolean     not null default false,
    state          text        not null default 'open' check (state in ('open', 'done', 'refused', 'withdrawn')),
    detail         text,
    ended_at       timestamptz,
    check (dead_letter_id is not null or entity_id is not null)
);
create index requests_open on requests (topic, partition, request_id) where state = 'open';
-- what became of an action, for the audit
create index requests_action on requests (action_id);

-- One row per settled batch: in order of settlement, every record that owes a
-- publication. command_ids names the final outcomes (of duplicates the
-- original's); the k-th dead letter comes after dead_after[k] of them.
create table batches (
    topic           text        not null,
    partition       int         not null,
    batch_seq       bigint      not null,
    first_offset    bigint      not null,
    next_offset     bigint      not null,
    fencing_token   bigint      not null,
    settled_at      timestamptz not null default now(),
    -- how long the database's own log was when the batch's statements had run: of two batches that have
    -- written the same row the second waited for the first to commit, so this is their order
    settled_lsn     pg_lsn      not null default pg_current_wal_insert_lsn(),
    command_ids     uuid[]      not null,
    -- which of command_ids are repeats: their events are not owed again
    repeats         int[]       not null,
    dead_letter_ids bigint[]    not null,
    dead_after      int[]       not null,
    primary key (topic, partition, batch_seq)
);
-- random bytes do not compress: do not try
alter table batches alter column command_ids set storage external;

-- How far `replay republish` has come, so that the same command goes on after a
-- crash; the rows go when all of it is done.
create table republications (
    -- the command as it was given: range, filters and topics
    asked       text        not null,
    topic       text        not null,
    partition   int         not null,
    begun_at    timestamptz not null default now(),
    from_offset bigint      not null,
    to_offset   bigint      not null,
    -- batches after the one up to the other are meant
    after_seq   bigint      not null,
    through_seq bigint      not null,
    -- everything up to this batch was published again
    done_seq    bigint      not null,
    primary key (asked, topic, partition)
);

-- Ids of commands older than this are refused. floor_id is the smallest id
-- of that time. A day is dropped only after a later transaction has seen the
-- raised horizon (dropping_below) and all that began before it have ended.
create table horizon (
    singleton      boolean     primary key default true check (singleton),
    at             timestamptz not null,
    floor_id       uuid        not null,
    dropping_below uuid,
    drop_after     xid8
);

-- What operators did, when and why.
create table operator_actions (
    action_id bigint      generated always as identity primary key,
    at        timestamptz not null default now(),
    actor     text        not null,
    action    text        not null,
    topic     text,
    partition int,
    reason    text        not null,
    detail    jsonb       not null
);

-- A worker that knows no migration as new as this one must not run. A migration
-- that old workers cannot live with raises it.
create table schema_compatibility (
    singleton     boolean primary key default true check (singleton),
    least_version bigint  not null
);
insert into schema_compatibility (least_version) values (20261122000002);

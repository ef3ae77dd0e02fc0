-- The functions that the worker calls. Their names carry a version: a rolling
-- upgrade runs the old and the new one side by side. `set search_path from
-- current` pins the path that `migrate` set: this schema, pg_temp last.

-- Milliseconds since 1970 as a time.
create function time_of(ms bigint) returns timestamptz
language sql immutable strict parallel safe
as $$ select to_timestamp(ms::float8 / 1000) $$;

-- A detail as it may be stored: control characters escaped, at most 2 KiB.
create function escaped_detail_v1(detail text) returns text
language sql immutable strict parallel safe
as $$
    select case
        -- a character has at most 4 bytes
        when octet_length(escaped) > 2048 then left(escaped, 512)
        else escaped end
      from (select case when detail ~ '[[:cntrl:]]'
                        then regexp_replace(replace(replace(replace(
                                 detail, E'\n', E'\\n'), E'\r', E'\\r'), E'\t', E'\\t'), '[[:cntrl:]]', '?', 'g')
                        else detail end as escaped) e
$$;

-- What a violated constraint is called: a partition's as that of the table that was made, whatever the
-- partitions are called; a NOT NULL, which has no name, <table>_<column>_not_null.
create function violated_v1(in_schema text, in_table text, in_column text, name text) returns text
language sql stable
as $$
    with recursive parents as (
        select c.oid, c.conname, c.conparentid from pg_catalog.pg_constraint c
         where c.conname = name and c.conrelid = to_regclass(format('%I.%I', in_schema, in_table))
        union all
        select c.oid, c.conname, c.conparentid from parents join pg_catalog.pg_constraint c on c.oid = parents.conparentid
    ), root as (
        select c.relname from pg_catalog.pg_class c
         where c.oid = pg_partition_root(to_regclass(format('%I.%I', in_schema, in_table)))
    )
    select case
        when name <> '' then coalesce(
            -- of unique and exclusion constraints the index has the name
            (select c.relname from pg_catalog.pg_class c
              where c.oid = pg_partition_root(to_regclass(format('%I.%I', in_schema, name)))),
            (select conname from parents where conparentid = 0 limit 1), name)
        else coalesce((select relname from root), in_table) || '_' || in_column || '_not_null' end
$$;

-- Below every UUIDv7 of this time, above every earlier one.
create function uuid_floor(at timestamptz) returns uuid
language sql immutable strict parallel safe
set search_path from current
as $$
    select (lpad(to_hex(greatest(0, floor(extract(epoch from at) * 1000))::bigint), 12, '0')
            || repeat('0', 20))::uuid
$$;

-- The day of processed_timed that holds an id made at `at` exists afterwards.
-- Made apart and attached: ATTACH lets writers go on, CREATE … PARTITION OF
-- would lock them out.
create function make_day_v1(at timestamptz) returns boolean
language plpgsql
set search_path from current
set lock_timeout = '2s'
as $$
declare
    day  timestamptz := date_trunc('day', at at time zone 'UTC') at time zone 'UTC';
    name text := 'processed_' || to_char(day at time zone 'UTC', 'YYYYMMDD');
begin
    if to_regclass(name) is not null then
        return false;
    end if;
    -- one maker at a time: this lock conflicts with itself, not with inserts
    lock table processed_timed in share update exclusive mode;
    if to_regclass(name) is not null then
        return false;
    end if;
    execute format('create table %I (like processed_timed including all)', name);
    execute format('alter table processed_timed attach partition %I for values from (%L) to (%L)',
                   name, uuid_floor(day), uuid_floor(day + interval '1 day'));
    return true;
end
$$;

-- Become the owner of a partition: the token rises by one, whoever held it is
-- fenced. No row yet and no p_start_offset: nothing is claimed (no row
-- returned), the caller asks the log where to begin. SW006: the row belongs to
-- another Kafka cluster or consumer group.
create function claim_partition_v1(
    p_topic text, p_partition int, p_claim_id uuid, p_owner text,
    p_cluster_id text, p_group_id text,
    p_start_offset bigint, p_topic_id text, p_partition_count int,
    -- why a new row begins halted: in one commit with the row, or a crash between
    -- the two would forget it
    p_halted_code text, p_halted_detail text, p_halted_resolve text, p_witnessed_offset bigint
) returns setof partitions
language plpgsql
set search_path from current
as $$
declare
    held partitions;
begin
    if p_start_offset is not null then
        insert into partitions (topic, partition, fencing_token, claim_id, owner, cluster_id,
                                group_id, next_offset, published_offset, topic_id, partition_count,
                                halted_code, halted_detail, halted_resolve, halted_at, witnessed_offset)
        values (p_topic, p_partition, 0, p_claim_id, p_owner, p_cluster_id,
                p_group_id, p_start_offset, p_start_offset, p_topic_id, p_partition_count,
                p_halted_code, p_halted_detail, p_halted_resolve, case when p_halted_code is not null then now() end,
                p_witnessed_offset)
        on conflict do nothing;
    end if;
    select * into held from partitions
     where topic = p_topic and partition = p_partition for update;
    if not found then
        return;
    end if;
    if held.cluster_id <> p_cluster_id or held.group_id <> p_group_id then
        raise exception using errcode = 'SW006',
            message = format('%s:%s belongs to consumer group %s of cluster %s',
                             p_topic, p_partition, held.group_id, held.cluster_id);
    end if;
    return query update partitions
       set fencing_token = fencing_token + 1, claim_id = p_claim_id, owner = p_owner,
           claimed_at = now(),
           -- forgotten by an operator who accepted a new log or another layout
           topic_id = coalesce(topic_id, p_topic_id),
           partition_count = case partition_count when 0 then p_partition_count else partition_count end
     where topic = p_topic and partition = p_partition
    returning *;
end
$$;

-- The owner is about to decide its first batch. If it dies before it settles one
-- (stack overflow, out of memory, a handler that never returns), this count stays.
-- False: the claim is stale.
create function begin_deciding_v1(
    p_topic text, p_partition int, p_claim_id uuid, p_fencing_token bigint
) returns boolean
language plpgsql
set search_path from current
as $$
begin
    update partitions set claims_without_progress = claims_without_progress + 1
     where topic = p_topic and partition = p_partition
       and claim_id = p_claim_id and fencing_token = p_fencing_token;
    return found;
end
$$;

-- The owner is about to run requested letters, from p_first to p_last. Returns how often that was
-- begun, at least 2 while letters run one by one; null: the claim is stale.
create function begin_letters_v1(
    p_topic text, p_partition int, p_claim_id uuid, p_fencing_token bigint, p_first bigint, p_last bigint
) returns int
language sql
set search_path from current
as $$
    update partitions p
       set letters_begun_with = p_first,
           letters_begun_through = case when p.letters_begun_with = p_first then p.letters_begun_through
                                        when p.letters_begun >= 2 and p_first <= p.letters_begun_through
                                        then p.letters_begun_through
                                        else p_last end,
           letters_begun = case when p.letters_begun_with = p_first then p.letters_begun + 1
                                when p.letters_begun >= 2 and p_first <= p.letters_begun_through then 2
                                else 1 end,
           -- whatever ends the process now is counted here
           claims_without_progress = 0
     where p.topic = p_topic and p.partition = p_partition
       and p.claim_id = p_claim_id and p.fencing_token = p_fencing_token
    returning p.letters_begun
$$;

-- Some of these entities are not as the batch needs them: say why.
create function refuse_entities_v1(p_topic text, p_partition int, p_entity_type text, e_id text[])
returns void
language plpgsql
set search_path from current
as $$
declare
    foreign_home entities;
begin
    select * into foreign_home from entities t
     where t.entity_type = p_entity_type and t.entity_id = any (e_id)
       and (t.topic, t.partition) <> (p_topic, p_partition)
     limit 1;
    if found then
        raise exception using errcode = 'SW004',
            message = format('entity %s %s lives on %s:%s', foreign_home.entity_type, foreign_home.entity_id,
                             foreign_home.topic, foreign_home.partition);
    end if;
    raise exception using errcode = 'SW002', message = 'an entity has another version';
end
$$;

-- How many of these entities hold the version that the decision rests on; those
-- that it changes are written. The plan must not rest on statistics: a plan made
-- while the table was small is kept until the next ANALYZE, and one that scans
-- the table once per batch is quadratic by then. So each entity is looked up by
-- itself (OFFSET 0 keeps the lookup apart) and changed where it was found.
create function settle_entities_v1(
    p_topic text, p_partition int, p_entity_type text,
    e_id text[], e_base bigint[], e_version bigint[], e_state text[],
    out touched bigint
)
language plpgsql
set search_path from current
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
begin
    with held as materialized (
        select e.id, e.base, e.version, e.state, t.place
          from (select unnest(e_id) as id, unnest(e_base) as base, unnest(e_version) as version,
                       unnest(e_state) as state) e
          left join lateral (
                   select t.ctid as place, t.version, t.topic, t.partition
                     from entities t
                    where t.entity_type = p_entity_type and t.entity_id = e.id
                   offset 0) t on true
         where t.version is not distinct from e.base
           and (t.version is null or (t.topic = p_topic and t.partition = p_partition))
    ), changed as (
        -- the place only finds the row: version and home decide, also of a row that
        -- somebody else has changed while this waited for it (servers before 15.15
        -- do not compare the place again). IS NOT DISTINCT FROM, as an index cannot
        -- serve it: only the place may find the row. (Measured: while the table had
        -- some 2,000 rows, every row of the type was compared with every one of the
        -- batch, 0.8 s for a batch of 1,900.)
        update entities t set version = held.version, state = held.state::jsonb
          from held
         where t.ctid = held.place and t.version = held.base and held.version is not null
           and (t.entity_type, t.entity_id) is not distinct from (p_entity_type, held.id)
           and t.topic = p_topic and t.partition = p_partition
        returning 1
    ), made as (
        insert into entities (entity_type, entity_id, topic, partition, version, state)
        select p_entity_type, held.id, p_topic, p_partition, held.version, held.state::jsonb
          from held
         where held.base is null and held.version is not null
            on conflict do nothing
        returning 1
    )
    select (select count(*) from changed) + (select count(*) from made)
         + (select count(*) from held where version is null)
      into touched;
end
$$;

-- Counts the commands that a batch has applied in the database. Each command's
-- version, in the batch's order: applied, the number of the entity's applied
-- commands; rejected, as it was. (Plans: see settle_entities_v1; hash joins are
-- left on for what is joined in memory.)
create function count_applied_v1(
    p_topic text, p_partition int, p_entity_type text, c_entity_id text[], c_applied boolean[]
) returns bigint[]
language plpgsql
set search_path from current
set enable_seqscan = off
set enable_bitmapscan = off
set enable_mergejoin = off
as $$
declare
    versions bigint[];
    counted  bigint;
    written  bigint;
    strange  boolean;
begin
    with ran as materialized (
        select c.n, c.id, count(*) filter (where c.applied) over (partition by c.id order by c.n) as applied
          from unnest(c_entity_id, c_applied) with ordinality as c (id, applied, n)
    ), held as materialized (
        select e.id, e.applied, t.place, t.version, coalesce(t.version, 0) as base,
               (t.topic, t.partition) <> (p_topic, p_partition) as strange
          from (select ran.id, max(ran.applied) as applied from ran group by ran.id order by ran.id) e
          left join lateral (
                   select t.ctid as place, t.version, t.topic, t.partition
                     from entities t
                    where t.entity_type = p_entity_type and t.entity_id = e.id
                   offset 0) t on true
    ), changed as (
        update entities t set version = held.base + held.applied
          from held
         where t.ctid = held.place and t.version = held.version and held.applied > 0
           and (t.entity_type, t.entity_id) is not distinct from (p_entity_type, held.id)
           and t.topic = p_topic and t.partition = p_partition
        returning 1
    ), made as (
        insert into entities (entity_type, entity_id, topic, partition, version)
        select p_entity_type, held.id, p_topic, p_partition, held.applied
          from held
         where held.version is null and held.applied > 0
            on conflict do nothing
        returning 1
    )
    select array_agg(held.base + ran.applied order by ran.n),
           (select count(*) from held where held.applied > 0),
           (select count(*) from changed) + (select count(*) from made),
           bool_or(held.strange)
      into versions, counted, written, strange
      from ran join held on held.id = ran.id;
    if strange or written <> counted then
        perform refuse_entities_v1(p_topic, p_partition, p_entity_type, c_entity_id);
    end if;
    return versions;
end
$$;

-- What a redrive or a discard makes of letters. Their keys are released if none of their letters is
-- left, parked if one has failed. Returns the letters that owe an outcome, in order.
create function change_letters_v1(p_topic text, p_partition int, p_fencing_token bigint, changes jsonb)
returns bigint[]
language plpgsql
set search_path from current
as $$
declare
    keys text[];
begin
    with change as (
        select * from jsonb_to_recordset(changes)
            as c (dead_letter_id bigint, state text, attempts int, code text, detail text, edited_value text,
                  command_id uuid, command_type text)
    ), changed as (
        update dead_letters d
           set state = c.state, attempts = c.attempts, fencing_token = p_fencing_token,
               code = coalesce(c.code, d.code), detail = coalesce(c.detail, d.detail),
               -- a correction may have made it readable
               command_id = coalesce(d.command_id, c.command_id),
               command_type = coalesce(d.command_type, c.command_type),
               edited_value = coalesce(decode(c.edited_value, 'base64'), d.edited_value)
          from change c
         where d.dead_letter_id = c.dead_letter_id and d.topic = p_topic and d.home = p_partition
           and d.state in ('dead', 'parked', 'waiting')
        returning d.entity_id
    )
    select array_agg(distinct entity_id) filter (where entity_id is not null) into keys from changed
    having count(*) = jsonb_array_length(changes);
    if not found then
        raise exception using errcode = 'SW002', message = 'a dead letter has been changed by somebody else';
    end if;
    with kept as (
        select held.key, count(d.dead_letter_id) as letters, count(*) filter (where d.state = 'waiting') as waiting
          from unnest(keys) as held (key)
          left join dead_letters d on d.topic = p_topic and d.home = p_partition and d.entity_id = held.key
                                  and d.state in ('parked', 'waiting')
         group by held.key
    ), released as (
        delete from parked_keys k using kept
         where k.topic = p_topic and k.partition = p_partition and k.entity_id = kept.key and kept.letters = 0
    )
    insert into parked_keys as k (topic, partition, entity_id, waiting)
    select p_topic, p_partition, kept.key, kept.waiting from kept where kept.letters > 0
        on conflict (topic, partition, entity_id) do update set waiting = excluded.waiting;
    return (select coalesce(array_agg((change ->> 'dead_letter_id')::bigint order by n), '{}')
              from jsonb_array_elements(changes) with ordinality as c (change, n)
             where (change ->> 'owes')::boolean);
end
$$;

-- Settle one batch: everything or nothing, in one statement.
--   committed   this decision is durable (now, or by an earlier sending of it)
--   fenced      the token or the claim is stale: nothing was written
--   superseded  an earlier attempt of the same writer won: nothing was written
--   behind      the row's history is not the writer's: nothing was written
--   halted      the partition is halted: nothing was written
-- and, undoing all: SW002 conflict (a version that the decision rests on has
-- changed), SW004 an entity's home is another partition, SW005 an id is below
-- the horizon, SW009 some commands must be decided otherwise (the detail names
-- them), SW011 the key of a command is parked, 23505 on processed_…: duplicate, 23514 on processed_timed: the day of an
-- id is missing; and whatever a team's own statements raise.
create function settle_batch_v1(
    -- (a) what the writer believes, and where it wants to go
    p_topic text, p_partition int, p_claim_id uuid, p_fencing_token bigint,
    p_next_offset bigint, p_batch_seq bigint, p_last_decision_id uuid,
    p_decision_id uuid, p_new_next_offset bigint,
    p_first_offset bigint, p_last_offset bigint, p_last_timestamp bigint, p_last_checksum bigint,
    p_published_seq bigint, p_published_offset bigint, p_log_time_ms bigint,
    -- (b) what runs in the database, in order: a function that runs numbered functions.
    -- Commands, whose outcomes it decides: the columns of (d) are in the same order
    -- then, and the rest of s_… is empty. Or the writes of handlers elsewhere.
    s_runner text, s_decides boolean, s_careful boolean, s_part_bytes_max int,
    s_function smallint[], s_args text[],
    s_offset bigint[], s_entity_id text[], s_command_id uuid[], s_record_time_ms bigint[],
    -- (c) entities, sorted by id: base null = absent, version null = only read
    p_entity_type text, e_id text[], e_base bigint[], e_version bigint[], e_state text[],
    -- (d) final outcomes, sorted by command id (as they ran, if they are decided here)
    c_id uuid[], c_fingerprint uuid[], c_type_id smallint[], c_entity_id text[], c_offset bigint[],
    c_record_time_ms bigint[], c_encoding smallint, c_applied boolean[], c_version bigint[],
    c_code text[], c_detail text[], c_reply bytea[], c_events bytea[], c_traceparent text[],
    -- (e) dead letters in order, and what owes a publication
    d_offset bigint[], d_key bytea[], d_value bytea[], d_headers text[], d_code text[],
    d_detail text[], d_state text[], d_record_time_ms bigint[], d_command_id uuid[],
    d_command_type text[], d_entity_id text[], d_traceparent text[],
    b_command_ids uuid[], b_repeats int[], b_dead_after int[],
    -- null, but for a batch that changes dead letters instead of reading the log
    l_letters jsonb,
    out status text, out fencing_token bigint, out next_offset bigint, out batch_seq bigint, out decision_id uuid,
    out dead_letter_ids bigint[], out database_time_ms bigint,
    -- what became of the commands of (b), in their order
    out r_applied boolean[], out r_version bigint[], out r_code text[], out r_detail text[],
    out r_reply bytea[], out r_events bytea[]
)
language plpgsql
set search_path from current
as $$
declare
    held     partitions;
    ran      record;
    floor_id uuid;
    touched  bigint;
begin
    database_time_ms := extract(epoch from clock_timestamp()) * 1000;

    if l_letters is null and (p_first_offset < p_next_offset or p_new_next_offset <= p_next_offset)
       or l_letters is not null and p_new_next_offset <> p_next_offset then
        raise exception using errcode = 'SW007', message = 'the cursor never goes back';
    end if;

    -- (a) compare and set: the fence, the cursor and the order of batches
    update partitions p
       set next_offset = p_new_next_offset, batch_seq = p.batch_seq + 1,
           decision_id = p_decision_id, claims_without_progress = 0,
           last_offset = case when l_letters is null then p_last_offset else p.last_offset end,
           last_timestamp = case when l_letters is null then p_last_timestamp else p.last_timestamp end,
           last_checksum = case when l_letters is null then p_last_checksum else p.last_checksum end,
           published_seq = greatest(p.published_seq, p_published_seq),
           published_offset = greatest(p.published_offset, p_published_offset),
           log_time = greatest(p.log_time, time_of(p_log_time_ms))
     where p.topic = p_topic and p.partition = p_partition
       and p.claim_id = p_claim_id and p.fencing_token = p_fencing_token
       and p.next_offset = p_next_offset and p.batch_seq = p_batch_seq
       -- a database that went back may have reached the same cursor another way
       and p.decision_id is not distinct from p_last_decision_id
       and p.halted_code is null;
    if not found then
        select * into held from partitions p where p.topic = p_topic and p.partition = p_partition;
        fencing_token := held.fencing_token;
        next_offset := held.next_offset;
        batch_seq := held.batch_seq;
        decision_id := held.decision_id;
        status := case
            when held.claim_id is distinct from p_claim_id
              or held.fencing_token <> p_fencing_token then 'fenced'
            when held.decision_id = p_decision_id then 'committed'
            when held.halted_code is not null then 'halted'
            when held.batch_seq = p_batch_seq + 1 then 'superseded'
            else 'behind' end;
        if status = 'committed' then
            select b.dead_letter_ids into dead_letter_ids from batches b
             where b.topic = p_topic and b.partition = p_partition and b.batch_seq = p_batch_seq + 1;
            if s_decides then
                select array_agg(p.applied order by c.n), array_agg(p.version order by c.n),
                       array_agg(p.code order by c.n), array_agg(p.detail order by c.n),
                       array_agg(p.reply order by c.n), array_agg(p.events order by c.n)
                  into r_applied, r_version, r_code, r_detail, r_reply, r_events
                  from unnest(c_id) with ordinality as c (id, n)
                  join (select * from processed_timed union all select * from processed_untimed) p
                    on p.command_id = c.id;
            end if;
        end if;
        return;
    end if;

    -- (b) a team's own statements
    if cardinality(s_function) > 0 then
        execute format('select * from %I($1, $2, $3, $4, $5, $6, $7, $8)', s_runner) into ran
          using s_function, s_args,
                case when s_decides then c_offset else s_offset end,
                case when s_decides then c_entity_id else s_entity_id end,
                case when s_decides then c_id else s_command_id end,
                case when s_decides then c_record_time_ms else s_record_time_ms end,
                s_part_bytes_max, s_careful;
        if not s_decides then
            -- whoever has decided already has to decide again: the write says no. Only the first, as
            -- what comes behind it was decided on what it did
            select jsonb_build_array(r.refused) into ran.refused
              from (select value as refused from jsonb_array_elements(ran.refused)
                    union all
                    select jsonb_build_object('at', w.n, 'reject', w.code, 'why', w.detail)
                      from unnest(ran.code, ran.detail) with ordinality as w (code, detail, n)
                     where w.code is not null) r
             order by (r.refused ->> 'at')::int limit 1;
        end if;
        if ran.refused is not null then
            raise exception using errcode = 'SW009', message = 'commands to be decided otherwise',
                detail = ran.refused::text;
        end if;
    end if;
    if s_decides then
        select array_agg(w.code is null order by w.n), array_agg(convert_to(w.reply, 'UTF8') order by w.n),
               array_agg(convert_to(w.events, 'UTF8') order by w.n)
          into r_applied, r_reply, r_events
          from unnest(ran.code, ran.reply, ran.events) with ordinality as w (code, reply, events, n);
        r_code := ran.code;
        r_detail := ran.detail;
        r_version := count_applied_v1(p_topic, p_partition, p_entity_type, c_entity_id, r_applied);
        c_applied := r_applied;
        c_version := r_version;
        c_code := r_code;
        c_detail := r_detail;
        c_reply := r_reply;
        c_events := r_events;
    end if;

    -- (c) every version that a decision rests on, also of entities only read
    if cardinality(e_id) > 0 then
        touched := settle_entities_v1(p_topic, p_partition, p_entity_type, e_id, e_base, e_version, e_state);
        if touched <> cardinality(e_id) then
            perform refuse_entities_v1(p_topic, p_partition, p_entity_type, e_id);
        end if;
    end if;

    -- (d) idempotency rows
    if l_letters is null and exists (select from parked_keys k where k.topic = p_topic and k.partition = p_partition)
       and exists (select from parked_keys k
                    where k.topic = p_topic and k.partition = p_partition and k.entity_id = any (c_entity_id)) then
        raise exception using errcode = 'SW011', message = 'a command of a parked key does not run';
    end if;
    if cardinality(c_id) > 0 then
        select h.floor_id into strict floor_id from horizon h;
        if exists (select from unnest(c_id) as id
                    where id < floor_id and get_byte(uuid_send(id), 6) >> 4 = 7
                      -- unless an operator accepts that
                      and not coalesce(l_letters -> 'accepted_expired', '[]') ? id::text) then
            raise exception using errcode = 'SW005', message = 'an id is below the horizon';
        end if;
        -- set-returning functions side by side hand over their rows one by one; in FROM they would fill
        -- a tuplestore first, for a third of the whole insert's time
        insert into processed_timed
        select c.log_offset, c.version, p_fencing_token, time_of(c.record_time_ms),
               case when l_letters is null then p_partition
                    else coalesce((l_letters -> 'elsewhere' ->> c.id::text)::int, p_partition) end,
               c.type_id, c_encoding, c.applied, c.id, c.fingerprint, c.entity_id, c.code, c.detail, c.reply,
               c.events, c.traceparent
          from (select unnest(c_id) as id, unnest(c_fingerprint) as fingerprint, unnest(c_type_id) as type_id,
                       unnest(c_entity_id) as entity_id, unnest(c_offset) as log_offset,
                       unnest(c_record_time_ms) as record_time_ms, unnest(c_applied) as applied,
                       unnest(c_version) as version, unnest(c_code) as code, unnest(c_detail) as detail,
                       unnest(c_reply) as reply, unnest(c_events) as events, unnest(c_traceparent) as traceparent) c
         where get_byte(uuid_send(c.id), 6) >> 4 = 7 and c.id >= floor_id;
        get diagnostics touched = row_count;
        if touched <> cardinality(c_id) then
            insert into processed_untimed
            select c.log_offset, c.version, p_fencing_token, time_of(c.record_time_ms),
                   case when l_letters is null then p_partition
                        else coalesce((l_letters -> 'elsewhere' ->> c.id::text)::int, p_partition) end,
                   c.type_id, c_encoding, c.applied, c.id, c.fingerprint, c.entity_id, c.code, c.detail, c.reply,
                   c.events, c.traceparent
              from (select unnest(c_id) as id, unnest(c_fingerprint) as fingerprint, unnest(c_type_id) as type_id,
                           unnest(c_entity_id) as entity_id, unnest(c_offset) as log_offset,
                           unnest(c_record_time_ms) as record_time_ms, unnest(c_applied) as applied,
                           unnest(c_version) as version, unnest(c_code) as code, unnest(c_detail) as detail,
                           unnest(c_reply) as reply, unnest(c_events) as events, unnest(c_traceparent) as traceparent) c
             -- and an accepted id below the horizon: its day may be dropped at any time
             where get_byte(uuid_send(c.id), 6) >> 4 <> 7 or c.id < floor_id;
        end if;
    end if;

    -- (e) dead letters and the duty to publish
    dead_letter_ids := '{}';
    if cardinality(d_offset) > 0 then
        with letters as (
            insert into dead_letters as letters (topic, partition, home, "offset", key, value, headers, code, detail,
                                      state, record_time, fencing_token, command_id, command_type,
                                      entity_type, entity_id, traceparent)
            select p_topic, p_partition, p_partition, d.log_offset, d.key, d.value, d.headers::jsonb, d.code, d.detail,
                   d.state, time_of(d.record_time_ms), p_fencing_token, d.command_id, d.command_type,
                   p_entity_type, d.entity_id, d.traceparent
              from unnest(d_offset, d_key, d_value, d_headers, d_code, d_detail, d_state, d_record_time_ms,
                          d_command_id, d_command_type, d_entity_id, d_traceparent)
                   as d (log_offset, key, value, headers, code, detail, state, record_time_ms,
                         command_id, command_type, entity_id, traceparent)
            returning dead_letter_id, "offset", letters.entity_id, letters.state
        ), parks as (
            insert into parked_keys as k (topic, partition, entity_id, waiting)
            select p_topic, p_partition, letters.entity_id, count(*) filter (where letters.state = 'waiting')
              from letters where letters.state in ('parked', 'waiting')
             group by letters.entity_id
                on conflict (topic, partition, entity_id) do update set waiting = k.waiting + excluded.waiting
        )
        select array_agg(dead_letter_id order by "offset") into dead_letter_ids from letters;
    end if;
    if l_letters is not null then
        dead_letter_ids := change_letters_v1(p_topic, p_partition, p_fencing_token, l_letters -> 'letters');
    end if;
    insert into batches (topic, partition, batch_seq, first_offset, next_offset, fencing_token,
                         command_ids, repeats, dead_letter_ids, dead_after)
    values (p_topic, p_partition, p_batch_seq + 1, p_first_offset, p_new_next_offset, p_fencing_token,
            b_command_ids, b_repeats, settle_batch_v1.dead_letter_ids, b_dead_after);

    status := 'committed';
    fencing_token := p_fencing_token;
    next_offset := p_new_next_offset;
    batch_seq := p_batch_seq + 1;
end
$$;

-- The publisher's watermark and the newest satisfied look, while no batch is
-- there to carry them. False: the claim is stale.
create function record_published_v1(
    p_topic text, p_partition int, p_claim_id uuid, p_fencing_token bigint,
    p_batch_seq bigint, p_last_decision_id uuid,
    p_published_seq bigint, p_published_offset bigint, p_log_time_ms bigint
) returns boolean
language plpgsql
set search_path from current
as $$
begin
    update partitions
       set published_seq = greatest(published_seq, p_published_seq),
           published_offset = greatest(published_offset, p_published_offset),
           log_time = greatest(log_time, time_of(p_log_time_ms)),
           -- an owner that can say this is neither dead nor stuck
           claims_without_progress = 0
     where topic = p_topic and partition = p_partition
       and claim_id = p_claim_id and fencing_token = p_fencing_token
       -- what was published was settled in this history, not in one that was undone
       and batch_seq = p_batch_seq and decision_id is not distinct from p_last_decision_id;
    return found;
end
$$;

-- The owner refuses to go on. After a restore the token rises above anything a
-- witness has seen, so that it never falls. Returns the token, or null: the
-- claim is stale.
create function halt_partition_v1(
    p_topic text, p_partition int, p_claim_id uuid, p_fencing_token bigint,
    p_code text, p_detail text, p_resolve text, p_witnessed_token bigint, p_witnessed_offset bigint
) returns bigint
language sql
set search_path from current
as $$
    update partitions
       set halted_code = p_code, halted_detail = p_detail, halted_resolve = p_resolve, halted_at = now(),
           fencing_token = greatest(fencing_token, p_witnessed_token + 1),
           witnessed_offset = greatest(witnessed_offset, p_witnessed_offset)
     where topic = p_topic and partition = p_partition
       and claim_id = p_claim_id and fencing_token = p_fencing_token
    returning fencing_token
$$;

-- The maintenance duty: days ahead, the horizon, days and batches behind it. One
-- owner in the schema has it: that of partition 0 of the first topic, by name,
-- of all topics whose partition 0 was ever claimed, whichever worker carries it.
-- So Kafka elects it, and its claim's token fences it: each of the functions below
-- is one call in autocommit (a paused client holds no lock that the next owner
-- needs) and begins with this one. SW001: the claim is stale. SW020: another
-- topic has the duty.
create function hold_duty_v1(p_topic text, p_claim_id uuid, p_fencing_token bigint) returns void
language plpgsql
set search_path from current
as $$
declare
    first_topic text;
begin
    -- one call at a time, also while a topic that was just claimed takes the duty
    -- over from another one. No batch locks this row.
    perform from horizon for update;
    -- a key share: the next claim waits until this call has ended, a settlement does not
    perform from partitions p
      where p.topic = p_topic and p.partition = 0
        and p.claim_id = p_claim_id and p.fencing_token = p_fencing_token
        for key share;
    if not found then
        raise exception using errcode = 'SW001', message = format('the claim of %s:0 is stale', p_topic);
    end if;
    select p.topic into first_topic from partitions p
     where p.partition = 0 order by p.topic collate "C" limit 1;
    if first_topic <> p_topic then
        raise exception using errcode = 'SW020',
            message = format('the owner of %s:0 has the maintenance duty', first_topic);
    end if;
end
$$;

-- The days from today to `p_days` ahead exist afterwards. Returns how many were made.
create function make_days_v1(p_topic text, p_claim_id uuid, p_fencing_token bigint, p_days int) returns int
language plpgsql
set search_path from current
as $$
declare
    made int := 0;
begin
    perform hold_duty_v1(p_topic, p_claim_id, p_fencing_token);
    for n in 0..p_days loop
        if make_day_v1(clock_timestamp() + n * interval '1 day') then
            made := made + 1;
        end if;
    end loop;
    return made;
end
$$;

-- The horizon rises; it never falls.
create function raise_horizon_v1(p_topic text, p_claim_id uuid, p_fencing_token bigint, p_to_ms bigint)
returns void
language plpgsql
set search_path from current
as $$
begin
    perform hold_duty_v1(p_topic, p_claim_id, p_fencing_token);
    update horizon set at = time_of(p_to_ms), floor_id = uuid_floor(time_of(p_to_ms)) where at < time_of(p_to_ms);
end
$$;

-- Notes which transactions may not have seen the horizon at p_floor_id, which was
-- read, committed, before this call began: those older than this one. (Told apart by
-- this transaction's own id. A snapshot's xmax would not do: it is the first id not
-- yet *completed*, so a batch may be older than the raise, still run, and lie above
-- it. And the horizon as it is now would not do: it may have been raised since this
-- transaction took its id.) A batch takes its id before it reads the horizon, so
-- each that read an older one has a smaller id.
create function see_horizon_v1(p_topic text, p_claim_id uuid, p_fencing_token bigint, p_floor_id uuid)
returns void
language plpgsql
set search_path from current
as $$
begin
    perform hold_duty_v1(p_topic, p_claim_id, p_fencing_token);
    update horizon set dropping_below = p_floor_id, drop_after = pg_current_xact_id();
end
$$;

-- Drops the oldest day that lies as a whole below a horizon that was seen, and that
-- no running transaction is older than. (The horizon itself may be higher by now:
-- that proves nothing yet.) Returns its table; null: there is none. 55P03: it is in use.
create function drop_day_v1(p_topic text, p_claim_id uuid, p_fencing_token bigint) returns text
language plpgsql
set search_path from current
-- writers queue up behind a lock that is waited for: no longer than this
set lock_timeout = '50ms'
as $$
declare
    day text;
begin
    perform hold_duty_v1(p_topic, p_claim_id, p_fencing_token);
    select c.relname into day
      from horizon h, pg_inherits i join pg_class c on c.oid = i.inhrelid
     where h.drop_after <= pg_snapshot_xmin(pg_current_snapshot())
       and i.inhparent = 'processed_timed'::regclass
       and c.relname < 'processed_' || to_char(
           -- the first 48 bits of an id are its time
           time_of(('x' || left(replace(h.dropping_below::text, '-', ''), 12))::bit(48)::bigint)
               at time zone 'UTC', 'YYYYMMDD')
     order by 1
     limit 1;
    if day is null then
        return null;
    end if;
    -- the day first, while nobody waits: DROP would wait for it with all days locked
    execute format('lock table %I in access exclusive mode', day);
    execute format('drop table %I', day);
    return day;
end
$$;

-- Deletes published batches older than the horizon, at most p_rows_max, oldest
-- first in each partition. Returns how many.
create function delete_batches_v1(p_topic text, p_claim_id uuid, p_fencing_token bigint, p_rows_max int) returns int
language plpgsql
set search_path from current
as $$
declare
    deleted int;
begin
    perform hold_duty_v1(p_topic, p_claim_id, p_fencing_token);
    delete from batches b using (
        select old.topic, old.partition, old.batch_seq
          from horizon h, partitions p
         -- most partitions have nothing to delete: that costs one row
         cross join lateral (
                   select settled_at from batches
                    where topic = p.topic and partition = p.partition and batch_seq <= p.published_seq
                    order by batch_seq limit 1) oldest
         cross join lateral (
                   select topic, partition, batch_seq, settled_at from batches
                    where oldest.settled_at < h.at
                      and topic = p.topic and partition = p.partition and batch_seq <= p.published_seq
                    order by batch_seq limit p_rows_max) old
         where old.settled_at < h.at
         limit p_rows_max) gone
     where (b.topic, b.partition, b.batch_seq) = (gone.topic, gone.partition, gone.batch_seq);
    get diagnostics deleted = row_count;
    return deleted;
end
$$;

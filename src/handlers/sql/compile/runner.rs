//! The function that runs an entity type's functions in a batch's order.
//!
//! Ordinarily it opens no subtransaction: each that writes would consume a transaction id, and
//! 30,000 of them a second bring the wrap-around in a day. A batch that raised is run again
//! carefully: under one handler whose counter names the command that raises. That one then runs
//! alone under the handler, those before it are run again together, and so on behind it: at most
//! two runs for each command, three subtransactions for each that raises.

use std::collections::BTreeMap;

use super::Schemas;
use super::command::Body;
use super::text::{literal, quoted};
use crate::handlers::sql::call::Call;
use crate::handlers::sql::typed::Field;

/// A function with its number.
pub(super) struct Numbered {
    number: i16,
    name: String,
    constraints: BTreeMap<String, String>,
    /// The types of its fields.
    fields: Vec<String>,
    /// See [`Body::step_lines`].
    step_lines: Vec<usize>,
    pub(super) serializable: bool,
}

impl Numbered {
    pub(super) fn new(
        call: &Call,
        name: &str,
        constraints: &BTreeMap<String, String>,
        fields: &[Field],
        step_lines: Vec<usize>,
    ) -> Self {
        Self {
            number: call.function,
            name: name.to_owned(),
            constraints: constraints.clone(),
            fields: fields.iter().map(|field| field.data_type.clone()).collect(),
            step_lines,
            serializable: call.serializable,
        }
    }
}

const SIGNATURE: &str = "
    p_function smallint[], p_args text[], p_offset bigint[], p_entity_id text[], p_command_id uuid[],
    p_record_time_ms bigint[], p_part_bytes_max int, p_careful boolean,
    -- code null: applied
    out code text[], out detail text[], out reply text[], out events text[], out refused jsonb
";

/// The runner of these functions.
pub(super) fn runner(functions: &[&Numbered], schemas: Schemas<'_>) -> Body {
    let own = quoted(schemas.own);
    let settings = format!(
        "set search_path = {}, pg_temp\n\
         -- commands look rows up: a plan made while a table was small must not go on scanning it when it\n\
         -- is large, and a scan would make serializable transactions abort each other for nothing\n\
         set enable_seqscan = off\n\
         -- how a team's own statements are planned is Postgres' choice\n\
         set plan_cache_mode = auto\n",
        quoted(schemas.tables),
    );
    let source = SOURCE
        .replace("{CASTS}", &casts(functions))
        .replace("{REJECTIONS}", &literal(&rejections(functions)))
        .replace("{STEPS}", &literal(&steps(functions)))
        .replace("{RUN}", &RUN.replace("{CALL}", &calls(functions, &own)))
        .replace("{OWN}", &own);
    Body { signature: SIGNATURE.to_owned(), settings, source, step_lines: Vec::new() }
}

fn calls(functions: &[&Numbered], own: &str) -> String {
    let call = |one: &&Numbered| {
        format!(
            "                when {} then ran := {own}.{}(item.entity_id, item.command_id,\n                    \
             {own}.time_of(item.record_time_ms), item.args::jsonb);\n",
            one.number,
            quoted(&one.name)
        )
    };
    functions.iter().map(call).collect()
}

/// Casts the fields of the command that raised, one after the other.
fn casts(functions: &[&Numbered]) -> String {
    let of_one = |one: &&Numbered| {
        let casts = one.fields.iter().enumerate().map(|(n, data_type)| {
            format!("                    field := {n};\n                    said := (item.args::jsonb->>{n})::{data_type};\n")
        });
        format!(
            "                when {} then\n                    field := null;\n{}",
            one.number,
            casts.collect::<String>()
        )
    };
    functions.iter().map(of_one).collect()
}

/// Rejection codes by function and constraint, as JSON.
fn rejections(functions: &[&Numbered]) -> String {
    let named = functions.iter().filter(|one| !one.constraints.is_empty());
    let codes: BTreeMap<String, &BTreeMap<String, String>> =
        named.map(|one| (one.number.to_string(), &one.constraints)).collect();
    serde_json::to_string(&codes).unwrap_or_default()
}

/// The functions that have several statements, by number: their names, and the lines of their steps.
fn steps(functions: &[&Numbered]) -> String {
    let several = functions.iter().filter(|one| !one.step_lines.is_empty());
    let steps: BTreeMap<String, serde_json::Value> = several
        .map(|one| (one.number.to_string(), serde_json::json!({"function": one.name, "lines": one.step_lines})))
        .collect();
    serde_json::to_string(&steps).unwrap_or_default()
}

/// One command, and what became of it.
const RUN: &str = "\
            case item.function
{CALL}            end case;
            if ran.sw_code is null then
                reply[item.n] := ran.sw_reply;
                events[item.n] := ran.sw_events;
                if greatest(octet_length(ran.sw_reply), octet_length(ran.sw_events)) > p_part_bytes_max then
                    raise exception 'its reply, or its events together, are larger than a topic takes (% bytes)',
                        p_part_bytes_max using errcode = 'SW010';
                end if;
            else
                code[item.n] := ran.sw_code;
                detail[item.n] := {OWN}.escaped_detail_v1(ran.sw_detail);
            end if;
";

const SOURCE: &str = "declare
    total      constant int := cardinality(p_function);
    rejections constant jsonb := {REJECTIONS};
    item       record;
    ran        record;
    -- the next to run, the last of those that run together, the one that raised
    next       int := 1;
    last       int;
    raised     int := 0;
    running    int;
    state      text;
    message    text;
    said       text;
    violated   text;
    in_schema  text;
    in_table   text;
    in_column  text;
    field      int;
    own        boolean;
    context    text;
    steps      jsonb;
    line       int;
    step       int;
begin
    code := array_fill(null::text, array[total]);
    detail := code;
    reply := code;
    events := code;
    -- or an outcome would depend on where a batch ends
    set constraints all immediate;
    if not p_careful then
        for item in
            select * from unnest(p_function, p_args, p_entity_id, p_command_id, p_record_time_ms)
                          with ordinality as t (function, args, entity_id, command_id, record_time_ms, n)
        loop
{RUN}        end loop;
        return;
    end if;
    while next <= total loop
        last := case when raised > next then raised - 1 when raised = next then next else total end;
        begin
        for item in
            select * from unnest(p_function[next:last], p_args[next:last], p_entity_id[next:last],
                                 p_command_id[next:last], p_record_time_ms[next:last])
                          with ordinality as t (function, args, entity_id, command_id, record_time_ms, n)
        loop
            item.n := item.n + next - 1;
            running := item.n;
            -- what was stored before is of a run that was undone
            code[running] := null;
            detail[running] := null;
            reply[running] := null;
            events[running] := null;
            if raised = running then
                -- it runs alone: is it a field of the payload?
                case item.function
{CASTS}                end case;
                field := null;
            end if;
{RUN}        end loop;
        next := last + 1;
        exception when others then
            get stacked diagnostics state = returned_sqlstate, message = message_text,
                said = pg_exception_detail, violated = constraint_name,
                in_schema = schema_name, in_table = table_name, in_column = column_name,
                context = pg_exception_context;
            own := left(state, 2) in ('20', '21', '22', '23', '27', '44', '54', 'P0')
                or state in ('42601', 'SW008', 'SW010');
            -- what is nobody's fault ends the batch: connections, locks, resources; and so does what is
            -- no fault of the command alone, unless it is one of its fields (a name as a value)
            if left(state, 2) in ('08', '25', '40', '53', '55', '57', '58')
               or (raised = running and not own and field is null) then
                raise;
            end if;
            if raised <> running then
                raised := running;
            else
                -- it ran alone
                next := running + 1;
                code[running] := null;
                detail[running] := null;
                reply[running] := null;
                events[running] := null;
                if field is not null then
                    refused := coalesce(refused, '[]') || jsonb_build_object(
                        'at', running, 'dead', 'malformed-payload', 'why', message, 'field', field);
                elsif state = 'SW008' then
                    code[running] := message;
                    detail[running] := {OWN}.escaped_detail_v1(nullif(said, ''));
                elsif state like '23%' and (violated <> '' or in_table <> '') then
                    violated := {OWN}.violated_v1(in_schema, in_table, in_column, violated);
                    code[running] := coalesce(rejections -> p_function[running]::text ->> violated,
                        rtrim('constraint-' || trim(both '-' from
                            regexp_replace(lower(violated collate \"C\"), '[^a-z0-9]+', '-', 'g')), '-'));
                else
                    -- the number behind the function's signature is a line, whatever the language of the text
                    steps := {STEPS}::jsonb -> p_function[running]::text;
                    line := substring(context from (steps ->> 'function') || '[(][^)]*[)][^0-9]*([0-9]+)');
                    step := (select count(*) from jsonb_array_elements(steps -> 'lines') as begins (at) where at::int <= line);
                    if state <> 'SW010' and step between 1 and jsonb_array_length(steps -> 'lines') - 1 then
                        message := 'step ' || step || ': ' || message;
                    end if;
                    refused := coalesce(refused, '[]') || jsonb_build_object(
                        'at', running, 'why', message || ' (SQLSTATE ' || state || ')',
                        'dead', case state when 'SW010' then 'handler-failed' else 'data-error' end);
                end if;
            end if;
        end;
    end loop;
end";

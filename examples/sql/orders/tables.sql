create table if not exists orders (
    id         uuid primary key,
    order_no   text not null unique,
    customer   text not null,
    total      bigint not null check (total >= 0),
    command_id uuid not null,
    placed_at  timestamptz not null,
    cancelled  boolean not null default false
);

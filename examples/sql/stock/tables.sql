create table if not exists stock (
    sku       text primary key,
    available bigint not null check (available >= 0),
    reserved  bigint not null default 0 check (reserved >= 0)
);

-- One row for each applied command: available is the sum of the changes.
create table if not exists stock_ledger (
    command_id uuid primary key,
    sku        text not null references stock,
    at         timestamptz not null,
    change     bigint not null
);

-- The tables of the commands in config/commands/card.toml. `solewriter migrate` runs this each time:
-- write what can be repeated, such as `create table if not exists` and `add column if not exists`.

create table if not exists card (
    id      text primary key,
    -- Holds against everybody who writes this table. A command that violates it is rejected with the
    -- constraint's name, `constraint-card-balance-check`, unless `constraints` gives it another.
    balance bigint not null check (balance >= 0)
);

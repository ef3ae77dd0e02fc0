-- What the bank holds for its customers is sum(balance + savings). account.save leaves it as it is.
create table if not exists account (
    id      text primary key,
    balance bigint not null check (balance >= 0),
    savings bigint not null default 0 check (savings >= 0)
);

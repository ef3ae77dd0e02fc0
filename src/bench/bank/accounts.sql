create table if not exists account (
    id      text   primary key,
    balance bigint not null
) with (fillfactor = 80);

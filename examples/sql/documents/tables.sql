create table if not exists document (
    id      text primary key,
    version bigint not null,
    body    text not null
);

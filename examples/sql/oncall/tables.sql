create table if not exists on_call (
    shift  text,
    doctor text,
    primary key (shift, doctor)
);

create table if not exists room (
    id    text primary key,
    seats integer not null
);

-- A range of text: with it a GiST index takes a room as a range of one, and needs no extension.
do $$ begin
    create type text_range as range (subtype = text, collation = "C");
exception when duplicate_object then null;
end $$;

create table if not exists booking (
    room    text not null references room,
    booking text not null,
    during  tstzrange not null,
    primary key (room, booking),
    constraint booking_overlap exclude using gist (text_range(room, room, '[]') with &&, during with &&)
);

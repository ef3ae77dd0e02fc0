//! Stock and orders: several partitions, several senders, everything sent more than once.

use std::collections::{BTreeMap, HashSet};

use fastrand::Rng;
use serde_json::{Value, json};

use crate::support;
use crate::support::bank::Bank;
use crate::support::commands::{ended, of_command};
use crate::support::consumer::{Read, read_all};
use crate::support::producer::Record;
use crate::support::topics::keys_on;

/// What the page's rules say of a product, written a second time.
#[derive(Default)]
struct Shelf {
    available: i64,
    reserved: i64,
}

fn obey(stock: &mut BTreeMap<String, Shelf>, command: &Read) -> &'static str {
    const ROOM: i64 = 1_000_000;
    let sku = String::from_utf8(command.key.clone().expect("a key")).expect("text");
    let quantity = command.json()["quantity"].as_i64().expect("a quantity");
    let command_type = command.header("ce_type").expect("a type");
    let Some(shelf) = stock.get_mut(&sku) else {
        if command_type != "stock.receive" {
            return "unknown-sku";
        }
        stock.insert(sku, Shelf { available: quantity, reserved: 0 });
        return "applied";
    };
    let moved = match command_type {
        "stock.receive" if shelf.available + shelf.reserved + quantity > ROOM => return "no-room",
        "stock.receive" => (quantity, 0),
        "stock.reserve" if shelf.available < quantity => return "out-of-stock",
        "stock.reserve" => (-quantity, quantity),
        _ if shelf.reserved < quantity => return "not-reserved",
        _ => (quantity, -quantity),
    };
    shelf.available += moved.0;
    shelf.reserved += moved.1;
    "applied"
}

/// A few products and many who want them, from two senders at once, one command in ten sent again.
#[tokio::test]
async fn stock_is_never_oversold() {
    let _turn = support::heavy();
    let bank = Bank::in_sql("stock", "commands.toml", "sku", 5).await;
    let _workers = [bank.worker(), bank.worker()];
    let orders = |seed| {
        let mut random = Rng::with_seed(seed);
        let mut log: Vec<Record> = Vec::new();
        while log.len() < 1_500 {
            if !log.is_empty() && random.u32(..10) == 0 {
                log.push(log[random.usize(..log.len())].clone());
                continue;
            }
            let (command_type, most) = match random.u32(..10) {
                0 => ("stock.receive", 40),
                1..=2 => ("stock.release", 10),
                3 if random.u32(..20) == 0 => ("stock.receive", 1_000_000),
                _ => ("stock.reserve", 12),
            };
            let quantity = if most == 1_000_000 { most } else { random.i64(1..=most) };
            let sku = format!("sku-{}", random.u32(..15));
            log.push(Record::command(command_type, &sku, &json!({ "quantity": quantity })));
        }
        log
    };
    let (shop, import) = (bank.send_in_background(orders(1)), bank.send_in_background(orders(2)));
    shop.join().expect("send");
    import.join().expect("send");
    bank.settled().await;

    let ended = ended(&read_all(&bank.cluster, &format!("{}.outcomes", bank.topic)));
    let (mut stock, mut seen, mut codes) = (BTreeMap::new(), HashSet::new(), BTreeMap::new());
    let log = read_all(&bank.cluster, &bank.topic);
    for command in &log {
        let id = command.header("ce_id").and_then(|id| id.parse().ok()).expect("an id");
        if seen.insert(id) {
            let expected = obey(&mut stock, command);
            assert_eq!(ended[&id].ending, expected, "{command:?}");
            *codes.entry(expected).or_insert(0) += 1;
        }
    }
    assert_eq!(ended.len(), seen.len());
    assert_eq!(ended.values().map(|ended| ended.copies).sum::<usize>(), log.len(), "one for each delivery");
    for code in ["applied", "out-of-stock", "not-reserved", "unknown-sku", "no-room"] {
        assert!(codes.contains_key(code), "{codes:?}");
    }
    let rows = bank.database.rows("select sku, available, reserved from stock order by sku collate \"C\"").await;
    let shelves = stock
        .iter()
        .map(|(sku, shelf)| json!({ "sku": sku, "available": shelf.available, "reserved": shelf.reserved }));
    assert_eq!(rows, shelves.collect::<Vec<_>>());
    let wrong = "(select sku from stock left join stock_ledger using (sku)
                   group by sku, available having available <> coalesce(sum(change), 0)) as wrong";
    assert_eq!(bank.database.count(wrong).await, 0, "the ledger says otherwise");
    assert_eq!(bank.database.count("stock_ledger").await, codes["applied"]);
    assert_eq!(bank.database.count("dead_letters").await, 0);
}

/// The shop and the import send the same orders under ids of their own, for customers on two
/// partitions and in opposite order, so that they meet.
#[tokio::test]
async fn an_order_that_two_upstreams_send_is_placed_once() {
    let _turn = support::heavy();
    const ORDERS: usize = 60;
    let bank = Bank::in_sql("orders", "commands.toml", "customer", 2).await;
    let side = |partition: i32| {
        let customers = keys_on(partition, 2, "cust", ORDERS);
        let place = |(n, customer): (usize, String)| {
            Record::command("order.place", &customer, &json!({ "order_no": format!("2026-{n}"), "total": n }))
        };
        customers.into_iter().enumerate().map(place).collect::<Vec<_>>()
    };
    let (shop, import) = (side(0), side(1));
    bank.send(&shop);
    bank.send(&import.iter().rev().cloned().collect::<Vec<_>>());
    let mut worker = bank.worker();
    bank.settled().await;

    let topic = format!("{}.outcomes", bank.topic);
    let outcomes = read_all(&bank.cluster, &topic);
    let mut placed = Vec::new();
    for (one, other) in shop.iter().zip(&import) {
        let answer = |record: &Record| of_command(&outcomes, record.command_id())[0].json();
        let mut both = [(one, answer(one)), (other, answer(other))];
        both.sort_by_key(|(_, answer)| answer["outcome"].as_str().map(str::to_owned));
        let [(first, applied), (_, refused)] = &both;
        assert_eq!((&applied["outcome"], &refused["code"]), (&json!("applied"), &json!("order-exists")), "{both:?}");
        assert_eq!(refused["detail"], json!(format!("placed by command {}", first.command_id())));
        let key = String::from_utf8(first.key.clone().expect("a key")).expect("text");
        let id = applied["reply"]["id"].clone();
        placed.push(json!({ "id": id, "order_no": applied["reply"]["order_no"], "customer": key,
                            "command_id": first.command_id(), "cancelled": false }));
    }
    let rows = "select id, order_no, customer, command_id, cancelled from orders
                 order by substr(order_no, 6)::int";
    assert_eq!(bank.database.rows(rows).await, placed);

    // either is sent again, to this worker and to one that has never heard of them
    bank.send(&[shop.clone(), import.clone()].concat());
    bank.settled().await;
    assert!(worker.sigterm_and_wait().success());
    let _worker = bank.worker();
    bank.send(&[import.clone(), shop.clone()].concat());
    bank.settled().await;
    let again = ended(&read_all(&bank.cluster, &topic));
    assert!(again.len() == 2 * ORDERS && again.values().all(|ended| ended.copies == 3), "its own outcome again");
    assert_eq!(bank.database.rows(rows).await, placed);
    let events = read_all(&bank.cluster, &format!("{}.events", bank.topic));
    let ids: HashSet<Value> = events.iter().map(|event| event.json()["id"].clone()).collect();
    assert_eq!((events.len(), ids.len()), (ORDERS, ORDERS), "an event for each order");
}

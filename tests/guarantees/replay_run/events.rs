//! Whoever reads the events topic has heard what the database has forgotten, too.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use solewriter::replay::progress::Progress;
use solewriter::replay::run::{self, Report, dry_run};
use solewriter::{Context, Rejection, Worker};
use uuid::Uuid;

use super::{Embedded, bank_in, private_postgres};
use crate::support;
use crate::support::backup::Dump;
use crate::support::bank::Bank;
use crate::support::producer::{Producer, Record};
use crate::support::topics;

const TORN: Rejection = Rejection::new("torn");

#[derive(Clone, Default, Serialize, Deserialize)]
struct Diary {
    pages: usize,
}

#[derive(Deserialize)]
struct Page {
    text: String,
}

/// What a page emits.
type Emits = fn(&Page, &mut Context<'_>);

/// Every page has the same reply, whatever it emits.
fn diaries(emits: Emits) -> Worker {
    Worker::new().entity::<Diary>("diary", |e| {
        e.on("diary.write", move |diary: &mut Diary, page: Page, cx: &mut Context<'_>| {
            if page.text.is_empty() {
                return Err(TORN);
            }
            emits(&page, cx);
            diary.pages += 1;
            Ok(diary.pages)
        })
    })
}

fn write(text: &str) -> Record {
    Record::command("diary.write", "d", &json!({ "text": text }))
}

fn text_and_length(page: &Page, cx: &mut Context<'_>) {
    cx.emit("diary.written", &page.text);
    cx.emit("diary.grew", &page.text.len());
}

async fn found_with(bank: &Bank, emits: Emits) -> Report {
    let (config, options, progress) = (bank.options.config(), run::Options::default(), Progress::default());
    let found = dry_run(&diaries(emits), &config, &options, &progress).await;
    assert_eq!(progress.done(), progress.total());
    found.unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error))).report
}

/// Each partition's events: as they were published, never published, missing, and all that is known of a command.
fn counted(report: &Report) -> (u64, u64, u64, u64) {
    let [it] = report.partitions.as_slice() else { panic!("{}", report.text()) };
    (it.events_alike, it.events_new, it.events_missing, it.events_left)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_would_differ_are_named_though_every_outcome_is_as_published() {
    let _turn = support::alone();
    let postgres = private_postgres();
    let mut bank = bank_in(&postgres, "run-events", 1).await;
    bank.options.topics[0].1 = "diary".to_owned();
    let worker = Embedded::of(diaries(text_and_length), &bank);
    bank.send(&[write("kept")]);
    bank.settled().await;
    let dump = Dump::take(&postgres, &bank.database);
    let first = write("first");
    bank.send(&[first.clone(), write(""), first.clone(), write("second")]);
    bank.settled().await;
    worker.end().await;
    dump.restore(&bank.database).await;
    let worker = Embedded::of(diaries(text_and_length), &bank);
    bank.behind(0).await;

    let ends = bank.ends();
    let report = found_with(&bank, text_and_length).await;
    assert!(report.alike, "{}", report.text());
    assert_eq!(counted(&report), (4, 0, 0, 0));

    let others: [(Emits, Value); 3] = [
        (
            |page, cx| {
                cx.emit("diary.written", &page.text.to_uppercase());
                cx.emit("diary.grew", &page.text.len());
            },
            json!([{ "type": "diary.written", "data": "FIRST" }, { "type": "diary.grew", "data": 5 }]),
        ),
        (
            |page, cx| {
                cx.emit("diary.written", &page.text);
                cx.emit("diary.has-grown", &page.text.len());
            },
            json!([{ "type": "diary.written", "data": "first" }, { "type": "diary.has-grown", "data": 5 }]),
        ),
        (|page, cx| cx.emit("diary.written", &page.text), json!([{ "type": "diary.written", "data": "first" }])),
    ];
    for (emits, again) in others {
        let report = found_with(&bank, emits).await;
        assert!(!report.alike);
        let [difference] = report.differences.as_slice() else { panic!("{}", report.text()) };
        assert_eq!((difference.offset, difference.command_id), (1, Some(first.command_id())));
        assert_eq!(report.partitions[0].differing, 2, "the second page, too");
        let published = json!([{ "type": "diary.written", "data": "first" }, { "type": "diary.grew", "data": 5 }]);
        let run_again = difference.again.as_ref().expect("it is in the log");
        assert_eq!((json!(difference.published.events), json!(run_again.events)), (published, again));
        assert_eq!(difference.published.reply, run_again.reply);
    }

    // one more than there was
    let report = found_with(&bank, |page, cx| {
        text_and_length(page, cx);
        cx.emit("diary.closed", &());
    })
    .await;
    assert_eq!((report.alike, counted(&report)), (false, (4, 0, 2, 0)), "{}", report.text());
    assert!(report.unproven[0].contains("2 events, the first of offset 1, are not on"), "{:?}", report.unproven);
    assert_eq!(bank.ends(), ends, "nothing is published");

    // a worker that died between an event and its outcome, of a command that the log does not have
    let unknown = Uuid::now_v7();
    let event = Record::command("diary.written", "d", &json!("lost"))
        .header("ce_source", format!("/solewriter/{}/0", bank.topic))
        .header("ce_causationid", unknown.to_string());
    let events_topic = format!("{}.events", bank.topic);
    Producer::new(&bank.cluster).send(&events_topic, &[event]);
    let report = found_with(&bank, text_and_length).await;
    assert_eq!((report.alike, counted(&report)), (false, (4, 0, 0, 1)), "{}", report.text());
    assert!(report.unproven[0].contains(&unknown.to_string()), "{:?}", report.unproven);

    topics::delete_records(&bank.cluster, &events_topic, 0, ends[2] + 1).await;
    let report = found_with(&bank, text_and_length).await;
    assert_eq!((report.alike, counted(&report)), (false, (0, 0, 4, 0)), "{}", report.text());
    assert!(report.unproven.iter().any(|it| it.contains(".events:0 begins at offset")), "{:?}", report.unproven);
    worker.end().await;
}

//! A record as these rows read it: the two headers, the key and the amount.

use rdkafka::Message;
use rdkafka::message::Headers as _;
use uuid::Uuid;

use super::super::workload::{Amount, WITHDRAW};

/// A command of the workload.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) id: Uuid,
    pub(crate) account: String,
    pub(crate) is_withdrawal: bool,
    pub(crate) amount: i64,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

/// `None`: no command of the workload.
pub(crate) fn read<M: Message>(record: &M) -> Option<Read> {
    let headers = record.headers()?;
    let header = |name: &str| {
        let value = headers.iter().find(|header| header.key == name)?.value?;
        std::str::from_utf8(value).ok()
    };
    let id = Uuid::try_parse(header("ce_id")?).ok()?;
    let is_withdrawal = header("ce_type")? == WITHDRAW;
    let account = std::str::from_utf8(record.key()?).ok()?.to_owned();
    let Amount { amount, .. } = serde_json::from_slice(record.payload()?).ok()?;
    Some(Read { id, account, is_withdrawal, amount, partition: record.partition(), offset: record.offset() })
}

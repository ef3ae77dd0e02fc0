//! Copies a record out of librdkafka's buffers.
//!
//! The headers are read through the C API: rust-rdkafka's accessor panics on a
//! header whose name is not UTF-8, which any producer can send.

use std::ffi::CStr;
use std::ptr;

use rdkafka::Message;
use rdkafka::message::BorrowedMessage;
use rdkafka_sys as rdsys;

use crate::record::{Header, Record};

/// An owned copy of a message.
pub(super) fn record(message: &BorrowedMessage<'_>) -> Record {
    let headers = headers(message);
    let timestamp_ms = message.timestamp().to_millis().unwrap_or(-1);
    Record::copied(message.offset(), timestamp_ms, message.key(), message.payload(), &headers)
}

fn headers<'m>(message: &'m BorrowedMessage<'_>) -> Vec<Header<'m>> {
    let mut native = ptr::null_mut();
    // SAFETY: the message is valid while it is borrowed; the headers belong to it
    let error = unsafe { rdsys::rd_kafka_message_headers(message.ptr(), &mut native) };
    if error != rdsys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Vec::new();
    }
    let mut headers = Vec::with_capacity(8);
    loop {
        let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
        // SAFETY: librdkafka writes the three, or answers NOENT past the last header
        let error = unsafe { rdsys::rd_kafka_header_get_all(native, headers.len(), &mut name, &mut value, &mut size) };
        if error != rdsys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return headers;
        }
        // SAFETY: name is NUL-terminated, value has size bytes; both live as long as the message
        let name = unsafe { CStr::from_ptr(name) }.to_bytes();
        let value = (!value.is_null()).then(|| unsafe { std::slice::from_raw_parts(value.cast::<u8>(), size) });
        headers.push((name, value));
    }
}

//! A topic's id, through the C API: rust-rdkafka 0.39 does not expose it.
//!
//! It is what tells a topic that was deleted and created again from the one that
//! the cursor belongs to: librdkafka itself goes on at the old offset in silence
//! (its issue 3255).

use std::ffi::{CStr, CString, c_char};
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka_sys as rdsys;

/// The topic's id in base64, or `None` where the broker does not tell it.
pub(super) fn topic_id<C: ClientContext>(client: &Client<C>, topic: &str, timeout: Duration) -> Option<String> {
    let topic = CString::new(topic).ok()?;
    let mut names: [*const c_char; 1] = [topic.as_ptr()];
    // SAFETY: every handle made here is destroyed here, in reverse order; `names`
    // outlives the call that reads it; the id is copied before its event goes
    unsafe {
        let queue = rdsys::rd_kafka_queue_new(client.native_ptr());
        let topics = rdsys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        rdsys::rd_kafka_DescribeTopics(client.native_ptr(), topics, std::ptr::null(), queue);
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        let event = rdsys::rd_kafka_queue_poll(queue, timeout_ms);
        let id = if event.is_null() { None } else { id_in(event) };
        if !event.is_null() {
            rdsys::rd_kafka_event_destroy(event);
        }
        rdsys::rd_kafka_TopicCollection_destroy(topics);
        rdsys::rd_kafka_queue_destroy(queue);
        id
    }
}

/// # Safety
/// `event` is valid.
unsafe fn id_in(event: *mut rdsys::rd_kafka_event_t) -> Option<String> {
    // SAFETY: results live as long as the event; a null result is checked
    unsafe {
        let result = rdsys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return None;
        }
        let mut count = 0;
        let descriptions = rdsys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if count == 0 {
            return None;
        }
        let id = rdsys::rd_kafka_TopicDescription_topic_id(*descriptions);
        let zero = |id| {
            rdsys::rd_kafka_Uuid_most_significant_bits(id) == 0 && rdsys::rd_kafka_Uuid_least_significant_bits(id) == 0
        };
        if id.is_null() || zero(id) {
            return None;
        }
        Some(CStr::from_ptr(rdsys::rd_kafka_Uuid_base64str(id)).to_string_lossy().into_owned())
    }
}

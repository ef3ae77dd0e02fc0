//! Rights on a broker that asks for them, through the C API: rust-rdkafka does not expose it.

use std::ffi::CString;
use std::ptr;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka_sys as rdsys;

use super::{Cluster, USER};

/// Broker settings: everybody may do everything, except on what an ACL speaks of.
pub fn properties() -> Vec<(String, String)> {
    let properties = [
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
        ("super.users", "User:ANONYMOUS"),
        ("allow.everyone.if.no.acl.found", "true"),
    ];
    properties.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

/// All that [`USER`] may do with a topic is to read it.
pub fn may_only_read(cluster: &Cluster, topic: &str) {
    allow(cluster, topic, rdsys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_READ);
}

/// All that [`USER`] may do with a topic is to write to it.
pub fn may_only_write(cluster: &Cluster, topic: &str) {
    allow(cluster, topic, rdsys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_WRITE);
}

fn allow(cluster: &Cluster, topic: &str, operation: rdsys::rd_kafka_AclOperation_t) {
    let client: BaseConsumer = cluster.client_config().create().expect("a client");
    let text = |text: &str| CString::new(text).expect("no NUL");
    let (topic, principal, host) = (text(topic), text(&format!("User:{USER}")), text("*"));
    // SAFETY: every handle made here is destroyed here, in reverse order; the strings outlive the calls
    unsafe {
        let native = client.client().native_ptr();
        let mut acl = rdsys::rd_kafka_AclBinding_new(
            rdsys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC,
            topic.as_ptr(),
            rdsys::rd_kafka_ResourcePatternType_t::RD_KAFKA_RESOURCE_PATTERN_LITERAL,
            principal.as_ptr(),
            host.as_ptr(),
            operation,
            rdsys::rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW,
            ptr::null_mut(),
            0,
        );
        assert!(!acl.is_null(), "librdkafka refuses the ACL");
        let queue = rdsys::rd_kafka_queue_new(native);
        rdsys::rd_kafka_CreateAcls(native, &mut acl, 1, ptr::null(), queue);
        let event = rdsys::rd_kafka_queue_poll(queue, Duration::from_secs(30).as_millis() as i32);
        let result = rdsys::rd_kafka_event_CreateAcls_result(event);
        assert!(!result.is_null(), "the broker does not answer");
        let mut count = 0;
        let results = rdsys::rd_kafka_CreateAcls_result_acls(result, &mut count);
        assert!(count == 1 && rdsys::rd_kafka_acl_result_error(*results).is_null(), "the broker refuses the ACL");
        rdsys::rd_kafka_event_destroy(event);
        rdsys::rd_kafka_queue_destroy(queue);
        rdsys::rd_kafka_AclBinding_destroy(acl);
    }
}

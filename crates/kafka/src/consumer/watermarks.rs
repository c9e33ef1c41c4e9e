use std::ffi::CString;

use rdkafka::bindings::{rd_kafka_get_watermark_offsets, rd_kafka_resp_err_t};
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::context::Context;
use super::partition::Partition;

/// Notes where a partition ends, as the client learnt it with its last fetch; asks nobody.
// The client's Rust interface has only the one that asks the broker.
#[allow(unsafe_code, reason = "the client's own function, with a handle and a name that live longer than the call")]
pub(super) fn note_end(consumer: &BaseConsumer<Context>, partition: &Partition) {
    // A topic's name has no zero byte.
    let Ok(topic) = CString::new(&*partition.topic) else { return };
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the consumer lives during the call, and the name and both numbers are ours.
    let result = unsafe {
        rd_kafka_get_watermark_offsets(
            consumer.client().native_ptr(),
            topic.as_ptr(),
            partition.number,
            &raw mut low,
            &raw mut high,
        )
    };
    if result == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0 {
        partition.note_end(high);
    }
}

use std::ffi::CString;

use rdkafka::bindings::{rd_kafka_get_watermark_offsets, rd_kafka_resp_err_t};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};

use super::partition::Partition;

/// Notes where a partition ends, as the client learnt it with its last fetch.
pub(super) fn note_end(consumer: &BaseConsumer<impl ConsumerContext>, partition: &Partition) {
    if let Some((_, end)) = of(consumer, partition).filter(|(_, end)| *end >= 0) {
        partition.note_end(end);
    }
}

/// Returns where a partition begins and ends, as the client learnt it with its last fetch; asks nobody. Negative is not known.
// The client's Rust interface has only the one that asks the broker.
#[allow(unsafe_code, reason = "the client's own function, with a handle and a name that live longer than the call")]
pub(super) fn of(consumer: &BaseConsumer<impl ConsumerContext>, partition: &Partition) -> Option<(i64, i64)> {
    // A topic's name has no zero byte.
    let topic = CString::new(&*partition.topic).ok()?;
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
    (result == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR).then_some((low, high))
}

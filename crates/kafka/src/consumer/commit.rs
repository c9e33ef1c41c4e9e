use std::ptr;

use rdkafka::TopicPartitionList;
use rdkafka::bindings::{
    rd_kafka_commit_queue, rd_kafka_queue_destroy, rd_kafka_queue_get_consumer, rd_kafka_resp_err_t,
};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};

/// Sends offsets to the broker. Its answer comes to the context's `commit_callback`, by polling.
// `Consumer::commit` with `CommitMode::Async` asks the client for no answer, and none ever comes (rdkafka 0.39, its issue 856).
#[allow(unsafe_code, reason = "the client's own functions, with handles that live longer than the calls")]
pub(super) fn start(consumer: &BaseConsumer<impl ConsumerContext>, offsets: &TopicPartitionList) -> KafkaResult<()> {
    let client = consumer.client().native_ptr();
    // SAFETY: the consumer lives during the calls, the client copies the list, and the reference to its queue is given back.
    let result = unsafe {
        let queue = rd_kafka_queue_get_consumer(client);
        if queue.is_null() {
            return Err(KafkaError::ConsumerCommit(rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__STATE.into()));
        }
        let result = rd_kafka_commit_queue(client, offsets.ptr(), queue, None, ptr::null_mut());
        rd_kafka_queue_destroy(queue);
        result
    };
    match result {
        rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        refused => Err(KafkaError::ConsumerCommit(refused.into())),
    }
}

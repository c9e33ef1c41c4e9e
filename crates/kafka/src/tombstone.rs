use throughline_core::codec::{Body, Encode, EncodeError};

/// The body of a message that deletes its key: a null value, which in a compacted topic takes the place of all earlier
/// messages with that key. An empty body is not null and deletes nothing.
///
/// # Examples
///
/// ```no_run
/// use throughline_kafka::{Kafka, Tombstone};
///
/// # async fn example(kafka: Kafka) -> Result<(), throughline_core::PublishError> {
/// kafka.publisher().publish("users", Tombstone).key("42").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tombstone;

impl Encode for Tombstone {
    fn encode(self) -> Result<Body, EncodeError> {
        Ok(Body::absent())
    }
}

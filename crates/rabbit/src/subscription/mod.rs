use throughline_core::BrokerError;

/// What to consume: a queue.
#[derive(Clone, Debug)]
pub struct Queue {}

impl Queue {
    /// Checks what can be known without the server.
    pub(crate) fn check(&self) -> Result<(), BrokerError> {
        unimplemented!()
    }
}

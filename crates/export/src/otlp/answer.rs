//! What a backend answers to an export that it took.

use prost::Message;

use crate::rejections::Rejected;

/// The answer to an export. Those of the three signals are alike but for the names of their counts, which are not sent in binary.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Answer {
    #[prost(message, optional, tag = "1")]
    pub(super) partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub(super) rejected: i64,
    #[prost(string, tag = "2")]
    pub(super) error_message: String,
}

impl Answer {
    pub(super) fn rejected(&self) -> Option<Rejected> {
        let partial = self.partial_success.as_ref()?;
        Rejected::new(partial.rejected, &partial.error_message)
    }
}

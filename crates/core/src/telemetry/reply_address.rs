use std::sync::Arc;

use opentelemetry::Context;

/// Where the message that is being handled asks for its answer. The requester chose the name, so it is never one to tell operations
/// apart by.
#[derive(Debug)]
struct ReplyAddress(Arc<str>);

/// Notes the address in the context in which the message is handled: an answer is recognised there, however it is sent.
pub(crate) fn with_reply_address(context: Context, address: Option<&str>) -> Context {
    match address {
        Some(address) => context.with_value(ReplyAddress(address.into())),
        None => context,
    }
}

/// Whether a message published under this context goes to the address that was asked for.
pub(crate) fn is_reply_address(context: &Context, name: &str) -> bool {
    context.get::<ReplyAddress>().is_some_and(|address| *address.0 == *name)
}

pub(crate) fn has_reply_address(context: &Context) -> bool {
    context.get::<ReplyAddress>().is_some()
}

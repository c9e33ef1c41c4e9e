//! What is done where the server confirms nothing on a channel any more.

use std::sync::Arc;

use tokio::time::{sleep, timeout};

use super::channel::ConfirmChannel;
use crate::link::Links;
use crate::options::Limits;

/// Leaves a channel on which nothing was confirmed for as long as one publish may take: further messages go over another one.
///
/// A server can keep a channel, or a whole connection, back for ever: a quorum queue that is deleted while it is published to leaves such.
/// What was published there keeps its room, and its callers hear of it in their time. In an alarm the server is silent as it should be.
pub(super) fn leave(channel: &ConfirmChannel, links: &Arc<Links>, limits: Limits) {
    if links.is_blocked() || channel.leave() {
        return;
    }
    links.tell_silent(limits.confirm);
    let (left, links) = (channel.clone(), Arc::clone(links));
    tokio::spawn(async move {
        tokio::select! {
            () = end(&left, &links, limits) => {}
            () = links.closed() => {}
        }
    });
}

/// Ends a channel that was left, once all who published on it have given up, or the connection, where the server does not read it at all.
async fn end(left: &ConfirmChannel, links: &Links, limits: Limits) {
    let client = &left.link.client;
    while timeout(limits.answer, client.create_channel()).await.is_err() {
        if !links.is_blocked() {
            return left.link.given_up.note("the server confirms nothing and answers nothing on it");
        }
        links.unblocked().await;
    }
    sleep(limits.confirm).await;
    let closing = left.channel.close(200, "nothing was confirmed".into());
    if !left.is_answered() && timeout(limits.answer, closing).await.is_err() && !links.is_blocked() {
        left.link.given_up.note("the server confirms nothing on a channel, and does not close it");
    }
}

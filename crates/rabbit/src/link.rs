use std::sync::Arc;

use lapin::Connection;
use throughline_core::BrokerError;
use throughline_core::broker::ConnectionState;
use tokio::time::Instant;

/// One connection of the client, until it is lost.
pub(crate) struct Link {
    pub(crate) client: Connection,
    /// Counts the links of one [`Links`], from 1.
    pub(crate) number: u64,
}

/// Holds the link in use, and makes another one when it is lost.
pub(crate) struct Links {}

impl Links {
    /// Returns the link in use; `None` while there is none.
    pub(crate) fn current(&self) -> Option<Arc<Link>> {
        unimplemented!()
    }

    /// Waits for a link, without a limit. Fails when the connection was closed for good. Cancel safe.
    pub(crate) async fn connected(&self) -> Result<Arc<Link>, BrokerError> {
        unimplemented!()
    }

    /// Waits until that link is lost. Cancel safe.
    pub(crate) async fn lost(&self, link: &Link) {
        let _ = link;
        unimplemented!()
    }

    /// Tells that something shows this link to be unusable; it is closed and another one is made.
    pub(crate) fn give_up(&self, link: &Link, why: &'static str) {
        let _ = (link, why);
        unimplemented!()
    }

    /// Why the server takes nothing at present (an alarm), where it does not.
    pub(crate) fn blocked(&self) -> Option<Arc<str>> {
        unimplemented!()
    }

    pub(crate) fn state(&self) -> ConnectionState {
        unimplemented!()
    }

    /// Closes the connection and makes no other one.
    pub(crate) async fn close(&self, deadline: Instant) -> Result<(), BrokerError> {
        let _ = deadline;
        unimplemented!()
    }
}

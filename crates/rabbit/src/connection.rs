use std::sync::Arc;

use throughline_core::broker::Routes;
use throughline_core::message::System;

use crate::link::Links;
use crate::options::Limits;
use crate::publish::Publishing;
use crate::requests::Requests;

/// What publishers and subscribers of one `Rabbit` share.
pub(crate) struct Connection {
    pub(crate) system: Arc<System>,
    /// The connection that messages are received on.
    pub(crate) consuming: Arc<Links>,
    /// What publishes, on a connection of its own.
    pub(crate) publishing: Arc<Publishing>,
    pub(crate) requests: Requests,
    pub(crate) limits: Limits,
    pub(crate) routes: Routes,
}

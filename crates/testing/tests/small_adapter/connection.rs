use std::sync::Arc;

use throughline_core::broker::Routes;
use throughline_core::message::System;

use crate::client::Client;
use crate::semconv;

/// What the publishers and subscribers of one connection share.
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) system: Arc<System>,
    pub(crate) routes: Routes,
}

impl Connection {
    pub(crate) fn new(client: Client) -> Self {
        let system = semconv::system(Some(client.address()));
        Self { client, system, routes: Routes::default() }
    }
}

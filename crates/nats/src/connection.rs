use std::sync::Arc;
use std::time::Duration;

use throughline_core::broker::Routes;
use tokio::time::timeout;

use crate::altered::Altered;
use crate::denied::Denied;
use crate::header_names::{Names, Reading};
use crate::link::{Link, Links};
use crate::protocol::Line;
use crate::semconv::Systems;

/// How long a call waits for the connection when the client has no request timeout.
const DEFAULT_WAIT: Duration = Duration::from_secs(10);

/// What publishers and subscribers of one connection share.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) links: Arc<Links>,
    pub(crate) systems: Systems,
    pub(crate) inbox_prefix: Arc<str>,
    pub(crate) records_position: bool,
    pub(crate) names: Names,
    pub(crate) line: Line,
    /// Stays empty for a client whose events are the user's.
    pub(crate) denied: Arc<Denied>,
    pub(crate) routes: Routes,
    pub(crate) server: Option<(String, u16)>,
    pub(crate) is_owned: bool,
    pub(crate) altered: Arc<Altered>,
}

impl Connection {
    /// Describes the connection anew, with another client id or the one it had.
    pub(crate) fn describe(&mut self, client_id: Option<&str>) {
        let kept = Arc::clone(&self.systems.core);
        let server = self.server.as_ref().map(|(host, port)| (host.as_str(), *port));
        self.systems = Systems::new(server, client_id.or_else(|| kept.client_id()));
    }

    /// Says how messages of this connection are read.
    pub(crate) fn reading(&self) -> Reading<'_> {
        Reading { own_inbox: &self.inbox_prefix, names: &self.names }
    }

    /// Returns the link in use.
    pub(crate) fn link(&self) -> Arc<Link> {
        self.links.current()
    }

    /// Reports a link as lost and waits for the next one, as long as the client waits for an answer; `None` when there
    /// was none until then. Cancel safe.
    pub(crate) async fn renewed(&self, lost: &Link) -> Option<Arc<Link>> {
        timeout(self.wait(lost), self.links.after(lost)).await.ok().flatten()
    }

    /// Returns how long a call waits for the connection.
    pub(crate) fn wait(&self, link: &Link) -> Duration {
        link.client.timeout().unwrap_or(DEFAULT_WAIT)
    }
}

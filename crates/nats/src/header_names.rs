//! What headers are called that say what NATS has no place of its own for.

use throughline_core::broker::HeaderNames;

/// The names of the headers for what NATS has none of its own.
// ATTR-N-08.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    pub(crate) correlation_id: &'static str,
    pub(crate) content_type: &'static str,
    /// That of the reply address, for messages of streams alone: where nobody set names, they have none.
    pub(crate) reply_to: Option<&'static str>,
}

impl Names {
    pub(crate) const fn set(names: HeaderNames) -> Self {
        let HeaderNames { correlation_id, content_type, reply_to, .. } = names;
        Self { correlation_id, content_type, reply_to: Some(reply_to) }
    }
}

impl Default for Names {
    fn default() -> Self {
        let HeaderNames { correlation_id, content_type, .. } = HeaderNames::default();
        Self { correlation_id, content_type, reply_to: None }
    }
}

/// How the messages of one connection are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading<'a> {
    pub(crate) own_inbox: &'a str,
    pub(crate) names: &'a Names,
}

//! Which servers are trusted with telemetry, and who the service is to them.

use std::fmt;

/// Which servers are trusted, and who the service is to them.
#[derive(Clone, Default)]
pub(crate) struct Tls {
    /// Who has signed the servers that are trusted, as PEM; else the authorities of the system.
    pub(crate) authority: Option<Vec<u8>>,
    /// The certificate of the service and its key, as PEM.
    pub(crate) identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// The key is a secret.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (has_authority, has_identity) = (self.authority.is_some(), self.identity.is_some());
        f.debug_struct("Tls").field("has_authority", &has_authority).field("has_identity", &has_identity).finish()
    }
}

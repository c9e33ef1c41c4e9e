use std::fmt;
use std::sync::Arc;

use super::door::Door;
use crate::message::{CreationContext, Source};
use crate::telemetry::{Consumer, Instrumentation, ParentMode, Trust};

/// What a user may say about a client of an adapter, beside the [`ClientSettings`] of all.
pub trait Settings: Clone + Default + fmt::Debug {
    /// What is prepared from the settings: it reads the messages of the client, and publishes.
    type Prepared;

    /// Prepares what the settings ask for.
    fn prepare(&self, engine: &Instrumentation, client: &ClientSettings) -> Self::Prepared;
}

/// What a user may say about any client.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ClientSettings {
    /// `server.address` and `server.port`: the address as it was given to the client.
    pub server: Option<(Arc<str>, u16)>,
    /// `messaging.client.id`.
    pub client_id: Option<Arc<str>>,
    /// What the parent of a process span is, where it is not what the engine says.
    pub parent: Option<ParentMode>,
    /// How far incoming headers are trusted, where it is not what the engine says.
    pub trust: Option<Trust>,
}

impl ClientSettings {
    /// Returns the server, as [`System::with_server`](crate::message::System::with_server) takes it.
    #[must_use]
    pub fn server(&self) -> Option<(&str, u16)> {
        self.server.as_ref().map(|(host, port)| (host.as_ref(), *port))
    }

    /// Prepares the telemetry of a subscription.
    #[must_use]
    pub fn consumer(&self, engine: &Instrumentation, source: Source) -> Consumer {
        let mut consumer = engine.consumer(source.into());
        if let Some(mode) = self.parent {
            consumer = consumer.with_parent_mode(mode);
        }
        if let Some(trust) = self.trust {
            consumer = consumer.with_trust(trust);
        }
        consumer
    }
}

/// What is inside an adapter's handle for raw clients: the settings, what is prepared from them, and the creation context of what
/// is published with it. A clone is cheap.
///
/// An adapter wraps it in a type of its own, which [derefs](std::ops::Deref) to the [`door`](Self::door).
pub struct Handle<S: Settings> {
    shared: Arc<Shared<S>>,
    creation: CreationContext,
}

struct Shared<S: Settings> {
    engine: Instrumentation,
    client: ClientSettings,
    settings: S,
    door: Door<S::Prepared>,
}

impl<S: Settings> Handle<S> {
    /// Makes a handle with the default of every setting.
    #[must_use]
    pub fn new(engine: Instrumentation) -> Self {
        Self::prepared(engine, ClientSettings::default(), S::default(), CreationContext::New)
    }

    fn prepared(engine: Instrumentation, client: ClientSettings, settings: S, creation: CreationContext) -> Self {
        let door = Door::new(settings.prepare(&engine, &client));
        Self { shared: Arc::new(Shared { engine, client, settings, door }), creation }
    }

    /// Changes settings. Clones made before keep theirs.
    #[must_use]
    pub fn changed(self, change: impl FnOnce(&mut ClientSettings, &mut S)) -> Self {
        let (mut client, mut settings) = (self.shared.client.clone(), self.shared.settings.clone());
        change(&mut client, &mut settings);
        Self::prepared(self.shared.engine.clone(), client, settings, self.creation)
    }

    /// Returns a handle that publishes with another creation context.
    #[must_use]
    pub fn with_creation_context(&self, creation: CreationContext) -> Self {
        Self { shared: Arc::clone(&self.shared), creation }
    }

    /// Returns the creation context of what is published with this handle.
    #[must_use]
    pub const fn creation(&self) -> &CreationContext {
        &self.creation
    }

    /// Returns the adapter's settings.
    #[must_use]
    pub fn settings(&self) -> &S {
        &self.shared.settings
    }

    /// Returns what processes the messages of the client.
    #[must_use]
    pub fn door(&self) -> &Door<S::Prepared> {
        &self.shared.door
    }
}

impl<S: Settings> Clone for Handle<S> {
    fn clone(&self) -> Self {
        self.with_creation_context(self.creation.clone())
    }
}

impl<S: Settings> fmt::Debug for Handle<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("client", &self.shared.client)
            .field("settings", &self.shared.settings)
            .field("creation", &self.creation)
            .finish_non_exhaustive()
    }
}

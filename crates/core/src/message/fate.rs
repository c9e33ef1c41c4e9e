use std::borrow::Cow;

/// What the framework did with a message, where its settlement does not say it all.
#[derive(Clone, Debug, Default)]
pub(crate) enum Fate {
    /// Nothing: the message is settled as the settlement says.
    #[default]
    Settled,
    /// It became a dead letter; the text says why it was given up.
    Buried(Cow<'static, str>),
    /// It waits elsewhere for its next attempt.
    Postponed,
    /// It could not be published before the app ended or another member of the group got it: it is neither settled nor tried again here.
    Interrupted,
    /// It can be published nowhere, which a subscription may stop for.
    Unpublishable,
}

/// How far an app is on its way to the end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    /// Messages are taken.
    Running,
    /// No more messages are taken, handlers finish.
    Draining,
    /// Handlers are dropped.
    Aborting,
}

//! How a command ended.

/// What a command ends with.
pub(crate) enum End {
    Failed,
    Interrupted,
    Succeeded,
}

use std::fmt;

use crate::message::error_type_of;

/// What a future that processes a message ends with: nothing, or a `Result` whose error makes the processing a failed one.
///
/// A type of a program's own that says whether it failed may implement it.
///
/// # Examples
///
/// ```
/// use std::fmt::Display;
/// use throughline_core::telemetry::ProcessOutput;
///
/// enum Answer {
///     Done,
///     Refused(String),
/// }
///
/// impl ProcessOutput for Answer {
///     fn error(&self) -> Option<(&'static str, &dyn Display)> {
///         match self {
///             Self::Done => None,
///             Self::Refused(why) => Some(("refused", why)),
///         }
///     }
/// }
///
/// assert!(Answer::Refused("no stock".to_owned()).error().is_some());
/// # assert!(Answer::Done.error().is_none());
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say whether a message was processed",
    label = "neither `()` nor a `Result` whose error can be displayed",
    note = "let the future end with `()`, or with a `Result`: its `Err` makes the processing a failed one",
    note = "a value for whoever calls is `Ok::<_, Infallible>(value)`"
)]
pub trait ProcessOutput {
    /// Returns the value of `error.type`, one of few, and the error, where the processing failed.
    fn error(&self) -> Option<(&'static str, &dyn fmt::Display)>;
}

impl ProcessOutput for () {
    fn error(&self) -> Option<(&'static str, &dyn fmt::Display)> {
        None
    }
}

/// An error's type is the path of `E`; `_OTHER` for a type that may hold any error.
impl<T, E: fmt::Display> ProcessOutput for Result<T, E> {
    fn error(&self) -> Option<(&'static str, &dyn fmt::Display)> {
        self.as_ref().err().map(|error| (error_type_of::<E>(), error as &dyn fmt::Display))
    }
}

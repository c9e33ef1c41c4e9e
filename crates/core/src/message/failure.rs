use std::any::type_name;
use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use super::{Outcome, Settlement};
use crate::guard::write_text;

/// The code a requester is told where nobody says otherwise, and where what somebody says is none.
const SERVER_ERROR: u16 = 500;

/// Any error a handler may return.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Why a message was not handled: an error, its `error.type`, and whether another attempt makes sense.
///
/// # Examples
///
/// ```
/// use throughline_core::Failure;
///
/// let failure = Failure::new("out_of_stock", "no item left");
/// assert_eq!(failure.error_type(), "out_of_stock");
/// assert!(failure.is_retryable());
/// ```
///
/// The variants of an enum become values of `error.type`, and say which of them another attempt may mend:
///
/// ```
/// use throughline_core::Failure;
///
/// #[derive(Debug)]
/// enum ReserveError {
///     OutOfStock { item: String },
///     Database(std::io::Error),
/// }
///
/// impl std::fmt::Display for ReserveError {
///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
///         match self {
///             Self::OutOfStock { item } => write!(f, "no {item} left"),
///             Self::Database(_) => f.write_str("the database did not answer"),
///         }
///     }
/// }
///
/// impl std::error::Error for ReserveError {}
///
/// impl From<ReserveError> for Failure {
///     fn from(error: ReserveError) -> Self {
///         match error {
///             ReserveError::OutOfStock { .. } => Failure::new("out_of_stock", error).permanent(),
///             ReserveError::Database(_) => Failure::new("database", error),
///         }
///     }
/// }
///
/// fn find(order: &str) -> Result<(), ReserveError> {
///     Err(ReserveError::OutOfStock { item: order.to_owned() })
/// }
///
/// async fn reserve(order: String) -> Result<(), Failure> {
///     find(&order)?;
///     Ok(())
/// }
///
/// let failure = Failure::from(find("bread").unwrap_err());
/// assert_eq!((failure.error_type(), failure.is_retryable()), ("out_of_stock", false));
/// # let _ = reserve;
/// ```
#[derive(Clone)]
pub struct Failure {
    error_type: Cow<'static, str>,
    error: Arc<dyn Error + Send + Sync>,
    retryable: bool,
    framework: bool,
    code: u16,
    /// What a requester is told; the `error.type` where nobody says otherwise.
    text: Option<Cow<'static, str>>,
}

impl Failure {
    /// Creates a failure with its own `error.type`, which must be one of few values and never a message text.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::Failure;
    /// assert_eq!(Failure::new("timeout", "after 10 s").to_string(), "after 10 s");
    /// ```
    #[must_use]
    pub fn new(error_type: impl Into<Cow<'static, str>>, error: impl Into<BoxError>) -> Self {
        Self {
            error_type: error_type.into(),
            error: Arc::from(error.into()),
            retryable: true,
            framework: false,
            code: SERVER_ERROR,
            text: None,
        }
    }

    /// Creates a failure from an error; its `error.type` is the type's path.
    ///
    /// A type that may hold any error says nothing about it: for `Box<dyn Error>`, `Arc<dyn Error>`, `anyhow::Error`, `eyre::Report` and
    /// `miette::Report` it is `_OTHER`.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{BoxError, Failure};
    /// let failure = Failure::from_error(std::fmt::Error);
    /// assert_eq!(failure.error_type(), "core::fmt::Error");
    /// let erased: BoxError = "no item left".into();
    /// assert_eq!(Failure::from_error(erased).error_type(), "_OTHER");
    /// ```
    #[must_use]
    pub fn from_error<E: Into<BoxError>>(error: E) -> Self {
        Self::new(error_type_of::<E>(), error)
    }

    /// Marks the failure as one that no further attempt can mend, such as a body that cannot be decoded.
    #[must_use]
    pub const fn permanent(mut self) -> Self {
        self.retryable = false;
        self
    }

    /// Sets what a requester is told when its request is given up: a code as those of HTTP, and a text for people. The default is 500 and
    /// the `error.type`, as the text of an error may be private. A code that is not within 100 to 599 counts as 500; of the text 200
    /// characters are sent, and what is not printable ASCII becomes `?`.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::Failure;
    ///
    /// async fn price(item: String) -> Result<String, Failure> {
    ///     Err(Failure::new("unknown_item", format!("no row for {item}")).permanent().with_answer(404, "no such item"))
    /// }
    /// ```
    #[must_use]
    pub fn with_answer(self, code: u16, text: impl Into<Cow<'static, str>>) -> Self {
        Self { text: Some(text.into()), ..self.with_code(code) }
    }

    pub(crate) const fn with_code(mut self, code: u16) -> Self {
        self.code = if matches!(code, 100..600) { code } else { SERVER_ERROR };
        self
    }

    /// Marks the failure as the framework's own: its message may stand in the span's status.
    // STAT-03.
    pub(crate) const fn by_framework(mut self) -> Self {
        self.framework = true;
        self
    }

    /// Returns the value of `error.type`.
    #[must_use]
    pub fn error_type(&self) -> &str {
        &self.error_type
    }

    /// Returns the error.
    #[must_use]
    pub fn error(&self) -> &(dyn Error + Send + Sync + 'static) {
        self.error.as_ref()
    }

    /// Returns the code a requester is told, see [`with_answer`](Self::with_answer).
    #[must_use]
    pub const fn answer_code(&self) -> u16 {
        self.code
    }

    /// Returns the text a requester is told.
    #[must_use]
    pub fn answer_text(&self) -> &str {
        self.text.as_deref().unwrap_or(&self.error_type)
    }

    /// Tells whether another attempt makes sense.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        self.retryable
    }

    /// Tells whether the failure is the framework's own rather than an error the user's handler returned.
    #[must_use]
    pub const fn is_framework(&self) -> bool {
        self.framework
    }
}

/// The `error.type` of what stands for any error.
// ATTR-C-15: the conventions' own value for what has no name.
const OTHER: &str = "_OTHER";

/// Returns the path of an error's type; `_OTHER` for a type that may hold any error.
pub(crate) fn error_type_of<E: ?Sized>() -> &'static str {
    let path = type_name::<E>();
    let is_erased = matches!(path, "anyhow::Error" | "eyre::Report" | "miette::eyreish::Report")
        || path.starts_with("dyn ")
        || path.contains("<dyn ");
    if is_erased { OTHER } else { path }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_text(f, |f| self.error.fmt(f))
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure")
            .field("error_type", &self.error_type)
            .field("retryable", &self.retryable)
            .finish_non_exhaustive()
    }
}

/// What may stand in the `Err` of a handler: any error, or a [`Settlement`] that decides by itself.
///
/// # Examples
///
/// ```
/// use throughline_core::{IntoFailure, Settlement};
///
/// assert!(std::fmt::Error.into_failure().failure().is_some());
/// assert!(Settlement::retry().into_failure().failure().is_none());
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of a handler",
    label = "neither an error nor a `Settlement`",
    note = "implement `std::error::Error` for `{Self}`, or return `Settlement` to decide what happens to the message"
)]
pub trait IntoFailure {
    /// Turns the error into what is done about the message.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{IntoFailure, Settlement};
    /// let outcome = Settlement::reject("unknown tenant").into_failure();
    /// assert_eq!(outcome.settlement(), &Settlement::reject("unknown tenant"));
    /// ```
    fn into_failure(self) -> Outcome;
}

#[diagnostic::do_not_recommend]
impl<E: Into<BoxError>> IntoFailure for E {
    fn into_failure(self) -> Outcome {
        Outcome::failed(Failure::from_error(self))
    }
}

/// A failure as it is, such as one marked [`permanent`](Failure::permanent).
impl IntoFailure for Failure {
    fn into_failure(self) -> Outcome {
        Outcome::failed(self)
    }
}

impl IntoFailure for Settlement {
    fn into_failure(self) -> Outcome {
        Outcome::settle(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_erased_error_has_no_path() {
        assert_eq!(error_type_of::<BoxError>(), "_OTHER");
        assert_eq!(error_type_of::<Box<dyn Error>>(), "_OTHER");
        assert_eq!(error_type_of::<Arc<dyn Error + Send + Sync>>(), "_OTHER");
        assert_eq!(error_type_of::<dyn Error>(), "_OTHER");
        assert_eq!(error_type_of::<fmt::Error>(), "core::fmt::Error");
        assert_eq!(error_type_of::<Box<fmt::Error>>(), "alloc::boxed::Box<core::fmt::Error>");
    }
}

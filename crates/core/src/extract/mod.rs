//! The arguments of handlers: anything that can be made from a delivery. [`FromDelivery`] is the one trait; there is one file for each.

mod baggage;
mod batch;
mod delivery;
mod optional;
mod payload;
mod publisher;
mod span;
mod state;

use std::error::Error;
use std::fmt;
use std::future::Future;

pub(crate) use self::batch::Verdicts;
pub use self::batch::{Batch, BatchMessage};
pub use self::state::{FromRef, State};
use crate::causes::debug_with_causes;
#[cfg(feature = "json")]
pub use crate::codec::json::Json;
use crate::message::{BoxError, Delivery, Failure};
pub use crate::telemetry::current::baggage::Baggage;
pub use crate::telemetry::current::span::ProcessSpan;

/// Whether a handler takes single messages, batches, or either.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Shape {
    /// Works for single messages and for batches.
    Any,
    /// Needs a subscription with a batch setting.
    Batch,
    /// Needs a subscription without one.
    Single,
}

/// Makes an argument of a handler from a delivery. The body is in memory already, so the order of arguments never matters.
///
/// # Examples
///
/// An extractor of one's own:
///
/// ```
/// use throughline_core::Delivery;
/// use throughline_core::extract::{FromDelivery, Rejection};
///
/// struct Tenant(String);
///
/// impl<S: Sync> FromDelivery<S> for Tenant {
///     async fn from_delivery(delivery: &Delivery, _state: &S) -> Result<Self, Rejection> {
///         let tenant = delivery.headers().get("tenant").ok_or_else(|| Rejection::malformed("no tenant header"))?;
///         Ok(Self(tenant.to_owned()))
///     }
/// }
///
/// async fn reserve(Tenant(tenant): Tenant) {
///     println!("{tenant}");
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a handler",
    label = "not an extractor",
    note = "take the body as `Json<T>` (`T` needs `#[derive(serde::Deserialize)]`), `String`, `Bytes` or `Vec<u8>`",
    note = "or take `Headers`, `State<T>`, `ProcessSpan`, `Baggage`, `Publisher`, `Batch<T>`, `Delivery`, or implement `FromDelivery` for your type",
    note = "`State<T>` needs an app whose state is `T`, or `FromRef` of that state for `T`"
)]
pub trait FromDelivery<S>: Sized {
    /// Whether the argument makes sense for single messages, for batches, or for either.
    const SHAPE: Shape = Shape::Any;

    /// Whether the delivery's span or baggage may be asked for; where nobody does, nothing is made for it.
    #[doc(hidden)]
    const USES_SCOPE: bool = true;

    /// Makes the argument.
    ///
    /// # Errors
    ///
    /// Fails when the delivery does not hold what is needed; the handler is then not called and the rejection decides what
    /// happens to the message.
    fn from_delivery(delivery: &Delivery, state: &S) -> impl Future<Output = Result<Self, Rejection>> + Send;
}

/// Why an argument could not be made from a delivery.
///
/// # Examples
///
/// ```
/// use throughline_core::extract::Rejection;
/// assert!(!Rejection::malformed("no tenant header").failure().is_retryable());
/// ```
pub struct Rejection(Failure);

impl Rejection {
    /// Creates a rejection for a message that is not as it must be; it is given up at once (`error.type` = `decode_error`). A
    /// requester is told the code 400.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::extract::Rejection;
    /// assert_eq!(Rejection::malformed("no tenant header").failure().error_type(), "decode_error");
    /// ```
    #[must_use]
    pub fn malformed(error: impl Into<BoxError>) -> Self {
        Self(Failure::new("decode_error", error).permanent().by_framework().with_code(400))
    }

    /// Rejects a message that does not come from where an extractor of an adapter looks: `wanted` is the extractor, `advice` says how
    /// to get one that does.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::Delivery;
    /// use throughline_core::extract::Rejection;
    /// let rejection = Rejection::not_from("Kafka", &Delivery::new("orders", "{}"), "Offset", "subscribe with `Topic`");
    /// assert_eq!(
    ///     rejection.to_string(),
    ///     "the message to `orders` does not come from Kafka, so there is no `Offset`: subscribe with `Topic`",
    /// );
    /// ```
    #[must_use]
    pub fn not_from(origin: &str, delivery: &Delivery, wanted: &str, advice: &str) -> Self {
        let destination = delivery.destination();
        Self::malformed(format!(
            "the message to `{destination}` does not come from {origin}, so there is no `{wanted}`: {advice}"
        ))
    }

    /// Creates a rejection from a failure, which may be one that another attempt can mend.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Failure, extract::Rejection};
    /// assert!(Rejection::new(Failure::new("lookup_failed", "database away")).failure().is_retryable());
    /// ```
    #[must_use]
    pub const fn new(failure: Failure) -> Self {
        Self(failure)
    }

    /// Returns the failure.
    #[must_use]
    pub const fn failure(&self) -> &Failure {
        &self.0
    }

    pub(crate) fn into_failure(self) -> Failure {
        self.0
    }
}

debug_with_causes!(Rejection);

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Rejection {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // The text is that of the failure's error.
        self.0.error().source()
    }
}

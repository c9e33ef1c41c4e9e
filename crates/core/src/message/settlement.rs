use std::borrow::Cow;
use std::time::Duration;

/// What the broker is told about a message after its handler ran.
///
/// A handler may return one, as its value or as its error, to decide by itself; otherwise success acknowledges and
/// failure follows the [`RetryPolicy`](crate::RetryPolicy): another attempt, then dead letter or reject.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use throughline_core::Settlement;
///
/// async fn reserve(in_stock: bool) -> Result<(), Settlement> {
///     if in_stock { Ok(()) } else { Err(Settlement::retry_after(Duration::from_secs(30))) }
/// }
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Settlement {
    /// The message is done and never delivered again.
    #[default]
    Ack,
    /// The message is given up: dead-lettered where a dead letter is set, else dropped by the broker.
    Reject {
        /// Why, for the trace and the dead letter.
        reason: Cow<'static, str>,
    },
    /// The message is delivered again.
    Retry {
        /// How long to wait first; `None` lets the retry policy decide.
        after: Option<Duration>,
    },
}

impl Settlement {
    /// Asks for another delivery after the delay of the retry policy.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::Settlement;
    /// assert_eq!(Settlement::retry(), Settlement::Retry { after: None });
    /// ```
    #[must_use]
    pub fn retry() -> Self {
        Self::Retry { after: None }
    }

    /// Asks for another delivery, not before `delay` has passed.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use throughline_core::Settlement;
    /// let later = Settlement::retry_after(Duration::from_secs(30));
    /// assert!(matches!(later, Settlement::Retry { after: Some(_) }));
    /// ```
    #[must_use]
    pub fn retry_after(delay: Duration) -> Self {
        Self::Retry { after: Some(delay) }
    }

    /// Gives the message up, with a reason that is shown in the trace and on the dead letter. A requester is told it too, with the
    /// code 500; [`Failure::with_answer`](crate::Failure::with_answer) tells another one.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::Settlement;
    /// assert!(matches!(Settlement::reject("unknown tenant"), Settlement::Reject { .. }));
    /// ```
    #[must_use]
    pub fn reject(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Reject { reason: reason.into() }
    }
}

use super::Encode;
use crate::message::{Destination, Envelope, Failure, IntoFailure, Outcome, Settlement};

/// What a handler may return.
///
/// # Examples
///
/// ```
/// use throughline_core::{IntoOutcome, Settlement};
///
/// assert_eq!(().into_outcome().settlement(), &Settlement::Ack);
/// assert_eq!("a reply".into_outcome().replies().len(), 1);
/// assert_eq!(("one", "two").into_outcome().replies().len(), 2);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be returned by a handler",
    label = "neither nothing, a reply nor a `Settlement`",
    note = "return `()`, `Settlement`, a reply such as `Json<T>` (`T` needs `#[derive(serde::Serialize)]`), an `Envelope` with a destination of its own, several of them as a tuple or `Vec`, or a `Result` of these",
    note = "the error of a `Result` is a type that implements `std::error::Error`, or `Settlement` to decide what happens to the message"
)]
pub trait IntoOutcome {
    /// Turns the value into what came of the delivery.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{IntoOutcome, Settlement};
    /// let outcome = Err::<(), _>(Settlement::reject("unknown tenant")).into_outcome();
    /// assert_eq!(outcome.settlement(), &Settlement::reject("unknown tenant"));
    /// ```
    fn into_outcome(self) -> Outcome;
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Outcome {
        Outcome::ack()
    }
}

impl IntoOutcome for Settlement {
    fn into_outcome(self) -> Outcome {
        Outcome::settle(self)
    }
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Outcome {
        self
    }
}

/// A reply with a destination of its own.
impl IntoOutcome for Envelope {
    fn into_outcome(self) -> Outcome {
        Outcome::reply(self)
    }
}

/// A reply, sent where the subscription's `reply_to` says and to the requester.
impl<T: Encode> IntoOutcome for T {
    fn into_outcome(self) -> Outcome {
        match self.encode() {
            Ok(body) => Outcome::reply(body.into_envelope(Destination::from_static("")).without_destination()),
            Err(error) => Outcome::failed(Failure::new("encode_error", error).permanent()),
        }
    }
}

/// No reply, or one.
impl<T: IntoOutcome> IntoOutcome for Option<T> {
    fn into_outcome(self) -> Outcome {
        self.map_or_else(Outcome::ack, T::into_outcome)
    }
}

impl<T: IntoOutcome, E: IntoFailure> IntoOutcome for Result<T, E> {
    fn into_outcome(self) -> Outcome {
        match self {
            Ok(value) => value.into_outcome(),
            Err(error) => error.into_failure(),
        }
    }
}

/// Several replies of one kind, such as `Vec<Json<T>>` or `Vec<Envelope>`.
impl<T: IntoOutcome> IntoOutcome for Vec<T> {
    fn into_outcome(self) -> Outcome {
        merge(self.into_iter().map(T::into_outcome))
    }
}

macro_rules! impl_tuple {
    ($($part:ident),*) => {
        #[allow(non_snake_case)] // the type parameters also name the values
        impl<$($part: IntoOutcome),*> IntoOutcome for ($($part,)*) {
            fn into_outcome(self) -> Outcome {
                let ($($part,)*) = self;
                merge([$($part.into_outcome()),*])
            }
        }
    };
}

impl_tuple!(A, B);
impl_tuple!(A, B, C);
impl_tuple!(A, B, C, D);

/// All replies together; the first failure or settlement other than an ack decides.
fn merge(outcomes: impl IntoIterator<Item = Outcome>) -> Outcome {
    let mut merged = Outcome::ack();
    for mut outcome in outcomes {
        if outcome.failure().is_some() || *outcome.settlement() != Settlement::Ack {
            return outcome;
        }
        for reply in outcome.take_replies() {
            merged = merged.with_reply(reply);
        }
    }
    merged
}

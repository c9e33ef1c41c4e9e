use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Is a future that is ready at once with the default value.
///
/// It has no size, so putting it into a box allocates nothing. An adapter whose `publish` or `settle` need not wait writes them without
/// `async`, does the work when they are called and returns this: a message then costs an allocation less.
///
/// # Examples
///
/// ```
/// use throughline_core::Receipt;
/// use throughline_core::broker::{Done, PublishError};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let published: Result<Receipt, PublishError> = Done::new().await;
/// assert!(published.is_ok());
/// # }
/// ```
#[derive(Debug)]
pub struct Done<T>(PhantomData<fn() -> T>);

impl<T> Done<T> {
    /// Creates the future.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::broker::{BrokerError, Done};
    /// assert_eq!(size_of_val(&Done::<Result<(), BrokerError>>::new()), 0);
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Default for Done<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Default, E> Future for Done<Result<T, E>> {
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(T::default()))
    }
}

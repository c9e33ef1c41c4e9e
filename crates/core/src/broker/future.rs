use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

/// A future in a box, as the calls return that are made for each message: [`Publish::publish`](super::Publish::publish) and
/// [`Settle::settle`](super::Settle::settle).
///
/// What has to wait is `Box::pin(async move { .. })`. What need not wait is done in the call itself, which then returns [`done`]: that
/// saves an allocation for each message. All other calls of the contract are `async fn`, by `async_trait`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Returns a future that is ready at once with the default value, and allocates nothing: the box of a future without a size is empty.
///
/// # Examples
///
/// ```
/// use throughline_core::broker::done;
/// use throughline_core::{PublishError, Receipt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let published: Result<Receipt, PublishError> = done().await;
/// assert!(published.is_ok());
/// # }
/// ```
#[must_use]
pub fn done<'a, T: Default + 'a, E: 'a>() -> BoxFuture<'a, Result<T, E>> {
    Box::pin(poll_fn(|_context| Poll::Ready(Ok(T::default()))))
}

#[cfg(test)]
mod tests {
    use super::super::BrokerError;
    use super::*;

    #[test]
    fn a_future_that_is_done_has_no_size() {
        assert_eq!(size_of_val(&*done::<(), BrokerError>()), 0);
    }
}

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Is a future that is ready at once with the default value.
///
/// It has no size, so putting it into a box allocates nothing. That is why `publish` and `settle`, which never wait, are written
/// without `async`: they do their work when called and return this, and a message costs two allocations less.
pub(crate) struct Done<T>(PhantomData<fn() -> T>);

impl<T> Done<T> {
    pub(crate) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Default, E> Future for Done<Result<T, E>> {
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(T::default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_no_size() {
        assert_eq!(size_of::<Done<Result<String, ()>>>(), 0);
    }

    #[tokio::test]
    async fn it_is_ready_with_the_default() {
        assert_eq!(Done::<Result<u8, ()>>::new().await, Ok(0));
    }
}

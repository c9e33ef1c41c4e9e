use super::{FromDelivery, Rejection};
use crate::message::Delivery;

/// The state the app was given with [`with_state`](crate::App::with_state), or a part of it, as an argument of a handler.
///
/// # Examples
///
/// ```
/// use throughline_core::extract::State;
///
/// #[derive(Clone)]
/// struct Stock;
///
/// async fn reserve(State(stock): State<Stock>) {
///     let _ = stock;
/// }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct State<T>(pub T);

impl<S, T> FromDelivery<S> for State<T>
where
    S: Sync,
    T: FromRef<S> + Send,
{
    const USES_SCOPE: bool = false;

    async fn from_delivery(_delivery: &Delivery, state: &S) -> Result<Self, Rejection> {
        Ok(Self(T::from_ref(state)))
    }
}

/// Makes a part of the state from the whole, so that handlers can ask for just that part.
///
/// # Examples
///
/// ```
/// use throughline_core::extract::FromRef;
///
/// #[derive(Clone)]
/// struct Stock;
///
/// #[derive(Clone)]
/// struct AppState { stock: Stock }
///
/// impl FromRef<AppState> for Stock {
///     fn from_ref(state: &AppState) -> Self {
///         state.stock.clone()
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "the state of the app is `{S}`, but a handler asks for `State<{Self}>`",
    label = "not a part of the state",
    note = "give the app this state with `.with_state(..)`, or implement `FromRef<{S}>` for `{Self}`"
)]
pub trait FromRef<S> {
    /// Makes the part.
    fn from_ref(state: &S) -> Self;
}

impl<T: Clone> FromRef<T> for T {
    fn from_ref(state: &T) -> Self {
        state.clone()
    }
}

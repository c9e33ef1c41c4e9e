use std::future::Future;

use crate::extract::{FromDelivery, Rejection, Shape};
use crate::message::Delivery;

/// All the arguments of a handler together: a tuple of extractors.
pub trait Arguments<S>: Sized + Send + 'static {
    /// Whether they want single messages, batches, or either.
    #[doc(hidden)]
    const SHAPE: Shape;

    #[doc(hidden)]
    const USES_SCOPE: bool;

    /// Makes them from a delivery; the first that cannot be made says why.
    #[doc(hidden)]
    fn from_delivery(delivery: &Delivery, state: &S) -> impl Future<Output = Result<Self, Rejection>> + Send;
}

const fn join(one: Shape, other: Shape) -> Shape {
    match (one, other) {
        (Shape::Any, shape) | (shape, Shape::Any) => shape,
        (Shape::Batch, _) | (_, Shape::Batch) => Shape::Batch,
        (Shape::Single, Shape::Single) => Shape::Single,
    }
}

macro_rules! impl_arguments {
    ($($argument:ident),*) => {
        #[allow(non_snake_case)] // the type parameters also name the values
        impl<S, $($argument,)*> Arguments<S> for ($($argument,)*)
        where
            S: Sync,
            $($argument: FromDelivery<S> + Send + 'static,)*
        {
            const USES_SCOPE: bool = false $(|| $argument::USES_SCOPE)*;
            const SHAPE: Shape = {
                let shape = Shape::Any;
                $(let shape = join(shape, $argument::SHAPE);)*
                shape
            };

            async fn from_delivery(delivery: &Delivery, state: &S) -> Result<Self, Rejection> {
                $(let $argument = $argument::from_delivery(delivery, state).await?;)*
                let _ = (delivery, state);
                Ok(($($argument,)*))
            }
        }
    };
}

impl_arguments!();
impl_arguments!(A1);
impl_arguments!(A1, A2);
impl_arguments!(A1, A2, A3);
impl_arguments!(A1, A2, A3, A4);
impl_arguments!(A1, A2, A3, A4, A5);
impl_arguments!(A1, A2, A3, A4, A5, A6);
impl_arguments!(A1, A2, A3, A4, A5, A6, A7);
impl_arguments!(A1, A2, A3, A4, A5, A6, A7, A8);

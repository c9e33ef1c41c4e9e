use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Body, Decode, DecodeError, Encode, EncodeError};
use crate::message::Delivery;

/// A JSON body: as an argument of a handler it is decoded, as a return value or in a publish it is encoded.
///
/// # Examples
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use throughline_core::extract::Json;
///
/// #[derive(Deserialize)]
/// struct Order { id: u64 }
///
/// #[derive(Serialize)]
/// struct Reserved { order: u64 }
///
/// async fn reserve(Json(order): Json<Order>) -> Json<Reserved> {
///     Json(Reserved { order: order.id })
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Json<T>(pub T);

impl<T: Serialize> Encode for Json<T> {
    fn encode(self) -> Result<Body, EncodeError> {
        let bytes = serde_json::to_vec(&self.0).map_err(|error| EncodeError::new("JSON", error))?;
        Ok(Body::new(bytes).with_content_type("application/json"))
    }
}

impl<T: DeserializeOwned> Decode for Json<T> {
    fn decode(message: &Delivery) -> Result<Self, DecodeError> {
        serde_json::from_slice(message.payload()).map(Self).map_err(|error| DecodeError::new("JSON", error))
    }
}

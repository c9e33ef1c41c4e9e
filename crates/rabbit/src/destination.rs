use std::borrow::Cow;

use throughline_core::Destination;

use crate::semconv::target_name;

/// Where a message goes: exchange and routing key. A plain destination is a queue's name, through the default exchange.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Address<'a> {
    pub(crate) exchange: &'a str,
    pub(crate) key: &'a str,
}

impl<'a> Address<'a> {
    /// Reads the address of a destination: its namespace is the exchange, its name the key.
    pub(crate) fn of(destination: &'a Destination) -> Self {
        Self { exchange: destination.namespace().unwrap_or_default(), key: destination.name() }
    }
}

/// What a typed destination says beyond exchange and key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Options {
    /// Whether a message that no queue takes is an error.
    pub(crate) mandatory: bool,
}

/// An exchange to publish to, with the routing key.
///
/// A plain text as a destination is the name of a queue, which the default exchange leads to.
///
/// A message that no queue takes is an error, unless [`not_mandatory`](Self::not_mandatory) says otherwise. An exchange with an alternate
/// exchange hides that: the message has gone somewhere.
///
/// # Examples
///
/// ```
/// use throughline_core::Destination;
/// use throughline_rabbit::ToExchange;
///
/// let destination = Destination::from(ToExchange::new("orders").key("placed"));
/// assert_eq!((destination.namespace(), destination.name()), (Some("orders"), "placed"));
///
/// let country = "eu";
/// let computed = ToExchange::new("orders").key(format!("placed.{country}")).template("placed.{country}");
/// assert_eq!(Destination::from(computed).template(), Some("orders:placed.{country}"));
/// ```
#[derive(Clone, Debug)]
pub struct ToExchange {
    exchange: Cow<'static, str>,
    key: Cow<'static, str>,
    template: Option<Cow<'static, str>>,
    mandatory: bool,
}

impl ToExchange {
    /// Creates a destination without a routing key, as a fanout exchange takes it. The empty name is the default exchange.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_rabbit::ToExchange;
    /// let everybody = ToExchange::new("prices");
    /// # let _ = everybody;
    /// ```
    #[must_use]
    pub fn new(exchange: impl Into<Cow<'static, str>>) -> Self {
        Self { exchange: exchange.into(), key: Cow::Borrowed(""), template: None, mandatory: true }
    }

    /// Sets the routing key. One that is computed (a `String`) is left out of the names of spans, which show the exchange alone, unless
    /// [`template`](Self::template) says what to show.
    #[must_use]
    pub fn key(mut self, key: impl Into<Cow<'static, str>>) -> Self {
        self.key = key.into();
        self
    }

    /// Sets what telemetry shows in place of a computed key.
    #[must_use]
    pub fn template(mut self, key: impl Into<Cow<'static, str>>) -> Self {
        self.template = Some(key.into());
        self
    }

    /// Lets the server drop a message that no queue takes, without an error.
    #[must_use]
    pub const fn not_mandatory(mut self) -> Self {
        self.mandatory = false;
        self
    }
}

// ATTR-R-10.
impl From<ToExchange> for Destination {
    fn from(to: ToExchange) -> Self {
        let ToExchange { exchange, key, template, mandatory } = to;
        let template = match (template, &key) {
            (Some(template), _) => Some(target_name(&exchange, &template).into_owned()),
            (None, Cow::Owned(key)) if !key.is_empty() => Some(target_name(&exchange, "").into_owned()),
            (None, _) => None,
        };
        let destination = Self::new(key.into_owned()).within(exchange.into_owned()).with_native(Options { mandatory });
        match template {
            Some(template) => destination.with_template(template),
            None => destination,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_computed_key_is_not_shown_and_a_written_one_is() {
        let template = |to: ToExchange| Destination::from(to).template().map(str::to_owned);
        assert_eq!(template(ToExchange::new("ev").key("eu")), None, "ATTR-R-10");
        assert_eq!(template(ToExchange::new("ev").key(String::from("eu.42"))).as_deref(), Some("ev"), "ATTR-R-10");
        let told = ToExchange::new("ev").key(String::from("eu.42")).template("eu.{id}");
        assert_eq!(template(told).as_deref(), Some("ev:eu.{id}"), "ATTR-R-10");
    }

    #[test]
    fn a_plain_destination_is_a_queue() {
        assert_eq!(Address::of(&Destination::new("orders")), Address { exchange: "", key: "orders" });
    }
}

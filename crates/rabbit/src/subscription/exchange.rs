use std::sync::Arc;

use lapin::ExchangeKind;
use lapin::types::{AMQPValue, FieldTable};

use super::arguments;

/// An exchange that a queue is bound to.
///
/// It is declared before the queue is bound, durable unless said otherwise. One that is declared elsewhere is [`named`](Self::named).
///
/// # Examples
///
/// ```
/// use throughline_rabbit::{Exchange, Queue};
///
/// let orders = Queue::new("stock").bind(Exchange::topic("orders"), "placed.*").bind(Exchange::named("audit"), "stock");
/// # let _ = orders;
/// ```
#[derive(Clone, Debug)]
pub struct Exchange {
    pub(crate) name: Arc<str>,
    pub(crate) declares: Declares,
    pub(crate) durable: bool,
    pub(crate) auto_delete: bool,
    pub(crate) internal: bool,
    pub(crate) arguments: FieldTable,
    /// What is wrong with an argument, which is told at the start.
    pub(crate) wrong: Option<String>,
    pub(crate) from: Vec<(Exchange, Arc<str>, FieldTable)>,
}

/// Whether an exchange is declared, and as what.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Declares {
    As(ExchangeKind),
    /// Asks whether it is there.
    Passive,
    Nothing,
}

impl Exchange {
    fn new(name: impl Into<Arc<str>>, declares: Declares) -> Self {
        Self {
            name: name.into(),
            declares,
            durable: true,
            auto_delete: false,
            internal: false,
            arguments: FieldTable::default(),
            wrong: None,
            from: Vec::new(),
        }
    }

    /// Creates an exchange that leads a message to the queues bound with exactly its routing key.
    #[must_use]
    pub fn direct(name: impl Into<Arc<str>>) -> Self {
        Self::new(name, Declares::As(ExchangeKind::Direct))
    }

    /// Creates an exchange that leads a message to all queues bound to it.
    #[must_use]
    pub fn fanout(name: impl Into<Arc<str>>) -> Self {
        Self::new(name, Declares::As(ExchangeKind::Fanout))
    }

    /// Creates an exchange that matches the routing key against patterns: `*` stands for one word between dots, `#` for any number.
    #[must_use]
    pub fn topic(name: impl Into<Arc<str>>) -> Self {
        Self::new(name, Declares::As(ExchangeKind::Topic))
    }

    /// Creates an exchange that looks at headers, see [`Queue::bind_headers`](crate::Queue::bind_headers).
    #[must_use]
    pub fn headers(name: impl Into<Arc<str>>) -> Self {
        Self::new(name, Declares::As(ExchangeKind::Headers))
    }

    /// Creates an exchange of a kind that a plug-in of the server has, such as `x-consistent-hash`.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_rabbit::Exchange;
    /// let shards = Exchange::of_kind("x-consistent-hash", "orders.shards");
    /// # let _ = shards;
    /// ```
    #[must_use]
    pub fn of_kind(kind: impl Into<String>, name: impl Into<Arc<str>>) -> Self {
        Self::new(name, Declares::As(ExchangeKind::Custom(kind.into())))
    }

    /// Names an exchange that is declared elsewhere; the server is asked whether it is there.
    #[must_use]
    pub fn named(name: impl Into<Arc<str>>) -> Self {
        Self::new(name, Declares::Passive)
    }

    /// Lets the exchange go when the server stops.
    #[must_use]
    pub const fn transient(mut self) -> Self {
        self.durable = false;
        self
    }

    /// Lets the server remove the exchange when nothing is bound to it any more.
    #[must_use]
    pub const fn auto_delete(mut self) -> Self {
        self.auto_delete = true;
        self
    }

    /// Lets only other exchanges publish to it.
    #[must_use]
    pub const fn internal(mut self) -> Self {
        self.internal = true;
        self
    }

    /// Names the exchange for messages that no queue takes. Publishing one is no error then, since a queue has it.
    #[must_use]
    pub fn alternate_exchange(self, name: &str) -> Self {
        self.argument("alternate-exchange", AMQPValue::LongString(name.into()))
    }

    /// Sets any argument by its name.
    #[must_use]
    pub fn argument(mut self, name: &str, value: AMQPValue) -> Self {
        arguments::set(&mut self.arguments, &mut self.wrong, name, &value);
        self
    }

    /// Binds it to another exchange, which is declared first: it gets the messages of that one whose key matches.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_rabbit::{Exchange, Queue};
    ///
    /// let eu = Exchange::fanout("orders.eu").bound_to(Exchange::topic("orders"), "*.eu");
    /// let queue = Queue::new("stock.eu").bind(eu, "");
    /// # let _ = queue;
    /// ```
    #[must_use]
    pub fn bound_to(self, source: Self, key: impl Into<Arc<str>>) -> Self {
        self.bound_with(source, key, [])
    }

    /// Binds it to another exchange with a key and arguments, such as the headers that a headers exchange looks at.
    ///
    /// # Examples
    ///
    /// ```
    /// use lapin::types::AMQPValue;
    /// use throughline_rabbit::{Exchange, Queue};
    ///
    /// let of_acme = [("x-match", AMQPValue::LongString("all".into())), ("tenant", AMQPValue::LongString("acme".into()))];
    /// let acme = Exchange::fanout("acme").bound_with(Exchange::headers("by-tenant"), "", of_acme);
    /// let queue = Queue::new("acme.stock").bind(acme, "");
    /// # let _ = queue;
    /// ```
    #[must_use]
    pub fn bound_with<'a>(
        mut self,
        source: Self,
        key: impl Into<Arc<str>>,
        arguments: impl IntoIterator<Item = (&'a str, AMQPValue)>,
    ) -> Self {
        let arguments = arguments::table(&mut self.wrong, arguments);
        self.from.push((source, key.into(), arguments));
        self
    }

    /// Tells whether a message comes whatever its key.
    pub(crate) fn takes_any_key(&self) -> bool {
        matches!(&self.declares, Declares::As(ExchangeKind::Fanout | ExchangeKind::Headers | ExchangeKind::Custom(_)))
    }

    /// Tells whether a plug-in of the server says which messages come.
    pub(crate) const fn is_of_plug_in(&self) -> bool {
        matches!(&self.declares, Declares::As(ExchangeKind::Custom(_)))
    }

    /// Tells whether keys are patterns, as far as that is known.
    pub(crate) fn has_patterns(&self) -> bool {
        matches!(&self.declares, Declares::As(ExchangeKind::Topic) | Declares::Passive | Declares::Nothing)
    }
}

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// Names where a message goes. A string is the plain destination; an adapter's typed ones say more.
///
/// # Examples
///
/// ```
/// use throughline_core::Destination;
///
/// let plain = Destination::from("orders.placed");
/// assert_eq!(plain.name(), "orders.placed");
/// let computed = Destination::from(format!("orders.{}", 42)).with_template("orders.{id}");
/// assert_eq!(computed.template(), Some("orders.{id}"));
/// ```
#[derive(Clone)]
pub struct Destination {
    name: Name,
    /// Rare, and one pointer where there is none.
    details: Option<Arc<Details>>,
    is_temporary: bool,
}

/// A name that stands in the program's text, or one that is shared; neither costs an allocation to pass on.
#[derive(Clone)]
pub(super) enum Name {
    Fixed(&'static str),
    Shared(Arc<str>),
}

#[derive(Clone, Default)]
struct Details {
    namespace: Option<Arc<str>>,
    template: Option<Arc<str>>,
    native: Option<Arc<dyn Any + Send + Sync>>,
}

impl Destination {
    /// Creates a destination from its name.
    ///
    /// # Examples
    ///
    /// ```
    /// let destination = throughline_core::Destination::new("orders");
    /// assert_eq!(destination.name(), "orders");
    /// ```
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: Name::Shared(name.into()), details: None, is_temporary: false }
    }

    /// Names a destination in program text: unlike [`new`](Self::new), it copies nothing, however often it is used.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::Destination;
    /// const ORDERS: Destination = Destination::from_static("orders.placed");
    /// assert_eq!(ORDERS.name(), "orders.placed");
    /// ```
    #[must_use]
    pub const fn from_static(name: &'static str) -> Self {
        Self { name: Name::Fixed(name), details: None, is_temporary: false }
    }

    /// Registers the low-cardinality pattern of a computed name; it stands in span names and metrics instead of the name.
    #[must_use]
    pub fn with_template(mut self, template: impl Into<Arc<str>>) -> Self {
        self.details_mut().template = Some(template.into());
        self
    }

    /// Says in what the name is one of many, where a broker has such: a routing key is within an exchange.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::Destination;
    /// let placed = Destination::new("placed.eu").within("orders");
    /// assert_eq!((placed.namespace(), placed.name()), (Some("orders"), "placed.eu"));
    /// ```
    #[must_use]
    pub fn within(mut self, namespace: impl Into<Arc<str>>) -> Self {
        self.details_mut().namespace = Some(namespace.into());
        self
    }

    /// Says that the destination is not one of a few: it exists for one conversation, and its name was made for that, as that of an inbox.
    ///
    /// Its name is then in no span name and on no metric. The address a message asks for its answer at is marked by itself.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Delivery, Destination};
    /// assert!(Destination::new("acme.replies.RhSk7").temporary().is_temporary());
    /// let request = Delivery::new("prices.get", "{}").with_reply_to("acme.replies.RhSk7");
    /// assert!(request.reply_to().is_some_and(Destination::is_temporary));
    /// ```
    #[must_use]
    pub const fn temporary(mut self) -> Self {
        self.is_temporary = true;
        self
    }

    /// Attaches what only the adapter understands, such as a partition or an exchange.
    ///
    /// # Examples
    ///
    /// ```
    /// let d = throughline_core::Destination::new("orders").with_native(3_u32);
    /// assert_eq!(d.native::<u32>(), Some(&3));
    /// ```
    #[must_use]
    pub fn with_native<T: Any + Send + Sync>(mut self, native: T) -> Self {
        self.details_mut().native = Some(Arc::new(native));
        self
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Returns in what the name is one of many; `None` where it stands alone.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.details.as_ref()?.namespace.as_deref()
    }

    /// Returns the registered pattern of a computed name.
    #[must_use]
    pub fn template(&self) -> Option<&str> {
        self.details.as_ref()?.template.as_deref()
    }

    /// Tells whether the destination exists for one conversation only.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        self.is_temporary
    }

    /// Returns what the adapter attached, if it is a `T`.
    #[must_use]
    pub fn native<T: Any>(&self) -> Option<&T> {
        self.details.as_ref()?.native.as_deref()?.downcast_ref()
    }

    pub(super) const fn mark_temporary(&mut self) {
        self.is_temporary = true;
    }

    /// Tells whether it names nothing, neither in general nor in the terms of a broker.
    pub(crate) fn is_empty(&self) -> bool {
        self.name().is_empty() && !self.is_native()
    }

    pub(crate) fn is_native(&self) -> bool {
        self.details.as_ref().is_some_and(|details| details.native.is_some())
    }

    fn details_mut(&mut self) -> &mut Details {
        Arc::make_mut(self.details.get_or_insert_default())
    }

    pub(super) fn into_name(self) -> Name {
        self.name
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Destination")
            .field("name", &self.name())
            .field("namespace", &self.namespace())
            .field("template", &self.template())
            .field("temporary", &self.is_temporary)
            .finish_non_exhaustive()
    }
}

impl Name {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Fixed(name) => name,
            Self::Shared(name) => name,
        }
    }
}

impl From<&str> for Destination {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<String> for Destination {
    fn from(name: String) -> Self {
        Self::new(name)
    }
}

impl From<&String> for Destination {
    fn from(name: &String) -> Self {
        Self::new(name.as_str())
    }
}

impl From<Arc<str>> for Destination {
    fn from(name: Arc<str>) -> Self {
        Self::new(name)
    }
}

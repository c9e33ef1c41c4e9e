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
}

/// Is a name that stands in the program's text, or one that is shared; neither costs an allocation to pass on.
#[derive(Clone)]
pub(super) enum Name {
    Fixed(&'static str),
    Shared(Arc<str>),
}

#[derive(Clone, Default)]
struct Details {
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
        Self { name: Name::Shared(name.into()), details: None }
    }

    /// Names a destination in program text: unlike [`new`](Self::new), it copies nothing, however often it is used.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::message::Destination;
    /// const ORDERS: Destination = Destination::from_static("orders.placed");
    /// assert_eq!(ORDERS.name(), "orders.placed");
    /// ```
    #[must_use]
    pub const fn from_static(name: &'static str) -> Self {
        Self { name: Name::Fixed(name), details: None }
    }

    /// Registers the low-cardinality pattern of a computed name; it stands in span names and metrics instead of the name
    /// (SPAN-14, ATTR-N-03).
    ///
    /// # Examples
    ///
    /// ```
    /// let d = throughline_core::Destination::new("orders.42").with_template("orders.{id}");
    /// assert_eq!(d.template(), Some("orders.{id}"));
    /// ```
    #[must_use]
    pub fn with_template(mut self, template: impl Into<Arc<str>>) -> Self {
        self.details_mut().template = Some(template.into());
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
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(throughline_core::Destination::new("orders").name(), "orders");
    /// ```
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Returns the registered pattern of a computed name.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(throughline_core::Destination::new("orders").template(), None);
    /// ```
    #[must_use]
    pub fn template(&self) -> Option<&str> {
        self.details.as_ref()?.template.as_deref()
    }

    /// Returns what the adapter attached, if it is a `T`.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(throughline_core::Destination::new("orders").native::<u32>().is_none());
    /// ```
    #[must_use]
    pub fn native<T: Any>(&self) -> Option<&T> {
        self.details.as_ref()?.native.as_deref()?.downcast_ref()
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
            .field("template", &self.template())
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

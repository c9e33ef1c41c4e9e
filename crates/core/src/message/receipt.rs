use std::any::Any;
use std::fmt;
use std::sync::Arc;

use opentelemetry::KeyValue;

/// Is what the broker answered to a publish.
///
/// # Examples
///
/// ```
/// use throughline_core::Receipt;
///
/// let receipt = Receipt::new().with_native(12_u64);
/// assert_eq!(receipt.native::<u64>(), Some(&12));
/// ```
#[derive(Clone, Default)]
pub struct Receipt {
    /// `None` where the broker said no more than "accepted".
    more: Option<Box<More>>,
}

#[derive(Clone, Default)]
struct More {
    attributes: Vec<KeyValue>,
    native: Option<Arc<dyn Any + Send + Sync>>,
    each: Vec<Receipt>,
}

impl Receipt {
    /// Creates a receipt that says no more than "accepted".
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(throughline_core::Receipt::new().attributes().is_empty());
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self { more: None }
    }

    /// Adds an attribute that became known with the answer, such as a partition or an offset; the send span gets it (ATTR-C-21).
    ///
    /// # Examples
    ///
    /// ```
    /// use opentelemetry::KeyValue;
    /// let receipt = throughline_core::Receipt::new().with_attribute(KeyValue::new("example.offset", 12));
    /// assert_eq!(receipt.attributes().len(), 1);
    /// ```
    #[must_use]
    pub fn with_attribute(mut self, attribute: KeyValue) -> Self {
        self.more.get_or_insert_default().attributes.push(attribute);
        self
    }

    /// Attaches the client's own answer.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(throughline_core::Receipt::new().with_native("seq 7").native::<&str>().is_some());
    /// ```
    #[must_use]
    pub fn with_native<T: Any + Send + Sync>(mut self, native: T) -> Self {
        self.more.get_or_insert_default().native = Some(Arc::new(native));
        self
    }

    pub(crate) fn batch(each: Vec<Self>) -> Self {
        Self { more: Some(Box::new(More { each, ..More::default() })) }
    }

    /// Returns the receipts of the messages of a batch, in order; empty for a single message.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(throughline_core::Receipt::new().each().is_empty());
    /// ```
    #[must_use]
    pub fn each(&self) -> &[Self] {
        self.more.as_ref().map_or(&[], |more| &more.each)
    }

    /// Returns the attributes that became known with the answer.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(throughline_core::Receipt::new().attributes().is_empty());
    /// ```
    #[must_use]
    pub fn attributes(&self) -> &[KeyValue] {
        self.more.as_ref().map_or(&[], |more| &more.attributes)
    }

    /// Returns the client's own answer, if it is a `T`.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(throughline_core::Receipt::new().native::<u64>().is_none());
    /// ```
    #[must_use]
    pub fn native<T: Any>(&self) -> Option<&T> {
        self.more.as_ref()?.native.as_deref()?.downcast_ref()
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").field("attributes", &self.attributes()).finish_non_exhaustive()
    }
}

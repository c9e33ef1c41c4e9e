use std::any::Any;
use std::fmt;
use std::sync::Arc;

use opentelemetry::KeyValue;

/// What the broker answered to a publish.
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
    answer: Option<Arc<dyn Answer>>,
    more: Option<Box<More>>,
}

#[derive(Clone, Default)]
struct More {
    attributes: Vec<KeyValue>,
    each: Vec<Receipt>,
}

/// What an adapter keeps of the broker's answer. What it says is asked for only where it is used.
///
/// # Examples
///
/// ```
/// use std::{any::Any, sync::Arc};
/// use opentelemetry::KeyValue;
/// use throughline_core::{Receipt, message::Answer};
///
/// struct Stored { offset: i64 }
///
/// impl Answer for Stored {
///     fn native(&self) -> &dyn Any {
///         &self.offset
///     }
///
///     fn attributes(&self, attributes: &mut Vec<KeyValue>) {
///         attributes.push(KeyValue::new("example.offset", self.offset));
///     }
/// }
///
/// let receipt = Receipt::from_answer(Arc::new(Stored { offset: 12 }));
/// assert_eq!(receipt.native::<i64>(), Some(&12));
/// assert_eq!(receipt.attributes(), [KeyValue::new("example.offset", 12)]);
/// ```
pub trait Answer: Send + Sync + 'static {
    /// Returns the client's own answer, for [`Receipt::native`].
    fn native(&self) -> &dyn Any;

    /// Adds the attributes that became known with the answer, such as a partition or an offset; the send span gets them.
    fn attributes(&self, attributes: &mut Vec<KeyValue>);
}

/// An answer that is known by its type alone.
struct Plain<T>(T);

impl<T: Any + Send + Sync> Answer for Plain<T> {
    fn native(&self) -> &dyn Any {
        &self.0
    }

    fn attributes(&self, _: &mut Vec<KeyValue>) {}
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
        Self { answer: None, more: None }
    }

    /// Creates a receipt from an answer that says its attributes itself.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::any::Any;
    /// # use opentelemetry::KeyValue;
    /// # use throughline_core::message::Answer;
    /// # struct Stored;
    /// # impl Answer for Stored {
    /// #     fn native(&self) -> &dyn Any { self }
    /// #     fn attributes(&self, _: &mut Vec<KeyValue>) {}
    /// # }
    /// let receipt = throughline_core::Receipt::from_answer(std::sync::Arc::new(Stored));
    /// assert!(receipt.native::<Stored>().is_some());
    /// ```
    #[must_use]
    pub fn from_answer(answer: Arc<dyn Answer>) -> Self {
        Self { answer: Some(answer), more: None }
    }

    /// Adds an attribute that became known with the answer, such as a partition or an offset; the send span gets it.
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
        self.answer = Some(Arc::new(Plain(native)));
        self
    }

    pub(crate) fn batch(each: Vec<Self>) -> Self {
        Self { answer: None, more: Some(Box::new(More { each, ..More::default() })) }
    }

    /// Returns the receipts of the messages of a batch, in order; empty for a single message.
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
    pub fn attributes(&self) -> Vec<KeyValue> {
        let mut attributes = self.more.as_ref().map_or_else(Vec::new, |more| more.attributes.clone());
        if let Some(answer) = &self.answer {
            answer.attributes(&mut attributes);
        }
        attributes
    }

    /// Returns the client's own answer, if it is a `T`.
    #[must_use]
    pub fn native<T: Any>(&self) -> Option<&T> {
        self.answer.as_ref()?.native().downcast_ref()
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").field("attributes", &self.attributes()).finish_non_exhaustive()
    }
}

use std::any::{Any, TypeId};
use std::fmt;
use std::sync::Arc;

type Entry = (TypeId, Arc<dyn Any + Send + Sync>);

/// Carries values from middleware to later middleware and to handlers, one per type.
///
/// # Examples
///
/// ```
/// use throughline_core::message::Extensions;
///
/// let mut extensions = Extensions::default();
/// extensions.insert(42_u32);
/// assert_eq!(extensions.get::<u32>(), Some(&42));
/// ```
#[derive(Clone, Default)]
pub struct Extensions {
    /// `None` while there is nothing, which is nearly always.
    values: Option<Arc<Vec<Entry>>>,
}

impl Extensions {
    /// Stores a value in place of an earlier one of the same type.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut extensions = throughline_core::message::Extensions::default();
    /// extensions.insert("a");
    /// extensions.insert("b");
    /// assert_eq!(extensions.get::<&str>(), Some(&"b"));
    /// ```
    pub fn insert<T: Any + Send + Sync>(&mut self, value: T) {
        let id = TypeId::of::<T>();
        let values = Arc::make_mut(self.values.get_or_insert_default());
        values.retain(|(stored, _)| *stored != id);
        values.push((id, Arc::new(value)));
    }

    /// Returns the value of that type, if one was stored.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(throughline_core::message::Extensions::default().get::<u8>().is_none());
    /// ```
    #[must_use]
    pub fn get<T: Any>(&self) -> Option<&T> {
        let id = TypeId::of::<T>();
        let (_, value) = self.values.as_ref()?.iter().find(|(stored, _)| *stored == id)?;
        value.downcast_ref()
    }
}

impl fmt::Debug for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Extensions({})", self.values.as_ref().map_or(0, |values| values.len()))
    }
}

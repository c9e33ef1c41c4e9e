use std::any::{Any, TypeId};
use std::fmt;
use std::sync::Arc;

type Entry = (TypeId, Arc<dyn Any + Send + Sync>);

/// The values that middleware leaves for later middleware and for handlers, one per type.
#[derive(Clone, Default)]
pub(super) struct Extensions {
    /// `None` while there is nothing, which is nearly always.
    values: Option<Arc<Vec<Entry>>>,
}

impl Extensions {
    /// Stores a value in place of an earlier one of the same type.
    pub(super) fn insert<T: Any + Send + Sync>(&mut self, value: T) {
        let id = TypeId::of::<T>();
        let values = Arc::make_mut(self.values.get_or_insert_default());
        values.retain(|(stored, _)| *stored != id);
        values.push((id, Arc::new(value)));
    }

    /// Returns the value of that type, if one was stored.
    pub(super) fn get<T: Any>(&self) -> Option<&T> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_value_of_a_type_replaces_the_earlier_one() {
        let mut extensions = Extensions::default();
        assert!(extensions.get::<&str>().is_none());
        extensions.insert("a");
        extensions.insert(42_u32);
        extensions.insert("b");
        assert_eq!(extensions.get::<&str>(), Some(&"b"));
        assert_eq!(extensions.get::<u32>(), Some(&42));
    }
}

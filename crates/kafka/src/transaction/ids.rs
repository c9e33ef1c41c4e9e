use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use throughline_core::BrokerError;

use super::settings::refused;

/// The transactional ids that subscriptions of one connection have at present. The broker takes an id from its first owner when a
/// second one comes, and the first would end in the middle of its work.
#[derive(Clone, Debug, Default)]
pub(crate) struct TransactionalIds {
    taken: Arc<Mutex<HashSet<Arc<str>>>>,
}

/// An id that is taken, until this is dropped.
#[derive(Debug)]
pub(super) struct TakenId {
    ids: TransactionalIds,
    id: Arc<str>,
}

impl TransactionalIds {
    /// Takes an id that nobody has.
    pub(super) fn take(&self, id: &Arc<str>) -> Result<TakenId, BrokerError> {
        if self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(id)) {
            return Ok(TakenId { ids: self.clone(), id: Arc::clone(id) });
        }
        Err(refused(&format!(
            "another subscription of this connection has the transactional id `{id}`, and the second owner of an id ends the \
             first: give each subscription of each process an id of its own, such as `{id}-2`"
        )))
    }
}

impl Drop for TakenId {
    fn drop(&mut self) {
        self.ids.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use throughline_core::broker::BrokerErrorKind;

    use super::*;

    #[test]
    fn an_id_has_one_owner_at_a_time() {
        let ids = TransactionalIds::default();
        let (one, other) = (Arc::from("billing-1"), Arc::from("billing-2"));
        let taken = ids.take(&one).unwrap();
        let error = ids.clone().take(&one).unwrap_err();
        assert_eq!(error.kind(), BrokerErrorKind::Configuration);
        assert!(error.to_string().contains("`billing-1`"), "{error}");
        assert!(ids.take(&other).is_ok());
        drop(taken);
        assert!(ids.take(&one).is_ok(), "it is free again");
    }
}

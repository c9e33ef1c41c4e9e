use std::sync::Arc;
use std::time::Duration;

use throughline_core::broker::{BatchPolicy, Pattern, Subscription, Wildcards};

use crate::semconv::SYSTEM;

/// `*` is one word. The server has no sign for the rest of a subject, so the third argument is a text that no subject has.
const WILDCARDS: Wildcards = Wildcards::new('.', "*", "\0");

/// Says what to consume: a subject, or a pattern of subjects.
#[derive(Clone, Debug)]
pub struct Subject {
    name: Arc<str>,
    group: Option<Arc<str>>,
    batch: Option<BatchPolicy>,
}

impl Subject {
    /// Subscribes to a subject; `*` or `{name}` stands for one word.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), group: None, batch: None }
    }

    /// Shares the messages with the other members of a group.
    #[must_use]
    pub fn group(mut self, name: impl Into<Arc<str>>) -> Self {
        self.group = Some(name.into());
        self
    }

    /// Hands messages over in batches.
    #[must_use]
    pub fn batch(mut self, max_messages: usize, max_wait: Duration) -> Self {
        self.batch = Some(BatchPolicy::new(max_messages, max_wait));
        self
    }
}

impl From<Subject> for Subscription {
    fn from(subject: Subject) -> Self {
        let mut subscription = Self::new(SYSTEM, Pattern::new(subject.name, WILDCARDS));
        if let Some(group) = subject.group {
            subscription = subscription.with_group(group);
        }
        if let Some(policy) = subject.batch {
            subscription = subscription.with_batch(policy);
        }
        subscription
    }
}

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use opentelemetry::{Key, KeyValue, StringValue, Value};

use crate::guard::{Foreign, Guard};
use crate::telemetry::choices::{BaggagePolicy, BatchBaggage, OperationInfo, ParentMode, SettleSpans, Trust};
use crate::telemetry::semconv::{MESSAGING_MESSAGE_BODY_SIZE, MESSAGING_MESSAGE_CONVERSATION_ID, MESSAGING_MESSAGE_ID};

pub(crate) type Filter = Arc<dyn Fn(&OperationInfo<'_>) -> bool + Send + Sync>;
pub(crate) type NameHook = Arc<dyn Fn(&OperationInfo<'_>) -> Option<Cow<'static, str>> + Send + Sync>;
pub(crate) type AttributeHook = Arc<dyn Fn(&OperationInfo<'_>, &mut Vec<KeyValue>) + Send + Sync>;
pub(crate) type ErrorClassifier = Arc<dyn Fn(&(dyn Error + 'static)) -> Option<Cow<'static, str>> + Send + Sync>;

/// All choices of a telemetry set-up, see the builder for what each means; and what stands around the code of the user among them.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) parent: ParentMode,
    pub(crate) trust: Trust,
    pub(crate) create_spans: bool,
    pub(crate) receive_spans: bool,
    pub(crate) settle_spans: SettleSpans,
    pub(crate) batch_baggage: BatchBaggage,
    pub(crate) inbound_baggage: BaggagePolicy,
    pub(crate) outbound_baggage: BaggagePolicy,
    pub(crate) baggage_attributes: Vec<(String, Key)>,
    pub(crate) captured_headers: Vec<(String, Key)>,
    pub(crate) body_sizes: bool,
    pub(crate) message_ids: bool,
    pub(crate) conversation_ids: bool,
    pub(crate) hidden_attributes: Vec<&'static str>,
    pub(crate) error_descriptions: bool,
    pub(crate) max_value_length: usize,
    pub(crate) filter: Option<Filter>,
    pub(crate) span_name: Option<NameHook>,
    pub(crate) attributes: Option<AttributeHook>,
    pub(crate) error_type: Option<ErrorClassifier>,
    /// Around code of the user.
    pub(crate) guard: Guard,
}

impl Settings {
    /// Whether the engine itself sets an attribute of that key for a message with these ids, later than others.
    pub(crate) fn says(&self, key: &str, has_id: bool, has_correlation_id: bool) -> bool {
        match key {
            MESSAGING_MESSAGE_ID => has_id && self.message_ids,
            MESSAGING_MESSAGE_CONVERSATION_ID => has_correlation_id && self.conversation_ids,
            MESSAGING_MESSAGE_BODY_SIZE => self.body_sizes,
            _ => false,
        }
    }

    /// The text of an error, which may be the user's own code.
    pub(crate) fn text_of(&self, error: &(impl fmt::Display + ?Sized)) -> Option<String> {
        self.guard.run(Foreign::ErrorText, || error.to_string())
    }

    /// Takes out hidden attributes and cuts strings to the configured length; the SDK never does.
    // ATTR-C-23, ENV-10.
    pub(crate) fn limit(&self, attributes: &mut Vec<KeyValue>) {
        if !self.hidden_attributes.is_empty() {
            attributes.retain(|attribute| !self.is_hidden(attribute));
        }
        attributes.iter_mut().for_each(|attribute| self.cut(attribute));
    }

    pub(crate) fn push_limited(&self, attributes: &mut Vec<KeyValue>, attribute: KeyValue) {
        attributes.extend(self.limited(attribute));
    }

    pub(crate) fn limited(&self, mut attribute: KeyValue) -> Option<KeyValue> {
        self.cut(&mut attribute);
        Some(attribute).filter(|attribute| !self.is_hidden(attribute))
    }

    fn is_hidden(&self, attribute: &KeyValue) -> bool {
        self.hidden_attributes.contains(&attribute.key.as_str())
    }

    fn cut(&self, attribute: &mut KeyValue) {
        let limit = self.max_value_length;
        if let Value::String(text) = &attribute.value {
            let text = text.as_str();
            if text.len() > limit && text.chars().count() > limit {
                let cut: String = text.chars().take(limit).collect();
                attribute.value = Value::String(StringValue::from(cut));
            }
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            parent: ParentMode::default(),
            trust: Trust::default(),
            create_spans: true,
            receive_spans: false,
            settle_spans: SettleSpans::default(),
            batch_baggage: BatchBaggage::default(),
            inbound_baggage: BaggagePolicy::default(),
            outbound_baggage: BaggagePolicy::default(),
            baggage_attributes: Vec::new(),
            captured_headers: Vec::new(),
            body_sizes: false,
            message_ids: true,
            conversation_ids: true,
            hidden_attributes: Vec::new(),
            error_descriptions: false,
            max_value_length: 1024,
            filter: None,
            span_name: None,
            attributes: None,
            error_type: None,
            guard: Guard::default(),
        }
    }
}

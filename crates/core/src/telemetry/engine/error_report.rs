use std::borrow::Cow;
use std::fmt;

use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanRef, Status};

use super::settings::Settings;
use crate::broker::{BrokerError, PublishError};
use crate::guard::Foreign;
use crate::message::Failure;
use crate::telemetry::semconv::ERROR_TYPE;

/// Says how a failed operation is shown: on the span, in the metrics, and as an event.
#[derive(Clone, Debug)]
pub(crate) struct ErrorReport {
    pub(crate) error_type: Cow<'static, str>,
    pub(crate) exception_type: String,
    pub(crate) message: Option<String>,
    pub(crate) description: Option<String>,
}

impl ErrorReport {
    /// A failure of the framework or a broker: its text may stand in the status.
    // STAT-03.
    fn of_framework(error_type: &str, error: &dyn fmt::Display, settings: &Settings) -> Self {
        let message = settings.text_of(error);
        Self {
            error_type: error_type.to_owned().into(),
            exception_type: error_type.to_owned(),
            description: message.clone(),
            message,
        }
    }

    /// Marks a span as failed.
    // STAT-02.
    pub(crate) fn mark(&self, span: &SpanRef<'_>) {
        span.set_attribute(KeyValue::new(ERROR_TYPE, self.error_type.clone()));
        span.set_status(Status::error(self.description.clone().unwrap_or_default()));
    }

    pub(crate) fn named(error_type: &'static str) -> Self {
        Self { error_type: error_type.into(), exception_type: error_type.to_owned(), message: None, description: None }
    }

    pub(crate) fn of_publish(error: &PublishError, settings: &Settings) -> Self {
        let mut report = Self::of_framework(error.error_type(), error, settings);
        // What the other side of a request says may be private, as what a handler says.
        report.description =
            report.description.filter(|_| error.error_reply().is_none() || settings.error_descriptions);
        Self { error_type: error.error_type_owned(), ..report }
    }

    pub(crate) fn of_broker(error: &BrokerError, settings: &Settings) -> Self {
        Self::of_framework(error.error_type(), error, settings)
    }

    /// The `error.type` of a failure, as the user wants it.
    pub(crate) fn error_type_of<'a>(failure: &'a Failure, settings: &Settings) -> Cow<'a, str> {
        let classify = settings.error_type.as_ref();
        let own = classify
            .and_then(|classify| settings.guard.run(Foreign::ErrorType, || classify(failure.error())).flatten());
        own.unwrap_or_else(|| Cow::Borrowed(failure.error_type()))
    }

    pub(crate) fn of_failure(failure: &Failure, settings: &Settings) -> Self {
        let message = settings.text_of(failure.error());
        let shown = failure.is_framework() || settings.error_descriptions;
        Self {
            error_type: Self::error_type_of(failure, settings).into_owned().into(),
            exception_type: failure.error_type().to_owned(),
            description: message.clone().filter(|_| shown),
            message,
        }
    }
}

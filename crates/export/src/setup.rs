//! Telemetry before it starts: of which service, and to which exporters.

use std::fmt;
use std::time::Duration;

use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::trace::{Sampler, ShouldSample};

use self::sealed::{Open, Opening};
use crate::cardinality::Cardinality;
use crate::destination::Destination;
use crate::environment::{Environment, process_variable};
use crate::error::{ExportError, ExportErrorKind};
use crate::limits::Limits;
#[cfg(feature = "logging")]
use crate::logging::Logging;
use crate::providers::Choices;
use crate::resource::Service;
use crate::telemetry::Telemetry;
use crate::unread;

/// The telemetry of a service before it starts, and the exporter it goes to.
///
/// [`console`](crate::console) and [`from_env`](crate::from_env) make one, and so does the function of each exporter that is built in. What is
/// said here wins over the environment.
///
/// # Examples
///
/// ```
/// let telemetry = throughline_export::console().service_name("shop").attribute("service.namespace", "eu").build()?;
/// # Ok::<(), throughline_export::ExportError>(())
/// ```
pub struct Setup<E> {
    service: Service,
    said: Said,
    #[cfg(feature = "logging")]
    logging: Option<Logging>,
    pub(crate) exporter: E,
}

/// What the code says of the telemetry of all services.
#[derive(Debug, Default)]
struct Said {
    sampling: Option<Sampling>,
    /// The keys of the baggage that spans show.
    baggage: Vec<String>,
    cardinality_limit: Option<usize>,
    shutdown_timeout: Option<Duration>,
}

/// Which traces are recorded.
#[derive(Debug)]
enum Sampling {
    By(Box<dyn ShouldSample>),
    /// This share, and what the parent says where there is one.
    Ratio(f64),
}

/// A configured exporter, or several. Sealed: those of this crate are all there are.
pub trait Exporter: Open {}

impl<E: Open> Exporter for E {}

pub(crate) mod sealed {
    use super::{Destination, Environment, ExportError};

    /// What can be turned into places where telemetry leads.
    pub trait Open {
        /// Opens them. What the code did not say is read from the environment.
        fn open(self, opening: &mut Opening<'_, '_>) -> Result<(), ExportError>;
    }

    /// The places that are open already, and the environment that says what the others are like.
    pub struct Opening<'a, 'b> {
        pub(crate) environment: &'a mut Environment<'b>,
        pub(crate) destinations: Vec<Box<dyn Destination>>,
    }
}

impl<E> Setup<E> {
    pub(crate) fn new(exporter: E) -> Self {
        Self {
            service: Service::default(),
            said: Said::default(),
            #[cfg(feature = "logging")]
            logging: None,
            exporter,
        }
    }

    /// Sets the name of the service, in place of `OTEL_SERVICE_NAME`.
    pub fn service_name(mut self, name: impl Into<String>) -> Self {
        self.service.name = Some(name.into());
        self
    }

    /// Adds an attribute of the service to the resource, in place of one with that key in `OTEL_RESOURCE_ATTRIBUTES`.
    ///
    /// # Examples
    ///
    /// ```
    /// let setup = throughline_export::console().attribute("service.version", env!("CARGO_PKG_VERSION"));
    /// ```
    pub fn attribute(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.service.attributes.push(KeyValue::new(key.into(), value));
        self
    }

    /// Sets which traces are recorded, in place of `OTEL_TRACES_SAMPLER`. The default is all, and what the parent says where there is one.
    ///
    /// # Examples
    ///
    /// ```
    /// use opentelemetry_sdk::trace::Sampler;
    ///
    /// let setup = throughline_export::console().sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOff))); // only what others record
    /// ```
    pub fn sampler(mut self, sampler: impl ShouldSample + 'static) -> Self {
        self.said.sampling = Some(Sampling::By(Box::new(sampler)));
        self
    }

    /// Records this share of the traces that begin here, from 0 to 1, and what the parent says where there is one: in place of
    /// `OTEL_TRACES_SAMPLER`. All services that are given the same share record the same traces.
    ///
    /// # Examples
    ///
    /// ```
    /// let setup = throughline_export::console().sample_ratio(0.1); // one of ten
    /// ```
    pub fn sample_ratio(mut self, share: f64) -> Self {
        self.said.sampling = Some(Sampling::Ratio(share));
        self
    }

    /// Copies the baggage entries of these keys to each span, as attributes with the keys as names.
    ///
    /// Baggage comes from whoever sent a message, so name only what may be shown. A value is cut after 1,024 characters. No entry is copied
    /// by default.
    ///
    /// # Examples
    ///
    /// ```
    /// let setup = throughline_export::console().baggage_attributes(["tenant", "warehouse"]);
    /// ```
    pub fn baggage_attributes<K: Into<String>>(mut self, keys: impl IntoIterator<Item = K>) -> Self {
        self.said.baggage.extend(keys.into_iter().map(Into::into));
        self
    }

    /// Sets how many time series each metric may have, from 1 to 1,000,000. The default is 2,000.
    ///
    /// A series is one combination of attribute values. Where a metric has more, the SDK adds up all further ones in one series with the attribute
    /// `otel.metric.overflow`, and the log says once which metric that is. Memory for as many series is set aside for each metric.
    ///
    /// # Examples
    ///
    /// ```
    /// let setup = throughline_export::console().cardinality_limit(10_000);
    /// ```
    pub fn cardinality_limit(mut self, series: usize) -> Self {
        self.said.cardinality_limit = Some(series);
        self
    }

    /// Sets how long a shutdown may take for all signals together. The default is 5 s.
    ///
    /// What is not delivered by then counts as dropped. Spans and log records have three quarters of the time, and metrics, which count what the
    /// others lose, have the rest.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let setup = throughline_export::console().shutdown_timeout(Duration::from_secs(10));
    /// ```
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.said.shutdown_timeout = Some(timeout);
        self
    }

    /// Makes a subscriber of `tracing` the one of the process, at [`start`](Self::start): lines on the terminal, and log records and spans for
    /// the exporters.
    ///
    /// A program that has a subscriber already adds [`Telemetry::layer`] to it.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_export::Logging;
    ///
    /// let setup = throughline_export::console().logging(Logging::text().filter("info,stock=debug"));
    /// ```
    #[cfg(feature = "logging")]
    pub fn logging(mut self, logging: Logging) -> Self {
        self.logging = Some(logging);
        self
    }
}

impl<E: Exporter> Setup<E> {
    /// Adds a second exporter: telemetry goes to both. The name and the attributes of the service come from either, those said here first.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_export::{console, from_env};
    ///
    /// # #[cfg(feature = "otlp")]
    /// let telemetry = from_env().and(console()).service_name("shop").build()?; // to a collector, and drawn here
    /// # Ok::<(), throughline_export::ExportError>(())
    /// ```
    pub fn and<F: Exporter>(self, other: Setup<F>) -> Setup<(E, F)> {
        Setup {
            service: self.service.or(other.service),
            said: self.said.or(other.said),
            #[cfg(feature = "logging")]
            logging: self.logging.or(other.logging),
            exporter: (self.exporter, other.exporter),
        }
    }

    /// Builds the providers and leaves the global ones alone.
    ///
    /// # Errors
    ///
    /// When an exporter cannot be set up as the code or the environment says.
    ///
    /// # Examples
    ///
    /// ```
    /// use opentelemetry::trace::{Tracer, TracerProvider};
    ///
    /// let telemetry = throughline_export::console().service_name("shop").build()?;
    /// telemetry.tracer_provider().tracer("shop").in_span("checkout", |_| ());
    /// # Ok::<(), throughline_export::ExportError>(())
    /// ```
    pub fn build(self) -> Result<Telemetry, ExportError> {
        let telemetry = self.build_in(&process_variable)?;
        telemetry.warn();
        Ok(telemetry)
    }

    /// Builds the providers and installs the tracer and meter providers as the global ones.
    ///
    /// # Errors
    ///
    /// When an exporter cannot be set up as the code or the environment says, or when telemetry was started before in this process and is not
    /// shut down. Nothing is installed then.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let telemetry = throughline_export::console().service_name("shop").start()?;
    /// telemetry.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn start(self) -> Result<Telemetry, ExportError> {
        #[cfg(feature = "logging")]
        let (mut setup, mut environment) = (self, Environment::new(&process_variable));
        #[cfg(feature = "logging")]
        let logging = setup.logging.take().map(|logging| logging.read(&mut environment)).transpose()?;
        #[cfg(not(feature = "logging"))]
        let setup = self;
        let telemetry = setup.build_in(&process_variable)?;
        telemetry.claim()?;
        #[cfg(feature = "logging")]
        if let Some(logging) = logging {
            logging.install(telemetry.main())?;
            environment.into_warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        }
        telemetry.install();
        telemetry.warn();
        Ok(telemetry)
    }

    /// Builds the providers with `lookup` as the environment.
    pub(crate) fn build_in(self, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Telemetry, ExportError> {
        let mut environment = Environment::new(lookup);
        let is_disabled = environment.disabled();
        let choices = self.said.choices(&mut environment)?;
        let mut opening = Opening { environment: &mut environment, destinations: Vec::new() };
        if !is_disabled {
            self.exporter.open(&mut opening)?;
        }
        let destinations = opening.destinations;
        environment.check_sampler();
        environment.check_resource();
        unread::warn(&mut environment);
        Ok(Telemetry::new(self.service, choices, destinations, environment.into_warnings()))
    }
}

impl Said {
    /// What both say; where they differ, this one.
    fn or(self, other: Self) -> Self {
        Self {
            sampling: self.sampling.or(other.sampling),
            baggage: self.baggage.into_iter().chain(other.baggage).collect(),
            cardinality_limit: self.cardinality_limit.or(other.cardinality_limit),
            shutdown_timeout: self.shutdown_timeout.or(other.shutdown_timeout),
        }
    }

    /// What holds, with what the environment says.
    fn choices(self, environment: &mut Environment<'_>) -> Result<Choices, ExportError> {
        Ok(Choices {
            sampler: self.sampling.map(Sampling::sampler).transpose()?,
            baggage: self.baggage,
            cardinality: self.cardinality_limit.map(Cardinality::new).transpose()?.unwrap_or_default(),
            limits: Limits::read(environment),
            shutdown_timeout: self.shutdown_timeout.unwrap_or(Choices::SHUTDOWN),
        })
    }
}

impl Sampling {
    fn sampler(self) -> Result<Box<dyn ShouldSample>, ExportError> {
        match self {
            Self::By(sampler) => Ok(sampler),
            Self::Ratio(share) if (0.0..=1.0).contains(&share) => {
                Ok(Box::new(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(share)))))
            }
            Self::Ratio(share) => {
                let text = format!("the share of traces that are recorded is {share}: it must be from 0 to 1");
                Err(ExportError::new(ExportErrorKind::Configuration, text))
            }
        }
    }
}

impl<E: Open, F: Open> Open for (E, F) {
    fn open(self, opening: &mut Opening<'_, '_>) -> Result<(), ExportError> {
        self.0.open(opening)?;
        self.1.open(opening)
    }
}

impl<E: fmt::Debug> fmt::Debug for Setup<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup")
            .field("service", &self.service)
            .field("said", &self.said)
            .field("exporter", &self.exporter)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{
        Span, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer, TracerProvider,
    };
    use opentelemetry::{Context, KeyValue};

    use super::*;
    use crate::console;

    /// How many of these traces are recorded: as many begin here as come from a parent that is, or is not.
    fn recorded<E: Exporter>(setup: Setup<E>, parent: Option<bool>) -> usize {
        let telemetry = setup.build_in(&|_| None).unwrap();
        let tracer = telemetry.tracer_provider().tracer("test");
        let is_recorded = |number: u64| {
            let context = parent.map_or_else(Context::new, |is_sampled| {
                let (trace, flags) =
                    (TraceId::from(u128::from(number)), TraceFlags::default().with_sampled(is_sampled));
                let parent = SpanContext::new(trace, SpanId::from(number), flags, true, TraceState::default());
                Context::new().with_remote_span_context(parent)
            });
            tracer.start_with_context("checkout", &context).span_context().is_sampled()
        };
        (1..=1000).filter(|number| is_recorded(*number)).count()
    }

    #[test]
    fn a_share_of_the_traces_that_begin_here_is_recorded_and_what_the_parent_says() {
        let half = || console().writer(std::io::sink()).sample_ratio(0.5);
        assert!((400..600).contains(&recorded(half(), None)));
        assert_eq!((recorded(half(), Some(true)), recorded(half(), Some(false))), (1000, 0));
        assert_eq!(recorded(console().writer(std::io::sink()).sample_ratio(0.0), None), 0);
        for share in [-0.1, 1.1, f64::NAN] {
            let error = console().writer(std::io::sink()).sample_ratio(share).build_in(&|_| None).unwrap_err();
            assert_eq!(error.kind(), ExportErrorKind::Configuration, "{share}");
        }
    }

    // ENV-15.
    #[test]
    fn what_the_environment_says_in_vain_is_a_warning() {
        let odd = [
            ("OTEL_CONFIG_FILE", "otel.yaml"),
            ("OTEL_RESOURCE_ATTRIBUTES", "tier"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_SPAN_EVENT_COUNT_LIMIT", "few"),
        ];
        let lookup = |name: &str| odd.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let telemetry = console().writer(std::io::sink()).build_in(&lookup).unwrap();
        let warnings = telemetry.warnings();
        assert_eq!(warnings.len(), odd.len(), "{warnings:?}");
        for (name, _) in odd {
            assert!(warnings.iter().any(|warning| warning.starts_with(name)), "{name}: {warnings:?}");
        }
    }

    // ENV-10, LINK-17.
    #[test]
    fn a_span_holds_as_much_as_the_environment_says() {
        let kept = |variables: &[(&str, &str)]| {
            let lookup =
                |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
            let telemetry = console().writer(std::io::sink()).build_in(&lookup).unwrap();
            let mut span = telemetry.tracer_provider().tracer("test").start("checkout");
            (0..2000).for_each(|_| {
                let other = SpanContext::new(
                    TraceId::from(1),
                    SpanId::from(1),
                    TraceFlags::SAMPLED,
                    true,
                    TraceState::default(),
                );
                span.add_link(other, Vec::new());
                span.add_event("retry", Vec::new());
                span.set_attribute(KeyValue::new("item", "lamp"));
            });
            let data = span.exported_data().unwrap();
            ([data.attributes.len(), data.events.len(), data.links.len()], telemetry.warnings().len())
        };
        assert_eq!(kept(&[]), ([128, 128, 1024], 0));
        assert_eq!(kept(&[("OTEL_ATTRIBUTE_COUNT_LIMIT", "10")]), ([10, 128, 1024], 0));
        let own = [
            ("OTEL_ATTRIBUTE_COUNT_LIMIT", "10"),
            ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "20"),
            ("OTEL_SPAN_EVENT_COUNT_LIMIT", "0"),
            ("OTEL_SPAN_LINK_COUNT_LIMIT", "many"),
        ];
        assert_eq!(kept(&own), ([20, 0, 1024], 1));
    }
}

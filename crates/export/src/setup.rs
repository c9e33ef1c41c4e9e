//! Telemetry before it starts: of which service, and to which exporters.

use std::fmt;

use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::trace::ShouldSample;

use self::sealed::{Open, Opening};
use crate::destination::Destination;
use crate::environment::{Environment, process_variable};
use crate::error::ExportError;
#[cfg(feature = "logging")]
use crate::logging::Logging;
use crate::providers::Choices;
use crate::resource::Service;
use crate::telemetry::Telemetry;

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
    choices: Choices,
    #[cfg(feature = "logging")]
    logging: Option<Logging>,
    pub(crate) exporter: E,
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
            choices: Choices::default(),
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
    /// let tenth = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(0.1)));
    /// let setup = throughline_export::console().sampler(tenth);
    /// ```
    pub fn sampler(mut self, sampler: impl ShouldSample + 'static) -> Self {
        self.choices.sampler = Some(Box::new(sampler));
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
        self.choices.baggage.extend(keys.into_iter().map(Into::into));
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
            choices: self.choices.or(other.choices),
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
        let mut opening = Opening { environment: &mut environment, destinations: Vec::new() };
        if !is_disabled {
            self.exporter.open(&mut opening)?;
        }
        let destinations = opening.destinations;
        environment.check_sampler();
        Ok(Telemetry::new(self.service, self.choices, destinations, environment.into_warnings()))
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
            .field("exporter", &self.exporter)
            .finish_non_exhaustive()
    }
}

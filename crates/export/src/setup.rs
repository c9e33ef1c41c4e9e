//! Telemetry before it starts: of which service, and to which exporters.

use std::fmt;

use opentelemetry::{KeyValue, Value};

use self::sealed::{Open, Opening};
use crate::destination::Destination;
use crate::environment::{Environment, process_variable};
use crate::error::ExportError;
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
        Self { service: Service::default(), exporter }
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
        let service = self.service.or(other.service);
        Setup { service, exporter: (self.exporter, other.exporter) }
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
        self.build_in(&process_variable)
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
        let telemetry = self.build()?;
        telemetry.install()?;
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
        Ok(Telemetry::new(self.service, destinations, environment.into_warnings()))
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
        f.debug_struct("Setup").field("service", &self.service).field("exporter", &self.exporter).finish()
    }
}

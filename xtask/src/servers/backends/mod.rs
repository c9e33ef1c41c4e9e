//! Where telemetry can be seen: the backends that the guides name.
//!
//! Tests start each with the files of the guide, on free ports of this machine; what is here finds or installs the
//! programs. Jaeger and Zipkin may also be others', named by their address.

mod golang;
mod prometheus;
mod zipkin;

use super::broker::Program;
use super::set_variable;

/// A backend as the test command sees it.
#[derive(Clone, Copy, Debug)]
pub struct Backend {
    /// Its name, which is also that of the module of its tests (`tests/backends/jaeger.rs`).
    pub name: &'static str,
    /// The variable that names one that runs, where the tests can use one that is not their own.
    pub url_variable: Option<&'static str>,
    /// What the tests start one with, and check its files with; none where no package has it.
    pub programs: &'static [Program],
}

impl Backend {
    /// Returns the address of the one that the user named.
    ///
    /// # Examples
    ///
    /// ```
    /// use xtask::servers::BACKENDS;
    ///
    /// let prometheus = BACKENDS.iter().find(|backend| backend.name == "prometheus").unwrap();
    /// assert_eq!(prometheus.url(), None); // its tests start their own, since it has to read their pages
    /// ```
    #[must_use]
    pub fn url(&self) -> Option<String> {
        self.url_variable.and_then(set_variable)
    }
}

/// Every backend that the project's tests look at.
///
/// # Examples
///
/// ```
/// use xtask::servers::BACKENDS;
///
/// assert!(BACKENDS.iter().any(|backend| backend.name == "jaeger"));
/// ```
pub const BACKENDS: &[Backend] = &[
    Backend {
        name: "collector",
        url_variable: None,
        programs: &[Program {
            name: "the OpenTelemetry Collector",
            variable: "THROUGHLINE_COLLECTOR_SERVER",
            find: golang::collector,
        }],
    },
    Backend {
        name: "jaeger",
        url_variable: Some("THROUGHLINE_JAEGER_URL"),
        programs: &[Program { name: "Jaeger", variable: "THROUGHLINE_JAEGER_SERVER", find: golang::jaeger }],
    },
    Backend {
        name: "prometheus",
        url_variable: None,
        programs: &[
            Program { name: "Prometheus", variable: "THROUGHLINE_PROMETHEUS_SERVER", find: prometheus::prometheus },
            Program { name: "promtool", variable: "THROUGHLINE_PROMTOOL", find: prometheus::promtool },
        ],
    },
    Backend { name: "tempo", url_variable: Some("THROUGHLINE_TEMPO_URL"), programs: &[] },
    Backend {
        name: "zipkin",
        url_variable: Some("THROUGHLINE_ZIPKIN_URL"),
        programs: &[Program { name: "Zipkin", variable: "THROUGHLINE_ZIPKIN_SERVER", find: zipkin::zipkin }],
    },
];

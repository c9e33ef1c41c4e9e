//! What is known of a service: by the code, by the environment, and by looking around.

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{
    EnvResourceDetector, ResourceBuilder, SdkProvidedResourceDetector, TelemetryResourceDetector,
};

/// What the code says of a service.
#[derive(Debug, Default)]
pub(crate) struct Service {
    pub(crate) name: Option<String>,
    pub(crate) attributes: Vec<KeyValue>,
}

impl Service {
    pub(crate) fn named(name: String) -> Self {
        Self { name: Some(name), attributes: Vec::new() }
    }

    /// What both say; where they differ, this one.
    pub(crate) fn or(self, other: Self) -> Self {
        let attributes = other.attributes.into_iter().chain(self.attributes).collect();
        Self { name: self.name.or(other.name), attributes }
    }

    /// The attributes of the service: what is found, over that what the environment says, over that what the code says.
    // ENV-04, ENV-16.
    pub(crate) fn resource(self) -> Resource {
        let builder = found(Resource::builder_empty())
            .with_detector(Box::new(SdkProvidedResourceDetector))
            .with_detector(Box::new(TelemetryResourceDetector))
            .with_detector(Box::new(EnvResourceDetector::new()))
            .with_attributes(self.attributes);
        match self.name {
            Some(name) => builder.with_service_name(name).build(),
            None => builder.build(),
        }
    }
}

/// Only what leaves the process needs to say where it is from.
#[cfg(not(any(feature = "otlp-grpc", feature = "otlp-http")))]
fn found(builder: ResourceBuilder) -> ResourceBuilder {
    builder
}

/// The instance, the process, the host and the container. The arguments of the process are not among it: they may hold secrets.
#[cfg(any(feature = "otlp-grpc", feature = "otlp-http"))]
fn found(builder: ResourceBuilder) -> ResourceBuilder {
    use opentelemetry_resource_detectors::{
        ContainerResourceDetector, HostResourceDetector, OsResourceDetector, ServiceInstanceIdResourceDetector,
    };

    let executable = std::env::current_exe().ok();
    let executable =
        executable.as_deref().and_then(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned());
    builder
        .with_attributes(host_name().map(|name| KeyValue::new("host.name", name)))
        .with_detector(Box::new(HostResourceDetector::default()))
        .with_detector(Box::new(OsResourceDetector))
        // The detectors say what the compiler calls them.
        .with_attribute(KeyValue::new("host.arch", arch(std::env::consts::ARCH)))
        .with_attribute(KeyValue::new("os.type", os(std::env::consts::OS)))
        .with_detector(Box::new(ContainerResourceDetector))
        .with_detector(Box::new(ServiceInstanceIdResourceDetector))
        .with_attribute(KeyValue::new("process.pid", i64::from(std::process::id())))
        .with_attributes(executable.map(|name| KeyValue::new("process.executable.name", name)))
}

/// The name that the conventions have for an architecture; where they have none, that of the compiler.
#[cfg(any(feature = "otlp-grpc", feature = "otlp-http"))]
fn arch(name: &'static str) -> &'static str {
    match name {
        "aarch64" => "arm64",
        "arm" => "arm32",
        "powerpc" => "ppc32",
        "powerpc64" => "ppc64",
        "x86_64" => "amd64",
        other => other,
    }
}

/// The name that the conventions have for an operating system.
#[cfg(any(feature = "otlp-grpc", feature = "otlp-http"))]
fn os(name: &'static str) -> &'static str {
    match name {
        "dragonfly" => "dragonflybsd",
        "macos" => "darwin",
        other => other,
    }
}

/// The name of the host where no program `hostname` is there to ask, as in small containers.
#[cfg(any(feature = "otlp-grpc", feature = "otlp-http"))]
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use opentelemetry::{Key, Value};

    use super::*;

    fn said(resource: &Resource, key: &'static str) -> Option<Value> {
        resource.get(&Key::from_static_str(key))
    }

    #[test]
    fn what_is_said_first_wins() {
        let service = |name: &str, place: &'static str| Service {
            name: Some(name.to_owned()),
            attributes: vec![KeyValue::new("place", place), KeyValue::new(name.to_owned(), true)],
        };
        let resource = service("shop", "here").or(service("stock", "there")).resource();
        assert_eq!(said(&resource, "service.name"), Some("shop".into()));
        assert_eq!(said(&resource, "place"), Some("here".into()));
        assert_eq!(said(&resource, "stock"), Some(true.into()));
    }

    #[cfg(any(feature = "otlp-grpc", feature = "otlp-http"))]
    #[test]
    fn the_process_and_its_place_are_found_and_the_code_wins() {
        let resource = Service::named("shop".to_owned()).resource();
        assert_eq!(said(&resource, "process.pid"), Some(i64::from(std::process::id()).into()));
        for key in ["service.instance.id", "host.name", "os.type", "process.executable.name", "telemetry.sdk.language"]
        {
            assert!(said(&resource, key).is_some_and(|value| !value.as_str().is_empty()), "{key}");
        }
        assert_eq!(said(&resource, "process.command_args"), None);
        let known = ["amd64", "arm32", "arm64", "ia64", "ppc32", "ppc64", "s390x", "x86"];
        let arch = said(&resource, "host.arch").expect("an architecture");
        assert!(known.contains(&&*arch.as_str()), "{arch} is none that the conventions know");

        let attributes = vec![KeyValue::new("service.instance.id", "one")];
        let resource = Service { name: None, attributes }.resource();
        assert_eq!(said(&resource, "service.instance.id"), Some("one".into()));
    }
}

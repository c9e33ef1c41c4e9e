//! The settings and the telemetry of a service, from the environment.

use std::env::{self, VarError};
use std::error::Error;
use std::str::FromStr;

use throughline::BoxError;
use throughline::export::{self, Logging, Telemetry};

/// An environment variable that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the environment variable {variable} cannot be used")]
pub struct ConfigError {
    variable: &'static str,
    source: BoxError,
}

/// Returns the value of an environment variable, or the default where it is not set.
///
/// # Errors
///
/// Fails when the value is not of the type.
pub fn setting<T>(variable: &'static str, default: &str) -> Result<T, ConfigError>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    let value = match env::var(variable) {
        Ok(value) => value,
        Err(VarError::NotPresent) => default.to_owned(),
        Err(error) => return Err(ConfigError { variable, source: error.into() }),
    };
    value.parse().map_err(|error: T::Err| ConfigError { variable, source: error.into() })
}

/// The baggage that spans show. Who sees the traces sees it, so nothing in it is private.
pub const SHOWN_BAGGAGE: [&str; 3] = ["coupon", "tenant", "warehouse"];

/// Runs a service with telemetry and a log as the variables `OTEL_*` say, and prints at its end what became of them.
///
/// # Errors
///
/// Fails when a variable cannot be used, or the service fails.
pub async fn with_telemetry(
    service: &'static str,
    run: impl AsyncFnOnce(&Telemetry) -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let set_up = export::from_env().service_name(service).baggage_attributes(SHOWN_BAGGAGE).logging(Logging::text());
    let telemetry = set_up.start()?;
    let served = run(&telemetry).await;
    println!("{}", telemetry.shutdown().await?);
    served
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_not_set_is_its_default_and_a_wrong_one_is_an_error_with_its_name() {
        assert_eq!(setting::<u16>("ORDERS_NOT_SET", "80").unwrap(), 80);
        let error = setting::<u16>("ORDERS_NOT_SET", "eighty").unwrap_err();
        assert_eq!(error.to_string(), "the environment variable ORDERS_NOT_SET cannot be used");
        assert!(error.source().is_some());
    }
}

//! The headers of requests, as the code and the environment say.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::signal::Signal;
use crate::environment::Environment;
use crate::error::{ExportError, ExportErrorKind};

/// The headers of the environment, then those of the code: a later one replaces an earlier one of its name.
pub(super) fn read(
    said: &[(String, String)],
    signal: Signal,
    environment: &mut Environment<'_>,
) -> Result<HeaderMap, ExportError> {
    let mut headers = by_variable(signal, environment);
    for (name, value) in said {
        let (name, value) = header(name, value).map_err(|why| refused(name, why))?;
        headers.insert(name, value);
    }
    Ok(headers)
}

/// Those of the signal's own variable, else of the general one. What cannot be sent is a warning, without its value: that may be a secret.
// ENV-11, ENV-14, ENV-15.
fn by_variable(signal: Signal, environment: &mut Environment<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let said = signal.variables("HEADERS").into_iter().find_map(|name| {
        let value = environment.variable(&name)?;
        Some((name, value))
    });
    let Some((variable, list)) = said else { return headers };
    for (place, entry) in (1..).zip(list.split_terminator(',').map(str::trim)).filter(|(_, entry)| !entry.is_empty()) {
        let read = entry.split_once('=').ok_or("it is not `key=value`");
        match read.and_then(|(name, value)| header(name.trim(), &decoded(value.trim()))) {
            Ok((name, value)) => drop(headers.insert(name, value)),
            Err(why) => environment.warn(format!("{variable}: entry {place} is left out: {why}")),
        }
    }
    headers
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), &'static str> {
    let name = HeaderName::try_from(name).map_err(|_| "its name has characters that a header cannot have")?;
    let mut value = HeaderValue::try_from(value).map_err(|_| "its value has characters that a header cannot have")?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// Undoes percent encoding; a value that is none stays as it is.
fn decoded(value: &str) -> String {
    fn bytes(value: &str) -> Option<Vec<u8>> {
        let mut rest = value.bytes();
        let mut bytes = Vec::new();
        while let Some(byte) = rest.next() {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            bytes.push(match byte {
                b'%' => u8::try_from(digit(rest.next())? * 16 + digit(rest.next())?).ok()?,
                other => other,
            });
        }
        Some(bytes)
    }
    bytes(value).and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_else(|| value.to_owned())
}

fn refused(name: &str, why: &str) -> ExportError {
    let text = format!("the header `{}` cannot be sent: {why}", name.escape_debug());
    ExportError::new(ExportErrorKind::Configuration, text)
}

#[cfg(test)]
mod tests {
    use super::super::signal::TRACES;
    use super::*;

    fn headers(said: &[(&str, &str)], variables: &[(&str, &str)]) -> (Result<Vec<String>, ExportError>, Vec<String>) {
        let lookup =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let mut environment = Environment::new(&lookup);
        let said: Vec<_> = said.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let read = read(&said, TRACES, &mut environment).map(|headers| {
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
        });
        (read, environment.into_warnings())
    }

    // ENV-11, ENV-14, ENV-16.
    #[test]
    fn the_code_wins_over_the_signals_own_variable_and_that_over_the_general_one() {
        let general = ("OTEL_EXPORTER_OTLP_HEADERS", "token=general, tenant = a%20b%2Cc ,");
        let (read, warnings) = headers(&[], &[general, ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "")]);
        assert_eq!(read.unwrap(), ["token: general", "tenant: a b,c"]);
        let (read, _) = headers(&[("Token", "code")], &[general, ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "token=own")]);
        assert_eq!(read.unwrap(), ["token: code"]);
        assert!(warnings.is_empty(), "{warnings:?}");
        let (read, _) = headers(&[], &[("OTEL_EXPORTER_OTLP_HEADERS", "a=100%,b=%zz")]);
        assert_eq!(read.unwrap(), ["a: 100%", "b: %zz"], "what is not encoded stays as it is");
    }

    // ENV-15.
    #[test]
    fn a_header_of_the_environment_that_cannot_be_sent_is_a_warning_without_its_value() {
        for entry in ["secret", "to ken=secret", "=secret", "token=secret%0A", "token: secret"] {
            let (read, warnings) = headers(&[], &[("OTEL_EXPORTER_OTLP_HEADERS", &format!("a=b,{entry}"))]);
            assert_eq!(read.unwrap(), ["a: b"], "{entry}");
            assert_eq!(warnings.len(), 1, "{entry}");
            assert!(warnings[0].starts_with("OTEL_EXPORTER_OTLP_HEADERS: entry 2"), "{warnings:?}");
            assert!(!warnings[0].contains("secret"), "{warnings:?}");
        }
    }

    #[test]
    fn a_header_of_the_code_that_cannot_be_sent_is_an_error_without_its_value() {
        for (name, value) in [("to ken", "secret"), ("token", "secret\n")] {
            let error = headers(&[(name, value)], &[]).0.unwrap_err();
            assert_eq!(error.kind(), ExportErrorKind::Configuration);
            assert!(!error.to_string().contains("secret") && error.to_string().contains(name), "{error}");
        }
    }
}

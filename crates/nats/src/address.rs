use std::time::Duration;

use async_nats::{ConnectOptions, ServerAddr, ToServerAddrs};
use throughline_core::BrokerError;

/// Reads the addresses of a server or a cluster.
pub(crate) fn read(server: &impl ToServerAddrs) -> Result<Vec<ServerAddr>, BrokerError> {
    match server.to_server_addrs() {
        Ok(addresses) => Ok(addresses.collect()),
        Err(failed) => Err(unreadable_address().with_source(failed)),
    }
}

/// Adds the user and password, or the token, of the first address that has them: the client does not look at them.
pub(crate) fn with_credentials(options: ConnectOptions, addresses: &[ServerAddr]) -> ConnectOptions {
    match addresses.iter().find_map(credentials) {
        Some((user, Some(password))) => options.user_and_password(user, password),
        Some((token, None)) => options.token(token),
        None => options,
    }
}

/// Reads the user and password of a URL; one without a password is a token.
fn credentials(address: &ServerAddr) -> Option<(String, Option<String>)> {
    Some((decoded(address.username()?), address.password().map(decoded)))
}

/// Undoes the escapes that user and password have in a URL. What is no escape stays as it is.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let escape = after.split_at_checked(2).filter(|_| *byte == b'%');
        let escaped = escape.and_then(|(digits, after)| Some((hex(digits)?, after)));
        let (byte, after) = escaped.unwrap_or((*byte, after));
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
    u8::from_str_radix(text, 16).ok()
}

fn unreadable_address() -> BrokerError {
    BrokerError::configuration(
        "the address of the NATS server cannot be read: write it as host:port or nats://host:port",
    )
}

/// Returns the addresses as an error shows them: without user and password.
pub(crate) fn shown(addresses: &[ServerAddr]) -> String {
    addresses.iter().map(|address| format!("{}:{}", address.host(), address.port())).collect::<Vec<_>>().join(", ")
}

/// Returns the connection name in the options. The client shows it nowhere but in the `Debug` form of its
/// options.
// ATTR-N-07.
pub(crate) fn configured_name(options: &ConnectOptions) -> Option<String> {
    let shown = format!("{options:?}");
    let (_, rest) = shown.split_once("\"name\": Some(\"")?;
    let (name, _) = rest.split_once("\")")?;
    (!name.is_empty() && !name.contains(['\\', '"'])).then(|| name.to_owned())
}

/// The ping interval of options that set none, as the client shows it.
const UNSET_PINGS: &str = "\"ping_interval\": 60s";

/// How often a server that is silent is asked for a sign. The client gives it up when three answers are missing.
const PINGS: Duration = Duration::from_secs(5);

/// Asks a silent server often enough, unless the options say how often; the client's own interval makes three minutes of it.
pub(crate) fn with_pings(options: ConnectOptions) -> ConnectOptions {
    // A name cannot look like it: its quotes are escaped.
    if format!("{options:?}").contains(UNSET_PINGS) { options.ping_interval(PINGS) } else { options }
}

/// Returns the limit of reconnects in the options, which the client also shows nowhere else.
pub(crate) fn configured_reconnects(options: &ConnectOptions) -> Option<usize> {
    let shown = format!("{options:?}");
    let (_, rest) = shown.split_once("\"max_reconnects\": Some(")?;
    rest.split_once(')')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_password_of_a_url_are_what_they_were_before_the_escape() {
        for (url, user, password) in [
            ("nats://u:p@localhost", "u", Some("p")),
            ("nats://u%40x:a%2Fb%25@localhost", "u@x", Some("a/b%")),
            ("nats://secret@localhost", "secret", None),
        ] {
            let expected = (user.to_owned(), password.map(str::to_owned));
            assert_eq!(credentials(&url.parse().unwrap()), Some(expected), "{url}");
        }
        assert_eq!(credentials(&"nats://localhost".parse().unwrap()), None);
    }

    #[test]
    fn what_is_no_escape_stays() {
        for text in ["", "%", "%4", "%zz", "%+1", "a%", "ü"] {
            assert_eq!(decoded(text), text);
        }
        assert_eq!(decoded("%C3%BC%41"), "üA");
    }

    #[test]
    fn the_name_in_the_options_is_the_client_id() {
        assert_eq!(configured_name(&ConnectOptions::new().name("stock-1")), Some("stock-1".to_owned()), "ATTR-N-07");
        assert_eq!(configured_name(&ConnectOptions::new()), None);
        assert_eq!(configured_name(&ConnectOptions::new().name("a\"b")), None);
    }

    #[test]
    fn the_limit_of_reconnects_is_that_of_the_options() {
        assert_eq!(configured_reconnects(&ConnectOptions::new().max_reconnects(7)), Some(7));
        assert_eq!(configured_reconnects(&ConnectOptions::new().name("\"max_reconnects\": Some(3)")), None);
        assert_eq!(configured_reconnects(&ConnectOptions::new()), None);
    }

    #[test]
    fn a_silent_server_is_asked_often_unless_the_options_say_how_often() {
        let shown = |options| format!("{:?}", with_pings(options));
        assert!(shown(ConnectOptions::new()).contains("\"ping_interval\": 5s"));
        let name = "\"ping_interval\": 60s";
        let own = ConnectOptions::new().name(name).ping_interval(Duration::from_secs(90));
        assert!(shown(own).contains("\"ping_interval\": 90s"));
    }

    #[test]
    fn an_error_shows_no_password() {
        let addresses: Vec<ServerAddr> = vec!["nats://user:secret@localhost:4333".parse().unwrap()];
        assert_eq!(shown(&addresses), "localhost:4333");
    }
}

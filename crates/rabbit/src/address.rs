use lapin::uri::{AMQPScheme, AMQPUri};
use throughline_core::BrokerError;

/// The addresses of one server or of the nodes of a cluster.
///
/// An address is `host`, `host:port` or a URL (`amqp://`, `amqps://`, with user, password and virtual host). The port is 5672, with TLS
/// 5671, the user `guest` and the virtual host `/` where none is given.
///
/// # Examples
///
/// ```
/// use throughline_rabbit::Addresses;
///
/// let one = Addresses::from("amqp://stock:secret@rabbit.example.com/shop");
/// let cluster = Addresses::from(["rabbit-1", "rabbit-2", "rabbit-3"]);
/// # let _ = (one, cluster);
/// ```
#[derive(Clone)]
pub struct Addresses(Vec<String>);

impl Addresses {
    /// Reads the addresses; the error does not show them, since they may have a password.
    pub(crate) fn read(&self) -> Result<Vec<AMQPUri>, BrokerError> {
        let read = |address: &String| {
            let url = if address.contains("://") { address.clone() } else { format!("amqp://{address}/%2f") };
            url.parse::<AMQPUri>().map_err(|_| unreadable())
        };
        let addresses: Vec<_> = self.0.iter().map(read).collect::<Result<_, _>>()?;
        if addresses.is_empty() { Err(unreadable()) } else { Ok(addresses) }
    }
}

fn unreadable() -> BrokerError {
    BrokerError::configuration(
        "the address of the RabbitMQ server cannot be read: write it as host, host:port or amqp://user:password@host:port/vhost, \
         with %2f for the virtual host `/`, and `@`, `/` and `%` in user and password escaped as in any URL",
    )
}

impl From<&str> for Addresses {
    fn from(address: &str) -> Self {
        Self(vec![address.to_owned()])
    }
}

impl From<String> for Addresses {
    fn from(address: String) -> Self {
        Self(vec![address])
    }
}

impl From<&String> for Addresses {
    fn from(address: &String) -> Self {
        Self(vec![address.clone()])
    }
}

impl From<Vec<String>> for Addresses {
    fn from(addresses: Vec<String>) -> Self {
        Self(addresses)
    }
}

impl<const N: usize> From<[&str; N]> for Addresses {
    fn from(addresses: [&str; N]) -> Self {
        Self(addresses.map(str::to_owned).to_vec())
    }
}

impl std::fmt::Debug for Addresses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // An address may have a password.
        f.debug_struct("Addresses").field("count", &self.0.len()).finish_non_exhaustive()
    }
}

/// Returns an address as an error shows it: without user and password.
pub(crate) fn shown(address: &AMQPUri) -> String {
    let scheme = if address.scheme == AMQPScheme::AMQPS { "amqps" } else { "amqp" };
    format!("{scheme}://{}:{}", address.authority.host, address.authority.port)
}

/// Returns addresses as an error shows them.
pub(crate) fn all_shown(addresses: &[AMQPUri]) -> String {
    addresses.iter().map(shown).collect::<Vec<_>>().join(", ")
}

/// Returns the host and port the user configured, unless they configured different ones.
// ATTR-C-17, ATTR-C-18.
pub(crate) fn server(addresses: &[AMQPUri]) -> Option<(&str, u16)> {
    let place = |address: &AMQPUri| (address.authority.host.clone(), address.authority.port);
    let (first, others) = addresses.split_first()?;
    let is_one = others.iter().all(|other| place(other) == place(first));
    is_one.then_some((first.authority.host.as_str(), first.authority.port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_no_more_than_a_host() {
        let read = |address: &str| Addresses::from(address).read().unwrap().remove(0);
        let plain = read("localhost");
        assert_eq!((plain.authority.port, plain.vhost.as_str()), (5672, "/"));
        let full = read("amqps://stock:s%40cret@rabbit.example.com/shop");
        assert_eq!((full.authority.port, full.vhost.as_str()), (5671, "shop"));
        assert_eq!(full.authority.userinfo.password, "s@cret");
    }

    #[test]
    fn an_address_that_cannot_be_read_is_an_error_without_the_password() {
        for address in
            ["http://guest:secret@localhost", "amqp://guest:secret@:x", "amqp://guest:secret@localhost:99999"]
        {
            let text = Addresses::from(address).read().unwrap_err().to_string();
            assert!(!text.contains("secret@") && text.contains("amqp://user:password@host"), "{text}");
        }
        assert!(Addresses::from(Vec::new()).read().is_err());
    }

    #[test]
    fn the_server_is_what_was_configured() {
        let read = |addresses: Addresses| addresses.read().unwrap();
        assert_eq!(server(&read("localhost".into())), Some(("localhost", 5672)), "ATTR-C-17");
        assert_eq!(server(&read(["one", "two"].into())), None, "ATTR-C-18");
        assert_eq!(shown(&read("amqp://a:b@h".into())[0]), "amqp://h:5672");
    }
}

//! The tests of a real RabbitMQ server.
//!
//! `cargo xtask test --broker rabbit` finds or starts the server and runs it; the address is in `THROUGHLINE_RABBIT_URL`.

#![allow(clippy::expect_used, reason = "helpers of tests: what cannot be done is a failure of the test")]

#[path = "rabbit/topology.rs"]
mod topology;

mod conformance {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    #[test]
    #[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
    fn the_server_greets_a_client() {
        let url = std::env::var("THROUGHLINE_RABBIT_URL")
            .expect("THROUGHLINE_RABBIT_URL names a server: run `cargo xtask test --broker rabbit`, which starts one");
        let rest = url.strip_prefix("amqp://").expect("an address such as amqp://guest:guest@127.0.0.1:5672/%2f");
        let authority = rest.split('/').next().unwrap_or_default();
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let mut stream = TcpStream::connect(host).expect("a connection");
        stream.write_all(b"AMQP\0\0\x09\x01").expect("the header is sent");
        let mut start = [0; 11];
        stream.read_exact(&mut start).expect("the greeting");
        assert!(matches!(start, [1, 0, 0, .., 0, 10, 0, 10]), "{start:?} is no Connection.Start");
    }
}

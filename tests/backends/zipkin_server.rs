//! Zipkin as a process.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::api::{get, until};
use crate::server::{Server, free, named, program};

/// A Zipkin that is ready: the one that is named, else one of the test.
pub(crate) struct ZipkinServer {
    pub(crate) address: SocketAddr,
    _server: Option<Server>,
}

impl ZipkinServer {
    pub(crate) async fn start() -> Self {
        let (address, mut server) = match named("THROUGHLINE_ZIPKIN_URL") {
            Some(address) => (address, None),
            None => {
                let (address, server) = run();
                (address, Some(server))
            }
        };
        until("Zipkin is ready", async || {
            server.iter_mut().for_each(Server::is_alive);
            get(address, "/health").await
        })
        .await;
        Self { address, _server: server }
    }
}

fn run() -> (SocketAddr, Server) {
    let address = free();
    let jar = program("THROUGHLINE_ZIPKIN_SERVER");
    let mut server = Server::new("zipkin", PathBuf::from("java"), |_| {
        let options = [
            "--armeria.ports[0].address=127.0.0.1".to_owned(),
            format!("--armeria.ports[0].port={}", address.port()),
            "--armeria.ports[0].protocols[0]=http".to_owned(),
        ];
        // Quick to start.
        let java = ["-Xmx256m", "-XX:TieredStopAtLevel=1", "-jar"].map(Into::into);
        java.into_iter().chain([jar.into()]).chain(options.map(Into::into)).collect()
    });
    server.run();
    (address, server)
}

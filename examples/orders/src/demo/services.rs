//! The three services as processes.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use http::StatusCode;
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use throughline::Bytes;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use xtask::tools;

/// How long a service has until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How long a service has for what is under way, once it is told to stop.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// How long the answer to a probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// The time between two looks.
const POLL: Duration = Duration::from_millis(50);

/// How much of its log an error shows.
const LAST_LINES: usize = 10;

/// How to start the services.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The folder of the programs `billing`, `warehouse` and `storefront`.
    pub programs: PathBuf,
    /// The folder for their logs, which is there.
    pub logs: PathBuf,
    /// Where the storefront takes orders; port 0 is a free one.
    pub storefront: SocketAddr,
    /// Environment variables of all services, such as the addresses of the brokers.
    pub variables: Vec<(&'static str, String)>,
}

/// The three services while they run. Dropped, they are killed.
#[derive(Debug)]
pub struct Services {
    /// The service that invoices.
    pub billing: Service,
    /// The service that reserves.
    pub warehouse: Service,
    /// The service that takes orders.
    pub storefront: Service,
    address: SocketAddr,
}

/// A service in a process of its own. Dropped, it is killed.
#[derive(Debug)]
pub struct Service {
    name: &'static str,
    program: PathBuf,
    log: PathBuf,
    variables: Vec<(&'static str, String)>,
    probes: SocketAddr,
    child: Option<Child>,
}

impl Services {
    /// Starts the services one after the other, those that others need first, and returns when all are ready.
    ///
    /// # Errors
    ///
    /// Fails when there is no program, a port is taken, or a service is not ready within a minute. Those that were started are killed.
    ///
    /// # Cancel safety
    ///
    /// When this is dropped before it is done, the services are killed.
    pub async fn start(setup: &Setup) -> Result<Self, ServiceError> {
        let Ports { storefront: address, credit, probes } = Ports::choose(setup.storefront)
            .map_err(|source| ServiceError::Port { address: setup.storefront, source })?;
        let service = |name, probes, own: &[(&'static str, String)]| Service::new(name, setup, probes, own);
        let mut services = Self {
            billing: service("billing", probes[0], &[("HTTP_ADDRESS", credit.to_string())]),
            warehouse: service("warehouse", probes[1], &[("CREDIT_URL", format!("http://{credit}/credit"))]),
            storefront: service("storefront", probes[2], &[("HTTP_ADDRESS", address.to_string())]),
            address,
        };
        for service in services.all() {
            service.start().await?;
        }
        Ok(services)
    }

    /// Returns the URL that customers use.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until a service ends by itself, and returns what it said at last.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when this is dropped.
    pub async fn ended(&mut self) -> ServiceError {
        loop {
            for service in self.all() {
                if let Err(error) = service.check() {
                    return error;
                }
            }
            sleep(POLL).await;
        }
    }

    /// Stops the services, those that publish first, and returns when all have ended.
    ///
    /// # Errors
    ///
    /// Fails when a service ends with an error, or not within 30 seconds: it is killed then. The others are stopped all the same.
    pub async fn stop(mut self) -> Result<(), ServiceError> {
        let mut outcome = Ok(());
        for service in self.all().into_iter().rev() {
            outcome = outcome.and(service.stop().await);
        }
        outcome
    }

    /// In the order of the start.
    fn all(&mut self) -> [&mut Service; 3] {
        [&mut self.billing, &mut self.warehouse, &mut self.storefront]
    }
}

impl Service {
    fn new(name: &'static str, setup: &Setup, probes: SocketAddr, own: &[(&'static str, String)]) -> Self {
        let program = setup.programs.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
        let mut variables = setup.variables.clone();
        variables.extend_from_slice(own);
        variables.push(("PROBES_ADDRESS", probes.to_string()));
        Self { name, program, log: setup.logs.join(format!("{name}.log")), variables, probes, child: None }
    }

    /// Starts the process, or starts it again, and returns when the service is ready.
    ///
    /// # Errors
    ///
    /// Fails when there is no program, or the service ends or is not ready within a minute.
    pub async fn start(&mut self) -> Result<(), ServiceError> {
        let failed = |source| ServiceError::Start { name: self.name, program: self.program.clone(), source };
        let log = File::options().create(true).append(true).open(&self.log).map_err(failed)?;
        let mut command = Command::new(&self.program);
        command.envs(self.variables.iter().map(|(name, value)| (name, value))).stdin(Stdio::null()).kill_on_drop(true);
        // In a group of its own: a Ctrl-C in the terminal is for the demo, which stops the services in their order.
        #[cfg(unix)]
        command.process_group(0);
        command.stdout(log.try_clone().map_err(failed)?).stderr(log);
        self.child = Some(command.spawn().map_err(failed)?);
        let deadline = Instant::now() + READY_WITHIN;
        while !is_ready(self.probes).await {
            self.check()?;
            if Instant::now() >= deadline {
                return Err(ServiceError::NotReady { name: self.name, said: self.last_words() });
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Kills the process, as a crash does, and returns when it is gone.
    ///
    /// # Errors
    ///
    /// Fails when the system does not let it be killed.
    pub async fn kill(&mut self) -> io::Result<()> {
        match self.child.take() {
            Some(mut child) => child.kill().await,
            None => Ok(()),
        }
    }

    /// Fails when the process has ended.
    fn check(&mut self) -> Result<(), ServiceError> {
        match self.child.as_mut().map(Child::try_wait) {
            Some(Ok(Some(status))) => Err(self.end(status)),
            _ => Ok(()),
        }
    }

    async fn stop(&mut self) -> Result<(), ServiceError> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        if let Some(id) = child.id() {
            tools::ask_to_stop(id);
        }
        match timeout(STOP_WITHIN, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(self.end(status)),
            _ => Err(ServiceError::NotStopped { name: self.name, said: self.last_words() }),
        }
    }

    fn end(&self, status: ExitStatus) -> ServiceError {
        ServiceError::Ended { name: self.name, status, said: self.last_words() }
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default();
        if last.is_empty() { "nothing".to_owned() } else { last.join("\n    ") }
    }
}

/// Ports that are free.
struct Ports {
    storefront: SocketAddr,
    credit: SocketAddr,
    probes: [SocketAddr; 3],
}

impl Ports {
    /// All are open at the same time, so that none is chosen twice.
    fn choose(storefront: SocketAddr) -> io::Result<Self> {
        let storefront = TcpListener::bind(storefront)?;
        let mut others = Vec::new();
        let mut free = || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let address = listener.local_addr();
            others.push(listener);
            address
        };
        Ok(Self { storefront: storefront.local_addr()?, credit: free()?, probes: [free()?, free()?, free()?] })
    }
}

/// Says whether an address can be listened on now.
///
/// # Errors
///
/// Fails when it cannot, such as when the port is taken.
pub fn is_free(address: SocketAddr) -> Result<(), ServiceError> {
    TcpListener::bind(address).map(drop).map_err(|source| ServiceError::Port { address, source })
}

async fn is_ready(probes: SocketAddr) -> bool {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let Ok(url) = format!("http://{probes}/readyz").parse() else { return false };
    matches!(timeout(PROBE_TIMEOUT, client.get(url)).await, Ok(Ok(answer)) if answer.status() == StatusCode::OK)
}

/// A service that does not do as it should.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// It ended by itself, or with an error.
    #[error("{name} ended with {status}; it said at last:\n    {said}")]
    Ended {
        /// The service.
        name: &'static str,
        /// Its exit code.
        status: ExitStatus,
        /// The end of its log.
        said: String,
    },
    /// It started, but is not ready.
    #[error("{name} was not ready after {} s; it said at last:\n    {said}", READY_WITHIN.as_secs())]
    NotReady {
        /// The service.
        name: &'static str,
        /// The end of its log.
        said: String,
    },
    /// It did not end when it was told to.
    #[error("{name} did not stop within {} s and was killed; it said at last:\n    {said}", STOP_WITHIN.as_secs())]
    NotStopped {
        /// The service.
        name: &'static str,
        /// The end of its log.
        said: String,
    },
    /// An address cannot be listened on.
    #[error(
        "{address} cannot be listened on; another program may have it: end that one, or choose another address with `--listen`"
    )]
    Port {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The process cannot be started.
    #[error("{name} cannot be started from {}", .program.display())]
    Start {
        /// The service.
        name: &'static str,
        /// Its program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
}

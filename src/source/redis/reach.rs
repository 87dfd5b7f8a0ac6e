//! How a server is got at: the seam between an address and bytes both ways.
//!
//! Everything above asks a [`Reach`] for connections, so a server inside a container or behind a tunnel needs only
//! one more implementation. Reads come back at least every [`SLICE`], so that a cancelled run is noticed.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::RedisError;
use super::address::Address;
use super::tls;
use crate::base::socket::Socket;

/// How long a read waits before it comes back with `WouldBlock` or `TimedOut`.
pub const SLICE: Duration = Duration::from_millis(200);
const CONNECT: Duration = Duration::from_secs(10);
/// A server that takes no bytes for this long is gone.
const WRITE: Duration = Duration::from_secs(60);

/// Bytes both ways.
pub trait Link: Read + Write + Send {
    /// The address the server would find us at, if it were to call back.
    fn own_address(&self) -> Option<IpAddr>;
}

/// A way to a server.
pub trait Reach: Send + Sync {
    /// Its name, without secrets.
    fn name(&self) -> String;

    /// A new connection.
    ///
    /// # Errors
    /// There is none to be had.
    fn dial(&self) -> Result<Box<dyn Link>, RedisError>;

    /// The same kind of way to another node of the same cluster.
    fn other(&self, host: &str, port: u16) -> Arc<dyn Reach>;

    /// Whether what is sent is encrypted on its way.
    fn is_encrypted(&self) -> bool;
}

/// A host and a port, perhaps with TLS; or a socket that leads there.
#[derive(Clone)]
pub struct Tcp {
    pub host: String,
    through: Option<Socket>,
    pub port: u16,
    /// TLS, trusting these certificates or else the system's.
    pub tls: Option<Option<PathBuf>>,
    name: String,
}

impl Tcp {
    pub fn of(address: &Address) -> Self {
        let tls = address.is_tls.then(|| address.ca.clone());
        let through = address.through.clone();
        Self { host: address.host.clone(), through, port: address.port, tls, name: address.name() }
    }
}

impl Reach for Tcp {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn dial(&self) -> Result<Box<dyn Link>, RedisError> {
        let failed = |cause: String| RedisError::Reach { server: self.name.clone(), cause };
        if let Some(socket) = &self.through {
            let stream = UnixStream::connect(socket.path()).map_err(|cause| failed(cause.to_string()))?;
            let set =
                stream.set_read_timeout(Some(SLICE)).and_then(|()| stream.set_write_timeout(Some(WRITE)));
            set.map_err(|cause| failed(cause.to_string()))?;
            return Ok(Box::new(stream));
        }
        let addresses = (self.host.as_str(), self.port).to_socket_addrs();
        let addresses: Vec<SocketAddr> = addresses.map_err(|cause| failed(cause.to_string()))?.collect();
        let mut last = "the name has no address".to_owned();
        for address in addresses {
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(stream) => return self.dress(stream).map_err(failed),
                Err(cause) => last = cause.to_string(),
            }
        }
        Err(failed(last))
    }

    fn other(&self, host: &str, port: u16) -> Arc<dyn Reach> {
        let scheme = if self.tls.is_some() { "rediss" } else { "redis" };
        let shown = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let name = format!("{scheme}://{shown}:{port}");
        Arc::new(Self { host: host.to_owned(), through: None, port, tls: self.tls.clone(), name })
    }

    fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }
}

impl Tcp {
    fn dress(&self, stream: TcpStream) -> Result<Box<dyn Link>, String> {
        let set = || -> io::Result<()> {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(SLICE))?;
            stream.set_write_timeout(Some(WRITE))
        };
        set().map_err(|cause| cause.to_string())?;
        Ok(match &self.tls {
            None => Box::new(stream),
            Some(ca) => Box::new(tls::encrypt(stream, &self.host, ca.as_deref())?),
        })
    }
}

impl Link for TcpStream {
    fn own_address(&self) -> Option<IpAddr> {
        self.local_addr().ok().map(|address| address.ip())
    }
}

impl Link for UnixStream {
    fn own_address(&self) -> Option<IpAddr> {
        None
    }
}

impl Link for tls::Encrypted {
    fn own_address(&self) -> Option<IpAddr> {
        self.sock.own_address()
    }
}

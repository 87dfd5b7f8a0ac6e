//! TLS towards a server: rustls with ring, trusting the system's certificates or the ones that were named.

use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// A stream that is encrypted, and whose other end proved to be `host`.
pub type Encrypted = StreamOwned<ClientConnection, TcpStream>;

/// # Errors
/// No certificate to trust; the name is none. The handshake happens with the first bytes.
pub fn encrypt(stream: TcpStream, host: &str, ca: Option<&Path>) -> Result<Encrypted, String> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            let shown = path.display();
            let certificates =
                CertificateDer::pem_file_iter(path).map_err(|cause| format!("ca {shown}: {cause}"))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|cause| format!("ca {shown}: {cause}"))?;
                roots.add(certificate).map_err(|cause| format!("ca {shown}: {cause}"))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err("there is no certificate to trust; name one with ca=FILE".into());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|cause| cause.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(|cause| cause.to_string())?;
    let connection = ClientConnection::new(Arc::new(config), name).map_err(|cause| cause.to_string())?;
    Ok(StreamOwned::new(connection, stream))
}

//! Protected connections as libpq means them: its five modes, its files.
//!
//! `require` without a root certificate protects against listening only, not against a false server; `verify-full`
//! against both. That is libpq's meaning, kept so that one address works for both.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::address::{Server, SslMode};

/// How far the server's certificate is looked at.
#[derive(Debug)]
struct Verifier {
    /// Checks chain and name; without it anything goes.
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// Certificates trusted as they are: a self-signed one stands for itself, whatever it may sign.
    pinned: Vec<CertificateDer<'static>>,
    checks_name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        if self.pinned.iter().any(|pinned| pinned == end) {
            if self.checks_name {
                verify_server_name(&ParsedCertificate::try_from(end)?, name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        match chain.verify_server_cert(end, between, name, ocsp, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.checks_name => Ok(ServerCertVerified::assertion()),
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn named_roots(server: &Server) -> Result<Vec<CertificateDer<'static>>, String> {
    let Some(path) = &server.ssl_root else { return Ok(Vec::new()) };
    let said = |error| format!("cannot read sslrootcert {}: {error}", path.display());
    CertificateDer::pem_file_iter(path).map_err(said)?.collect::<Result<_, _>>().map_err(said)
}

fn chain(
    server: &Server,
    named: &[CertificateDer<'static>],
    provider: Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, String> {
    let mut roots = RootCertStore::empty();
    if server.ssl_root.is_some() {
        for certificate in named {
            roots.add(certificate.clone()).map_err(|error| error.to_string())?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
    builder.build().map_err(|error| format!("no usable root certificate: {error}"))
}

/// What connects with protection, as the address asks for.
///
/// # Errors
/// A file cannot be read or used.
pub fn connector(server: &Server) -> Result<MakeRustlsConnect, String> {
    let provider = Arc::new(ring::default_provider());
    let said = |error: Error| error.to_string();
    let builder = ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(said)?;
    let pinned = named_roots(server)?;
    // As libpq: a root certificate that is named is used.
    let checks_chain = server.ssl_mode >= SslMode::VerifyCa
        || (server.ssl_mode == SslMode::Require && server.ssl_root.is_some());
    let chain = match checks_chain {
        true => Some(chain(server, &pinned, provider.clone())?),
        false => None,
    };
    let checks_name = server.ssl_mode == SslMode::VerifyFull;
    let verifier = Arc::new(Verifier { chain, pinned, checks_name, provider });
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let config = match (&server.ssl_certificate, &server.ssl_key) {
        (Some(certificate), Some(key)) => {
            let read = |error| format!("cannot read sslcert {}: {error}", certificate.display());
            let chain = CertificateDer::pem_file_iter(certificate).map_err(read)?;
            let chain = chain.collect::<Result<Vec<_>, _>>().map_err(read)?;
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| format!("cannot read sslkey {}: {error}", key.display()))?;
            builder.with_client_auth_cert(chain, key).map_err(said)?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err("sslcert and sslkey belong together".into()),
    };
    Ok(MakeRustlsConnect::new(config))
}

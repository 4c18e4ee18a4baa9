//! How connections are encrypted, and whom they trust.
//!
//! `sslmode=require` wants a certificate that the system's roots vouch for, and for the host's name. `prefer`, which is
//! what a connection string without `sslmode` means, is opportunistic, as with libpq: it encrypts if the server offers
//! it, and asks nobody who the server is. That keeps those out who only listen; it keeps nobody out who can get between
//! the two, and such a one could switch encryption off anyway.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::base::error::{Error, Result};

/// How to encrypt; none where it is not wanted.
#[derive(Clone)]
pub(super) struct Tls(pub(super) Option<MakeRustlsConnect>);

#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(
        "sslmode=require needs root certificates, and this system has none (SSL_CERT_FILE or SSL_CERT_DIR name others)"
    )]
    NoRoots,
    #[error("{0}")]
    Settings(rustls::Error),
}

impl Tls {
    /// What a mode asks for. Reads the system's roots where they are needed, which blocks.
    pub(super) fn of(mode: SslMode) -> Result<Self> {
        if mode == SslMode::Disable {
            return Ok(Self(None));
        }
        let wrong = |error: Unusable| Error::permanent("preparing TLS", error);
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(Unusable::Settings(error)))?;
        let config = if mode == SslMode::Prefer {
            config.dangerous().with_custom_certificate_verifier(Arc::new(Opportunistic(provider)))
        } else {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(wrong(Unusable::NoRoots));
            }
            config.with_root_certificates(roots)
        };
        Ok(Self(Some(MakeRustlsConnect::new(config.with_no_client_auth()))))
    }
}

/// Takes any certificate, but only from who has its key: for `prefer`, which asks for no more.
#[derive(Debug)]
struct Opportunistic(Arc<CryptoProvider>);

impl ServerCertVerifier for Opportunistic {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

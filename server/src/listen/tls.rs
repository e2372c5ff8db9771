//! TLS 1.2 and 1.3 in front of HTTP, by rustls.
//!
//! The bound on the time of a handshake is the caller's.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificate::{Certificate, CertificateError, Found};
use super::opening::Protocol;
use crate::settings::TlsFiles;
use crate::supervisor::blocking;

/// How often the files of certificate and key are looked at. One look at
/// unusable files may be too early, so that a complaint takes two.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The names of the protocols in the handshake, the preferred one first.
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";
/// Permission bits that let everyone read a file.
const READ_BY_OTHERS: u32 = 0o004;

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Certificate and key cannot be used.
    #[error("TLS: {0}")]
    Certificate(#[from] CertificateError),
    /// The library refuses.
    #[error("TLS: {0}")]
    Library(#[from] rustls::Error),
}

/// The server's side of TLS.
pub struct Tls {
    acceptor: TlsAcceptor,
    certificate: Arc<Certificate>,
}

impl Tls {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn load(files: &TlsFiles) -> Result<Tls, TlsError> {
        let certificate = Arc::new(Certificate::load(files.clone())?);
        warn_if_exposed(files);
        let resolver = Arc::clone(&certificate);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        Ok(Tls {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            certificate,
        })
    }

    /// Takes new certificates as they appear, until it is dropped.
    pub async fn watch(&self) {
        loop {
            sleep(LOOK_EVERY).await;
            self.look(false).await;
        }
    }

    /// Takes a new certificate now, if there is one.
    pub async fn reload(&self) {
        if let Found::Same = self.look(true).await {
            tracing::info!("the certificate has not changed");
        }
    }

    async fn look(&self, at_once: bool) -> Found {
        let certificate = Arc::clone(&self.certificate);
        let found = blocking(move || certificate.look(at_once)).await;
        let file = self.certificate.files().certificate.display();
        match &found {
            Found::New => tracing::info!(%file, "another certificate is in use now"),
            Found::Unusable(error) => {
                tracing::error!(%error, "the new certificate cannot be used; the one before it stays in use");
            }
            Found::Same => {}
        }
        found
    }

    /// The handshake, and what the client wants to speak after it.
    pub(super) async fn handshake<S>(&self, stream: S) -> io::Result<(TlsStream<S>, Protocol)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = self.acceptor.accept(stream).await?;
        let (_, session) = stream.get_ref();
        let protocol = match session.alpn_protocol() {
            Some(HTTP2) => Protocol::Http2,
            _ => Protocol::Http1,
        };
        Ok((stream, protocol))
    }
}

fn warn_if_exposed(files: &TlsFiles) {
    let mode = std::fs::metadata(&files.key).map(|metadata| metadata.permissions().mode());
    if mode.is_ok_and(|mode| mode & READ_BY_OTHERS != 0) {
        let file = files.key.display();
        tracing::warn!(%file, "every user of this machine can read the private key; chmod o-r is safer");
    }
}

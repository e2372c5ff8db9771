//! Certificates for tests: an authority of their own, and pairs it vouches for.
//!
//! Owns: making them and writing them where a server reads them. Clients of a
//! test trust this authority and no other.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;

use crate::place;

/// An authority, and the pair of files of one server.
pub struct Certificates {
    authority: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Certificates in {}", self.folder.path().display())
    }
}

/// A certificate and its key.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate in PEM.
    pub certificate: String,
    /// The key in PEM.
    pub key: String,
    /// The certificate in DER, as it is sent in a handshake.
    pub der: Vec<u8>,
}

impl Certificates {
    /// An authority, with a first pair in its folder.
    #[must_use]
    pub fn new() -> Arc<Certificates> {
        let folder = place::dir();
        let mut params = CertificateParams::default();
        // No two have the same name.
        let name = format!("authority of {}", folder.path().display());
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key of the authority");
        let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let certificates = Certificates { authority, folder };
        std::fs::write(certificates.authority(), certificates.authority.pem()).expect("ca.crt");
        certificates.write(&certificates.pair());
        Arc::new(certificates)
    }

    /// A new pair for loopback, written nowhere.
    #[must_use]
    pub fn pair(&self) -> Pair {
        let names = ["127.0.0.1", "::1", "localhost", "registry.test"].map(String::from);
        let mut params = CertificateParams::new(names).expect("names of a server");
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().expect("a key of a server");
        let certificate = params.signed_by(&key, &self.authority);
        let certificate = certificate.expect("a certificate");
        Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            der: certificate.der().to_vec(),
        }
    }

    /// Puts a pair where the server reads it.
    pub fn write(&self, pair: &Pair) {
        std::fs::write(self.certificate(), &pair.certificate).expect("server.crt");
        std::fs::write(self.key(), &pair.key).expect("server.key");
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(self.key(), mode).expect("server.key");
    }

    /// The file with the server's certificate.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("server.crt")
    }

    /// The file with the server's key.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("server.key")
    }

    /// The file with the authority's certificate, `ca.crt`, alone in a folder
    /// as docker, podman and skopeo want it.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.trusted().join("ca.crt")
    }

    /// That folder.
    #[must_use]
    pub fn trusted(&self) -> PathBuf {
        let folder = self.folder.path().join("trusted");
        std::fs::create_dir_all(&folder).expect("a folder of trust");
        folder
    }

    /// The folder of all.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What a client needs to trust this authority and to offer these
    /// protocols.
    #[must_use]
    pub(crate) fn client(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from(self.authority.der().to_vec());
        roots.add(root).expect("trust in the authority");
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions of TLS")
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

//! The server's certificate and key: read from files, checked, and exchanged
//! while connections are served.
//!
//! A pair is used only when it was read whole and key and certificate belong
//! together; until then the one before it stays. Files are compared by what is
//! in them, so that a new file, a changed one and a turned symbolic link are
//! the same to it. Knows nothing of sockets.

use std::fs::OpenOptions;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use rustls::InconsistentKeys;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::settings::TlsFiles;

/// Bytes of a file with certificates, or with a key.
const FILE_MAX: u64 = 1024 * 1024;

/// Why a certificate and its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {what}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Two files that are not a pair.
    #[error(
        "the key {} does not belong to the first certificate in {}; the server's own certificate comes first, then those that vouch for it",
        key.display(),
        certificate.display()
    )]
    Mismatch {
        /// The key.
        key: PathBuf,
        /// The chain.
        certificate: PathBuf,
    },
}

/// The certificate in use, and the files it comes from.
#[derive(Debug)]
pub(super) struct Certificate {
    files: TlsFiles,
    current: ArcSwap<CertifiedKey>,
    looks: Mutex<Looks>,
}

/// What the files were like when they were looked at.
#[derive(Debug)]
struct Looks {
    /// In use, or complained about.
    settled: u64,
    /// Unusable at one look: perhaps being written.
    doubtful: Option<u64>,
}

/// What a look at the files found.
#[derive(Debug)]
pub(super) enum Found {
    /// Nothing to do.
    Same,
    /// Another pair, which is in use now.
    New,
    /// Something that cannot be used, or not yet.
    Unusable(CertificateError),
}

/// Reads certificate and key and checks that they can be used together.
///
/// # Errors
/// Which file is to blame, and why.
pub fn load(files: &TlsFiles) -> Result<CertifiedKey, CertificateError> {
    Pair::read(files)?.parse(files)
}

impl Certificate {
    /// Reads and checks the files.
    pub(super) fn load(files: TlsFiles) -> Result<Certificate, CertificateError> {
        let read = Pair::read(&files);
        let settled = fingerprint(&read);
        let pair = read?.parse(&files)?;
        Ok(Certificate {
            files,
            current: ArcSwap::from_pointee(pair),
            looks: Mutex::new(Looks {
                settled,
                doubtful: None,
            }),
        })
    }

    /// Where it comes from.
    pub(super) fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// Looks at the files, and takes what is new in them if it can be used.
    /// What cannot is told once; and not at the first look unless `at_once`,
    /// since two files are not written at the same time.
    pub(super) fn look(&self, at_once: bool) -> Found {
        // Before the files are read: what was read first is also taken first.
        let mut looks = self.looks();
        let read = Pair::read(&self.files);
        let seen = fingerprint(&read);
        if seen == looks.settled && !at_once {
            looks.doubtful = None;
            return Found::Same;
        }
        match read.and_then(|pair| pair.parse(&self.files)) {
            Ok(_) if seen == looks.settled => Found::Same,
            Ok(pair) => {
                self.current.store(Arc::new(pair));
                looks.settled = seen;
                looks.doubtful = None;
                Found::New
            }
            Err(error) if at_once || looks.doubtful == Some(seen) => {
                looks.settled = seen;
                looks.doubtful = None;
                Found::Unusable(error)
            }
            Err(_) => {
                looks.doubtful = Some(seen);
                Found::Same
            }
        }
    }

    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

/// Two files as they were read.
#[derive(Hash)]
struct Pair {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Pair {
    fn read(files: &TlsFiles) -> Result<Pair, CertificateError> {
        Ok(Pair {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
        })
    }

    fn parse(&self, files: &TlsFiles) -> Result<CertifiedKey, CertificateError> {
        let chain = chain(&self.certificate).map_err(|what| CertificateError::Malformed {
            path: files.certificate.clone(),
            what,
        })?;
        let unusable = |what| CertificateError::Malformed {
            path: files.key.clone(),
            what,
        };
        let key = key(&self.key).map_err(unusable)?;
        CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| {
            match error {
                rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    CertificateError::Mismatch {
                        key: files.key.clone(),
                        certificate: files.certificate.clone(),
                    }
                }
                error => unusable(format!("the private key cannot be used: {error}")),
            }
        })
    }
}

/// Stands for what was read, or for why nothing was.
fn fingerprint(read: &Result<Pair, CertificateError>) -> u64 {
    let mut hasher = DefaultHasher::new();
    match read {
        Ok(pair) => pair.hash(&mut hasher),
        Err(error) => error.to_string().hash(&mut hasher),
    }
    hasher.finish()
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    read_file(path).map_err(|cause| CertificateError::Read {
        path: path.to_owned(),
        cause,
    })
}

/// Reads a file that is one, and not too large.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    // A pipe is opened without waiting for who writes into it.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking.cast_signed())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}

fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut chain = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate: CertificateDer<'static> = certificate.map_err(|error| damage(&error))?;
        let number = chain.len().saturating_add(1);
        ParsedCertificate::try_from(&certificate)
            .map_err(|error| format!("certificate {number} cannot be read: {error}"))?;
        chain.push(certificate);
    }
    if chain.is_empty() {
        return Err("there is no certificate in PEM form in it".to_owned());
    }
    Ok(chain)
}

fn key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        pem::Error::NoItemsFound => "there is no private key in PEM form in it; one that is \
             encrypted has to be decrypted first: openssl pkey -in OLD -out NEW"
            .to_owned(),
        error => damage(&error),
    })
}

/// What is wrong with a file in PEM. In words of our own: the error's may
/// quote the file, and with it the key.
fn damage(error: &pem::Error) -> String {
    let what = match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no END line of its own",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line goes on behind its dashes",
        pem::Error::Base64Decode(_) => "what is between BEGIN and END is not base64",
        _ => "it cannot be read",
    };
    format!("the PEM is damaged or cut off, or not in lines: {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(files: &TlsFiles) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["registry.test".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(&files.certificate, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
    }

    #[test]
    fn what_was_read_first_never_takes_the_place_of_what_was_read_later() {
        let folder = tempfile::tempdir().unwrap();
        let files = TlsFiles {
            certificate: folder.path().join("c.pem"),
            key: folder.path().join("k.pem"),
        };
        write(&files);
        let certificate = Arc::new(Certificate::load(files.clone()).unwrap());
        // One look is under way, another begins, and the files change.
        let under_way = certificate.looks();
        let other = Arc::clone(&certificate);
        let look = std::thread::spawn(move || other.look(true));
        std::thread::sleep(std::time::Duration::from_millis(200));
        write(&files);
        drop(under_way);
        let found = look.join().unwrap();
        assert!(matches!(found, Found::New), "{found:?}");
        assert!(matches!(certificate.look(true), Found::Same));
    }
}

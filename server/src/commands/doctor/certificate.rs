//! What the doctor asks of certificate and key: can they be read, do they
//! belong together, are they valid now and for a while, do they name the
//! public address.
//!
//! The pair is loaded as the server loads it, so that both say the same.
//! Validity and name are judged by rustls, as a client would. Who signed a
//! certificate is not judged: that depends on whom the clients trust.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError as Verdict, Error, RootCertStore};

use super::check::Check;
use crate::listen::{CertificateError, load_certificate};
use crate::settings::TlsFiles;

const NAME: &str = "certificate";
/// How long before its end a certificate is worth a note.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);
/// Permission bits that let everyone read a file.
const READ_BY_OTHERS: u32 = 0o004;

/// All checks of one pair of files.
pub(super) fn certificate(
    files: &TlsFiles,
    public_url: Option<&str>,
    now: SystemTime,
) -> Vec<Check> {
    let (path, key_path) = (files.certificate.display(), files.key.display());
    let pair = match load_certificate(files) {
        Ok(pair) => pair,
        Err(error) => return vec![Check::fail(NAME, error.to_string(), advice(&error))],
    };
    let mut checks = vec![Check::pass(
        NAME,
        format!("{path} and {key_path} belong together"),
    )];
    for (at, certificate) in pair.cert.iter().enumerate() {
        // Those after the first are told of only when something is wrong.
        let which = match at {
            0 => path.to_string(),
            at => format!("{path}, certificate {} of its chain", at.saturating_add(1)),
        };
        match ParsedCertificate::try_from(certificate) {
            Ok(parsed) => {
                let check = validity(&which, &parsed, now);
                let is_told = at == 0 || check.advice.is_some();
                checks.extend(is_told.then_some(check));
                if let (0, Some(url)) = (at, public_url) {
                    checks.extend(name(&which, &parsed, url));
                }
            }
            Err(error) => checks.push(Check::fail(
                NAME,
                format!("{which} cannot be read: {error}"),
                "have it issued again",
            )),
        }
    }
    checks.extend(privacy(&files.key));
    checks
}

/// What to do about a pair that cannot be used.
fn advice(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::Read { .. } => "name a file that this user can read",
        CertificateError::Malformed { .. } => {
            "name the server's certificate and those after it, and its key, not encrypted, both in PEM form"
        }
        CertificateError::Mismatch { .. } => {
            "name the key it was issued for, and put the server's own certificate first"
        }
    }
}

/// Whether a certificate is valid now, and for a while.
fn validity(which: &str, certificate: &ParsedCertificate<'_>, now: SystemTime) -> Check {
    let shown = |time: UnixTime| {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs());
        humantime::format_rfc3339_seconds(time).to_string()
    };
    match times(certificate, now) {
        Some(Verdict::ExpiredContext { not_after, .. }) => {
            let message = format!("{which} has ended at {}", shown(not_after));
            return Check::fail(
                NAME,
                message,
                "have it renewed; the server takes new files by itself",
            );
        }
        Some(Verdict::NotValidYetContext { not_before, .. }) => {
            let message = format!("{which} begins at {} only", shown(not_before));
            return Check::fail(NAME, message, "look at the clock, or have it issued again");
        }
        _ => {}
    }
    match times(certificate, now + SOON) {
        Some(Verdict::ExpiredContext { not_after, .. }) => {
            let message = format!("{which} ends soon, at {}", shown(not_after));
            Check::note(
                NAME,
                message,
                "have it renewed; the server takes new files by itself",
            )
        }
        _ => Check::pass(NAME, format!("{which} is valid now and in two weeks")),
    }
}

/// What a client would say of a certificate's times. They are judged before
/// its signature, so that nobody has to be trusted for this.
fn times(certificate: &ParsedCertificate<'_>, at: SystemTime) -> Option<Verdict> {
    let at = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let verdict = verify_server_cert_signed_by_trust_anchor(
        certificate,
        &RootCertStore::empty(),
        &[],
        UnixTime::since_unix_epoch(at),
        aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .all,
    );
    match verdict {
        Err(Error::InvalidCertificate(error)) => Some(error),
        _ => None,
    }
}

/// Whether clients that use the public address will find it in the certificate.
fn name(which: &str, certificate: &ParsedCertificate<'_>, public_url: &str) -> Option<Check> {
    let uri: http::Uri = public_url.parse().ok()?;
    let host = uri.host()?.trim_matches(['[', ']']);
    let expected = ServerName::try_from(host).ok()?;
    Some(match verify_server_name(certificate, &expected) {
        Ok(()) => Check::pass(NAME, format!("{which} names {host}")),
        Err(_) => Check::note(
            NAME,
            format!("{which} does not name {host}, which is in server.public_url"),
            "have a certificate issued with that name, unless another server answers there",
        ),
    })
}

/// Whether others can read the key.
fn privacy(key: &Path) -> Option<Check> {
    let mode = key.metadata().ok()?.permissions().mode();
    (mode & READ_BY_OTHERS != 0).then(|| {
        Check::note(
            NAME,
            format!(
                "{} can be read by every user of this machine",
                key.display()
            ),
            "chmod o-r it",
        )
    })
}

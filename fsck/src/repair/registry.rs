//! A repository of a registry as a source of blobs.
//!
//! `https://HOST/REPOSITORY`, read by the pull part of the distribution
//! protocol. Name and password come from the environment and are sent as HTTP
//! basic authentication, to that host only, and over TLS or on this machine
//! only.

use std::time::Duration;

use orlop_format::digest::Digest;
use reqwest::StatusCode;
use reqwest::blocking::{Client, Response};

use super::source::{Source, pour};
use crate::trouble::{Result, Trouble};

/// The variables with the name and the password for a registry.
const USER: &str = "ORLOP_SOURCE_USER";
const PASSWORD: &str = "ORLOP_SOURCE_PASSWORD";
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(20);
/// How long a read may wait for the next bytes.
const IDLE: Duration = Duration::from_secs(60);

/// One repository of a registry.
pub(super) struct Registry {
    name: String,
    /// `https://HOST/v2/REPOSITORY`.
    base: String,
    client: Client,
}

impl Registry {
    pub(super) fn open(text: &str) -> Result<Self> {
        let wrong = || {
            Trouble::Refused(format!(
                "{text} is not a repository of a registry: write https://HOST/REPOSITORY"
            ))
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let (host, repository) = rest.split_once('/').ok_or_else(wrong)?;
        let repository = repository.trim_end_matches('/');
        orlop_oci::RepositoryName::parse(repository).map_err(|_| wrong())?;
        if host.is_empty() || host.contains('@') {
            return Err(wrong());
        }
        let local = ["localhost", "127.0.0.1", "[::1]"];
        let bare = host.rsplit_once(':').map_or(host, |(name, port)| {
            match port.bytes().all(|byte| byte.is_ascii_digit()) {
                true => name,
                false => host,
            }
        });
        if scheme == "http" && std::env::var_os(USER).is_some() && !local.contains(&bare) {
            return Err(Trouble::Refused(format!(
                "the password for {text} would be sent in the clear; write https://"
            )));
        }
        let client = Client::builder()
            .connect_timeout(CONNECT)
            .timeout(None)
            .tcp_keepalive(IDLE)
            .user_agent(concat!("orlop-fsck/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Trouble::Refused(format!("no HTTP client can be made: {error}")))?;
        Ok(Self {
            name: text.to_owned(),
            base: format!("{scheme}://{host}/v2/{repository}"),
            client,
        })
    }

    fn get(&self, url: &str) -> Result<Option<Response>> {
        // Manifests are asked for by digest: any type is right.
        let mut request = self.client.get(url).header("Accept", "*/*");
        if let Ok(user) = std::env::var(USER) {
            request = request.basic_auth(user, std::env::var(PASSWORD).ok());
        }
        let failed = |error: String| Trouble::Refused(format!("GET {url}: {error}"));
        let response = request.send().map_err(|error| failed(chain(&error)))?;
        match response.status() {
            StatusCode::OK => Ok(Some(response)),
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(failed(format!(
                "{}; set {USER} and {PASSWORD}",
                response.status()
            ))),
            other => Err(failed(other.to_string())),
        }
    }
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

impl Source for Registry {
    fn name(&self) -> &str {
        &self.name
    }

    fn fetch(
        &mut self,
        digest: &Digest,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        for kind in ["blobs", "manifests"] {
            let url = format!("{}/{kind}/{digest}", self.base);
            if let Some(mut response) = self.get(&url)? {
                pour(&mut response, sink, |error| {
                    Trouble::Refused(format!("GET {url}: {error}"))
                })?;
                return Ok(true);
            }
        }
        Ok(false)
    }
}

//! A small registry client, for the requests real clients make.
//!
//! Owns: the shape of each request of the OCI distribution specification.
//! Checks nothing but what its own next step needs; tests judge the answers.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use reqwest::blocking::{Body, ClientBuilder};

use crate::data;
use crate::oci;
use crate::reply::Reply;
use crate::server::Server;
use crate::tls::Certificates;

/// A client of one server. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    base: String,
    http: reqwest::blocking::Client,
    _keep: Option<Arc<Server>>,
}

impl Client {
    /// A client of the server at this address.
    #[must_use]
    pub fn new(address: SocketAddr) -> Client {
        Client::with(format!("http://{address}"), |builder| builder)
    }

    /// A client that speaks TLS and trusts this authority alone. It speaks
    /// HTTP/2 if the server does.
    #[must_use]
    pub fn over_tls(address: SocketAddr, trust: &Certificates) -> Client {
        let authority = std::fs::read(trust.authority()).expect("the authority");
        let authority = reqwest::Certificate::from_pem(&authority).expect("the authority");
        Client::with(format!("https://{address}"), |builder| {
            builder.tls_certs_only([authority])
        })
    }

    fn with(base: String, change: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Client {
        let builder = reqwest::blocking::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(120));
        let http = change(builder).build().expect("make an HTTP client");
        Client {
            base,
            http,
            _keep: None,
        }
    }

    /// A client of the shared server, which runs as long as the client is.
    #[must_use]
    pub fn shared() -> Client {
        let server = Server::shared();
        Client {
            _keep: Some(Arc::clone(&server)),
            ..server.client()
        }
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Panics
    /// When there is no whole answer. [`Client::try_call`] is for tests that
    /// end the server meanwhile.
    #[track_caller]
    pub fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Reply {
        self.try_call(method, path, headers, body)
            .unwrap_or_else(|e| panic!("{method} {path}: {e:?}"))
    }

    /// Sends a request; an error when there was no whole answer.
    ///
    /// # Errors
    /// What the HTTP library says: refused, cut, timed out.
    pub fn try_call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Result<Reply, reqwest::Error> {
        let method: Method = method.parse().expect("name of a method");
        let what = format!("{method} {path}");
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.body(body).send()?;
        let mut reply = head(what, &answer);
        reply.body = answer.bytes()?.to_vec();
        Ok(reply)
    }

    /// GET.
    #[track_caller]
    pub fn get(&self, path: &str) -> Reply {
        self.call("GET", path, &[], "")
    }

    /// HEAD.
    #[track_caller]
    pub fn head(&self, path: &str) -> Reply {
        self.call("HEAD", path, &[], "")
    }

    /// DELETE.
    #[track_caller]
    pub fn delete(&self, path: &str) -> Reply {
        self.call("DELETE", path, &[], "")
    }

    /// GET with a `Range` header.
    #[track_caller]
    pub fn range(&self, path: &str, range: &str) -> Reply {
        self.call("GET", path, &[("Range", range)], "")
    }

    /// GET with a `Range` header by a client that goes away after so many
    /// bytes of the body.
    #[track_caller]
    pub fn range_left(&self, path: &str, range: &str, after: usize) -> Reply {
        let request = self.http.get(format!("{}{path}", self.base));
        let answer = request.header("Range", range).send().expect("an answer");
        let mut reply = head(format!("GET {path}"), &answer);
        let mut part = answer.take(after as u64);
        part.read_to_end(&mut reply.body).expect("a part of a body");
        reply
    }

    /// Opens an upload; returns its location.
    #[track_caller]
    pub fn open_upload(&self, repository: &str) -> String {
        self.call("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], "")
            .expect(202)
            .location()
    }

    /// Sends the next bytes of an upload without saying where they belong.
    #[track_caller]
    pub fn patch(&self, location: &str, body: impl Into<Body>) -> Reply {
        let headers = [("Content-Type", "application/octet-stream")];
        self.call("PATCH", location, &headers, body)
    }

    /// Sends the bytes of an upload that start at `first`, saying so.
    #[track_caller]
    pub fn patch_at(&self, location: &str, first: u64, bytes: &[u8]) -> Reply {
        let range = format!("{first}-{}", first + bytes.len() as u64 - 1);
        let headers = [
            ("Content-Type", "application/octet-stream"),
            ("Content-Range", range.as_str()),
        ];
        self.call("PATCH", location, &headers, bytes.to_vec())
    }

    /// Ends an upload with its last bytes.
    #[track_caller]
    pub fn finish(&self, location: &str, digest: &str, last: impl Into<Body>) -> Reply {
        let headers = [("Content-Type", "application/octet-stream")];
        self.call("PUT", &with_digest(location, digest), &headers, last)
    }

    /// Pushes a blob by POST and PUT; returns its digest.
    #[track_caller]
    pub fn push_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = data::sha256(bytes);
        let location = self.open_upload(repository);
        let reply = self.finish(&location, &digest, bytes.to_vec()).expect(201);
        if let Some(named) = reply.find("docker-content-digest") {
            assert_eq!(named, digest, "{}", reply.what);
        }
        digest
    }

    /// Pushes a blob by POST, one streamed PATCH of unknown length, and PUT.
    #[track_caller]
    pub fn push_stream(
        &self,
        repository: &str,
        digest: &str,
        from: impl Read + Send + 'static,
    ) -> Reply {
        let location = self.open_upload(repository);
        let location = self
            .patch(&location, Body::new(from))
            .expect(202)
            .location();
        self.finish(&location, digest, "").expect(201)
    }

    /// Puts a manifest.
    #[track_caller]
    pub fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Reply {
        self.call(
            "PUT",
            &manifest(repository, reference),
            &[("Content-Type", media_type)],
            bytes.to_vec(),
        )
    }

    /// HEAD of a manifest, taking every type: its digest.
    #[track_caller]
    pub fn digest_of(&self, repository: &str, reference: &str) -> String {
        let kinds = [oci::IMAGE, oci::INDEX, oci::DOCKER_IMAGE, oci::DOCKER_LIST].join(", ");
        let path = manifest(repository, reference);
        self.call("HEAD", &path, &[("Accept", &kinds)], "")
            .expect(200)
            .header("docker-content-digest")
            .to_owned()
    }

    /// Fails the test unless the blob is served, byte for byte.
    #[track_caller]
    pub fn blob_is(&self, repository: &str, digest: &str, bytes: &[u8]) {
        let reply = self.get(&blob(repository, digest)).expect(200);
        assert_eq!(
            reply.header("content-length"),
            bytes.len().to_string(),
            "{}",
            reply.what
        );
        assert!(
            reply.body == bytes,
            "{}: other bytes than were pushed",
            reply.what
        );
    }
}

/// Status and headers of an answer.
fn head(what: String, answer: &reqwest::blocking::Response) -> Reply {
    let headers = answer.headers().iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.as_str().to_owned(), value)
    });
    Reply {
        what,
        status: answer.status().as_u16(),
        headers: headers.collect(),
        body: Vec::new(),
    }
}

/// Path of a blob.
#[must_use]
pub fn blob(repository: &str, digest: &str) -> String {
    format!("/v2/{repository}/blobs/{digest}")
}

/// Path of a manifest.
#[must_use]
pub fn manifest(repository: &str, reference: &str) -> String {
    format!("/v2/{repository}/manifests/{reference}")
}

/// A location with the digest added to its query.
#[must_use]
pub fn with_digest(location: &str, digest: &str) -> String {
    let sign = if location.contains('?') { '&' } else { '?' };
    format!("{location}{sign}digest={digest}")
}

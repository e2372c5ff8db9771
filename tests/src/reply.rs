//! An answer of the server, and what tests ask of it.
//!
//! Owns: the reading of status, headers and the error document of the OCI
//! distribution specification. Every check names the request it belongs to.

use serde_json::Value;

/// A whole answer, body included.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Method and path of the request, for messages.
    pub what: String,
    /// Status code; 0 when the connection was closed without an answer.
    pub status: u16,
    /// Headers in the order they came, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// Fails the test unless the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Reply {
        assert!(
            self.status == status,
            "{}: wanted {status}, got {} {}",
            self.what,
            self.status,
            self.text()
        );
        self
    }

    /// Fails the test unless the status is one of these.
    #[track_caller]
    pub fn expect_any(self, statuses: &[u16]) -> Reply {
        assert!(
            statuses.contains(&self.status),
            "{}: wanted one of {statuses:?}, got {} {}",
            self.what,
            self.status,
            self.text()
        );
        self
    }

    /// Fails the test unless this is a refusal with this status and code, in
    /// the specification's form and with the request's id in its detail.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Reply {
        let reply = self.expect(status);
        if reply.what.starts_with("HEAD ") {
            assert!(
                reply.body.is_empty(),
                "{}: HEAD answered a body",
                reply.what
            );
            return reply;
        }
        assert_eq!(reply.code(), code, "{}: {}", reply.what, reply.text());
        let id = reply.header("x-request-id").to_owned();
        let detail = &reply.json()["errors"][0]["detail"];
        assert!(
            detail.to_string().contains(&id),
            "{}: the detail {detail} does not carry the request id {id}",
            reply.what
        );
        reply
    }

    /// The code of the first error in the body.
    #[track_caller]
    #[must_use]
    pub fn code(&self) -> String {
        let document = self.json();
        let error = &document["errors"][0];
        assert!(
            error["message"].as_str().is_some_and(|m| !m.is_empty()),
            "{}: an error has no message: {document}",
            self.what
        );
        error["code"]
            .as_str()
            .unwrap_or_else(|| panic!("{}: an error has no code: {document}", self.what))
            .to_owned()
    }

    /// The code of the first error, or nothing when the body is no error.
    #[must_use]
    pub fn code_or_none(&self) -> Option<String> {
        let document: Value = serde_json::from_slice(&self.body).ok()?;
        document["errors"][0]["code"].as_str().map(str::to_owned)
    }

    /// A header's value; fails the test when it is absent or there twice.
    #[track_caller]
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        let found: Vec<&str> = self.all(name).collect();
        assert!(
            found.len() == 1,
            "{}: header {name} is there {} times in {:?}",
            self.what,
            found.len(),
            self.headers
        );
        found[0]
    }

    /// A header's value, if it is there.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Every value of a header.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers
            .iter()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }

    /// The path and query of the `Location` header, without scheme and host.
    #[track_caller]
    #[must_use]
    pub fn location(&self) -> String {
        path_of(self.header("location"))
    }

    /// The body as JSON.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| {
            panic!(
                "{}: {} with a body that is not JSON ({e}): {}",
                self.what,
                self.status,
                self.text()
            )
        })
    }

    /// The body as text, cut after 600 characters.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body)
            .chars()
            .take(600)
            .collect()
    }
}

/// Cuts scheme and host from a location.
fn path_of(location: &str) -> String {
    match location.split_once("://") {
        Some((_, rest)) => rest
            .find('/')
            .map_or_else(String::new, |slash| rest[slash..].to_owned()),
        None => location.to_owned(),
    }
}

//! Single steps of the oracle's work: each announces its request, sends it,
//! and writes down the acknowledgement.

use serde_json::{Value, json};

use super::content::{Content, Held};
use super::journal::{Attempt, Journal, Line};
use crate::client::{Client, blob, manifest, with_digest};
use crate::data;
use crate::oci;
use crate::reply::Reply;

/// Why a worker ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// No answer, or one of 5xx: the server is gone, or its disk is.
    Gone,
    /// An answer that must never be given. It is in the journal.
    Wrong,
}

pub(super) type Step<T> = Result<T, End>;

/// An open session, as its owner knows it.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) number: u64,
    pub(super) content: Content,
    pub(super) location: String,
    pub(super) offset: usize,
}

const BYTES: &str = "application/octet-stream";
/// How often a request is sent again that the server had no room for.
const PATIENCE: u32 = 200;

/// Sends requests for one repository.
pub(super) struct Hand<'a> {
    pub(super) client: Client,
    pub(super) journal: &'a Journal,
    pub(super) repository: String,
}

impl Hand<'_> {
    /// An answer that must never be given.
    fn wrong(&self, what: String) -> End {
        self.journal.write(&Line::Wrong(what));
        End::Wrong
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        wanted: &[u16],
    ) -> Step<Reply> {
        for _ in 0..PATIENCE {
            let answer = self.client.try_call(method, path, headers, body.to_vec());
            let Ok(reply) = answer else {
                return Err(End::Gone);
            };
            if wanted.contains(&reply.status) {
                return Ok(reply);
            }
            let what = format!("{} {}: {}", reply.what, reply.status, reply.text());
            match reply.status {
                429 => std::thread::sleep(std::time::Duration::from_millis(25)),
                500.. => {
                    self.journal.write(&Line::Refused(what));
                    return Err(End::Gone);
                }
                _ => return Err(self.wrong(what)),
            }
        }
        Err(self.wrong(format!("{method} {path}: 429 again and again")))
    }

    fn done(&self, number: u64, location: Option<String>) {
        self.journal.write(&Line::Done(number, location));
    }

    fn uploads(&self) -> String {
        format!("/v2/{}/blobs/uploads/", self.repository)
    }

    /// One POST with everything.
    pub(super) fn post(&self, content: Content) -> Step<()> {
        let bytes = content.bytes();
        let path = with_digest(&self.uploads(), &data::sha256(&bytes));
        let number = self
            .journal
            .attempt(Attempt::Blob(self.repository.clone(), content));
        self.send("POST", &path, &[("Content-Type", BYTES)], &bytes, &[201])?;
        self.done(number, None);
        Ok(())
    }

    /// POST, then PUT with everything.
    pub(super) fn push(&self, content: Content) -> Step<()> {
        let bytes = content.bytes();
        let opened = self.send("POST", &self.uploads(), &[], b"", &[202])?;
        let path = with_digest(&opened.location(), &data::sha256(&bytes));
        let number = self
            .journal
            .attempt(Attempt::Blob(self.repository.clone(), content));
        self.send("PUT", &path, &[("Content-Type", BYTES)], &bytes, &[201])?;
        self.done(number, None);
        Ok(())
    }

    /// A mount of what is in another repository for good.
    pub(super) fn mount(&self, from: &str, content: Content) -> Step<()> {
        let path = format!("{}?mount={}&from={from}", self.uploads(), content.digest());
        let number = self
            .journal
            .attempt(Attempt::Blob(self.repository.clone(), content));
        self.send("POST", &path, &[], b"", &[201])?;
        self.done(number, None);
        Ok(())
    }

    /// Opens a session.
    pub(super) fn open(&self, content: Content) -> Step<Session> {
        let number = self
            .journal
            .attempt(Attempt::Open(self.repository.clone(), content));
        let opened = self.send("POST", &self.uploads(), &[], b"", &[202])?;
        let location = opened.location();
        self.done(number, Some(location.clone()));
        Ok(Session {
            number,
            content,
            location,
            offset: 0,
        })
    }

    /// Sends the next bytes of a session, up to this offset.
    pub(super) fn chunk(&self, session: &mut Session, to: usize, ranged: bool) -> Step<()> {
        let bytes = session.content.bytes();
        let part = &bytes[session.offset..to];
        let range = format!("{}-{}", session.offset, to.max(1) - 1);
        let mut headers = vec![("Content-Type", BYTES)];
        if ranged && !part.is_empty() {
            headers.push(("Content-Range", &range));
        }
        let number = self.journal.attempt(Attempt::Chunk(session.number, to));
        let reply = self.send("PATCH", &session.location, &headers, part, &[202])?;
        session.location = reply.location();
        let told = reply.find("range").unwrap_or_default().to_owned();
        if to > 0 && told != format!("0-{}", to - 1) {
            return Err(self.wrong(format!("{} told {told:?}, not up to {to}", reply.what)));
        }
        session.offset = to;
        self.done(number, Some(session.location.clone()));
        Ok(())
    }

    /// Asks a session where it is, as a client does that lost its connection.
    pub(super) fn status(&self, session: &mut Session) -> Step<()> {
        let reply = self.send("GET", &session.location, &[], b"", &[204])?;
        let wanted = format!("0-{}", session.offset.max(1) - 1);
        let told = reply.find("range").unwrap_or_default().to_owned();
        if session.offset > 0 && told != wanted {
            return Err(self.wrong(format!("{} told {told:?}, not {wanted}", reply.what)));
        }
        session.location = reply.location();
        Ok(())
    }

    /// Sends the rest of a session.
    pub(super) fn finish(&self, session: &Session) -> Step<()> {
        let bytes = session.content.bytes();
        let path = with_digest(&session.location, &data::sha256(&bytes));
        let rest = &bytes[session.offset..];
        let number = self.journal.attempt(Attempt::Finish(session.number));
        self.send("PUT", &path, &[("Content-Type", BYTES)], rest, &[201])?;
        self.done(number, None);
        Ok(())
    }

    /// Puts a manifest, under a tag or by its digest.
    pub(super) fn put(&self, held: &Held, tag: Option<&str>) -> Step<String> {
        let digest = data::sha256(held.body.as_bytes());
        let path = manifest(&self.repository, tag.unwrap_or(&digest));
        let number = self.journal.attempt(Attempt::Manifest(
            self.repository.clone(),
            tag.map(str::to_owned),
            held.clone(),
        ));
        let headers = [("Content-Type", held.media_type.as_str())];
        self.send("PUT", &path, &headers, held.body.as_bytes(), &[201])?;
        self.done(number, None);
        Ok(digest)
    }

    /// Deletes; the next request must find nothing.
    pub(super) fn delete(&self, attempt: Attempt) -> Step<()> {
        let path = match &attempt {
            Attempt::BlobGone(repository, digest) => blob(repository, digest),
            Attempt::ManifestGone(repository, name) | Attempt::TagGone(repository, name) => {
                manifest(repository, name)
            }
            other => return Err(self.wrong(format!("{other:?} is no delete"))),
        };
        let number = self.journal.attempt(attempt);
        self.send("DELETE", &path, &[], b"", &[202])?;
        self.done(number, None);
        self.send("HEAD", &path, &[], b"", &[404]).map(|_| ())
    }

    /// Reads a blob, or a part of it, and compares.
    pub(super) fn read(&self, content: Content, from: usize) -> Step<()> {
        let bytes = content.bytes();
        let path = blob(&self.repository, &content.digest());
        let range = format!("bytes={from}-");
        let (headers, wanted): (&[(&str, &str)], u16) = if from == 0 {
            (&[], 200)
        } else {
            (&[("Range", &range)], 206)
        };
        let reply = self.send("GET", &path, headers, b"", &[wanted])?;
        if reply.body != bytes[from..] {
            return Err(self.wrong(format!("{} from {from}: other bytes", reply.what)));
        }
        Ok(())
    }

    /// Reads a manifest and compares.
    pub(super) fn read_manifest(&self, held: &Held, reference: &str) -> Step<()> {
        let path = manifest(&self.repository, reference);
        let headers = [("Accept", held.media_type.as_str())];
        let reply = self.send("GET", &path, &headers, b"", &[200])?;
        if reply.body != held.body.as_bytes() {
            return Err(self.wrong(format!("{}: another manifest", reply.what)));
        }
        Ok(())
    }
}

fn blob_descriptor(media_type: &str, content: Content) -> Value {
    oci::descriptor(media_type, &content.digest(), content.size)
}

/// An image of these blobs, unlike any other by its mark.
pub(super) fn image(config: Content, layers: &[Content], mark: u64) -> Held {
    let layers: Vec<Value> = layers
        .iter()
        .map(|layer| blob_descriptor(oci::LAYER, *layer))
        .collect();
    let body = json!({
        "schemaVersion": 2,
        "mediaType": oci::IMAGE,
        "config": blob_descriptor(oci::CONFIG, config),
        "layers": layers,
        "annotations": {"mark": mark.to_string()},
    });
    let (media_type, body) = (oci::IMAGE.to_owned(), body.to_string());
    Held { media_type, body }
}

/// An artifact that belongs to a manifest.
pub(super) fn artifact(file: Content, subject: (&str, &Held), mark: u64) -> Held {
    let (digest, held) = subject;
    let body = json!({
        "schemaVersion": 2,
        "mediaType": oci::IMAGE,
        "artifactType": "application/vnd.example.report",
        "config": blob_descriptor(oci::CONFIG, file),
        "layers": [],
        "subject": oci::descriptor(&held.media_type, digest, held.body.len()),
        "annotations": {"mark": mark.to_string()},
    });
    let (media_type, body) = (oci::IMAGE.to_owned(), body.to_string());
    Held { media_type, body }
}

/// An index of these manifests.
pub(super) fn index(children: &[(String, Held)], mark: u64) -> Held {
    let children: Vec<Value> = children
        .iter()
        .map(|(digest, held)| oci::descriptor(&held.media_type, digest, held.body.len()))
        .collect();
    let body = json!({
        "schemaVersion": 2,
        "mediaType": oci::INDEX,
        "manifests": children,
        "annotations": {"mark": mark.to_string()},
    });
    let (media_type, body) = (oci::INDEX.to_owned(), body.to_string());
    Held { media_type, body }
}

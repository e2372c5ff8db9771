//! The registry protocol as far as the bench speaks it: push a blob, push a
//! manifest, fetch and verify one of them.

use crate::client::Connection;
use crate::error::{Error, Result};
use crate::http::{Head, finish_target};
use crate::payload::{Payload, digest_of};
use sha2::{Digest as _, Sha256};

/// Requests up to this size, in bytes, go out in one write.
const ONE_WRITE: u64 = 64 * 1024;
/// Layers of every manifest the bench makes.
pub(crate) const LAYERS: usize = 8;
/// Media type of every manifest the bench makes.
pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// `GET path`, ready to send.
pub(crate) fn get_request(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: bench\r\nAccept: {MANIFEST_TYPE}, */*\r\n\r\n")
        .into_bytes()
}

/// Where `digest` is in `repository`.
pub(crate) fn blob_path(repository: &str, digest: &str) -> String {
    format!("/v2/{repository}/blobs/{digest}")
}

/// Where `reference` is in `repository`.
pub(crate) fn manifest_path(repository: &str, reference: &str) -> String {
    format!("/v2/{repository}/manifests/{reference}")
}

/// Pushes new blobs of one size into one repository.
pub(crate) struct BlobPush {
    repository: String,
    payload: Payload,
    open: Vec<u8>,
}

impl BlobPush {
    /// Prepares the requests.
    pub(crate) fn new(repository: &str, payload: Payload) -> BlobPush {
        BlobPush {
            repository: repository.to_owned(),
            payload,
            open: format!(
                "POST /v2/{repository}/blobs/uploads/ HTTP/1.1\r\nHost: bench\r\nContent-Length: 0\r\n\r\n"
            )
            .into_bytes(),
        }
    }

    /// Size of each blob, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.payload.size()
    }

    /// Repository that is pushed to.
    pub(crate) fn repository(&self) -> &str {
        &self.repository
    }

    /// Pushes one new blob by POST and PUT; returns its digest.
    pub(crate) async fn push(&self, connection: &mut Connection) -> Result<String> {
        let (tail, digest) = self.payload.fresh();
        connection.send(&[&self.open]).await?;
        let head = answer(connection, &[202], "POST of an upload").await?;
        self.finish(connection, &head, &tail, &digest).await?;
        Ok(digest)
    }

    /// Pushes one new blob in a single POST; where the server does not take
    /// it that way, by a PUT behind it as the protocol has it.
    pub(crate) async fn push_at_once(&self, connection: &mut Connection) -> Result<String> {
        let (tail, digest) = self.payload.fresh();
        let head = format!(
            "POST /v2/{}/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: bench\r\n\
             Content-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n",
            self.repository,
            self.size()
        );
        self.send_blob(connection, &head, &tail).await?;
        let head = answer(connection, &[201, 202], "POST of a whole blob").await?;
        if head.status == 202 {
            self.finish(connection, &head, &tail, &digest).await?;
        }
        Ok(digest)
    }

    async fn finish(
        &self,
        connection: &mut Connection,
        opened: &Head,
        tail: &[u8],
        digest: &str,
    ) -> Result<()> {
        let target = upload_target(opened, digest)?;
        let head = format!(
            "PUT {target} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/octet-stream\r\n\
             Content-Length: {}\r\n\r\n",
            self.size()
        );
        self.send_blob(connection, &head, tail).await?;
        answer(connection, &[201], "PUT of a blob").await?;
        Ok(())
    }

    async fn send_blob(&self, connection: &mut Connection, head: &str, tail: &[u8]) -> Result<()> {
        let parts = [head.as_bytes(), self.payload.prefix(), tail];
        if self.size() <= ONE_WRITE {
            connection.send(&[&parts.concat()]).await
        } else {
            connection.send(&parts).await
        }
    }
}

/// A blob as a manifest names it: digest and size.
pub(crate) type BlobRef = (String, u64);

/// A descriptor of media type `application/vnd.oci.<kind>`.
pub(crate) fn descriptor(kind: &str, (digest, size): &BlobRef) -> String {
    format!(r#"{{"mediaType":"application/vnd.oci.{kind}","digest":"{digest}","size":{size}}}"#)
}

/// Makes manifests that differ in one annotation of fixed width.
pub(crate) struct ManifestPush {
    repository: String,
    before: String,
    after: String,
}

impl ManifestPush {
    /// Manifests over blobs that are in the repository already, each given as
    /// digest and size: the first is the config, the others are layers.
    pub(crate) fn new(repository: &str, blobs: &[BlobRef]) -> ManifestPush {
        let config = blobs
            .first()
            .map(|blob| descriptor("image.config.v1+json", blob));
        let layers: Vec<String> = blobs
            .iter()
            .skip(1)
            .map(|blob| descriptor("image.layer.v1.tar+gzip", blob))
            .collect();
        ManifestPush {
            repository: repository.to_owned(),
            before: format!(
                r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{},"layers":[{}],"annotations":{{"bench.number":""#,
                config.unwrap_or_default(),
                layers.join(",")
            ),
            after: r#""}}"#.to_owned(),
        }
    }

    /// The manifest with `number` in it; every one has the same length.
    pub(crate) fn body(&self, number: u64) -> String {
        format!("{}{number:016x}{}", self.before, self.after)
    }

    /// Repository that is pushed to.
    pub(crate) fn repository(&self) -> &str {
        &self.repository
    }

    /// Pushes manifest `number` under the tag `t<number>`.
    pub(crate) async fn push(&self, connection: &mut Connection, number: u64) -> Result<()> {
        put_manifest(
            connection,
            &manifest_path(&self.repository, &tag(number)),
            &self.body(number),
        )
        .await?;
        Ok(())
    }
}

/// Pushes images of one new layer each, over a config that is there.
pub(crate) struct ImagePush {
    layers: BlobPush,
    config: BlobRef,
}

impl ImagePush {
    /// Images over `config`, each with one of these layers.
    pub(crate) fn new(layers: BlobPush, config: BlobRef) -> ImagePush {
        ImagePush { layers, config }
    }

    /// Size of each layer, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.layers.size()
    }

    /// Pushes a layer, and image `number` over it under the tag `t<number>`;
    /// returns its path and digest.
    pub(crate) async fn push(
        &self,
        connection: &mut Connection,
        number: u64,
    ) -> Result<(String, String)> {
        let layer = (self.layers.push(connection).await?, self.size());
        let repository = self.layers.repository();
        let body = ManifestPush::new(repository, &[self.config.clone(), layer]).body(number);
        let path = manifest_path(repository, &tag(number));
        put_manifest(connection, &path, &body).await?;
        Ok((path, digest_of(body.as_bytes())))
    }
}

/// PUTs a manifest to `path`; returns the head of the answer.
pub(crate) async fn put_manifest(
    connection: &mut Connection,
    path: &str,
    body: &str,
) -> Result<Head> {
    let request = format!(
        "PUT {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: {MANIFEST_TYPE}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.send(&[request.as_bytes()]).await?;
    answer(connection, &[201], "PUT of a manifest").await
}

/// Pushes `bytes` as a blob and returns how a manifest names it.
pub(crate) async fn push_bytes(
    connection: &mut Connection,
    repository: &str,
    bytes: &[u8],
) -> Result<BlobRef> {
    let digest = digest_of(bytes);
    let send = |line: String| {
        let length = bytes.len();
        let head = format!(
            "{line} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/octet-stream\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        [head.as_bytes(), bytes].concat()
    };
    let post = send(format!(
        "POST /v2/{repository}/blobs/uploads/?digest={digest}"
    ));
    connection.send(&[&post]).await?;
    let head = answer(connection, &[201, 202], "POST of a whole blob").await?;
    if head.status == 202 {
        let target = upload_target(&head, &digest)?;
        connection.send(&[&send(format!("PUT {target}"))]).await?;
        answer(connection, &[201], "PUT of a blob").await?;
    }
    Ok((digest, bytes.len() as u64))
}

/// Where an upload that was opened is finished.
fn upload_target(opened: &Head, digest: &str) -> Result<String> {
    let location = opened.location.as_deref().ok_or_else(|| {
        Error::Answer("the server opened an upload without a Location".to_owned())
    })?;
    Ok(finish_target(location, digest))
}

/// Tag of manifest `number`.
pub(crate) fn tag(number: u64) -> String {
    format!("t{number}")
}

/// Takes a response; any status but the expected ones is an error that
/// carries what the server said.
async fn answer(connection: &mut Connection, expected: &[u16], what: &str) -> Result<Head> {
    let head = connection.receive_head().await?;
    if expected.contains(&head.status) {
        connection.drop_body(head.length).await?;
        connection.after(&head).await?;
        return Ok(head);
    }
    Err(unexpected(connection, &head, what).await)
}

/// The error for an answer that should not have come.
pub(crate) async fn unexpected(connection: &mut Connection, head: &Head, what: &str) -> Error {
    const SHOWN: u64 = 400;
    let mut body = Vec::new();
    let read = connection
        .read_body(head.length.min(SHOWN), |piece| {
            body.extend_from_slice(piece)
        })
        .await;
    let said = match read {
        Ok(()) => String::from_utf8_lossy(&body).into_owned(),
        Err(error) => error.to_string(),
    };
    let status = head.status;
    Error::Answer(format!("{what} was answered {status}: {}", said.trim()))
}

/// Deletes what is at `path`.
pub(crate) async fn delete(connection: &mut Connection, path: &str) -> Result<()> {
    let request = format!("DELETE {path} HTTP/1.1\r\nHost: bench\r\n\r\n");
    connection.send(&[request.as_bytes()]).await?;
    answer(connection, &[202], &format!("DELETE of {path}")).await?;
    Ok(())
}

/// Checks that nothing is at `path`.
pub(crate) async fn verify_gone(connection: &mut Connection, path: &str) -> Result<()> {
    connection.send(&[&get_request(path)]).await?;
    answer(
        connection,
        &[404],
        &format!("GET of {path}, which should be gone,"),
    )
    .await?;
    Ok(())
}

/// Asks for an upload; true when one was opened, false when the server takes
/// no pushes now.
pub(crate) async fn takes_pushes(connection: &mut Connection, repository: &str) -> Result<bool> {
    let request = format!(
        "POST /v2/{repository}/blobs/uploads/ HTTP/1.1\r\nHost: bench\r\nContent-Length: 0\r\n\r\n"
    );
    connection.send(&[request.as_bytes()]).await?;
    let head = answer(connection, &[202, 405, 503], "POST of an upload").await?;
    Ok(head.status == 202)
}

/// Fetches `path` and checks status, length and SHA-256 of the body.
pub(crate) async fn verify(connection: &mut Connection, path: &str, digest: &str) -> Result<()> {
    connection.send(&[&get_request(path)]).await?;
    let head = connection.receive_head().await?;
    if head.status != 200 {
        return Err(unexpected(connection, &head, &format!("GET {path}")).await);
    }
    let mut hasher = Sha256::new();
    connection
        .read_body(head.length, |piece| hasher.update(piece))
        .await?;
    connection.after(&head).await?;
    let actual = format!("sha256:{}", crate::payload::hex(&hasher.finalize()));
    if actual == digest {
        Ok(())
    } else {
        Err(Error::Answer(format!(
            "GET {path} returned {} bytes with digest {actual}, expected {digest}",
            head.length
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blobs() -> Vec<(String, u64)> {
        (0..3)
            .map(|n| (crate::payload::digest_of(&[n]), u64::from(n) + 1))
            .collect()
    }

    #[test]
    fn manifests_are_json_of_one_length_and_differ() {
        let push = ManifestPush::new("a/b", &blobs());
        let (first, last) = (push.body(0), push.body(u64::MAX));
        assert_eq!(first.len(), last.len());
        assert_ne!(first, last);
        let parsed: serde_json::Value = serde_json::from_str(&first).unwrap();
        assert_eq!(parsed["config"]["digest"], blobs()[0].0);
        assert_eq!(parsed["layers"].as_array().unwrap().len(), 2);
        assert_eq!(parsed["layers"][1]["size"], 3);
        assert_eq!(parsed["annotations"]["bench.number"], "0000000000000000");
    }
}

//! The checks scenarios share: one function per idea.
//!
//! Each judges the whole answer: status, headers, bytes.

use orlop_tests::client::{blob, manifest};
use orlop_tests::oci;
use orlop_tests::reply::Reply;

use crate::case::{Blob, Case};
use crate::content::Pushed;

impl Case {
    /// The blob was made: 201, its digest, and a location it can be pulled from.
    #[track_caller]
    pub(crate) fn created(&self, reply: Reply, blob: &Blob) {
        let reply = reply.expect(201);
        assert_eq!(
            reply.header("docker-content-digest"),
            blob.digest,
            "{}",
            reply.what
        );
        let pulled = self.client.get(&reply.location()).expect(200);
        assert!(pulled.body == blob.bytes, "{}: other bytes", pulled.what);
    }

    /// HEAD and GET answer with size, digest and exactly these bytes.
    #[track_caller]
    pub(crate) fn serves(&self, repository: &str, expected: &Blob) {
        let path = blob(repository, &expected.digest);
        for method in ["HEAD", "GET"] {
            let reply = self.client.call(method, &path, &[], "").expect(200);
            let size = expected.bytes.len().to_string();
            assert_eq!(reply.header("content-length"), size, "{method} {path}");
            let named = reply.header("docker-content-digest");
            assert_eq!(named, expected.digest, "{method} {path}");
            let whole = method == "HEAD" || reply.body == expected.bytes;
            assert!(whole, "{path}: other bytes than were pushed");
        }
    }

    /// The blob is not in the repository.
    #[track_caller]
    pub(crate) fn lacks(&self, repository: &str, digest: &str) {
        let path = blob(repository, digest);
        self.client.head(&path).expect(404);
        self.client.get(&path).expect(404);
    }

    /// A delete that is answered is done.
    #[track_caller]
    pub(crate) fn deletes(&self, repository: &str, digest: &str) {
        self.client.delete(&blob(repository, digest)).expect(202);
        self.lacks(repository, digest);
    }

    /// HEAD and GET answer with type, size, digest and exactly these bytes.
    #[track_caller]
    pub(crate) fn serves_manifest(&self, reference: &str, expected: &Pushed) {
        for method in ["HEAD", "GET"] {
            let reply = self.manifest_call(method, reference).expect(200);
            let size = expected.bytes.len().to_string();
            let what = format!("{method} {reference}");
            assert_eq!(reply.header("content-type"), expected.media_type, "{what}");
            assert_eq!(reply.header("content-length"), size, "{what}");
            let named = reply.header("docker-content-digest");
            assert_eq!(named, expected.digest, "{what}");
            let whole = method == "HEAD" || reply.body == expected.bytes;
            assert!(whole, "{what}: other bytes than were pushed");
        }
    }

    /// The manifest is not in the repository.
    #[track_caller]
    pub(crate) fn lacks_manifest(&self, reference: &str) {
        self.manifest_call("HEAD", reference).expect(404);
        self.manifest_call("GET", reference)
            .refused(404, "MANIFEST_UNKNOWN");
    }

    /// A delete that is answered is done.
    #[track_caller]
    pub(crate) fn deletes_manifest(&self, reference: &str) {
        let path = manifest(&self.repository, reference);
        self.client.delete(&path).expect(202);
        self.lacks_manifest(reference);
    }

    /// A request for a manifest of the case's repository, taking OCI's types.
    #[track_caller]
    pub(crate) fn manifest_call(&self, method: &str, reference: &str) -> Reply {
        let path = manifest(&self.repository, reference);
        let accept = [("Accept", oci::INDEX), ("Accept", oci::IMAGE)];
        self.client.call(method, &path, &accept, "")
    }

    /// The tags of the case's repository, with these parameters.
    #[track_caller]
    pub(crate) fn tags(&self, query: &str) -> Vec<String> {
        let path = format!("/v2/{}/tags/list{query}", self.repository);
        tags_in(&self.client.get(&path).expect(200))
    }

    /// The referrers of a digest, with these parameters, and the answer.
    #[track_caller]
    pub(crate) fn referrers(&self, subject: &str, query: &str) -> (Vec<serde_json::Value>, Reply) {
        let path = format!("/v2/{}/referrers/{subject}{query}", self.repository);
        let reply = self.client.get(&path).expect(200);
        assert_eq!(reply.header("content-type"), oci::INDEX, "{path}");
        let index = reply.json();
        assert_eq!(index["schemaVersion"], 2, "{path}");
        assert_eq!(index["mediaType"], oci::INDEX, "{path}");
        let listed = index["manifests"].as_array();
        (listed.expect("a list of manifests").clone(), reply)
    }
}

/// The tags of a list.
#[track_caller]
pub(crate) fn tags_in(reply: &Reply) -> Vec<String> {
    let document = reply.json();
    let tags = document["tags"].as_array().expect("a list of tags");
    tags.iter()
        .map(|tag| tag.as_str().expect("a tag").to_owned())
        .collect()
}

/// The path and query of the link to the next page, if there is one.
#[track_caller]
pub(crate) fn next_page(reply: &Reply) -> Option<String> {
    let link = reply.find("link")?;
    let (target, relation) = link.split_once(';').expect("a link with a relation");
    assert_eq!(relation.trim(), "rel=\"next\"", "{}", reply.what);
    let target = target.trim();
    let inner = target.strip_prefix('<').and_then(|t| t.strip_suffix('>'));
    let inner = inner.expect("a target between < and >");
    let path = inner.find("/v2/").expect("a path of the API");
    Some(inner[path..].to_owned())
}

//! The life of content: pushed, listed, headed, pulled, referred to, deleted.
//!
//! Each step is judged for all of the content before the next begins.

use std::collections::BTreeSet;

use orlop_tests::client::manifest;
use orlop_tests::reply::Reply;
use serde_json::Value;

use crate::case::{Blob, Case, Rules};
use crate::content::{Content, Pushed};

impl Case {
    /// The whole life.
    #[track_caller]
    pub(crate) fn lives(&self, content: &Content) {
        self.push_all(content);
        self.lists_tags(content);
        self.serves_all(content);
        self.lists_referrers(content);
        self.delete_all(content);
    }

    /// Pushes blobs, then manifests, each under its tags.
    #[track_caller]
    pub(crate) fn push_all(&self, content: &Content) {
        for blob in &content.blobs {
            self.push(&self.repository, blob);
        }
        for pushed in &content.manifests {
            let by_parameter = self.rules == Rules::Main;
            self.push_manifest(pushed, if by_parameter { &pushed.tags } else { &[] });
            if !by_parameter && self.can_tag() {
                for tag in &pushed.tags {
                    let reply = self.put_manifest(tag, "", pushed);
                    self.accepted(reply, pushed);
                }
            }
        }
    }

    /// Pushes a blob by POST and PUT.
    #[track_caller]
    pub(crate) fn push(&self, repository: &str, blob: &Blob) {
        let opened = self.client.call("POST", &self.uploads(repository), &[], "");
        let location = opened.expect(202).location();
        let done = self
            .client
            .finish(&location, &blob.digest, blob.bytes.clone());
        self.created(done, blob);
    }

    /// Pushes a manifest by its digest with these tags as parameters.
    #[track_caller]
    pub(crate) fn push_manifest(&self, pushed: &Pushed, tags: &[String]) {
        let query: Vec<String> = tags.iter().map(|tag| format!("tag={tag}")).collect();
        let query = match query.is_empty() {
            true => String::new(),
            false => format!("?{}", query.join("&")),
        };
        let reply = self.put_manifest(&pushed.digest, &query, pushed);
        let named: BTreeSet<&str> = accepted_tags(&reply).collect();
        let wanted: BTreeSet<&str> = tags.iter().map(String::as_str).collect();
        assert_eq!(named, wanted, "OCI-Tag of {}", reply.what);
        self.accepted(reply, pushed);
    }

    /// PUT of a manifest.
    #[track_caller]
    pub(crate) fn put_manifest(&self, reference: &str, query: &str, pushed: &Pushed) -> Reply {
        let path = format!("{}{query}", manifest(&self.repository, reference));
        let headers = [("Content-Type", pushed.media_type.as_str())];
        self.client
            .call("PUT", &path, &headers, pushed.bytes.clone())
    }

    /// The manifest was taken: 201, digest, subject, a location to pull from.
    #[track_caller]
    pub(crate) fn accepted(&self, reply: Reply, pushed: &Pushed) {
        let reply = reply.expect(201);
        assert_eq!(reply.header("docker-content-digest"), pushed.digest);
        let subject = pushed.subject.as_deref();
        assert_eq!(reply.find("oci-subject"), subject, "{}", reply.what);
        let pulled = self.client.get(&reply.location()).expect(200);
        assert!(pulled.body == pushed.bytes, "{}: other bytes", pulled.what);
    }

    /// Every tag is in the list, and `last` cuts it where it says.
    #[track_caller]
    pub(crate) fn lists_tags(&self, content: &Content) {
        if !self.can_tag() {
            return;
        }
        let all = self.tags("");
        let mut wanted: Vec<&String> = content.manifests.iter().flat_map(|m| &m.tags).collect();
        wanted.sort();
        assert_eq!(all.iter().collect::<Vec<_>>(), wanted);
        let Some(middle) = all.get(all.len() / 2) else {
            return;
        };
        let after = self.tags(&format!("?last={middle}"));
        assert_eq!(after, all[all.len() / 2 + 1..], "after {middle}");
    }

    /// HEAD and GET of all of it, by digest and by tag.
    #[track_caller]
    pub(crate) fn serves_all(&self, content: &Content) {
        for pushed in &content.manifests {
            self.serves_manifest(&pushed.digest, pushed);
            for tag in pushed.tags.iter().filter(|_| self.can_tag()) {
                self.serves_manifest(tag, pushed);
            }
        }
        for blob in &content.blobs {
            self.serves(&self.repository, blob);
        }
    }

    /// Every referrer is listed as it should, whole and by each type.
    #[track_caller]
    pub(crate) fn lists_referrers(&self, content: &Content) {
        let subjects: BTreeSet<&str> = content.referrers.iter().map(|r| &*r.subject).collect();
        for subject in subjects {
            let of_subject = content.referrers.iter().filter(|r| r.subject == subject);
            let wanted: Vec<&Value> = of_subject.map(|r| &r.descriptor).collect();
            let (all, _) = self.referrers(subject, "");
            same_descriptors(&all, &wanted);
            let kinds = wanted.iter().filter_map(|d| d["artifactType"].as_str());
            for kind in kinds.collect::<BTreeSet<_>>() {
                let query = format!("?artifactType={}", kind.replace('+', "%2B"));
                let (some, reply) = self.referrers(subject, &query);
                assert_eq!(reply.header("oci-filters-applied"), "artifactType");
                let of_kind = wanted.iter().filter(|d| d["artifactType"] == kind);
                same_descriptors(&some, &of_kind.copied().collect::<Vec<_>>());
            }
        }
    }

    /// Deletes tags, then manifests from the last to the first, then blobs.
    /// Each is gone at once, and a deleted referrer is listed no more.
    #[track_caller]
    pub(crate) fn delete_all(&self, content: &Content) {
        for tag in content.manifests.iter().flat_map(|m| &m.tags) {
            if self.can_tag() {
                self.deletes_manifest(tag);
            }
        }
        for pushed in content.manifests.iter().rev() {
            self.deletes_manifest(&pushed.digest);
            if let Some(subject) = &pushed.subject {
                let (left, _) = self.referrers(subject, "");
                let still = left.iter().any(|d| d["digest"] == *pushed.digest);
                assert!(!still, "{} is deleted and still listed", pushed.digest);
            }
        }
        for blob in &content.blobs {
            self.deletes(&self.repository, &blob.digest);
        }
    }
}

/// The tags that `OCI-Tag` names, however many headers it comes in.
pub(crate) fn accepted_tags(reply: &Reply) -> impl Iterator<Item = &str> {
    let values = reply.all("oci-tag");
    values.flat_map(|value| value.split(',').map(str::trim))
}

/// The same descriptors, in any order.
#[track_caller]
fn same_descriptors(listed: &[Value], wanted: &[&Value]) {
    let sorted = |mut all: Vec<&Value>| {
        all.sort_by_key(|d| d["digest"].to_string());
        all.iter().map(|d| d.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(sorted(listed.iter().collect()), sorted(wanted.to_vec()));
}

//! What the store has answered for: blobs, uploads, errors.

use std::collections::BTreeMap;

use orlop_engine::{Digest, Error, Store, UploadId};

use crate::support::contents::Content;
use crate::support::world::pull;

/// Who owns the uploads.
pub const OWNER: &str = "owner";

/// An upload and where it may go on.
#[derive(Debug, Clone)]
pub struct Upload {
    pub id: UploadId,
    pub content: Content,
    /// Durable offsets that it may have.
    pub offsets: Vec<u64>,
    /// Whether it may have ended.
    pub maybe_gone: bool,
}

/// Everything that was answered.
#[derive(Debug, Clone, Default)]
pub struct Oracle {
    acknowledged: BTreeMap<Digest, Content>,
    /// Pushed without a good answer.
    attempted: BTreeMap<Digest, Content>,
    /// Damaged, by an answer that a read fault explains.
    doubted: Vec<Digest>,
    pub uploads: Vec<Upload>,
    /// What was asked, and the error that came.
    pub errors: Vec<(String, Error)>,
    /// Writes that were asked for after the fault.
    pub writes_after: u64,
}

impl Oracle {
    pub fn acknowledge(&mut self, content: &Content) {
        self.attempted.remove(&content.sha256);
        self.doubted.retain(|digest| *digest != content.sha256);
        self.acknowledged.insert(content.sha256, content.clone());
    }

    /// Takes the answer to a push.
    pub fn pushed<T>(&mut self, what: &str, content: &Content, answer: Result<T, Error>) -> bool {
        let good = answer.is_ok();
        match answer {
            Ok(_) => self.acknowledge(content),
            Err(error) => {
                if !self.acknowledged.contains_key(&content.sha256) {
                    self.attempted.insert(content.sha256, content.clone());
                }
                self.errors.push((what.to_owned(), error));
            }
        }
        good
    }

    /// Takes any other answer.
    pub fn answered<T>(&mut self, what: &str, answer: Result<T, Error>) -> Option<T> {
        answer
            .map_err(|error| self.errors.push((what.to_owned(), error)))
            .ok()
    }

    /// Everything that was ever pushed.
    pub fn everything(&self) -> Vec<Content> {
        let all = self.acknowledged.values().chain(self.attempted.values());
        all.cloned().collect()
    }

    /// Reads every acknowledged blob while the fault may strike.
    pub async fn read_all(&mut self, store: &Store) {
        for content in self.acknowledged.clone().into_values() {
            let digest = content.sha256;
            let doubted = self.doubted.contains(&digest);
            match store.stat(&digest) {
                Ok(stat) => assert_eq!(stat.size, content.len()),
                Err(Error::NotFound { .. }) if doubted => {}
                Err(error) => self.errors.push(("stat".to_owned(), error)),
            }
            match pull(store, &digest).await {
                Ok(found) => assert!(found == content.bytes, "{digest} has wrong bytes"),
                Err(error) => {
                    if matches!(error, Error::Corrupt { .. }) {
                        self.doubted.push(digest);
                    }
                    self.errors.push(("read".to_owned(), error));
                }
            }
        }
    }

    /// Compares a store without faults.
    pub async fn verify(&self, store: &Store, when: &str) {
        for (digest, content) in &self.acknowledged {
            match pull(store, digest).await {
                Ok(found) => assert!(found == content.bytes, "{when}: {digest} has wrong bytes"),
                Err(Error::Corrupt { .. }) if self.doubted.contains(digest) => {}
                Err(error) => panic!("{when}: lost {digest}, {} bytes: {error}", content.len()),
            }
        }
        for (digest, content) in &self.attempted {
            match pull(store, digest).await {
                Ok(found) => assert!(found == content.bytes, "{when}: {digest} is partial"),
                Err(Error::NotFound { .. }) => {}
                Err(error) => panic!("{when}: {digest}: {error}"),
            }
        }
        for upload in &self.uploads {
            match store.upload_status(upload.id, OWNER) {
                Ok(offset) if upload.offsets.contains(&offset) => {}
                Err(Error::NotFound { .. }) if upload.maybe_gone || upload.offsets.contains(&0) => {
                }
                answer => panic!("{when}: an upload at {:?}: {answer:?}", upload.offsets),
            }
        }
    }

    /// Goes on with every upload from the offset that the store names.
    pub async fn finish_uploads(&mut self, store: &Store, when: &str) {
        for upload in std::mem::take(&mut self.uploads) {
            let Ok(offset) = store.upload_status(upload.id, OWNER) else {
                continue;
            };
            let taken = store.upload_resume(upload.id, OWNER).await;
            let mut taken = taken.unwrap_or_else(|error| panic!("{when}: resume: {error}"));
            assert_eq!(taken.offset(), offset, "{when}: the upload's offset");
            let rest = upload.content.bytes.slice(offset as usize..);
            let sent = taken.append(rest).await;
            sent.unwrap_or_else(|error| panic!("{when}: append: {error}"));
            let done = taken.commit(upload.content.sha256, None).await;
            done.unwrap_or_else(|error| panic!("{when}: from {offset}: {error}"));
            self.acknowledge(&upload.content);
        }
    }
}

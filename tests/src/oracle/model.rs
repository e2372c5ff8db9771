//! What follows from the oracle's journal: for each name, what it must be and
//! what it may be.
//!
//! Invariant: a name is worked on by one thread at a time, so that its lines
//! are in the order of its requests.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::content::{Content, Held};
use super::journal::{Attempt, Line};
use crate::data;

/// A state that was acknowledged or seen, and those that a request without an
/// answer may have made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State<T> {
    /// Acknowledged, or seen after a restart.
    pub sure: T,
    /// Sent since.
    pub or: Vec<T>,
    /// The last line that says something of it.
    pub line: usize,
}

impl<T: PartialEq + Clone> State<T> {
    fn new(sure: T) -> Self {
        let or = Vec::new();
        Self { sure, or, line: 0 }
    }

    fn try_it(&mut self, value: T, line: usize) {
        self.or.push(value);
        self.line = line;
    }

    fn is(&mut self, value: T, line: usize) {
        self.sure = value;
        self.or.clear();
        self.line = line;
    }

    /// Whether it may be this.
    pub fn may_be(&self, value: &T) -> bool {
        self.sure == *value || self.or.contains(value)
    }

    /// Whether it can only be one thing.
    #[must_use]
    pub fn is_sure(&self) -> bool {
        self.or.iter().all(|other| *other == self.sure)
    }
}

/// A session.
#[derive(Debug, Clone)]
pub struct Upload {
    /// Where.
    pub repository: String,
    /// Of what.
    pub content: Content,
    /// Where it goes on. A session whose opening was not answered has none.
    pub location: Option<String>,
    /// The last acknowledged offset.
    pub acknowledged: usize,
    /// The last that was attempted.
    pub attempted: usize,
    /// Its end was attempted.
    pub ending: bool,
}

/// A repository and something in it.
pub type Key = (String, String);

/// All of it.
#[derive(Debug, Default)]
pub struct Model {
    /// Content by digest.
    pub contents: BTreeMap<String, Content>,
    /// Manifests by digest.
    pub manifests: BTreeMap<String, Held>,
    /// Whether a blob is in a repository.
    pub blobs: BTreeMap<Key, State<bool>>,
    /// Whether a manifest is.
    pub held: BTreeMap<Key, State<bool>>,
    /// Where a tag leads.
    pub tags: BTreeMap<Key, State<Option<String>>>,
    /// Sessions that may be open, by the number of their opening.
    pub uploads: BTreeMap<u64, Upload>,
    /// What must never be answered.
    pub wrong: Vec<String>,
    /// Requests that the server refused for its own sake, with a 5xx.
    pub refused: Vec<String>,
    /// Requests acknowledged.
    pub acknowledged: u64,
    /// Lines read.
    pub lines: usize,
    pending: HashMap<u64, Attempt>,
    digests: HashMap<(u64, usize), String>,
}

impl Model {
    /// Reads a journal.
    #[must_use]
    pub fn of(lines: &[Line]) -> Model {
        let mut model = Model::default();
        for line in lines {
            model.take(line);
        }
        model
    }

    /// Repositories that something was sent to.
    #[must_use]
    pub fn repositories(&self) -> BTreeSet<String> {
        let blobs = self.blobs.keys().map(|(repository, _)| repository.clone());
        blobs.collect()
    }

    fn take(&mut self, line: &Line) {
        self.lines += 1;
        let now = self.lines;
        match line {
            Line::Try(number, attempt) => {
                self.attempt(*number, attempt);
                self.pending.insert(*number, attempt.clone());
            }
            Line::Done(number, location) => {
                self.acknowledged += 1;
                if let Some(attempt) = self.pending.remove(number) {
                    self.done(*number, &attempt, location.as_deref());
                }
            }
            Line::Wrong(what) => self.wrong.push(what.clone()),
            Line::Refused(what) => self.refused.push(what.clone()),
            Line::SawBlob(repository, digest, there) => {
                Self::at(&mut self.blobs, repository, digest, false).is(*there, now);
            }
            Line::SawManifest(repository, digest, there) => {
                Self::at(&mut self.held, repository, digest, false).is(*there, now);
            }
            Line::SawTag(repository, tag, digest) => {
                Self::at(&mut self.tags, repository, tag, None).is(digest.clone(), now);
            }
            Line::SawUpload(number, None) => {
                self.uploads.remove(number);
            }
            Line::SawUpload(number, Some((offset, location))) => {
                if let Some(upload) = self.uploads.get_mut(number) {
                    upload.acknowledged = *offset;
                    upload.attempted = *offset;
                    upload.location = Some(location.clone());
                    upload.ending = false;
                }
            }
        }
    }

    fn at<'a, T: PartialEq + Clone>(
        all: &'a mut BTreeMap<Key, State<T>>,
        repository: &str,
        name: &str,
        none: T,
    ) -> &'a mut State<T> {
        all.entry((repository.to_owned(), name.to_owned()))
            .or_insert_with(|| State::new(none))
    }

    /// The digest of content; content is made once, since that costs time.
    fn digest(&mut self, content: Content) -> String {
        let digest = self
            .digests
            .entry((content.seed, content.size))
            .or_insert_with(|| content.digest())
            .clone();
        self.contents.insert(digest.clone(), content);
        digest
    }

    fn attempt(&mut self, number: u64, attempt: &Attempt) {
        let now = self.lines;
        match attempt {
            Attempt::Blob(repository, content) => {
                let digest = self.digest(*content);
                Self::at(&mut self.blobs, repository, &digest, false).try_it(true, now);
            }
            Attempt::BlobGone(repository, digest) => {
                Self::at(&mut self.blobs, repository, digest, false).try_it(false, now);
            }
            Attempt::Manifest(repository, tag, held) => {
                let digest = data::sha256(held.body.as_bytes());
                Self::at(&mut self.held, repository, &digest, false).try_it(true, now);
                if let Some(tag) = tag {
                    let tag = Self::at(&mut self.tags, repository, tag, None);
                    tag.try_it(Some(digest.clone()), now);
                }
                self.manifests.insert(digest, held.clone());
            }
            Attempt::ManifestGone(repository, digest) => {
                Self::at(&mut self.held, repository, digest, false).try_it(false, now);
                for tag in self.tags_of(repository, digest) {
                    tag.try_it(None, now);
                }
            }
            Attempt::TagGone(repository, tag) => {
                Self::at(&mut self.tags, repository, tag, None).try_it(None, now);
            }
            Attempt::Open(repository, content) => {
                let upload = Upload {
                    repository: repository.clone(),
                    content: *content,
                    location: None,
                    acknowledged: 0,
                    attempted: 0,
                    ending: false,
                };
                self.digest(*content);
                self.uploads.insert(number, upload);
            }
            Attempt::Chunk(upload, to) => {
                if let Some(upload) = self.uploads.get_mut(upload) {
                    upload.attempted = upload.attempted.max(*to);
                }
            }
            Attempt::Finish(upload) => {
                let Some(upload) = self.uploads.get_mut(upload) else {
                    return;
                };
                upload.attempted = upload.content.size;
                upload.ending = true;
                let (repository, content) = (upload.repository.clone(), upload.content);
                let digest = self.digest(content);
                Self::at(&mut self.blobs, &repository, &digest, false).try_it(true, now);
            }
        }
    }

    fn tags_of<'a>(
        &'a mut self,
        repository: &'a str,
        digest: &'a str,
    ) -> impl Iterator<Item = &'a mut State<Option<String>>> {
        let of = |state: &State<Option<String>>| state.sure.as_deref() == Some(digest);
        self.tags
            .iter_mut()
            .filter(move |((r, _), state)| r == repository && of(state))
            .map(|(_, state)| state)
    }

    fn done(&mut self, number: u64, attempt: &Attempt, location: Option<&str>) {
        let now = self.lines;
        match attempt {
            Attempt::Blob(repository, content) => {
                let digest = self.digest(*content);
                Self::at(&mut self.blobs, repository, &digest, false).is(true, now);
            }
            Attempt::BlobGone(repository, digest) => {
                Self::at(&mut self.blobs, repository, digest, false).is(false, now);
            }
            Attempt::Manifest(repository, tag, held) => {
                let digest = data::sha256(held.body.as_bytes());
                Self::at(&mut self.held, repository, &digest, false).is(true, now);
                if let Some(tag) = tag {
                    Self::at(&mut self.tags, repository, tag, None).is(Some(digest), now);
                }
            }
            Attempt::ManifestGone(repository, digest) => {
                Self::at(&mut self.held, repository, digest, false).is(false, now);
                for tag in self.tags_of(repository, digest) {
                    tag.is(None, now);
                }
            }
            Attempt::TagGone(repository, tag) => {
                Self::at(&mut self.tags, repository, tag, None).is(None, now);
            }
            Attempt::Open(..) => {
                if let Some(upload) = self.uploads.get_mut(&number) {
                    upload.location = location.map(str::to_owned);
                }
            }
            Attempt::Chunk(upload, to) => {
                if let Some(upload) = self.uploads.get_mut(upload) {
                    upload.acknowledged = *to;
                    upload.location = location.map(str::to_owned);
                }
            }
            Attempt::Finish(upload) => {
                if let Some(upload) = self.uploads.remove(upload) {
                    let digest = self.digest(upload.content);
                    Self::at(&mut self.blobs, &upload.repository, &digest, false).is(true, now);
                }
            }
        }
    }
}

//! Compares a server with what follows from the oracle's journal.
//!
//! Invariant: everything that is told comes from the journal and from the
//! server's answers. What is found is handed back as failures, not as panics:
//! a canary wants them.

use std::collections::{BTreeMap, BTreeSet};

use orlop_tests::client::{Client, blob, manifest, with_digest};
use orlop_tests::data;
use orlop_tests::oracle::journal::Line;
use orlop_tests::oracle::model::{Key, Model, State, Upload};
use orlop_tests::random::Random;
use orlop_tests::reply::Reply;

/// How many of a hundred names of before are looked at again each time.
const AGAIN: u64 = 5;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// What must not be.
    pub(crate) failures: Vec<String>,
    /// What was seen of names that could be more than one thing, and holds
    /// from now on.
    pub(crate) saw: Vec<Line>,
    /// Names looked at.
    pub(crate) looked: u64,
}

/// Looks at every name that a line after `since` is about, and at some of the
/// others; at all of them from line 0.
pub(crate) fn verify(client: &Client, model: &Model, since: usize, random: &mut Random) -> Found {
    let mut check = Check {
        client,
        model,
        since,
        random,
        found: Found::default(),
        held: BTreeMap::new(),
        tags: BTreeMap::new(),
    };
    check.blobs();
    check.manifests();
    check.tags();
    check.lists();
    check.references();
    // The last, since it makes blobs of some.
    check.uploads();
    check.found
}

struct Check<'a> {
    client: &'a Client,
    model: &'a Model,
    since: usize,
    random: &'a mut Random,
    found: Found,
    /// Manifests and tags as they were found.
    held: BTreeMap<Key, bool>,
    tags: BTreeMap<Key, Option<String>>,
}

impl Check<'_> {
    fn fail(&mut self, what: String) {
        self.found.failures.push(what);
    }

    fn get(&mut self, path: &str) -> Option<Reply> {
        self.ask("GET", path, &[])
    }

    fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> Option<Reply> {
        self.found.looked += 1;
        let headers = [("Content-Type", "application/octet-stream")];
        let headers = if body.is_empty() {
            &[]
        } else {
            headers.as_slice()
        };
        match self.client.try_call(method, path, headers, body.to_vec()) {
            Ok(reply) => Some(reply),
            Err(error) => {
                self.fail(format!("{method} {path}: no answer: {error:?}"));
                None
            }
        }
    }

    /// Whether a name is looked at this time.
    fn wants<T>(&mut self, state: &State<T>) -> bool {
        state.line > self.since || !state.or.is_empty() || self.random.percent(AGAIN)
    }

    fn blobs(&mut self) {
        for ((repository, digest), state) in &self.model.blobs {
            if !self.wants(state) {
                continue;
            }
            let path = blob(repository, digest);
            let Some(reply) = self.get(&path) else {
                continue;
            };
            let there = reply.status == 200;
            if !there && reply.status != 404 {
                self.fail(format!("GET {path}: {} {}", reply.status, reply.text()));
                continue;
            }
            let content = self.model.contents.get(digest);
            if there && content.is_none_or(|content| content.bytes() != reply.body) {
                self.fail(format!("GET {path}: wrong bytes"));
            }
            if !state.may_be(&there) {
                self.fail(lost(&path, there));
            }
            if !state.or.is_empty() {
                let line = Line::SawBlob(repository.clone(), digest.clone(), there);
                self.found.saw.push(line);
            }
        }
    }

    fn manifests(&mut self) {
        for (key, state) in &self.model.held {
            let (repository, digest) = key;
            if !self.wants(state) {
                self.held.insert(key.clone(), state.sure);
                continue;
            }
            let path = manifest(repository, digest);
            let Some(reply) = self.get(&path) else {
                continue;
            };
            let there = reply.status == 200;
            if !there && reply.status != 404 {
                self.fail(format!("GET {path}: {} {}", reply.status, reply.text()));
                continue;
            }
            let held = self.model.manifests.get(digest);
            if there && held.is_none_or(|held| held.body.as_bytes() != reply.body) {
                self.fail(format!("GET {path}: wrong bytes"));
            }
            if !state.may_be(&there) {
                self.fail(lost(&path, there));
            }
            self.held.insert(key.clone(), there);
            if !state.or.is_empty() {
                let line = Line::SawManifest(repository.clone(), digest.clone(), there);
                self.found.saw.push(line);
            }
            if there {
                self.i38_what_it_names(repository, digest);
            }
        }
    }

    /// No name leads to a blob that is not there (I38).
    fn i38_what_it_names(&mut self, repository: &str, digest: &str) {
        let Some(held) = self.model.manifests.get(digest) else {
            return;
        };
        let blobs = held.blobs().into_iter().map(|d| blob(repository, &d));
        let children = held
            .children()
            .into_iter()
            .map(|d| manifest(repository, &d));
        for path in blobs.chain(children).collect::<BTreeSet<String>>() {
            if let Some(reply) = self.ask("HEAD", &path, b"")
                && reply.status != 200
            {
                let of = manifest(repository, digest);
                self.fail(format!("{of} names {path}, which is {}", reply.status));
            }
        }
    }

    fn tags(&mut self) {
        for (key, state) in &self.model.tags {
            let (repository, tag) = key;
            let path = manifest(repository, tag);
            let Some(reply) = self.get(&path) else {
                continue;
            };
            let leads = match reply.status {
                200 => Some(data::sha256(&reply.body)),
                404 => None,
                status => {
                    self.fail(format!("GET {path}: {status} {}", reply.text()));
                    continue;
                }
            };
            if !state.may_be(&leads) {
                let (sure, or) = (&state.sure, &state.or);
                self.fail(format!(
                    "{path} leads to {leads:?}; acknowledged was {sure:?}, sent since {or:?}"
                ));
            }
            self.tags.insert(key.clone(), leads.clone());
            if !state.or.is_empty() {
                let line = Line::SawTag(repository.clone(), tag.clone(), leads);
                self.found.saw.push(line);
            }
        }
    }

    /// Lists of tags and of repositories are what single answers say.
    fn lists(&mut self) {
        let Some(catalog) = self.get("/v2/_catalog?n=1000") else {
            return;
        };
        let listed = strings(&catalog.json()["repositories"]);
        for repository in self.model.repositories() {
            let path = format!("/v2/{repository}/tags/list?n=1000");
            let Some(reply) = self.get(&path) else {
                continue;
            };
            let list = match reply.status {
                200 => strings(&reply.json()["tags"]),
                404 => BTreeSet::new(),
                status => {
                    self.fail(format!("GET {path}: {status} {}", reply.text()));
                    continue;
                }
            };
            let own = self.tags.iter().filter(|((r, _), _)| *r == repository);
            let wanted: BTreeSet<String> = own
                .filter(|(_, leads)| leads.is_some())
                .map(|((_, tag), _)| tag.clone())
                .collect();
            if list != wanted {
                self.fail(format!("GET {path}: {list:?}, not {wanted:?}"));
            }
            let named = self.held.iter().any(|((r, _), is)| *is && *r == repository);
            if named && !listed.contains(&repository) {
                self.fail(format!("{repository} has manifests and is not in _catalog"));
            }
        }
    }

    /// Referrers are the manifests that are there and name that subject.
    fn references(&mut self) {
        let mut subjects: BTreeMap<Key, (BTreeSet<String>, bool)> = BTreeMap::new();
        for (key, there) in &self.held {
            let (repository, digest) = key;
            let held = self.model.manifests.get(digest);
            let Some(subject) = held.and_then(|held| held.subject()) else {
                continue;
            };
            let entry = subjects.entry((repository.clone(), subject)).or_default();
            if *there {
                entry.0.insert(digest.clone());
            }
            let state = self.model.held.get(key);
            entry.1 |= state.is_some_and(|state| state.line > self.since);
        }
        for ((repository, subject), (wanted, touched)) in subjects {
            if !touched && !self.random.percent(AGAIN) {
                continue;
            }
            let path = format!("/v2/{repository}/referrers/{subject}?n=1000");
            let Some(reply) = self.get(&path) else {
                continue;
            };
            if reply.status != 200 {
                self.fail(format!("GET {path}: {} {}", reply.status, reply.text()));
                continue;
            }
            let document = reply.json();
            let entries = document["manifests"].as_array();
            let list: BTreeSet<String> = entries
                .into_iter()
                .flatten()
                .filter_map(|entry| entry["digest"].as_str().map(str::to_owned))
                .collect();
            if list != wanted {
                self.fail(format!("GET {path}: {list:?}, not {wanted:?}"));
            }
        }
    }

    fn uploads(&mut self) {
        for (number, upload) in &self.model.uploads {
            let gone = Line::SawUpload(*number, None);
            let Some(location) = &upload.location else {
                self.found.saw.push(gone);
                continue;
            };
            let Some(reply) = self.get(location) else {
                continue;
            };
            match reply.status {
                204 => self.session(*number, upload, &reply),
                404 if upload.acknowledged == 0 || upload.ending => self.found.saw.push(gone),
                status => self.fail(format!(
                    "GET {location}: {status}; {} bytes of it were acknowledged",
                    upload.acknowledged
                )),
            }
        }
    }

    /// An open session is where it may be, and goes on to the right blob.
    fn session(&mut self, number: u64, upload: &Upload, reply: &Reply) {
        let told = reply.find("range").and_then(|range| {
            let (_, last) = range.split_once('-')?;
            last.parse::<usize>().ok()
        });
        let offset = told.map_or(0, |last| last + 1);
        // "0-0" is also what is told of a session without bytes.
        let offset = if offset == 1 && upload.attempted == 0 {
            0
        } else {
            offset
        };
        if offset < upload.acknowledged || offset > upload.attempted {
            self.fail(format!(
                "{} is at {offset}, not from {} to {}",
                reply.what, upload.acknowledged, upload.attempted
            ));
            return;
        }
        let location = reply.location();
        if self.random.percent(50) {
            let line = Line::SawUpload(number, Some((offset, location)));
            self.found.saw.push(line);
            return;
        }
        let bytes = upload.content.bytes();
        let digest = data::sha256(&bytes);
        let path = with_digest(&location, &digest);
        let Some(reply) = self.ask("PUT", &path, &bytes[offset..]) else {
            return;
        };
        if reply.status != 201 {
            let (status, text) = (reply.status, reply.text());
            self.fail(format!("PUT {path} from {offset}: {status} {text}"));
            return;
        }
        let there = self.get(&blob(&upload.repository, &digest));
        if there.is_none_or(|reply| reply.status != 200 || reply.body != bytes) {
            self.fail(format!("PUT {path} from {offset} made another blob"));
        }
        self.found.saw.push(Line::SawUpload(number, None));
        let repository = upload.repository.clone();
        self.found.saw.push(Line::SawBlob(repository, digest, true));
    }
}

fn lost(path: &str, there: bool) -> String {
    if there {
        format!("{path} is there, although its delete was acknowledged")
    } else {
        format!("{path} is gone, although it was acknowledged")
    }
}

fn strings(list: &serde_json::Value) -> BTreeSet<String> {
    let all = list.as_array().into_iter().flatten();
    all.filter_map(|name| name.as_str().map(str::to_owned))
        .collect()
}

//! What the store must know, as maps. Nothing here asks the store.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use orlop_engine::{Algorithm, Digest, Pin, UploadId};

use crate::support::contents::Content;
use crate::support::world::LEASE;

/// A blob that was acknowledged.
#[derive(Debug, Clone)]
pub struct Blob {
    pub bytes: Bytes,
    /// When it was answered for last, since the start.
    pub used: Option<Duration>,
    /// How many pins hold it.
    pub pins: usize,
}

/// An upload that may go on.
#[derive(Debug, Clone)]
pub struct Upload {
    pub id: UploadId,
    pub content: Content,
    pub also: Option<Algorithm>,
    /// Bytes that a restart keeps.
    pub durable: u64,
    /// When somebody asked for it last.
    pub touched: Duration,
}

/// Everything.
#[derive(Default)]
pub struct Known {
    pub blobs: BTreeMap<Digest, Blob>,
    /// Every digest that was ever known, with the SHA-256 it means: also of
    /// blobs that have died.
    pub digests: BTreeMap<Digest, Digest>,
    pub uploads: Vec<Upload>,
    /// Uploads at most that requests left which went away.
    pub strays: u64,
    /// Uploads at most that the log knows without a byte.
    pub empty: u64,
    pub pins: Vec<(Pin, Vec<Digest>)>,
    /// Whether a name was committed for sure, and whether one may have been.
    pub named: bool,
    pub maybe_named: bool,
    /// The copies of the catalog, newest last.
    pub copies: Vec<(Digest, u64)>,
    pub catalog: Option<([u8; 16], u64)>,
    /// What the last collection condemned.
    pub condemned: BTreeSet<Digest>,
    /// What live sets named since then that did not come whole: it may be
    /// condemned no more.
    pub doubtful: BTreeSet<Digest>,
    /// When the store was opened.
    pub opened: Duration,
}

/// What is known of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    Yes,
    No,
    Either,
}

impl Known {
    /// A commit was acknowledged, or an older one answered for it.
    pub fn commit(&mut self, content: &Content, further: &[Algorithm], now: Duration) {
        let blob = self.blobs.entry(content.sha256).or_insert_with(|| Blob {
            bytes: content.bytes.clone(),
            used: None,
            pins: 0,
        });
        blob.used = Some(now);
        self.digests.insert(content.sha256, content.sha256);
        for algorithm in further {
            self.digests
                .insert(content.digest(*algorithm), content.sha256);
        }
        // Pins of what is still to come hold it too.
        let pins = self.pins.iter();
        let held = pins.filter(|(_, held)| held.contains(&content.sha256));
        let count = held.count();
        if let Some(blob) = self.blobs.get_mut(&content.sha256) {
            blob.pins = count;
        }
        self.named |= self.maybe_named;
    }

    /// The blob that a digest means.
    pub fn resolve(&self, digest: &Digest) -> Option<(&Digest, &Blob)> {
        self.blobs.get_key_value(self.digests.get(digest)?)
    }

    /// "It is here" was said.
    pub fn used(&mut self, digest: &Digest, now: Duration) {
        let blob = self
            .digests
            .get(digest)
            .and_then(|sha256| self.blobs.get_mut(sha256));
        if let Some(blob) = blob {
            blob.used = Some(now);
        }
    }

    /// Whether a lease or a pin holds a blob.
    pub fn held(&self, blob: &Blob, now: Duration) -> Held {
        if now - self.opened < LEASE || blob.pins > 0 {
            return Held::Yes;
        }
        match blob.used.map(|used| now - used) {
            Some(age) if age < LEASE => Held::Yes,
            Some(age) if age < LEASE * 2 => Held::Either,
            _ => Held::No,
        }
    }

    /// Counts the pins anew.
    pub fn count_pins(&mut self) {
        for (sha256, blob) in &mut self.blobs {
            let held = self.pins.iter().filter(|(_, held)| held.contains(sha256));
            blob.pins = held.count();
        }
    }

    /// A restart: what lived in memory is gone.
    pub fn restarted(&mut self, now: Duration) {
        self.pins.clear();
        self.condemned.clear();
        self.doubtful.clear();
        for blob in self.blobs.values_mut() {
            (blob.used, blob.pins) = (None, 0);
        }
        self.uploads.retain(|upload| upload.durable > 0);
        for upload in &mut self.uploads {
            upload.touched = now;
        }
        self.opened = now;
        self.strays = 0;
    }

    /// Digests under which nothing is here.
    pub fn unknown(&self, contents: &[Content]) -> Vec<Digest> {
        let all = contents
            .iter()
            .flat_map(|content| [content.sha256, content.sha512, content.blake3]);
        all.filter(|digest| self.resolve(digest).is_none())
            .collect()
    }
}

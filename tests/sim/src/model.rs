//! The reference model: what clients have sent, and what they were told.
//!
//! Owns: a log of both, in the order in which they happened, so that the state
//! of any moment is a prefix of it.
//! Refuses to know: how any of it is stored.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use orlop_engine::{Digest, UploadId};

/// Something that a client did or was told.
#[derive(Debug, Clone)]
pub enum Event {
    /// These bytes may appear under this digest from now on.
    Tried(Digest, Bytes),
    /// The store says that it has them.
    Stored(Digest),
    /// A collection is about to end it, unless it was used meanwhile.
    Dying(Digest),
    /// A collection has ended it while nobody else used it, says the store.
    Dead(Digest),
    /// An upload of these bytes was opened.
    Opened(UploadId, String, Bytes),
    /// So many of its bytes were handed over.
    Sent(UploadId, u64),
    /// So many of its bytes are durable, says the store.
    Durable(UploadId, u64),
    /// It is about to end.
    Ending(UploadId),
    /// It has ended, says the store.
    Ended(UploadId),
    /// A copy of the catalog is about to be stored.
    Copying(Digest, u64),
    /// It is stored, says the store.
    Copied(Digest, u64),
    /// The catalog with this sequence was seen, says the store.
    Seen(u64),
    /// A note was stored with a blob, says the store.
    Noted,
}

/// What is known of a blob.
#[derive(Debug, Clone)]
pub struct Blob {
    /// Its bytes.
    pub bytes: Bytes,
    /// Whether a client was told that it is there.
    pub told: bool,
    /// Whether it was told that it is not.
    pub dead: bool,
}

/// What is known of an upload.
#[derive(Debug, Clone)]
pub struct Upload {
    /// Whose it is.
    pub owner: String,
    /// All its bytes, those still to come included.
    pub bytes: Bytes,
    /// Bytes handed over.
    pub sent: u64,
    /// Bytes that a client was told are durable.
    pub durable: u64,
    /// Whether its end has begun.
    pub ending: bool,
    /// Whether a client was told of its end.
    pub ended: bool,
}

/// What clients know at a moment.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Blobs by each of their digests.
    pub blobs: BTreeMap<Digest, Blob>,
    /// Uploads.
    pub uploads: BTreeMap<UploadId, Upload>,
    /// Copies of the catalog: sequence, and whether it was told.
    pub copies: BTreeMap<Digest, (u64, bool)>,
    /// The highest sequence of the catalog that was told to be seen.
    pub seen: u64,
    /// Whether a note was told to be there.
    pub noted: bool,
}

impl Facts {
    /// Takes an event in.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Tried(digest, bytes) => {
                let blob = Blob {
                    bytes: bytes.clone(),
                    told: false,
                    dead: false,
                };
                self.blobs.entry(*digest).or_insert(blob).dead = false;
            }
            Event::Stored(digest) => {
                if let Some(blob) = self.blobs.get_mut(digest) {
                    blob.told = true;
                }
            }
            Event::Dying(digest) => {
                if let Some(blob) = self.blobs.get_mut(digest) {
                    blob.told = false;
                }
            }
            Event::Dead(digest) => {
                if let Some(blob) = self.blobs.get_mut(digest) {
                    (blob.told, blob.dead) = (false, true);
                }
            }
            Event::Opened(id, owner, bytes) => {
                let upload = Upload {
                    owner: owner.clone(),
                    bytes: bytes.clone(),
                    sent: 0,
                    durable: 0,
                    ending: false,
                    ended: false,
                };
                self.uploads.insert(*id, upload);
            }
            Event::Sent(id, offset) => {
                self.upload(id, |upload| upload.sent = upload.sent.max(*offset))
            }
            Event::Durable(id, offset) => self.upload(id, |upload| upload.durable = *offset),
            Event::Ending(id) => self.upload(id, |upload| upload.ending = true),
            Event::Ended(id) => self.upload(id, |upload| {
                (upload.ending, upload.ended) = (true, true);
            }),
            Event::Copying(digest, sequence) => {
                self.copies.entry(*digest).or_insert((*sequence, false));
            }
            Event::Copied(digest, sequence) => {
                self.copies.insert(*digest, (*sequence, true));
            }
            Event::Seen(sequence) => self.seen = self.seen.max(*sequence),
            Event::Noted => self.noted = true,
        }
    }

    fn upload(&mut self, id: &UploadId, change: impl FnOnce(&mut Upload)) {
        if let Some(upload) = self.uploads.get_mut(id) {
            change(upload);
        }
    }
}

/// The log of events.
#[derive(Default)]
pub struct Ledger(Mutex<Vec<Event>>);

impl Ledger {
    /// Notes an event.
    pub fn note(&self, event: Event) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(event);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

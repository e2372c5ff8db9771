//! What was read before, for as long as it is true.
//!
//! Holds found rows only, each with the sequence that was committed before it
//! was read. A change raises a mark for its key (for a whole repository, the
//! repository's) to its own sequence, before it is answered. A row counts only
//! while it is not older than the marks of its key: so a fill that was
//! overtaken by a change is dropped, whichever is first, without a lock.
//!
//! Marks are shared by keys of equal hash: that costs a lookup now and then
//! and is never wrong. Memory is bounded: rows by number, marks by their table.

use std::hash::{Hash, Hasher, RandomState};

use moka::Equivalent;
use orlop_format::digest::Digest;

use super::marks::Marks;
use super::types::ManifestRow;

/// Marks: 256 KiB.
const MARKS: usize = 1 << 15;

/// What is looked up within a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Item<'a> {
    /// A manifest by tag.
    Tag(&'a str),
    /// A manifest by digest.
    Manifest(&'a Digest),
    /// A blob of the repository.
    Link(&'a Digest),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Owned {
    Tag(Box<str>),
    Manifest(Digest),
    Link(Digest),
}

/// A key that borrows what it names: looking up allocates nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct KeyRef<'a> {
    pub(super) repository: &'a str,
    pub(super) item: Item<'a>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    repository: Box<str>,
    item: Owned,
}

impl Key {
    fn borrow(&self) -> KeyRef<'_> {
        KeyRef {
            repository: &self.repository,
            item: match &self.item {
                Owned::Tag(tag) => Item::Tag(tag),
                Owned::Manifest(digest) => Item::Manifest(digest),
                Owned::Link(digest) => Item::Link(digest),
            },
        }
    }
}

impl From<KeyRef<'_>> for Key {
    fn from(key: KeyRef<'_>) -> Key {
        Key {
            repository: key.repository.into(),
            item: match key.item {
                Item::Tag(tag) => Owned::Tag(tag.into()),
                Item::Manifest(digest) => Owned::Manifest(*digest),
                Item::Link(digest) => Owned::Link(*digest),
            },
        }
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.borrow().hash(state);
    }
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self == key.borrow()
    }
}

/// What a key was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Manifest(ManifestRow),
    Linked,
}

#[derive(Debug, Clone)]
struct Entry {
    found: Found,
    /// Committed before it was read.
    sequence: u64,
}

/// What a change makes untrue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Touched {
    Key(Key),
    Repository(Box<str>),
}

#[derive(Debug)]
pub(super) struct Cache {
    rows: moka::sync::Cache<Key, Entry, RandomState>,
    marks: Marks<RandomState>,
}

impl Cache {
    pub(super) fn new(rows: u64) -> Cache {
        let hash = RandomState::new();
        Cache {
            rows: moka::sync::Cache::builder()
                .max_capacity(rows)
                .build_with_hasher(hash.clone()),
            marks: Marks::new(MARKS, hash),
        }
    }

    /// What the key is known to be now.
    pub(super) fn get(&self, key: &KeyRef<'_>) -> Option<Found> {
        let entry = self.rows.get(key)?;
        let mark = self.marks.of(key).max(self.marks.of(&key.repository));
        (entry.sequence >= mark).then_some(entry.found)
    }

    /// Keeps what was read. `sequence` is what had been committed when the
    /// read began.
    pub(super) fn fill(&self, key: KeyRef<'_>, found: Found, sequence: u64) {
        self.rows.insert(Key::from(key), Entry { found, sequence });
    }

    /// What was read before `sequence` was committed is not true any more.
    pub(super) fn touch(&self, touched: &Touched, sequence: u64) {
        match touched {
            Touched::Key(key) => self.marks.raise(&key.borrow(), sequence),
            Touched::Repository(name) => self.marks.raise(&&**name, sequence),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use orlop_format::digest::Algorithm;

    fn row(of: &[u8]) -> Found {
        Found::Manifest(ManifestRow {
            digest: Digest::of(Algorithm::Sha256, of),
            media_type: "x/y".to_owned(),
            size: 1,
        })
    }

    const LATEST: KeyRef<'_> = KeyRef {
        repository: "a/b",
        item: Item::Tag("latest"),
    };

    #[test]
    fn a_fill_that_a_change_overtook_is_dropped() {
        let cache = Cache::new(100);
        cache.fill(LATEST, row(b"1"), 5);
        assert_eq!(cache.get(&LATEST), Some(row(b"1")));
        cache.touch(&Touched::Key(LATEST.into()), 6);
        assert_eq!(cache.get(&LATEST), None);
        // Read before the change, arriving after it.
        cache.fill(LATEST, row(b"1"), 5);
        assert_eq!(cache.get(&LATEST), None);
        cache.fill(LATEST, row(b"2"), 6);
        assert_eq!(cache.get(&LATEST), Some(row(b"2")));
        // A late word of an older change takes nothing away.
        cache.touch(&Touched::Key(LATEST.into()), 4);
        assert_eq!(cache.get(&LATEST), Some(row(b"2")));
    }

    #[test]
    fn a_repository_takes_its_keys_along() {
        let cache = Cache::new(100);
        cache.fill(LATEST, row(b"1"), 5);
        cache.touch(&Touched::Repository("a/b".into()), 6);
        assert_eq!(cache.get(&LATEST), None);
    }

    #[test]
    fn keys_are_told_apart() {
        let cache = Cache::new(100);
        let digest = Digest::of(Algorithm::Sha256, b"1");
        let text = digest.to_string();
        let key = |repository, item| KeyRef { repository, item };
        cache.fill(key("a", Item::Tag(&text)), row(b"1"), 1);
        cache.fill(key("a", Item::Link(&digest)), Found::Linked, 1);
        assert_eq!(cache.get(&key("a", Item::Manifest(&digest))), None);
        assert_eq!(cache.get(&key("b", Item::Link(&digest))), None);
        let linked = cache.get(&key("a", Item::Link(&digest)));
        assert_eq!(linked, Some(Found::Linked));
    }
}

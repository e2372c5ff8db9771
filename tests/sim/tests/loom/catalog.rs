//! The catalog's cache: a row that a change has overtaken never counts.

use std::hash::{BuildHasherDefault, DefaultHasher};

use loom::sync::atomic;
use loom::sync::{Arc, Mutex};
use loom::thread;

#[path = "../../../../server/src/catalog/marks.rs"]
mod marks;

use marks::{Committed, Marks};

type Hash = BuildHasherDefault<DefaultHasher>;

/// The catalog: what is committed in SQL, and what the cache knows.
struct Catalog {
    row: Mutex<u8>,
    marks: Marks<Hash>,
    committed: Committed,
    cached: Mutex<Option<(u8, u64)>>,
}

impl Catalog {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            row: Mutex::new(0),
            marks: Marks::new(1, Hash::default()),
            committed: Committed::new(5),
            cached: Mutex::new(None),
        })
    }

    /// As the writer has it: committed, marked, counted, answered.
    fn change(&self, to: u8, sequence: u64) {
        *self.row.lock().unwrap() = to;
        self.marks.raise(&"a", sequence);
        self.committed.reach(sequence);
    }

    /// As a reader has it: the sequence, the row, the fill.
    fn read(&self) {
        let sequence = self.committed.get();
        let row = *self.row.lock().unwrap();
        *self.cached.lock().unwrap() = Some((row, sequence));
    }

    /// What the cache answers.
    fn get(&self) -> Option<u8> {
        let (row, sequence) = (*self.cached.lock().unwrap())?;
        (sequence >= self.marks.of(&"a")).then_some(row)
    }
}

#[test]
fn a_row_that_a_change_overtook_is_never_answered() {
    crate::every_order(|| {
        let catalog = Catalog::new();
        let reader = thread::spawn({
            let catalog = Arc::clone(&catalog);
            move || catalog.read()
        });
        catalog.change(1, 6);
        // Answered: from here on nobody may see the old row.
        assert_ne!(catalog.get(), Some(0));
        reader.join().unwrap();
        assert_ne!(catalog.get(), Some(0));
    });
}

#[test]
fn two_changes_and_a_reader_end_with_the_last() {
    crate::every_order(|| {
        let catalog = Catalog::new();
        let reader = thread::spawn({
            let catalog = Arc::clone(&catalog);
            move || {
                catalog.read();
                catalog.get()
            }
        });
        catalog.change(1, 6);
        catalog.change(2, 7);
        assert!(matches!(catalog.get(), None | Some(2)));
        reader.join().unwrap();
        assert!(matches!(catalog.get(), None | Some(2)));
    });
}

#[test]
fn counting_a_change_before_its_mark_is_found_wrong() {
    crate::some_order_fails(|| {
        let catalog = Catalog::new();
        let reader = thread::spawn({
            let catalog = Arc::clone(&catalog);
            move || catalog.read()
        });
        // Counted before it is committed: a reader takes the old row for new.
        catalog.committed.reach(6);
        catalog.change(1, 6);
        reader.join().unwrap();
        assert_ne!(catalog.get(), Some(0));
    });
}

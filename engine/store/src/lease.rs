//! Promises that a blob stays: leases with a term, pins without one.
//!
//! Every answer that says "this blob is here" takes a lease on it; a manifest
//! under way pins what it names, also what is still to come. Kept in memory:
//! after a start every blob counts as leased for one term. Leases go by ordinal,
//! since there are many; pins by SHA-256, so that they hold a blob's next life
//! as well.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use roaring::RoaringTreemap;

use crate::sync::Mutex;

/// Leases and pins of a store.
#[derive(Debug)]
pub(crate) struct Leases {
    term: Duration,
    started: Duration,
    table: Mutex<Table>,
}

/// Two generations of leases. A lease goes into the younger one; the older is
/// dropped when the younger is a term old. So a lease holds between one and
/// two terms and costs about a bit.
#[derive(Debug, Default)]
struct Table {
    young: RoaringTreemap,
    old: RoaringTreemap,
    turned: Duration,
    pins: HashMap<[u8; 32], u32>,
    /// Blobs without the lease that a start gives to all.
    revoked: RoaringTreemap,
    /// While a collection runs: what was used since it began.
    touched: Option<RoaringTreemap>,
}

impl Table {
    /// The generations that have not expired.
    fn valid(&self, term: Duration, now: Duration) -> impl Iterator<Item = &RoaringTreemap> {
        let age = now.saturating_sub(self.turned);
        let young = (age < term.saturating_mul(2)).then_some(&self.young);
        let old = (age < term).then_some(&self.old);
        young.into_iter().chain(old)
    }
}

impl Leases {
    pub(crate) fn new(term: Duration, now: Duration) -> Self {
        let table = Table {
            turned: now,
            ..Table::default()
        };
        Self {
            term,
            started: now,
            table: Mutex::new(table),
        }
    }

    /// Takes or renews a lease.
    pub(crate) fn take(&self, ordinal: u64, now: Duration) {
        let mut table = self.table.lock();
        let age = now.saturating_sub(table.turned);
        if age >= self.term {
            let young = std::mem::take(&mut table.young);
            // After two terms of silence the older generation has expired too.
            table.old = if age >= self.term.saturating_mul(2) {
                RoaringTreemap::new()
            } else {
                young
            };
            table.turned = now;
        }
        table.young.insert(ordinal);
        table.revoked.remove(ordinal);
        if let Some(touched) = &mut table.touched {
            touched.insert(ordinal);
        }
    }

    /// Ends the leases that a blob has, also the one that a start gives to all:
    /// who was told of it is told that it is gone. Pins stay, and a collection that
    /// runs keeps what was used since it began. A later use takes a new lease.
    pub(crate) fn revoke(&self, ordinal: u64, now: Duration) {
        let mut table = self.table.lock();
        table.young.remove(ordinal);
        table.old.remove(ordinal);
        if now.saturating_sub(self.started) < self.term {
            table.revoked.insert(ordinal);
        }
    }

    /// Marks a blob as used since the collection began, if one runs.
    pub(crate) fn touch(&self, ordinal: u64) {
        if let Some(touched) = &mut self.table.lock().touched {
            touched.insert(ordinal);
        }
    }

    /// Raises a collection's barrier: what is leased counts as touched, and
    /// whatever is used from now on. The answer is what is pinned, which the
    /// caller has to touch.
    pub(crate) fn raise(&self, now: Duration) -> Vec<[u8; 32]> {
        let mut table = self.table.lock();
        let mut touched = RoaringTreemap::new();
        for leased in table.valid(self.term, now) {
            touched |= leased;
        }
        table.touched = Some(touched);
        table.pins.keys().copied().collect()
    }

    /// Lowers the barrier: nothing dies any more. The answer is what was used
    /// since it rose.
    pub(crate) fn lower(&self) -> RoaringTreemap {
        self.table.lock().touched.take().unwrap_or_default()
    }

    /// Whether a collection has to let a blob live: it is held, or was used since
    /// that began, or none runs.
    pub(crate) fn keeps(&self, sha256: &[u8; 32], ordinal: u64, now: Duration) -> bool {
        let touched = match &self.table.lock().touched {
            Some(touched) => touched.contains(ordinal),
            None => true,
        };
        touched || self.held(sha256, ordinal, now)
    }

    /// What was used since the collection began.
    pub(crate) fn touched(&self) -> RoaringTreemap {
        self.table.lock().touched.clone().unwrap_or_default()
    }

    /// Whether a lease or a pin holds the blob, or the store has just started.
    pub(crate) fn held(&self, sha256: &[u8; 32], ordinal: u64, now: Duration) -> bool {
        let table = self.table.lock();
        let is_starting = now.saturating_sub(self.started) < self.term;
        if is_starting && !table.revoked.contains(ordinal) {
            return true;
        }
        let mut valid = table.valid(self.term, now);
        table.pins.contains_key(sha256) || valid.any(|leased| leased.contains(ordinal))
    }

    fn pin(&self, sha256: [u8; 32]) {
        let mut table = self.table.lock();
        let count = table.pins.entry(sha256).or_insert(0);
        *count = count.saturating_add(1);
    }

    fn unpin(&self, sha256: &[u8; 32]) {
        let mut table = self.table.lock();
        if let Some(count) = table.pins.get_mut(sha256) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                table.pins.remove(sha256);
            }
        }
    }
}

/// Holds blobs until it is dropped.
#[derive(Debug)]
pub struct Pin {
    leases: Arc<Leases>,
    blobs: Vec<[u8; 32]>,
}

impl Pin {
    pub(crate) fn new(leases: Arc<Leases>) -> Self {
        Self {
            leases,
            blobs: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, sha256: [u8; 32]) {
        self.leases.pin(sha256);
        self.blobs.push(sha256);
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        for sha256 in &self.blobs {
            self.leases.unpin(sha256);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOB: [u8; 32] = [9; 32];
    const TERM: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_holds_at_least_its_term_and_is_renewed_by_use() {
        let leases = Leases::new(TERM, at(0));
        assert!(
            leases.held(&BLOB, 7, at(9)),
            "everything is leased for one term after a start"
        );
        assert!(!leases.held(&BLOB, 7, at(10)));
        for start in 100..140 {
            leases.take(7, at(start));
            assert!(leases.held(&BLOB, 7, at(start + 9)), "taken at {start}");
        }
        leases.take(8, at(150)); // turns the table
        assert!(!leases.held(&BLOB, 7, at(180)));
        assert!(!leases.held(&BLOB, 8, at(171)));
    }

    #[test]
    fn a_lease_survives_one_turn_of_the_table() {
        let leases = Leases::new(TERM, at(0));
        leases.take(1, at(100));
        leases.take(2, at(109));
        leases.take(3, at(110));
        assert!(leases.held(&BLOB, 2, at(118)));
        assert!(leases.held(&BLOB, 1, at(109)));
    }

    #[test]
    fn a_revoked_lease_holds_no_more_and_pins_do() {
        let leases = Arc::new(Leases::new(TERM, at(0)));
        leases.take(7, at(1));
        leases.revoke(7, at(2));
        assert!(!leases.held(&BLOB, 7, at(2)));
        assert!(leases.held(&BLOB, 8, at(2)), "the start's lease on others");
        leases.take(7, at(3));
        assert!(leases.held(&BLOB, 7, at(3)), "a use after that counts");
        leases.take(9, at(100));
        leases.take(1, at(110)); // turns the table
        leases.revoke(9, at(111));
        assert!(!leases.held(&BLOB, 9, at(111)));
        let mut pin = Pin::new(Arc::clone(&leases));
        pin.add(BLOB);
        leases.revoke(9, at(112));
        assert!(leases.held(&BLOB, 9, at(112)));
    }

    #[test]
    fn a_pin_holds_until_it_is_dropped() {
        let leases = Arc::new(Leases::new(TERM, at(0)));
        let mut one = Pin::new(Arc::clone(&leases));
        one.add(BLOB);
        let mut two = Pin::new(Arc::clone(&leases));
        two.add(BLOB);
        drop(one);
        assert!(leases.held(&BLOB, 5, at(1000)));
        drop(two);
        assert!(!leases.held(&BLOB, 5, at(1000)));
    }
}

//! One fetch for all who wait for the same thing.
//!
//! Owns: which fetches are under way. Each runs in a task of its own: a reader
//! who waits for one and stops reading holds up nobody else. At most
//! [`MAX_FETCHES`] of a kind run at a time; one that nobody waits for any more
//! does not begin. Knows nothing of what is fetched and keeps no result.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt, Shared, WeakShared};

use crate::config::MAX_FETCHES;
use crate::runtime::Runtime;
use crate::sync::{Mutex, Semaphore, oneshot};

/// What those who wait hold.
type Landing<V> = Shared<oneshot::Receiver<V>>;

/// Fetches under way, by what is fetched.
pub(crate) struct Flights<K, V: Clone> {
    runtime: Arc<dyn Runtime>,
    running: Arc<Semaphore>,
    table: Arc<Mutex<Table<K, V>>>,
}

struct Table<K, V: Clone> {
    /// Tells a fetch from a later one of the same name.
    next: u64,
    flights: HashMap<K, (u64, WeakShared<oneshot::Receiver<V>>)>,
}

/// Takes a fetch off the table at its end, however it ends.
struct Entry<K: Eq + Hash, V: Clone> {
    table: Arc<Mutex<Table<K, V>>>,
    key: K,
    number: u64,
}

impl<K: Eq + Hash, V: Clone> Drop for Entry<K, V> {
    fn drop(&mut self) {
        let mut table = self.table.lock();
        let own = table
            .flights
            .get(&self.key)
            .is_some_and(|(number, _)| *number == self.number);
        if own {
            table.flights.remove(&self.key);
        }
    }
}

impl<K, V> Flights<K, V>
where
    K: Eq + Hash + Copy + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(crate) fn new(runtime: Arc<dyn Runtime>) -> Self {
        Self {
            runtime,
            running: Arc::new(Semaphore::new(MAX_FETCHES)),
            table: Arc::new(Mutex::new(Table {
                next: 0,
                flights: HashMap::new(),
            })),
        }
    }

    /// The result of the fetch of `key` that is under way, or of this one.
    /// `None` when the runtime ended before the fetch did.
    pub(crate) async fn join(
        &self,
        key: K,
        fetch: impl FnOnce() -> BoxFuture<'static, V>,
    ) -> Option<V> {
        self.board(key, fetch).await.ok()
    }

    fn board(&self, key: K, fetch: impl FnOnce() -> BoxFuture<'static, V>) -> Landing<V> {
        let (answer, landing, entry) = {
            let mut table = self.table.lock();
            let under_way = table.flights.get(&key).and_then(|(_, weak)| weak.upgrade());
            if let Some(landing) = under_way {
                return landing;
            }
            let (answer, landing) = oneshot::channel();
            let landing = landing.shared();
            table.next = table.next.wrapping_add(1);
            let number = table.next;
            if let Some(weak) = landing.downgrade() {
                table.flights.insert(key, (number, weak));
            }
            let entry = Entry {
                table: Arc::clone(&self.table),
                key,
                number,
            };
            (answer, landing, entry)
        };
        let (running, fetch) = (Arc::clone(&self.running), fetch());
        self.runtime.task(Box::pin(async move {
            let Ok(_permit) = running.acquire_owned().await else {
                return;
            };
            if answer.is_closed() {
                return;
            }
            let value = fetch.await;
            drop(entry);
            let _ = answer.send(value);
        }));
        landing
    }
}

//! One thread, a virtual clock, seeded numbers: the store's [`Runtime`] of a
//! simulation.
//!
//! Owns: the tasks, the timers, the clock, and which task goes on next.
//! Invariants: everything that happens is a function of the seed; time passes
//! only when no task can go on, and then at once to the next timer; a panic in
//! a task ends the simulation.
//! Refuses to know: disks and stores.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::future::BoxFuture;
use orlop_engine::Runtime;

use crate::random::Random;

/// The number of the task that [`Machine::run`] was given.
const MAIN: u64 = 0;
/// Times that tasks go on in one run; beyond that it does not come to an end.
const POLLS: u64 = 20_000_000;
/// Time that a run may take on its own clock.
const TIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// What the store sees of the simulation.
pub struct Virtual {
    this: Weak<Virtual>,
    state: Mutex<State>,
}

struct State {
    now: Duration,
    random: Random,
    /// What decides between tasks that could go on; apart, so that neither
    /// changes the other.
    order: Random,
    tasks: BTreeMap<u64, BoxFuture<'static, ()>>,
    ready: Vec<u64>,
    timers: BTreeMap<(Duration, u64), Waker>,
    next: u64,
    polls: u64,
}

/// A simulated machine: it runs what it is given, and its tasks end with it.
pub struct Machine(Arc<Virtual>);

impl Machine {
    /// A machine whose clock stands at 0.
    #[must_use]
    pub fn new(seed: u64) -> Machine {
        let state = State {
            now: Duration::ZERO,
            random: Random::new(seed),
            order: Random::new(!seed),
            tasks: BTreeMap::new(),
            ready: Vec::new(),
            timers: BTreeMap::new(),
            next: MAIN + 1,
            polls: 0,
        };
        Machine(Arc::new_cyclic(|this| Virtual {
            this: Weak::clone(this),
            state: Mutex::new(state),
        }))
    }

    /// What its programs see.
    #[must_use]
    pub fn runtime(&self) -> Arc<Virtual> {
        Arc::clone(&self.0)
    }

    /// Runs `future` to its end, and every task beside it as far as it goes
    /// until then.
    ///
    /// # Panics
    /// When nothing can ever go on, or it goes on for ever.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let mut main = std::pin::pin!(future);
        self.0.wake(MAIN);
        loop {
            let Some(id) = self.0.choose() else {
                assert!(
                    self.0.advance(),
                    "the simulation is stuck: nobody can go on"
                );
                continue;
            };
            let waker = self.0.waker(id);
            let mut context = Context::from_waker(&waker);
            if id == MAIN {
                if let Poll::Ready(value) = main.as_mut().poll(&mut context) {
                    return value;
                }
                continue;
            }
            let Some(mut task) = self.0.lock().tasks.remove(&id) else {
                continue;
            };
            if task.as_mut().poll(&mut context).is_pending() {
                self.0.lock().tasks.insert(id, task);
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.0.kill();
    }
}

/// Wakes one task.
struct Alarm {
    runtime: Weak<Virtual>,
    task: u64,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        if let Some(runtime) = self.runtime.upgrade() {
            runtime.wake(self.task);
        }
    }
}

impl Virtual {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waker(&self, task: u64) -> Waker {
        let runtime = Weak::clone(&self.this);
        Waker::from(Arc::new(Alarm { runtime, task }))
    }

    fn wake(&self, task: u64) {
        let mut state = self.lock();
        if !state.ready.contains(&task) {
            state.ready.push(task);
        }
    }

    /// The next task, any of those that can go on.
    fn choose(&self) -> Option<u64> {
        let mut state = self.lock();
        if state.ready.is_empty() {
            return None;
        }
        state.polls += 1;
        assert!(
            state.polls < POLLS,
            "the simulation does not come to an end"
        );
        let count = state.ready.len();
        let place = state.order.index(count);
        Some(state.ready.remove(place))
    }

    /// Lets the clock go to the next timer. False when there is none.
    fn advance(&self) -> bool {
        let mut state = self.lock();
        let Some(((deadline, _), waker)) = state.timers.pop_first() else {
            return false;
        };
        state.now = state.now.max(deadline);
        assert!(state.now < TIME, "the simulation waits for ever");
        drop(state);
        waker.wake();
        true
    }

    /// Ends all tasks at once, as a killed process would.
    pub fn kill(&self) {
        let tasks = {
            let mut state = self.lock();
            state.ready.retain(|task| *task == MAIN);
            std::mem::take(&mut state.tasks)
        };
        // They may wake each other while they go.
        drop(tasks);
        self.lock().ready.retain(|task| *task == MAIN);
    }

    /// Lets everybody else go on for a while.
    pub fn pause(&self, time: Duration) -> BoxFuture<'static, ()> {
        self.sleep(time)
    }
}

impl Runtime for Virtual {
    fn now(&self) -> Duration {
        self.lock().now
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        let mut state = self.lock();
        for part in bytes.chunks_mut(8) {
            let number = state.random.number().to_le_bytes();
            let number = number.get(..part.len()).unwrap_or_default();
            part.copy_from_slice(number);
        }
    }

    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) -> std::io::Result<()> {
        self.task(task);
        Ok(())
    }

    fn task(&self, task: BoxFuture<'static, ()>) {
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        state.tasks.insert(id, task);
        state.ready.push(id);
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        Box::pin(Sleep {
            runtime: Weak::clone(&self.this),
            timer: (state.now.saturating_add(time), number),
        })
    }
}

/// Ready at a time.
struct Sleep {
    runtime: Weak<Virtual>,
    timer: (Duration, u64),
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(runtime) = self.runtime.upgrade() else {
            return Poll::Pending;
        };
        let mut state = runtime.lock();
        if state.now >= self.timer.0 {
            state.timers.remove(&self.timer);
            return Poll::Ready(());
        }
        state.timers.insert(self.timer, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.upgrade() {
            let waker = runtime.lock().timers.remove(&self.timer);
            drop(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes_only_when_nobody_can_go_on() {
        let machine = Machine::new(1);
        let runtime = machine.runtime();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let clock = Arc::clone(&runtime);
        runtime.task(Box::pin(async move {
            clock.sleep(Duration::from_secs(3600)).await;
            sender.send(clock.now()).unwrap();
        }));
        let began = std::time::Instant::now();
        assert_eq!(machine.run(receiver).unwrap(), Duration::from_secs(3600));
        assert!(began.elapsed() < Duration::from_secs(5));
    }

    #[test]
    #[should_panic(expected = "stuck")]
    fn a_deadlock_is_seen() {
        Machine::new(1).run(std::future::pending::<()>());
    }

    #[test]
    fn the_order_of_tasks_depends_on_the_seed_alone() {
        let order = |seed| {
            let machine = Machine::new(seed);
            let seen = Arc::new(Mutex::new(Vec::new()));
            let runtime = machine.runtime();
            for number in 0..20 {
                let (seen, clock) = (Arc::clone(&seen), machine.runtime());
                runtime.task(Box::pin(async move {
                    clock.sleep(Duration::ZERO).await;
                    seen.lock().unwrap().push(number);
                }));
            }
            machine.run(runtime.sleep(Duration::from_secs(1)));
            seen.lock().unwrap().clone()
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }
}

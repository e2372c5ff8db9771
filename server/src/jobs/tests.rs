//! Jobs on a real catalog, with work that does what a test wants.

mod ends;
mod scrub;

use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Instant;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::*;
use crate::catalog::{JOB_ATTEMPTS, JobProgress, Location, Options};

/// Nothing here takes so long, on any machine that is alive.
const LONG: Duration = Duration::from_secs(120);

type Doing = Box<dyn Fn(Arc<Run>) -> BoxFuture<'static, Result<String, Stop>> + Send + Sync>;

struct Task(&'static str, Doing);

impl Work for Task {
    fn kind(&self) -> &'static str {
        self.0
    }

    fn run(self: Arc<Self>, run: Arc<Run>) -> BoxFuture<'static, Result<String, Stop>> {
        (self.1)(run)
    }
}

fn task<F>(kind: &'static str, doing: impl Fn(Arc<Run>) -> F + Send + Sync + 'static) -> Arc<Task>
where
    F: Future<Output = Result<String, Stop>> + Send + 'static,
{
    Arc::new(Task(kind, Box::new(move |run| doing(run).boxed())))
}

async fn catalog(folder: &Path) -> Catalog {
    let options = Options {
        create: true,
        ..Options::default()
    };
    let location = Location::Sqlite(folder.join("catalog.db"));
    Catalog::open(location, options).await.unwrap()
}

/// A clock that a test sets.
fn clock(at: &Arc<AtomicI64>) -> Clock {
    let at = Arc::clone(at);
    Arc::new(move || at.load(Ordering::SeqCst))
}

fn jobs(catalog: &Catalog, owner: &str) -> Jobs {
    let clock = clock(&Arc::new(AtomicI64::new(1_000)));
    Jobs::new(catalog.clone(), owner.to_owned(), clock)
}

fn progress(done: u64) -> JobProgress {
    JobProgress {
        done,
        total: 10,
        unit: "steps".to_owned(),
    }
}

fn run(jobs: &Jobs) -> tokio::task::JoinHandle<()> {
    let jobs = jobs.clone();
    tokio::spawn(async move { jobs.run(&Supervisor::default()).await })
}

async fn until(jobs: &Jobs, id: i64, state: JobState) -> Job {
    let began = Instant::now();
    loop {
        let job = jobs.show(id).await.unwrap();
        if job.state == state {
            return job;
        }
        assert!(began.elapsed() < LONG, "{job:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_tells_how_long_it_still_takes_at_its_pace() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = catalog(folder.path()).await;
    let steps = task("steps", |run| async move {
        run.report(progress(2), Vec::new());
        assert_eq!(run.remaining(), None, "nothing was done since it began");
        tokio::time::sleep(Duration::from_millis(200)).await;
        run.report(progress(4), Vec::new());
        Err(run.ended().await)
    });
    let jobs = jobs(&catalog, "one").with(steps, None);
    let running = run(&jobs);
    let began = Instant::now();
    let id = jobs.start("steps", "{}").await.unwrap().id;
    let left = loop {
        if let Some(left) = jobs.remaining(id) {
            break left;
        }
        assert!(began.elapsed() < LONG);
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    // Two steps took a fifth of a second, and six are left.
    assert!(left >= Duration::from_millis(600), "{left:?}");
    assert!(
        left <= began.elapsed() * 3 + Duration::from_millis(600),
        "{left:?}"
    );
    jobs.cancel(id).await.unwrap();
    until(&jobs, id, JobState::Cancelled).await;
    assert_eq!(jobs.remaining(id), None);
    jobs.stop().await;
    running.await.unwrap();
    catalog.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_to_its_end_and_leaves_what_came_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = catalog(folder.path()).await;
    let steps = task("steps", |run| async move {
        run.report(progress(10), b"the end".to_vec());
        run.log("half way".to_owned());
        Ok("all of it".to_owned())
    });
    let jobs = jobs(&catalog, "one").with(steps, None);
    let running = run(&jobs);
    let id = jobs.start("steps", "{}").await.unwrap().id;
    let job = until(&jobs, id, JobState::Done).await;
    assert_eq!(job.outcome, "all of it");
    assert_eq!(job.progress, progress(10));
    assert!(job.ended_at.is_some() && job.started_at.is_some());
    assert_eq!(jobs.log(id).await.unwrap()[0].text, "half way");
    assert!(jobs.start("other", "{}").await.is_err());
    assert!(jobs.cancel(id).await.unwrap_err().contains("done already"));
    let observed = jobs.observe().await.unwrap();
    let done = ("steps".to_owned(), JobState::Done, 1);
    assert!(observed.counts.contains(&done), "{observed:?}");
    assert!(observed.done[0].1 > 0);
    jobs.stop().await;
    running.await.unwrap();
    catalog.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i13_i39_work_that_panics_fails_alone_and_the_next_one_runs() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = catalog(folder.path()).await;
    let tries = Arc::new(AtomicUsize::new(0));
    let (counted, other) = (Arc::clone(&tries), Arc::clone(&tries));
    let odd = task("odd", move |_| {
        let tried = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            assert!(tried > 0, "an odd key");
            Ok(String::new())
        }
    });
    let even = task("even", move |_| {
        other.fetch_add(10, Ordering::SeqCst);
        async { Ok(String::new()) }
    });
    let jobs = jobs(&catalog, "one").with(odd, None).with(even, None);
    let running = run(&jobs);
    let id = jobs.start("odd", "{}").await.unwrap().id;
    let failed = until(&jobs, id, JobState::Failed).await;
    assert!(failed.outcome.contains("an odd key"), "{failed:?}");
    for kind in ["odd", "even"] {
        let id = jobs.start(kind, "{}").await.unwrap().id;
        until(&jobs, id, JobState::Done).await;
    }
    assert!(!running.is_finished());
    jobs.stop().await;
    running.await.unwrap();
    catalog.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_where_a_dead_process_left_it_and_is_given_up_when_it_gets_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = catalog(folder.path()).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let places = Arc::clone(&seen);
    let stuck = move || {
        let places = Arc::clone(&places);
        task("stuck", move |run| {
            let place = run.place().map(<[u8]>::to_vec);
            places.lock().unwrap().push(place.clone());
            async move {
                if place.is_none() {
                    run.report(progress(3), b"three".to_vec());
                    run.log("at three".to_owned());
                }
                std::future::pending().await
            }
        })
    };
    let mut id = 0;
    let mut began = 0;
    for process in 0..=JOB_ATTEMPTS {
        let jobs = jobs(&catalog, &format!("process {process}")).with(stuck(), None);
        let running = run(&jobs);
        if process == 0 {
            id = jobs.start("stuck", "{}").await.unwrap().id;
            let logged = Instant::now();
            while jobs.log(id).await.unwrap().is_empty() {
                assert!(logged.elapsed() < LONG);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        began += 1;
        let waited = Instant::now();
        while seen.lock().unwrap().len() < began {
            assert!(waited.elapsed() < LONG, "process {process} began nothing");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // It dies: nothing of it is written.
        running.abort();
        let _ = running.await;
    }
    let last = jobs(&catalog, "last").with(stuck(), None);
    let running = run(&last);
    let job = until(&last, id, JobState::Failed).await;
    assert!(job.outcome.contains("given up"), "{job:?}");
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen[0], None);
    assert!(
        seen[1..]
            .iter()
            .all(|place| place.as_deref() == Some(b"three"))
    );
    assert!(seen.len() <= 2 + JOB_ATTEMPTS as usize, "{seen:?}");
    last.stop().await;
    running.await.unwrap();
    catalog.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_gives_a_job_back_and_a_cancel_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = catalog(folder.path()).await;
    let waiting = || {
        task("waiting", |run: Arc<Run>| async move {
            run.report(progress(1), vec![1]);
            Err(run.ended().await)
        })
    };
    // More often than it may be begun without getting any further.
    let mut id = 0;
    for process in 0..6 {
        let jobs = jobs(&catalog, &format!("process {process}")).with(waiting(), None);
        let running = run(&jobs);
        if process == 0 {
            id = jobs.start("waiting", "{}").await.unwrap().id;
        }
        until(&jobs, id, JobState::Running).await;
        assert!(
            jobs.start("waiting", "{}")
                .await
                .unwrap_err()
                .contains("is running")
        );
        if process == 5 {
            jobs.cancel(id).await.unwrap();
            until(&jobs, id, JobState::Cancelled).await;
        }
        jobs.stop().await;
        running.await.unwrap();
        let state = jobs.show(id).await.unwrap().state;
        let expected = if process == 5 {
            JobState::Cancelled
        } else {
            JobState::Queued
        };
        assert_eq!(state, expected);
    }
    // One that waits is ended at once.
    let idle = jobs(&catalog, "idle").with(waiting(), None);
    let id = idle.start("waiting", "{}").await.unwrap().id;
    assert_eq!(idle.cancel(id).await.unwrap().state, JobState::Cancelled);
    catalog.close().await;
}

const HOUR: i64 = 3_600_000;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_is_made_up_for_once_and_a_jumping_clock_makes_no_storm() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = catalog(folder.path()).await;
    let at = Arc::new(AtomicI64::new(1_000_000_000_000));
    let nothing = task("nothing", |_| async { Ok(String::new()) });
    let hourly = Cron::parse("0 * * * *").unwrap();
    let jobs = Jobs::new(catalog.clone(), "one".to_owned(), clock(&at)).with(nothing, Some(hourly));
    let look = async |time: i64| {
        at.store(time, Ordering::SeqCst);
        let next = schedule::look(&jobs.0, time).await.unwrap().unwrap();
        let rows = jobs.list(None).await.unwrap();
        for job in &rows {
            if job.state == JobState::Queued {
                jobs.cancel(job.id).await.unwrap();
            }
        }
        (next, rows.len())
    };
    let start = at.load(Ordering::SeqCst);
    let (first, count) = look(start).await;
    assert_eq!(count, 0);
    assert!(
        first > start && first <= start + HOUR + HOUR / 10,
        "{first}"
    );
    let same = schedule::look(&jobs.0, start).await.unwrap();
    assert_eq!(same, Some(first), "jitter is always the same");
    assert_eq!(look(first).await.1, 1);
    // Down, or ahead, for two days: once.
    let (next, count) = look(first + 48 * HOUR).await;
    assert_eq!(count, 2);
    assert!(next > first + 48 * HOUR);
    assert_eq!(look(first + 48 * HOUR + 1).await.1, 2);
    // Back by two days: the next time is near, and nothing fires before it.
    let (next, count) = look(first + 1).await;
    assert_eq!(count, 2);
    assert_eq!(next, first + HOUR);
    for second in 0..1_000 {
        assert_eq!(look(first + second * 1_000 + 2).await.1, 2);
    }
    assert_eq!(look(next).await.1, 3);
    // Two ways of writing it are two schedules; off is none.
    let off = Jobs::new(catalog.clone(), "two".to_owned(), clock(&at))
        .with(task("nothing", |_| async { Ok(String::new()) }), None);
    assert_eq!(schedule::look(&off.0, next + 9 * HOUR).await.unwrap(), None);
    assert_eq!(off.schedules().await.unwrap(), []);
    assert_eq!(off.list(None).await.unwrap().len(), 3);
    catalog.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_of_every_second_fires() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = catalog(folder.path()).await;
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let work = task("often", move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok(String::new()) }
    });
    let now: Clock = Arc::new(|| {
        let since = std::time::UNIX_EPOCH.elapsed().unwrap();
        i64::try_from(since.as_millis()).unwrap()
    });
    let secondly = Cron::parse("* * * * * *").unwrap();
    let jobs = Jobs::new(catalog.clone(), "one".to_owned(), now).with(work, Some(secondly));
    let began = Instant::now();
    let running = run(&jobs);
    while runs.load(Ordering::SeqCst) < 3 {
        assert!(began.elapsed() < LONG, "{runs:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    jobs.stop().await;
    running.await.unwrap();
    // No more often than once a second, and no storm.
    let most = began.elapsed().as_secs() + 2;
    let runs = runs.load(Ordering::SeqCst) as u64;
    assert!(runs <= most, "{runs} in {most} s");
    catalog.close().await;
}

#[test]
fn patterns_are_read_and_refused() {
    for text in [
        "0 3 * * 0",
        "*/5 * * * *",
        "0 0 3 * * SUN",
        "@daily",
        "0 0 29 2 *",
    ] {
        assert_eq!(Cron::parse(text).unwrap().text(), text);
    }
    let long = "1,".repeat(200);
    for text in ["", "0 3 * *", "61 * * * *", "x", "0 0 31 2 *", &long] {
        assert!(Cron::parse(text).is_err(), "{text}");
    }
    // 1970-01-04 was the first Sunday.
    let weekly = Cron::parse("0 3 * * 0").unwrap();
    let due = weekly.due(0, b"seed").unwrap();
    let first = (3 * 24 + 3) * HOUR;
    assert!((first..first + HOUR).contains(&due), "{due}");
    assert_ne!(weekly.due(0, b"other").unwrap(), due);
}

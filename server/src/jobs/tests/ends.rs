//! Stops, and tasks that die.

use super::*;

/// Times of a stop that are tried at least, each a little later than the one
/// before.
const STOPS: u64 = 60;

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_misses_no_job_that_is_just_being_taken() {
    let folder = tempfile::tempdir().unwrap();
    let waiting = || {
        task(
            "waiting",
            |run: Arc<Run>| async move { Err(run.ended().await) },
        )
    };
    let mut taken = 0;
    let began = Instant::now();
    let mut stop = 0;
    // On a slow machine it takes longer until one comes after a job was taken.
    while stop < STOPS || taken == 0 {
        assert!(began.elapsed() < LONG, "no stop came after a job was taken");
        let first = catalog(folder.path()).await;
        let jobs = jobs(&first, &format!("process {stop}")).with(waiting(), None);
        // Queued before anybody looks, or kept from the stop before.
        let _ = jobs.start("waiting", "{}").await;
        let running = run(&jobs);
        tokio::time::sleep(Duration::from_micros(stop * 100)).await;
        jobs.stop().await;
        // As a stop of the server does.
        first.close().await;
        running.await.unwrap();
        let next = catalog(folder.path()).await;
        let job = next.jobs(None, 1).await.unwrap().remove(0);
        assert_eq!((job.state, job.attempts), (JobState::Queued, 0), "{stop}");
        taken = job.epoch;
        next.close().await;
        stop += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i13_schedules_that_panic_are_looked_at_again_and_that_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = catalog(folder.path()).await;
    let looks = AtomicUsize::new(0);
    let now: Clock = Arc::new(move || {
        assert!(
            looks.fetch_add(1, Ordering::SeqCst) > 0,
            "a clock that jumps"
        );
        let since = std::time::UNIX_EPOCH.elapsed().unwrap();
        i64::try_from(since.as_millis()).unwrap()
    });
    let (often, asked) = (
        task("often", |_| async { Ok(String::new()) }),
        task("asked", |_| async { Ok(String::new()) }),
    );
    let secondly = Cron::parse("* * * * * *").unwrap();
    let jobs = Jobs::new(catalog.clone(), "one".to_owned(), now)
        .with(often, Some(secondly))
        .with(asked, None);
    let supervisor = Supervisor::default();
    let running = {
        let (jobs, supervisor) = (jobs.clone(), supervisor.clone());
        tokio::spawn(async move { jobs.run(&supervisor).await })
    };
    // Others go on meanwhile.
    let id = jobs.start("asked", "{}").await.unwrap().id;
    until(&jobs, id, JobState::Done).await;
    let began = Instant::now();
    while jobs.list(Some("often")).await.unwrap().is_empty() {
        assert!(began.elapsed() < LONG, "never again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let restarts = supervisor.restarts();
    assert_eq!(restarts, [("asked", 0), ("often", 0), ("schedules", 1)]);
    jobs.stop().await;
    running.await.unwrap();
    catalog.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_over_at_once_also_right_after_its_progress_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = catalog(folder.path()).await;
    let (told, mut ended) = tokio::sync::mpsc::unbounded_channel();
    let (asked, ask) = tokio::sync::watch::channel(0);
    let work = task("work", move |run| {
        let (told, mut ask) = (told.clone(), ask.clone());
        async move {
            run.log("this is written soon".to_owned());
            ask.wait_for(|id| *id == run.id()).await.unwrap();
            told.send(Instant::now()).unwrap();
            Ok(String::new())
        }
    });
    let jobs = jobs(&catalog, "one").with(work, None);
    let running = run(&jobs);
    let mut soonest = LONG;
    for _ in 0..5 {
        let id = jobs.start("work", "{}").await.unwrap().id;
        let began = Instant::now();
        while jobs.log(id).await.unwrap().is_empty() {
            assert!(began.elapsed() < LONG, "its log was never written");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        asked.send(id).unwrap();
        until(&jobs, id, JobState::Done).await;
        soonest = soonest.min(ended.recv().await.unwrap().elapsed());
    }
    // The next progress is written half a second later at the soonest.
    assert!(soonest < Duration::from_millis(300), "{soonest:?}");
    jobs.stop().await;
    running.await.unwrap();
    catalog.close().await;
}

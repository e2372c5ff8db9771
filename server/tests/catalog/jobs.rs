//! Jobs and schedules, on either database.

use orlop::catalog::{
    JOB_ATTEMPTS, JOB_LINES, JOBS_KEPT, JobEnd, JobLine, JobProgress, JobReport, JobState, Schedule,
};

use crate::place::Place;

fn report(done: u64, lines: usize) -> JobReport {
    let line = |number| JobLine {
        at: 7,
        text: format!("line {number} {}", "x".repeat(2_000)),
    };
    JobReport {
        progress: JobProgress {
            done,
            total: 100,
            unit: "bytes".to_owned(),
        },
        place: Some(done.to_le_bytes().to_vec()),
        lines: (0..lines).map(line).collect(),
    }
}

pub(crate) async fn jobs_are_taken_one_of_a_kind_and_who_lost_one_writes_nothing(place: &Place) {
    let catalog = place.open().await;
    let sequence = catalog.sequence();
    assert_eq!(catalog.take_job("scrub", "one", 0).await.unwrap(), None);
    let id = catalog.add_job("scrub", "{}").await.unwrap().unwrap();
    assert_eq!(catalog.add_job("scrub", "{}").await.unwrap(), None);
    let other = catalog.add_job("backup", "{\"to\":\"x\"}").await.unwrap();
    assert_ne!(other, Some(id));
    let job = catalog.take_job("scrub", "one", 0).await.unwrap().unwrap();
    assert_eq!((job.id, job.epoch, job.state), (id, 1, JobState::Running));
    assert_eq!((job.place.clone(), job.attempts), (None, 1));
    // It lives: nobody else gets it.
    assert_eq!(catalog.take_job("scrub", "two", 0).await.unwrap(), None);
    assert_eq!(
        catalog.beat_job(&job, report(40, 2)).await.unwrap(),
        Some(false)
    );
    // Its runner is taken for dead.
    let taken = catalog
        .take_job("scrub", "two", i64::MAX)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((taken.id, taken.epoch, taken.attempts), (id, 2, 1));
    assert_eq!(taken.place, Some(40_u64.to_le_bytes().to_vec()));
    assert_eq!(taken.progress, report(40, 0).progress);
    // What the first one still has to say comes too late.
    assert_eq!(catalog.beat_job(&job, report(99, 1)).await.unwrap(), None);
    let end = JobEnd::Done("stale".to_owned());
    assert!(!catalog.end_job(&job, report(99, 1), end).await.unwrap());
    let now = catalog.job(id).await.unwrap().unwrap();
    assert_eq!(now, taken);
    assert_eq!(catalog.job_log(id).await.unwrap().len(), 2);
    assert!(catalog.cancel_job(id).await.unwrap());
    assert_eq!(
        catalog.beat_job(&taken, report(50, 0)).await.unwrap(),
        Some(true)
    );
    assert!(
        catalog
            .end_job(&taken, report(50, 0), JobEnd::Cancelled)
            .await
            .unwrap()
    );
    assert!(!catalog.cancel_job(id).await.unwrap());
    let states = catalog.job_counts().await.unwrap();
    let states: Vec<_> = states
        .iter()
        .map(|row| (row.0.as_str(), row.1, row.2))
        .collect();
    let expected = [
        ("backup", JobState::Queued, 1),
        ("scrub", JobState::Cancelled, 1),
    ];
    assert_eq!(states, expected);
    let backup = catalog.take_job("backup", "two", 0).await.unwrap().unwrap();
    assert_eq!(backup.params, "{\"to\":\"x\"}");
    // Nothing of it is a change of names.
    assert_eq!(catalog.sequence(), sequence);
    assert_eq!(catalog.changes(0, 10).await.unwrap(), []);
    catalog.close().await;
    let catalog = place.try_open(false).await.unwrap();
    assert_eq!(catalog.job(backup.id).await.unwrap(), Some(backup));
    catalog.close().await;
}

pub(crate) async fn jobs_that_get_nowhere_are_given_up(place: &Place) {
    let catalog = place.open().await;
    let id = catalog.add_job("scrub", "{}").await.unwrap().unwrap();
    for attempt in 1..=JOB_ATTEMPTS {
        let job = catalog
            .take_job("scrub", "x", i64::MAX)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(job.attempts, attempt);
        // What is given back was no attempt.
        let released = JobEnd::Released;
        assert!(catalog.end_job(&job, report(0, 0), released).await.unwrap());
        let job = catalog
            .take_job("scrub", "x", i64::MAX)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(job.attempts, attempt);
    }
    assert_eq!(
        catalog.take_job("scrub", "x", i64::MAX).await.unwrap(),
        None
    );
    let job = catalog.job(id).await.unwrap().unwrap();
    assert_eq!(job.state, JobState::Failed);
    assert!(job.outcome.contains("given up"), "{job:?}");
    catalog.close().await;
}

pub(crate) async fn attempts_count_until_a_job_is_at_a_new_place(place: &Place) {
    let catalog = place.open().await;
    let id = catalog.add_job("scrub", "{}").await.unwrap().unwrap();
    let take = async || {
        let taken = catalog.take_job("scrub", "x", i64::MAX).await.unwrap();
        taken.unwrap()
    };
    let attempts = async || catalog.job(id).await.unwrap().unwrap().attempts;
    let at = |place: Option<&[u8]>, done| JobReport {
        place: place.map(<[u8]>::to_vec),
        ..report(done, 0)
    };
    // Without a place, more that is done is some way.
    let job = take().await;
    catalog.beat_job(&job, at(None, 0)).await.unwrap();
    assert_eq!(attempts().await, 1);
    catalog.beat_job(&job, at(None, 1)).await.unwrap();
    assert_eq!(attempts().await, 0);
    // With one, only another place is: its next runner begins there again,
    // however much this one says it has done since.
    let job = take().await;
    assert_eq!(job.attempts, 1);
    catalog.beat_job(&job, at(Some(b"a"), 1)).await.unwrap();
    assert_eq!(attempts().await, 0);
    let mut job = take().await;
    for done in 2..5 {
        let told = catalog.beat_job(&job, at(Some(b"a"), done)).await;
        assert_eq!(told.unwrap(), Some(false));
        assert_eq!(attempts().await, 1);
    }
    job = take().await;
    assert_eq!((job.attempts, job.place.as_deref()), (2, Some(&b"a"[..])));
    catalog.beat_job(&job, at(Some(b"a"), 9)).await.unwrap();
    assert_eq!(attempts().await, 2);
    // An earlier place is another one, too.
    catalog.beat_job(&job, at(Some(b"0"), 0)).await.unwrap();
    assert_eq!(attempts().await, 0);
    for attempt in 1..=JOB_ATTEMPTS {
        job = take().await;
        assert_eq!(job.attempts, attempt);
        catalog.beat_job(&job, at(Some(b"0"), 50)).await.unwrap();
    }
    let taken = catalog.take_job("scrub", "x", i64::MAX).await.unwrap();
    assert_eq!(taken, None);
    let job = catalog.job(id).await.unwrap().unwrap();
    assert_eq!(job.state, JobState::Failed, "{job:?}");
    catalog.close().await;
}

pub(crate) async fn history_and_logs_of_jobs_have_bounds(place: &Place) {
    let catalog = place.open().await;
    let mut last = 0;
    for number in 0..JOBS_KEPT + 5 {
        last = catalog.add_job("scrub", "{}").await.unwrap().unwrap();
        let job = catalog.take_job("scrub", "x", 0).await.unwrap().unwrap();
        let done = JobEnd::Done("y".repeat(5_000));
        let lines = if number % 20 == 0 { 3 } else { 0 };
        assert!(catalog.end_job(&job, report(1, lines), done).await.unwrap());
    }
    let kept = place.number("SELECT count(*) FROM job").await;
    assert_eq!(kept, JOBS_KEPT);
    let orphans = "SELECT count(*) FROM job_log WHERE job NOT IN (SELECT id FROM job)";
    assert_eq!(place.number(orphans).await, 0);
    let newest = catalog.jobs(None, 3).await.unwrap();
    assert_eq!(newest.len(), 3);
    assert_eq!(newest[0].id, last);
    assert!(newest[0].outcome.len() <= 1024);
    assert!(catalog.jobs(Some("backup"), 3).await.unwrap().is_empty());
    catalog.add_job("scrub", "{}").await.unwrap();
    let job = catalog.take_job("scrub", "x", 0).await.unwrap().unwrap();
    for _ in 0..5 {
        catalog.beat_job(&job, report(2, 90)).await.unwrap();
    }
    let log = catalog.job_log(job.id).await.unwrap();
    assert_eq!(log.len(), JOB_LINES as usize);
    assert!(
        log.iter()
            .all(|line| line.text.len() <= 1024 && line.at == 7)
    );
    assert!(log.last().unwrap().text.starts_with("line 89 "));
    catalog.close().await;
}

pub(crate) async fn a_schedule_fires_once_for_each_time(place: &Place) {
    let catalog = place.open().await;
    let plan = Schedule {
        kind: "scrub".to_owned(),
        cron: "0 3 * * 0".to_owned(),
        enabled: true,
        next_at: 1_000,
    };
    catalog.plan_jobs(plan.clone()).await.unwrap();
    assert_eq!(
        catalog.schedules().await.unwrap(),
        std::slice::from_ref(&plan)
    );
    // Two that see it due at once.
    let (one, two) = tokio::join!(
        catalog.fire_schedule(&plan, 2_000),
        catalog.fire_schedule(&plan, 2_000)
    );
    let fired = [one.unwrap(), two.unwrap()];
    assert_eq!(fired.iter().flatten().count(), 1, "{fired:?}");
    // It still waits when it is due again: it is not queued twice.
    let plan = catalog.schedules().await.unwrap().remove(0);
    assert_eq!(plan.next_at, 2_000);
    assert_eq!(catalog.fire_schedule(&plan, 3_000).await.unwrap(), None);
    assert_eq!(catalog.jobs(None, 10).await.unwrap().len(), 1);
    assert_eq!(catalog.schedules().await.unwrap()[0].next_at, 3_000);
    catalog.close().await;
}

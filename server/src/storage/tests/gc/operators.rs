//! What operators set and see: pauses, times by repository, events of cycles,
//! plans.

use super::*;
use crate::catalog::ChangeKind;
use crate::collection::Untagged;

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_lets_none_begin_and_one_that_runs_stands_still() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), |_| {}).await;
    let image = running.image("a", "v1", "content").await;
    running.image("a", "kept", "kept").await;
    running.delete("a", &image).await;
    let gc = running.storage.gc();
    let why = "moving disks".to_owned();
    let paused = gc.hold_up(why.clone()).await.unwrap();
    assert!(gc.observe().is_paused);
    let outcome = running.collect("{}").await;
    assert!(outcome.paused && running.has(&image), "{outcome:?}");
    let refused = gc.may_start(Some("{}")).await.unwrap_err();
    assert!(refused.contains(&why) && refused.contains("orlop gc resume"));
    gc.may_start(Some(r#"{"plan":true}"#)).await.unwrap();
    let plan = running.collect(r#"{"plan":true}"#).await;
    assert_eq!(plan.dead + plan.condemned, 3, "{plan:?}");
    drop(gc);
    running.stop().await;
    let running = Running::start(folder.path(), |_| {}).await;
    let gc = running.storage.gc();
    assert!(gc.observe().is_paused, "from the start");
    assert_eq!(gc.pause_that_is().await.unwrap().unwrap(), paused);
    assert!(running.collect("{}").await.paused);
    assert!(gc.resume().await.unwrap());
    assert!(!gc.resume().await.unwrap());
    // One that has begun: it waits at its next step.
    let jobs = running.storage.jobs().unwrap();
    let mut looks = 0;
    let id = loop {
        running
            .maintenance
            .set(crate::registry::ReadOnly::asked(None).ok());
        tokio::time::sleep(LEASE * 3).await;
        let id = running.start_job("{}").await;
        until(async || jobs.show(id).await.unwrap().started_at.is_some()).await;
        tokio::time::sleep(LEASE * 3).await;
        gc.hold_up(why.clone()).await.unwrap();
        running.maintenance.set(None);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let job = jobs.show(id).await.unwrap();
        assert!(running.has(&image), "{}", job.outcome);
        if job.ended_at.is_none() {
            break id;
        }
        // It had not looked yet whether it may begin.
        assert!(job.outcome.contains("\"paused\":true"), "{}", job.outcome);
        looks += 1;
        assert!(looks < 10, "none ever begins");
        assert!(gc.resume().await.unwrap());
    };
    assert!(gc.resume().await.unwrap());
    running.ended(id).await;
    running.collect("{}").await;
    assert!(!running.has(&image));
    drop((gc, jobs));
    running.ends_clean(folder.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn untagged_manifests_go_where_a_pattern_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let rule = |settings: &mut Settings| {
        let mut untagged = Untagged::default();
        untagged.add("ci/**", Some(LEASE)).unwrap();
        untagged.add("ci/release", None).unwrap();
        settings.untagged = untagged;
    };
    let running = Running::start(folder.path(), rule).await;
    let mut images = Vec::new();
    for (repository, goes) in [
        ("ci/app/web", true),
        ("ci/release", false),
        ("team/app", false),
    ] {
        let image = running.image(repository, "", repository).await;
        images.push((repository, image, goes));
    }
    tokio::time::sleep(LEASE * 2).await;
    let id = running.start_job(r#"{"plan":true}"#).await;
    running.ended(id).await;
    let planned = running.storage.gc().planned(id).unwrap();
    assert_eq!((planned.untagged_count, planned.untagged_due), (3, 1));
    assert_eq!(planned.untagged[0].manifest.digest, images[0].1);
    assert!(planned.untagged[0].due_at.is_some() && planned.untagged[1].due_at.is_none());
    assert!(planned.untagged[0].manifest.bytes > 0);
    assert_eq!(running.storage.gc().planned(id + 1), None);
    let mut retired = 0;
    for _ in 0..2 {
        retired += running.collect("{}").await.retired;
    }
    assert_eq!(retired, 1);
    for (repository, image, goes) in images {
        assert_eq!(running.has(&image), !goes, "{repository}");
    }
    running.ends_clean(folder.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_cycle_is_told_once_and_calls_for_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), |_| {}).await;
    let image = running.image("a", "v1", "content").await;
    running.image("a", "kept", "kept").await;
    running.delete("a", &image).await;
    let first = running.collect("{}").await;
    assert_eq!(first.dead, 3, "{first:?}");
    let told = async || {
        let changes = running.storage.catalog.changes(0, 1000).await.unwrap();
        let cycles = changes
            .into_iter()
            .filter(|change| change.kind == ChangeKind::Collected);
        cycles.collect::<Vec<_>>()
    };
    let cycles = told().await;
    assert_eq!(cycles.len(), first.cycles as usize);
    assert!(cycles.iter().all(|change| change.repository == 0));
    let last: serde_json::Value = serde_json::from_str(&cycles.last().unwrap().object).unwrap();
    assert_eq!((&last["dead"], &last["condemned"]), (&3.into(), &0.into()));
    // One that finds nothing, and then none at all.
    let second = running.collect("{}").await;
    assert_eq!((second.cycles, second.idle), (1, false), "{second:?}");
    let third = running.collect("{}").await;
    assert!(third.idle, "{third:?}");
    assert_eq!(told().await.len(), cycles.len() + 1);
    running.ends_clean(folder.path()).await;
}

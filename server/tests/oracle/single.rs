//! Single incidents, on stores of their own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use orlop::registry::{Algorithm, Digest, Reference};
use orlop_figures as figures;

use crate::check;
use crate::model::SLACK;
use crate::pool::{self, Blob, MANIFEST};
use crate::random::Random;
use crate::server::{Rules, Server, now, outcome};
use crate::world::World;

const RULES: Rules = Rules {
    lease: Duration::from_millis(10),
    window: Duration::ZERO,
    untagged: None,
};
/// Deaths that nothing explains, in one cycle of a store as small as these.
const BOUND: u64 = 1000;

/// Layers that no manifest names.
async fn garbage(server: &Server, count: u64) -> Vec<Digest> {
    let mut digests = Vec::new();
    for number in 0..count {
        let bytes = Bytes::from(format!("garbage {number}"));
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        server.upload("garbage", digest, &bytes, 1).await.unwrap();
        digests.push(digest);
    }
    digests
}

async fn here(server: &Server, digests: &[Digest]) -> u64 {
    let mut here = 0;
    for digest in digests {
        here += u64::from(server.has(digest).await);
    }
    here
}

/// A catalog that has not heard of most blobs loses no more of them than the
/// bound in a cycle, until somebody says that it is right.
#[tokio::test(flavor = "multi_thread")]
async fn i15_a_catalog_that_lost_what_names_most_blobs_ends_no_more_than_the_bound() {
    let mut world = World::new(RULES, Random::new(15), &["a"]).await;
    world.act_often(20).await;
    world = world.save().await;
    let lost = garbage(&world.server, BOUND + 300).await;
    world = world.restore().await;
    assert_eq!(world.told.restored, 1);
    world.server.leases_end().await;
    let from = now();
    let done = world.server.job("{}").await;
    assert!(done.bounded > 0, "{done:?}");
    assert!(done.dead <= BOUND * u64::from(done.cycles), "{done:?}");
    let left = here(&world.server, &lost).await;
    assert!(left > 0, "{done:?}");
    assert_eq!(left, done.bounded, "{done:?}");
    world.server.leases_end().await;
    let done = world.server.job(r#"{"unlimited":true}"#).await;
    assert_eq!((done.bounded, here(&world.server, &lost).await), (0, 0));
    world.jobs_since(from).await;
    world.end().await;
}

/// A job whose server stops again and again is at its end once one of them
/// lives for long enough, and what it did before is not undone.
#[tokio::test(flavor = "multi_thread")]
async fn i20_i26_a_collection_that_is_interrupted_often_comes_to_its_end() {
    let mut world = World::new(RULES, Random::new(26), &["a", "b"]).await;
    world.act_often(60).await;
    let garbage = garbage(&world.server, 400).await;
    world.server.leases_end().await;
    let id = world.server.job_start("{}").await;
    for moment in [0, 1, 2, 3, 5, 8, 13, 21] {
        tokio::time::sleep(Duration::from_millis(moment)).await;
        world.server = world.server.restart().await;
    }
    let done = outcome(&world.server.job_end(id).await);
    world.server.leases_end().await;
    world.server.job("{}").await;
    assert_eq!(here(&world.server, &garbage).await, 0, "{done:?}");
    world.server.stop().await;
    check::fsck(world.folder.path());
}

/// A job that is ended at any of its steps leaves every pull right.
#[tokio::test(flavor = "multi_thread")]
async fn i23_a_collection_that_is_cancelled_at_any_moment_leaves_pulls_right() {
    let mut world = World::new(RULES, Random::new(23), &["a", "b"]).await;
    let mut states = BTreeSet::new();
    for moment in 0..30 {
        world.act_often(8).await;
        let moment = Duration::from_micros(moment * 700);
        states.insert(world.cancel_after(moment).await);
    }
    assert!(states.contains("cancelled"), "{states:?}");
    world.end().await;
}

/// What died is stored anew by the next push, not only named again.
#[tokio::test(flavor = "multi_thread")]
async fn i06_a_push_after_a_collection_stores_the_bytes_again() {
    let folder = crate::world::folder();
    let server = Server::start(folder.path(), RULES).await;
    let blob = Blob::new(Bytes::from_static(b"pushed, collected and pushed again"));
    for _ in 0..5 {
        assert!(server.blob_size("a", &blob.sha256).await.is_err());
        server
            .upload("a", blob.sha256, &blob.bytes, 2)
            .await
            .unwrap();
        assert_eq!(server.blob("a", &blob.sha256).await.unwrap(), blob.bytes);
        server.leases_end().await;
        assert_eq!(server.job("{}").await.dead, 1);
    }
    server.stop().await;
    check::fsck(folder.path());
}

/// A content that is garbage since a delete: when that was acknowledged.
struct Ended {
    digest: Digest,
    at: i64,
}

/// Pushes images of contents of their own and deletes them at once.
async fn wasteful(server: Arc<Server>, number: u64, over: Arc<AtomicBool>) -> Vec<Ended> {
    let mut ended = Vec::new();
    let mut random = Random::part(36, number);
    while !over.load(Ordering::Relaxed) {
        let name = format!("w{number}");
        let mut layers = Vec::new();
        for _ in 0..2 {
            let blob = Blob::new(random.any().to_le_bytes().to_vec().into());
            server
                .upload(&name, blob.sha256, &blob.bytes, 1)
                .await
                .unwrap();
            layers.push(blob);
        }
        let bytes = pool::plain(&layers[0], &layers[1]);
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        let reference = Reference::Digest(digest);
        // A lease that is over is a push in vain: its layers are garbage too.
        if server
            .push(&name, &reference, MANIFEST, &bytes)
            .await
            .is_ok()
        {
            server.delete(&name, &digest).await.unwrap();
        }
        let digests = layers.iter().map(|of| of.sha256).chain([digest]);
        let at = now();
        ended.extend(digests.map(|digest| Ended { digest, at }));
        tokio::time::sleep(Duration::from_millis(1 + random.below(6))).await;
    }
    ended
}

/// What was deleted longer ago than the grace (the undelete window and two terms
/// of a lease) is gone with the first collection that begins after that, so that
/// there is never more garbage than grows in the grace and a collection.
#[tokio::test(flavor = "multi_thread")]
async fn g13_garbage_is_never_above_grace_times_rate() {
    let rules = Rules {
        lease: Duration::from_millis(40),
        window: Duration::from_millis(60),
        untagged: None,
    };
    let grace = rules.window + 2 * rules.lease;
    let grace = i64::try_from(grace.as_millis()).unwrap() + SLACK;
    let folder = crate::world::folder();
    let server = Arc::new(Server::start(folder.path(), rules).await);
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..3)
        .map(|number| tokio::spawn(wasteful(Arc::clone(&server), number, Arc::clone(&over))))
        .collect();
    let (began, mut jobs): (_, Vec<(i64, i64, u64)>) = (now(), Vec::new());
    let least = figures::choose(6, 40, 2_000);
    // However fast jobs are: something has to be past the grace.
    while jobs.len() < least || now() < began + 4 * grace {
        let from = now();
        let done = server.job("{}").await;
        jobs.push((from, now(), done.held + done.condemned));
        assert_eq!(done.bounded, 0);
    }
    over.store(true, Ordering::Relaxed);
    let mut all = Vec::new();
    for client in clients {
        all.extend(client.await.unwrap());
    }
    let took = now() - began;
    let rate = all.len() as f64 / took as f64;
    let mut most = 0;
    for (from, to, left) in &jobs {
        // What may be left: what came after the grace began, up to its end, and
        // what three clients have under way.
        let young = |of: &&Ended| of.at > from - grace;
        let bound = all.iter().filter(|of| of.at <= *to).filter(young).count() as u64 + 3 * 3;
        assert!(*left <= bound, "{left} are left, and {bound} may be");
        most = most.max(*left);
    }
    let (last, _, _) = jobs[jobs.len() - 1];
    let mut old = 0;
    for of in all.iter().filter(|of| of.at < last - grace) {
        assert!(!server.has(&of.digest).await, "{} is kept", of.digest);
        old += 1;
    }
    println!(
        "{} contents were garbage, {rate:.1} a millisecond; at most {most} at a time; {old} of {} are past the grace of {grace} ms",
        all.len(),
        all.len()
    );
    assert!(old > most, "nothing was past the grace");
    Arc::into_inner(server).unwrap().stop().await;
    check::fsck(folder.path());
}

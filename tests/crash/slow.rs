//! G11: a slow disk, and one that stalls. Requests take longer; none is given
//! up, nothing is lost, and health says what it is.

use std::time::{Duration, Instant};

use orlop_figures::choose;
use orlop_tests::data;
use orlop_tests::server::Setup;

use crate::rig::{Rig, seed};
use crate::volatile::Volatile;

const REPOSITORY: &str = "slow/repo";

#[test]
fn g11_a_slow_disk_loses_nothing_and_refuses_nothing() {
    const TEST: &str = "slow::g11_a_slow_disk_loses_nothing_and_refuses_nothing";
    let Some(disk) = Volatile::empty() else {
        return;
    };
    let setup = Setup::default().data(disk.path().join("data"));
    let mut rig = Rig::start(TEST, seed(TEST), setup);
    disk.slow_down(Duration::from_millis(choose(20, 50, 200)));
    let oracle = rig.load();
    std::thread::sleep(Duration::from_secs(choose(8, 15, 300)));
    rig.server.kill();
    let wrong = oracle.end();
    let model = rig.answers_were_right(wrong);
    if !model.refused.is_empty() {
        rig.fail(&format!("refused for slowness: {:?}", model.refused));
    }
    assert!(model.acknowledged > 5, "only {}", model.acknowledged);
    disk.slow_down(Duration::ZERO);
    rig.start_again();
    rig.all_is_right(true);
    rig.server.kill();
}

#[test]
fn g11_a_stalled_sync_ends_and_nothing_is_lost() {
    let Some(disk) = Volatile::empty() else {
        return;
    };
    let mut server = Setup::default()
        .data(disk.path().join("data"))
        .env("ORLOP_LOG_LEVEL", "info,access=off")
        .start();
    let client = server.client();
    let before = data::bytes(1, 500_000);
    client.push_blob(REPOSITORY, &before);
    let stall = Duration::from_secs(choose(4, 40, 40));
    disk.stall_syncs(stall);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let pushes: Vec<_> = (0..4)
            .map(|n| {
                let client = client.clone();
                let bytes = data::bytes(10 + n, 100 + 300_000 * usize::try_from(n).unwrap());
                scope.spawn(move || {
                    client.push_blob(REPOSITORY, &bytes);
                    bytes
                })
            })
            .collect();
        // Reads go on meanwhile, and health tells it.
        let mut seen = Vec::new();
        while began.elapsed() < stall - Duration::from_millis(300) {
            client.blob_is(REPOSITORY, &data::sha256(&before), &before);
            client.get("/livez").expect(200);
            let ready = client.get("/readyz");
            seen.push((ready.status, ready.text()));
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(seen.iter().all(|(status, _)| *status == 200), "{seen:?}");
        let tells = |(_, page): &(u16, String)| page.contains("waiting for the disk");
        let is_long = stall > Duration::from_secs(35);
        assert!(!is_long || seen.iter().any(tells), "{seen:?}");
        for push in pushes {
            let bytes = push.join().expect("a push that waited");
            client.blob_is(REPOSITORY, &data::sha256(&bytes), &bytes);
        }
    });
    assert!(began.elapsed() >= stall, "a push did not wait for its sync");
    let ready = client.get("/readyz").expect(200);
    assert_eq!(ready.json()["writes"], "on", "{}", ready.text());
    let after = data::bytes(2, 100_000);
    client.push_blob(REPOSITORY, &after);
    server.kill();
    server.start_again();
    let client = server.client();
    for bytes in [before, after] {
        client.blob_is(REPOSITORY, &data::sha256(&bytes), &bytes);
    }
    server.kill();
}

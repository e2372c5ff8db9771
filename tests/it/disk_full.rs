//! A full disk: pushes are refused, pulls go on, nothing is lost.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use orlop_tests::client::{Client, blob};
use orlop_tests::data;
use orlop_tests::mount::Mount;
use orlop_tests::oci;
use orlop_tests::server::Setup;

/// Room for the journal, the index and some hundred MiB of blobs.
const DISK: u64 = 1 << 30;

/// Longer than a stop takes.
const STOP: Duration = Duration::from_secs(60);

/// Pushes until the server refuses; returns what was acknowledged, as seeds,
/// and the refusing answer.
fn fill(client: &Client, first_seed: u64, size: usize) -> (Vec<u64>, orlop_tests::reply::Reply) {
    let mut kept = Vec::new();
    for seed in first_seed..first_seed + DISK / size as u64 + 1 {
        let bytes = data::bytes(seed, size);
        let digest = data::sha256(&bytes);
        let opened = client.call("POST", "/v2/full/repo/blobs/uploads/", &[], "");
        if opened.status != 202 {
            return (kept, opened);
        }
        let done = client.finish(&opened.location(), &digest, bytes);
        if done.status != 201 {
            return (kept, done);
        }
        kept.push(seed);
    }
    panic!("more was accepted than the disk holds");
}

fn all_there(client: &Client, seeds: &[u64], size: usize) {
    for &seed in seeds {
        let bytes = data::bytes(seed, size);
        client.blob_is("full/repo", &data::sha256(&bytes), &bytes);
    }
}

#[test]
fn below_the_reserve_pushes_are_refused_and_pulls_go_on() {
    let Some(mount) = Mount::ext4(DISK) else {
        return;
    };
    let mut server = Setup::default()
        .data(mount.path().join("data"))
        .env("ORLOP_SPACE_RESERVE", "128MiB")
        .start();
    let client = server.client();
    let image = oci::image(&client, "full/repo", &[b"before it was full"]);
    image.put(&client, "full/repo", "v1");
    let size = 8 << 20;
    let (kept, refused) = fill(&client, 1000, size);
    assert_eq!(refused.status, 507, "{}", refused.text());
    assert!(!refused.code().is_empty());
    assert!(kept.len() > 5, "full after {} blobs", kept.len());
    all_there(&client, &kept, size);
    image.is_at(&client, "full/repo", "v1");
    client.get("/livez").expect(200);
    // Still refused, still serving, also after a restart.
    let (more, _) = fill(&client, 2000, size);
    assert!(
        more.len() < 3,
        "{} were accepted on a full disk",
        more.len()
    );
    server.stop();
    server.start_again();
    let client = server.client();
    all_there(&client, &kept, size);
    all_there(&client, &more, size);
    image.is_at(&client, "full/repo", "v1");
    server.stop();
}

/// Somebody else takes all that is left, to the last block.
fn take_all(mount: &Mount) -> PathBuf {
    let filler = mount.path().join("filler");
    let mut file = File::create(&filler).unwrap();
    let block = vec![7; 1 << 20];
    while file.write_all(&block).is_ok() {}
    let _ = file.sync_all();
    for step in [4096, 1] {
        while file.write_all(&block[..step]).is_ok() {}
    }
    filler
}

#[test]
fn a_stop_on_a_full_disk_ends_well_and_the_next_start_has_everything() {
    let Some(mount) = Mount::ext4(DISK) else {
        return;
    };
    let mut server = Setup::default()
        .data(mount.path().join("data"))
        .env("ORLOP_SPACE_RESERVE", "16MiB")
        .start();
    let client = server.client();
    let image = oci::image(&client, "full/repo", &[b"before it was full"]);
    image.put(&client, "full/repo", "v1");
    for seed in 5000..5200 {
        client.push_blob("full/repo", &data::bytes(seed, 100));
    }
    let filler = take_all(&mount);
    image.is_at(&client, "full/repo", "v1");
    // The index has no room for what it holds in memory: what a stop gives
    // back is taken, too.
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = File::options().append(true).open(&filler).unwrap();
            let began = Instant::now();
            while !is_over.load(Ordering::Relaxed) && began.elapsed() < STOP {
                let _ = file.write_all(&[7; 4096]).and_then(|()| file.sync_all());
            }
        });
        server.stop();
        is_over.store(true, Ordering::Relaxed);
    });
    server.start_again();
    image.is_at(&server.client(), "full/repo", "v1");
    server.stop();
    fs::remove_file(filler).unwrap();
    server.start_again();
    image.is_at(&server.client(), "full/repo", "v1");
    server.client().push_blob("full/repo", b"room again");
    server.stop();
}

#[test]
fn a_disk_that_fills_up_under_a_push_loses_nothing_acknowledged() {
    let Some(mount) = Mount::ext4(DISK) else {
        return;
    };
    let mut server = Setup::default()
        .data(mount.path().join("data"))
        .env("ORLOP_SPACE_RESERVE", "16MiB")
        .start();
    let client = server.client();
    let size = 5 << 20;
    let (first, _) = (0..4).fold((Vec::new(), ()), |(mut kept, ()), i| {
        let bytes = data::bytes(3000 + i, size);
        client.push_blob("full/repo", &bytes);
        kept.push(3000 + i);
        (kept, ())
    });
    let filler = take_all(&mount);
    let bytes = data::bytes(4000, size);
    let refused = client
        .try_call("POST", "/v2/full/repo/blobs/uploads/", &[], "")
        .map(|opened| match opened.status {
            202 => client.finish(&opened.location(), &data::sha256(&bytes), bytes.clone()),
            _ => opened,
        })
        .unwrap();
    assert!(
        matches!(refused.status, 507 | 503),
        "{} {}",
        refused.status,
        refused.text()
    );
    all_there(&client, &first, size);
    client
        .get(&blob("full/repo", &data::sha256(&bytes)))
        .expect(404);
    // With room again a restart is as good as new.
    fs::remove_file(filler).unwrap();
    server.stop();
    server.start_again();
    let client = server.client();
    all_there(&client, &first, size);
    let digest = client.push_blob("full/repo", &bytes);
    client.blob_is("full/repo", &digest, &bytes);
    server.stop();
}

//! kill −9 under pushes, twenty times: everything acknowledged is there.
//!
//! The oracle is this process, which survives: it writes down what was
//! acknowledged, and after each restart asks for all of it.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use orlop_tests::client::{Client, manifest};
use orlop_tests::data;
use orlop_tests::oci::{self, Manifest};
use orlop_tests::server::Server;
use serde_json::json;

const ROUNDS: u64 = 20;
const PUSHERS: u64 = 4;
/// Inline, at the border of inline, one extent, several pages, many pages.
const SIZES: [usize; 9] = [
    1, 300, 4096, 20_000, 65_536, 65_537, 200_000, 1_500_000, 3_000_000,
];
const REPOSITORY: &str = "kill/repo";

/// A blob by the seed and size of its content.
#[derive(Debug, Clone, Copy)]
struct Content {
    seed: u64,
    size: usize,
}

impl Content {
    fn bytes(self) -> Vec<u8> {
        data::bytes(self.seed, self.size)
    }
}

/// What a tag may be: the last acknowledged value, or one sent after it.
#[derive(Debug, Default)]
struct Tag {
    acknowledged: Option<Manifest>,
    sent_since: Vec<Manifest>,
}

/// What was acknowledged.
#[derive(Debug, Default)]
struct Oracle {
    blobs: Vec<Content>,
    manifests: Vec<Manifest>,
    tags: HashMap<String, Tag>,
    /// Open uploads: location and content, all of whose first half was
    /// acknowledged.
    uploads: Vec<(String, Content)>,
}

/// One pusher, until the server is gone.
struct Pusher<'a> {
    client: Client,
    oracle: &'a Mutex<Oracle>,
    tag: String,
    next: u64,
}

/// The server is gone: no answer, so nothing is known of this request.
struct Gone;

impl Pusher<'_> {
    fn run(&mut self, killed: &AtomicBool) {
        while self.step().is_ok() {}
        assert!(
            killed.load(Ordering::SeqCst),
            "a request failed before the server was killed"
        );
    }

    fn step(&mut self) -> Result<(), Gone> {
        self.next += 1;
        let size = SIZES[usize::try_from(self.next).unwrap() % SIZES.len()];
        let content = Content {
            seed: self.next,
            size,
        };
        self.push(content)?;
        if self.next.is_multiple_of(3) {
            self.image(content)?;
        }
        if self.next.is_multiple_of(5) {
            self.half_upload(Content {
                seed: self.next | 1 << 40,
                size: 400_000,
            })?;
        }
        Ok(())
    }

    fn call(
        &self,
        method: &str,
        path: &str,
        kind: &str,
        body: Vec<u8>,
        wanted: u16,
    ) -> Result<orlop_tests::reply::Reply, Gone> {
        let headers = [("Content-Type", kind)];
        match self.client.try_call(method, path, &headers, body) {
            Ok(reply) => Ok(reply.expect(wanted)),
            Err(_) => Err(Gone),
        }
    }

    fn open(&self) -> Result<String, Gone> {
        let path = format!("/v2/{REPOSITORY}/blobs/uploads/");
        let kind = "application/octet-stream";
        Ok(self.call("POST", &path, kind, Vec::new(), 202)?.location())
    }

    fn put_blob(&self, bytes: Vec<u8>) -> Result<String, Gone> {
        let digest = data::sha256(&bytes);
        let path = orlop_tests::client::with_digest(&self.open()?, &digest);
        self.call("PUT", &path, "application/octet-stream", bytes, 201)?;
        Ok(digest)
    }

    fn push(&self, content: Content) -> Result<(), Gone> {
        self.put_blob(content.bytes())?;
        self.oracle.lock().unwrap().blobs.push(content);
        Ok(())
    }

    fn image(&self, layer: Content) -> Result<(), Gone> {
        let config = json!({"architecture": "amd64", "os": "linux", "seed": layer.seed});
        let config = config.to_string().into_bytes();
        let size = config.len();
        let digest = self.put_blob(config)?;
        let layer_digest = data::sha256(&layer.bytes());
        let image = Manifest::json(
            oci::IMAGE,
            &json!({
                "schemaVersion": 2,
                "mediaType": oci::IMAGE,
                "config": oci::descriptor(oci::CONFIG, &digest, size),
                "layers": [oci::descriptor(oci::LAYER, &layer_digest, layer.size)],
            }),
        );
        let mut oracle = self.oracle.lock().unwrap();
        let tag = oracle.tags.entry(self.tag.clone()).or_default();
        tag.sent_since.push(image.clone());
        drop(oracle);
        let path = manifest(REPOSITORY, &self.tag);
        self.call("PUT", &path, oci::IMAGE, image.bytes.clone(), 201)?;
        let mut oracle = self.oracle.lock().unwrap();
        oracle.manifests.push(image.clone());
        let tag = oracle.tags.entry(self.tag.clone()).or_default();
        tag.acknowledged = Some(image);
        tag.sent_since.clear();
        Ok(())
    }

    fn half_upload(&self, content: Content) -> Result<(), Gone> {
        let location = self.open()?;
        let first = content.bytes()[..content.size / 2].to_vec();
        let kind = "application/octet-stream";
        let location = self.call("PATCH", &location, kind, first, 202)?.location();
        self.oracle
            .lock()
            .unwrap()
            .uploads
            .push((location, content));
        Ok(())
    }
}

/// Checks blobs and manifests from these positions on, and every tag.
fn check(client: &Client, oracle: &Oracle, blobs: usize, manifests: usize) {
    for content in &oracle.blobs[blobs..] {
        let bytes = content.bytes();
        client.blob_is(REPOSITORY, &data::sha256(&bytes), &bytes);
    }
    for image in &oracle.manifests[manifests..] {
        image.is_at(client, REPOSITORY, &image.digest);
    }
    for (name, tag) in &oracle.tags {
        let reply = client.get(&manifest(REPOSITORY, name));
        let allowed = tag.acknowledged.iter().chain(&tag.sent_since);
        let is_one_of_them = allowed.into_iter().any(|m| m.bytes == reply.body);
        let may_be_absent = tag.acknowledged.is_none() && reply.status == 404;
        assert!(
            is_one_of_them || may_be_absent,
            "tag {name} is {} {}, acknowledged was {:?}",
            reply.status,
            reply.text(),
            tag.acknowledged.as_ref().map(|m| &m.digest)
        );
    }
}

/// Resumes every open upload where its last acknowledgement left it.
fn resume(client: &Client, oracle: &mut Oracle) {
    for (location, content) in std::mem::take(&mut oracle.uploads) {
        let bytes = content.bytes();
        let half = content.size / 2;
        let status = client.get(&location).expect(204);
        assert_eq!(
            status.header("range"),
            format!("0-{}", half - 1),
            "an acknowledged part of an upload is gone"
        );
        client
            .finish(
                &status.location(),
                &data::sha256(&bytes),
                bytes[half..].to_vec(),
            )
            .expect(201);
        oracle.blobs.push(content);
    }
}

/// One round: push, kill, restart.
fn round(server: &mut Server, oracle: &Mutex<Oracle>, number: u64) {
    let killed = AtomicBool::new(false);
    let mut pushers: Vec<Pusher> = (0..PUSHERS)
        .map(|i| Pusher {
            client: server.client(),
            oracle,
            tag: format!("pusher-{i}"),
            next: (number * PUSHERS + i + 1) << 20,
        })
        .collect();
    thread::scope(|scope| {
        for pusher in &mut pushers {
            let killed = &killed;
            scope.spawn(move || pusher.run(killed));
        }
        // Not a multiple of anything the server does at intervals.
        thread::sleep(Duration::from_millis(60 + number * 37 % 190));
        killed.store(true, Ordering::SeqCst);
        server.kill();
    });
    server.start_again();
}

#[test]
fn everything_acknowledged_survives_twenty_kills() {
    let mut server = Server::start();
    let oracle = Mutex::new(Oracle::default());
    for number in 0..ROUNDS {
        let (blobs, manifests) = {
            let oracle = oracle.lock().unwrap();
            (oracle.blobs.len(), oracle.manifests.len())
        };
        round(&mut server, &oracle, number);
        let mut oracle = oracle.lock().unwrap();
        let client = server.client();
        resume(&client, &mut oracle);
        check(&client, &oracle, blobs, manifests);
    }
    let oracle = oracle.into_inner().unwrap();
    assert!(
        oracle.blobs.len() > 100 && oracle.manifests.len() > 20,
        "too little was pushed to show anything: {} blobs, {} manifests",
        oracle.blobs.len(),
        oracle.manifests.len()
    );
    check(&server.client(), &oracle, 0, 0);
    // And once more from the log alone.
    server.stop();
    std::fs::remove_dir_all(server.data().join("index")).unwrap();
    server.start_again();
    check(&server.client(), &oracle, 0, 0);
}

#[test]
fn a_kill_during_recovery_loses_nothing() {
    let mut server = Server::start();
    let oracle = Mutex::new(Oracle::default());
    round(&mut server, &oracle, 3);
    for wait in [0, 1, 3, 10, 30] {
        server.kill();
        server.start_and_kill(Duration::from_millis(wait));
        server.start_again();
    }
    let mut oracle = oracle.into_inner().unwrap();
    assert!(oracle.blobs.len() > 5, "nothing was pushed before the kill");
    let client = server.client();
    resume(&client, &mut oracle);
    check(&client, &oracle, 0, 0);
}

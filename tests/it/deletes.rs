//! Deletes: at once and only there, among pushes, and after a crash. With
//! abuse case A77: what is gone in one repository is served in another.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use orlop_tests::client::{Client, blob, manifest};
use orlop_tests::data;
use orlop_tests::oci::{self, Manifest};
use orlop_tests::server::Server;
use serde_json::json;

/// What is in two repositories, and is deleted in one of them.
struct Common {
    layer: Vec<u8>,
    image: Manifest,
    report: Manifest,
}

const HERE: &str = "a77/deleted";
const THERE: &str = "a77/kept";

impl Common {
    fn push(client: &Client) -> Common {
        // Large enough to be in a segment, and read in pages.
        let layer = data::bytes(77, 1_500_000);
        let make = |repository: &str| {
            let image = oci::image(client, repository, &[&layer]);
            image.put(client, repository, "v1");
            image.put(client, repository, "v2");
            let report = oci::artifact(client, repository, b"report", Some(&image.descriptor()));
            report.put(client, repository, &report.digest);
            (image, report)
        };
        make(THERE);
        let (image, report) = make(HERE);
        Common {
            layer,
            image,
            report,
        }
    }

    fn paths(&self, repository: &str) -> Vec<String> {
        let digest = data::sha256(&self.layer);
        vec![
            blob(repository, &digest),
            manifest(repository, &self.image.digest),
            manifest(repository, "v1"),
            manifest(repository, "v2"),
            manifest(repository, &self.report.digest),
        ]
    }

    /// Everything is served there, so that every cache knows it.
    fn is_kept(&self, client: &Client) {
        client.blob_is(THERE, &data::sha256(&self.layer), &self.layer);
        for at in [self.image.digest.as_str(), "v1", "v2"] {
            self.image.is_at(client, THERE, at);
        }
        self.report.is_at(client, THERE, &self.report.digest);
        let list = format!("/v2/{THERE}/referrers/{}", self.image.digest);
        let list = client.get(&list).expect(200).json();
        assert_eq!(list["manifests"][0]["digest"], self.report.digest.as_str());
    }

    /// Nothing is served here, however it is asked for.
    fn is_gone(&self, client: &Client) {
        for path in self.paths(HERE) {
            client.head(&path).expect(404);
            client.get(&path).expect(404);
            client.range(&path, "bytes=0-9").expect(404);
            // Not even that a client has the right one.
            for digest in [
                &data::sha256(&self.layer),
                &self.image.digest,
                &self.report.digest,
            ] {
                let tag = format!("\"{digest}\"");
                for tag in [tag.as_str(), "*"] {
                    client
                        .call("GET", &path, &[("If-None-Match", tag)], "")
                        .expect(404);
                    client
                        .call("HEAD", &path, &[("If-None-Match", tag)], "")
                        .expect(404);
                }
            }
            client.delete(&path).expect(404);
        }
        let tags = client
            .get(&format!("/v2/{HERE}/tags/list"))
            .expect(200)
            .json();
        assert_eq!(tags["tags"], json!([]));
        let list = format!("/v2/{HERE}/referrers/{}", self.image.digest);
        let list = client.get(&list).expect(200).json();
        assert_eq!(list["manifests"], json!([]));
        // It cannot be pushed as if its layer were still here.
        client
            .put_manifest(HERE, "v3", oci::IMAGE, &self.image.bytes)
            .refused(400, "MANIFEST_BLOB_UNKNOWN");
    }
}

#[test]
fn a77_what_is_deleted_here_stays_away_while_it_is_served_elsewhere() {
    let mut server = Server::start();
    let client = server.client();
    let common = Common::push(&client);
    for _ in 0..3 {
        common.is_kept(&client);
        for path in common.paths(HERE) {
            client.get(&path).expect(200);
            client.head(&path).expect(200);
        }
    }
    for path in [
        blob(HERE, &data::sha256(&common.layer)),
        manifest(HERE, &common.image.digest),
        manifest(HERE, &common.report.digest),
    ] {
        client.delete(&path).expect(202);
        client.get(&path).expect(404);
    }
    let check = |server: &Server| {
        let client = server.client();
        common.is_gone(&client);
        // Read elsewhere, and asked for here again.
        common.is_kept(&client);
        common.is_gone(&client);
    };
    check(&server);
    server.stop();
    server.start_again();
    check(&server);
    server.kill();
    server.start_again();
    check(&server);
    // A mount brings it back, and only what was mounted.
    let client = server.client();
    let digest = data::sha256(&common.layer);
    let mount = format!("/v2/{HERE}/blobs/uploads/?mount={digest}&from={THERE}");
    client.call("POST", &mount, &[], "").expect(201);
    client.blob_is(HERE, &digest, &common.layer);
    client.get(&manifest(HERE, "v1")).expect(404);
    common.image.put(&client, HERE, "v1");
    server.kill();
    server.start_again();
    common.image.is_at(&server.client(), HERE, "v1");
    server.client().blob_is(HERE, &digest, &common.layer);
}

/// What eight clients push and delete at the same time.
struct Contested {
    repository: &'static str,
    layer: Vec<u8>,
    config: Vec<u8>,
    image: Manifest,
}

impl Contested {
    fn new(client: &Client) -> Contested {
        let repository = "race/deletes";
        let layer = data::bytes(78, 90_000);
        let image = oci::image(client, repository, &[&layer]);
        let document: serde_json::Value = serde_json::from_slice(&image.bytes).unwrap();
        let config = document["config"]["digest"].as_str().unwrap();
        let config = client.get(&blob(repository, config)).expect(200).body;
        Contested {
            repository,
            layer,
            config,
            image,
        }
    }

    /// One request of a kind; every answer is one that some order of the
    /// requests explains.
    fn step(&self, client: &Client, kind: usize) {
        let (repository, layer) = (self.repository, data::sha256(&self.layer));
        let put = |reference: &str| {
            let reply = client.put_manifest(repository, reference, oci::IMAGE, &self.image.bytes);
            let reply = reply.expect_any(&[201, 400]);
            assert!(reply.status == 201 || reply.code() == "MANIFEST_BLOB_UNKNOWN");
        };
        let exactly = |path: String, bytes: &[u8]| {
            let reply = client.get(&path).expect_any(&[200, 404]);
            assert!(
                reply.status == 404 || reply.body == bytes,
                "{path}: other bytes"
            );
        };
        let by_digest = self.image.digest.as_str();
        match kind % 10 {
            0 => put("latest"),
            1 => put(by_digest),
            2 => drop(client.push_blob(repository, &self.layer)),
            3 => drop(client.push_blob(repository, &self.config)),
            4 => drop(
                client
                    .delete(&manifest(repository, "latest"))
                    .expect_any(&[202, 404]),
            ),
            5 => drop(
                client
                    .delete(&manifest(repository, by_digest))
                    .expect_any(&[202, 404]),
            ),
            6 => drop(
                client
                    .delete(&blob(repository, &layer))
                    .expect_any(&[202, 404]),
            ),
            7 => exactly(manifest(repository, "latest"), &self.image.bytes),
            8 => exactly(manifest(repository, by_digest), &self.image.bytes),
            _ => exactly(blob(repository, &layer), &self.layer),
        }
    }

    /// With nobody else at work, all views of it agree; returns what is there.
    fn agrees(&self, client: &Client) -> [u16; 3] {
        let list = format!("/v2/{}/tags/list", self.repository);
        let tags = client.get(&list).expect(200).json()["tags"].clone();
        let paths = [
            manifest(self.repository, "latest"),
            manifest(self.repository, &self.image.digest),
            blob(self.repository, &data::sha256(&self.layer)),
        ];
        let there = paths.map(|path| {
            let status = client.get(&path).expect_any(&[200, 404]).status;
            client.head(&path).expect(status);
            status
        });
        let [tag, digest, _] = there;
        assert_eq!(tags == json!(["latest"]), tag == 200, "{tags}");
        assert!(
            tag == 404 || digest == 200,
            "a tag leads to what is deleted"
        );
        there
    }
}

#[test]
fn pushes_and_deletes_at_the_same_time_leave_one_truth() {
    let mut server = Server::start();
    let contested = Contested::new(&server.client());
    let end = Instant::now() + Duration::from_secs(4);
    thread::scope(|scope| {
        for worker in 0..8_usize {
            let (server, contested) = (&server, &contested);
            scope.spawn(move || {
                let client = server.client();
                // Each its own order of the same requests.
                let mut kind = worker * 3;
                while Instant::now() < end {
                    contested.step(&client, kind);
                    kind = kind * 7 + worker + 1 + kind / 10 % 3;
                    kind %= 100_000;
                }
            });
        }
    });
    let there = contested.agrees(&server.client());
    server.kill();
    server.start_again();
    let client = server.client();
    assert_eq!(contested.agrees(&client), there, "after a restart");
    // Nothing is stuck: it can be pushed, deleted, and pushed again.
    for _ in 0..2 {
        client.push_blob(contested.repository, &contested.layer);
        client.push_blob(contested.repository, &contested.config);
        contested.image.put(&client, contested.repository, "latest");
        assert_eq!(contested.agrees(&client), [200; 3]);
        let layer = blob(contested.repository, &data::sha256(&contested.layer));
        client.delete(&layer).expect(202);
        let image = manifest(contested.repository, &contested.image.digest);
        client.delete(&image).expect(202);
        assert_eq!(contested.agrees(&client), [404; 3]);
    }
}

/// What a path answers after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// A push of it was answered last.
    There,
    /// A delete of it was answered last.
    Gone,
    /// A request about it was on its way.
    Either,
}

/// Paths and what is known of them.
type Oracle = Mutex<HashMap<String, Known>>;

/// The server is gone.
struct Killed;

/// Pushes images and deletes parts of them, each its own, until the server is
/// gone.
struct Deleter<'a> {
    client: Client,
    oracle: &'a Oracle,
    repository: String,
    next: u64,
}

impl Deleter<'_> {
    fn know(&self, paths: &[String], known: Known) {
        let mut oracle = self.oracle.lock().unwrap();
        oracle.extend(paths.iter().map(|path| (path.clone(), known)));
    }

    /// One request; after its answer the paths are as it says.
    fn call(
        &self,
        (method, path, kind): (&str, &str, &str),
        body: Vec<u8>,
        paths: &[String],
        then: Known,
    ) -> Result<orlop_tests::reply::Reply, Killed> {
        self.know(paths, Known::Either);
        let headers = [("Content-Type", kind)];
        let reply = self.client.try_call(method, path, &headers, body);
        let reply = reply.map_err(|_| Killed)?.expect_any(&[201, 202]);
        self.know(paths, then);
        Ok(reply)
    }

    fn put_blob(&self, bytes: Vec<u8>) -> Result<String, Killed> {
        let (digest, kind) = (data::sha256(&bytes), "application/octet-stream");
        let start = format!("/v2/{}/blobs/uploads/", self.repository);
        let opened = self.call(("POST", &start, kind), Vec::new(), &[], Known::There)?;
        let path = orlop_tests::client::with_digest(&opened.location(), &digest);
        let at = [blob(&self.repository, &digest)];
        self.call(("PUT", &path, kind), bytes, &at, Known::There)?;
        Ok(digest)
    }

    fn step(&mut self) -> Result<(), Killed> {
        self.next += 1;
        let repository = self.repository.as_str();
        // Beside the log, in it, and in a segment.
        let size = [300, 60_000, 200_000][usize::try_from(self.next % 3).unwrap()];
        let layer = self.put_blob(data::bytes(self.next, size))?;
        let config = format!("{{\"number\":{}}}", self.next);
        let config_size = config.len();
        let config = self.put_blob(config.into_bytes())?;
        let image = Manifest::json(
            oci::IMAGE,
            &json!({
                "schemaVersion": 2,
                "mediaType": oci::IMAGE,
                "config": oci::descriptor(oci::CONFIG, &config, config_size),
                "layers": [oci::descriptor(oci::LAYER, &layer, size)],
            }),
        );
        let tag = format!("v{}", self.next);
        let tagged = manifest(repository, &tag);
        let by_digest = manifest(repository, &image.digest);
        let layer = blob(repository, &layer);
        let push = ("PUT", tagged.as_str(), oci::IMAGE);
        let both = [tagged.clone(), by_digest.clone()];
        self.call(push, image.bytes.clone(), &both, Known::There)?;
        let delete = |path: &String, gone: &[String]| {
            self.call(
                ("DELETE", path, "text/plain"),
                Vec::new(),
                gone,
                Known::Gone,
            )
        };
        match self.next % 5 {
            0 => {
                delete(&tagged, &both[..1])?;
            }
            1 => {
                delete(&by_digest, &both)?;
            }
            2 => {
                delete(&layer, std::slice::from_ref(&layer))?;
            }
            3 => {
                // Gone and back.
                delete(&by_digest, &both)?;
                self.call(push, image.bytes, &both, Known::There)?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// Asks for every path; those of which nothing was known are what they are
/// from now on.
fn check(client: &Client, oracle: &Oracle) {
    for (path, known) in oracle.lock().unwrap().iter_mut() {
        let there = client.head(path).expect_any(&[200, 404]).status == 200;
        let found = if there { Known::There } else { Known::Gone };
        assert!(
            *known == Known::Either || *known == found,
            "{path}: {known:?}, found {found:?}"
        );
        *known = found;
    }
}

#[test]
fn answered_deletes_survive_kills() {
    let mut server = Server::start();
    let oracle = Oracle::default();
    for round in 0..10_u64 {
        let killed = AtomicBool::new(false);
        thread::scope(|scope| {
            for i in 0..4 {
                let mut deleter = Deleter {
                    client: server.client(),
                    oracle: &oracle,
                    repository: format!("kill/deletes-{i}"),
                    next: (round * 4 + i) << 20,
                };
                let killed = &killed;
                scope.spawn(move || {
                    while deleter.step().is_ok() {}
                    assert!(killed.load(Ordering::SeqCst), "failed before the kill");
                });
            }
            thread::sleep(Duration::from_millis(150 + round * 67 % 310));
            killed.store(true, Ordering::SeqCst);
            server.kill();
        });
        server.start_again();
        check(&server.client(), &oracle);
    }
    let gone = oracle
        .lock()
        .unwrap()
        .values()
        .filter(|k| **k == Known::Gone)
        .count();
    assert!(gone > 50, "too little was deleted to show anything: {gone}");
    // And after an orderly stop.
    server.stop();
    server.start_again();
    check(&server.client(), &oracle);
}

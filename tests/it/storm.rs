//! A storm of pushes on the real server while collections run back to back.
//!
//! Each client has a repository of its own, which it knows all about, and the
//! contents of all: what it was told is here it does not upload. A blob that was
//! said to be here stays for a lease, so that no push is refused. In the end all
//! that was acknowledged and not deleted is pulled and compared, before and after
//! a restart, what was deleted is gone, and `orlop-fsck` has no finding.
//!
//! `ORLOP_SEED` repeats the choices, not the timing.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use orlop_figures as figures;
use orlop_tests::client::{Client, blob, manifest};
use orlop_tests::jobs::ask;
use orlop_tests::oci::{self, Manifest, descriptor};
use orlop_tests::random::Random;
use orlop_tests::server::{Server, Setup};
use orlop_tests::{data, place, tools};
use serde_json::json;

/// Clients at once.
const CLIENTS: usize = 4;
/// Images that are pushed at one time, and layers.
const RECIPES: u64 = 150;
const LAYERS: u64 = 60;
/// Images that are pushed no more after a second, with new ones for them.
const DRIFT: u64 = 3;
/// Manifests of a repository above which more is deleted than pushed.
const ROWS: usize = 150;
/// Contents of which it is asked one by one whether they are gone.
const SAMPLE: usize = 1000;
/// Tags of a repository.
const TAGS: u64 = 12;
/// The shortest lease that can be set.
const LEASE: Duration = Duration::from_secs(60);

/// A layer, which all that have it share.
fn layer(number: u64) -> Arc<Vec<u8>> {
    static MADE: Mutex<BTreeMap<u64, Arc<Vec<u8>>>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap();
    let layer = made
        .entry(number)
        .or_insert_with(|| Arc::new(new_layer(number)));
    Arc::clone(layer)
}

fn new_layer(number: u64) -> Vec<u8> {
    let len = match number % 10 {
        0 => 700_000,
        1..=3 => 90_000,
        _ => 4_000,
    };
    data::bytes(7000 + number, len + usize::try_from(number).unwrap())
}

fn config(recipe: u64) -> Vec<u8> {
    json!({"architecture": "amd64", "os": "linux", "config": {"Labels": {"recipe": recipe.to_string()}}})
        .to_string()
        .into_bytes()
}

/// A manifest that was pushed.
#[derive(Clone)]
struct Row {
    manifest: Manifest,
    /// Its config and its layers.
    blobs: BTreeMap<String, Arc<Vec<u8>>>,
    children: Vec<String>,
    subject: Option<String>,
}

/// What one client did.
#[derive(Debug, Default, Clone, Copy)]
struct Told {
    pushes: u64,
    uploads: u64,
    skipped: u64,
    mounts: u64,
    pulls: u64,
    deletes: u64,
}

/// A client, and what its repository is to hold.
struct Pusher {
    client: Client,
    name: String,
    others: Vec<String>,
    random: Random,
    rows: BTreeMap<String, Row>,
    tags: BTreeMap<String, String>,
    /// Deleted and not pushed again.
    gone: BTreeMap<String, Row>,
    /// What belonged to something that was deleted, and has no tag: it may be
    /// collected, and need not.
    loose: BTreeMap<String, Row>,
    /// What indexes listed that were deleted.
    listed: BTreeSet<String>,
    began: Instant,
    told: Told,
}

impl Pusher {
    fn step(&mut self) {
        let most = if self.rows.len() > ROWS { 35 } else { 0 };
        match self.random.below(100 - most) + most {
            0..=39 => self.image(None),
            40..=49 => self.index(),
            50..=57 => self.referrer(),
            58..=65 => self.retag(),
            66..=70 => self.untag(),
            71..=86 => self.delete(),
            _ => self.pull_one(),
        }
        self.loosen();
    }

    fn some_tag(&mut self) -> String {
        format!("t{}", self.random.below(TAGS))
    }

    fn some_row(&mut self) -> Option<Row> {
        let digests: Vec<&String> = self.rows.keys().collect();
        let digest = self.random.one(&digests).copied().cloned()?;
        self.rows.get(&digest).cloned()
    }

    /// As clients do: asks, mounts where it can, uploads else.
    fn have(&mut self, digest: &str, bytes: &[u8]) {
        let found = self.client.head(&blob(&self.name, digest));
        if found.expect_any(&[200, 404]).status == 200 && self.random.percent(90) {
            self.told.skipped += 1;
            return;
        }
        let from = self.random.one(&self.others).cloned();
        let upload = match from.filter(|_| self.random.percent(40)) {
            Some(from) => {
                let path = format!(
                    "/v2/{}/blobs/uploads/?mount={digest}&from={from}",
                    self.name
                );
                let reply = self.client.call("POST", &path, &[], "");
                let reply = reply.expect_any(&[201, 202]);
                if reply.status == 201 {
                    self.told.mounts += 1;
                    return;
                }
                reply.location()
            }
            None => self.client.open_upload(&self.name),
        };
        let first = if self.random.percent(50) {
            0
        } else {
            bytes.len() / 2
        };
        let mut location = upload;
        if first > 0 {
            let sent = self.client.patch(&location, bytes[..first].to_vec());
            location = sent.expect(202).location();
        }
        let rest = bytes[first..].to_vec();
        self.client.finish(&location, digest, rest).expect(201);
        self.told.uploads += 1;
    }

    /// Pushes a manifest whose blobs are here; pulls it now and then.
    fn put(&mut self, row: Row, tag: Option<&str>) {
        let digest = row.manifest.digest.clone();
        let reference = tag.unwrap_or(&digest);
        // Never refused: all that it names was said to be here just now.
        row.manifest.put(&self.client, &self.name, reference);
        self.told.pushes += 1;
        self.gone.remove(&digest);
        self.loose.remove(&digest);
        self.rows.insert(digest.clone(), row);
        if let Some(tag) = tag {
            self.tags.insert(tag.to_owned(), digest.clone());
        }
        if self.random.percent(30) {
            self.pull(&digest);
        }
    }

    fn image(&mut self, subject: Option<&Manifest>) {
        let recipe = self.began.elapsed().as_secs() * DRIFT + self.random.below(RECIPES);
        let mut choice = Random::new(recipe);
        let settings = config(recipe);
        let mut blobs = BTreeMap::new();
        let mut layers = Vec::new();
        for _ in 0..=choice.below(3) {
            let bytes = layer(recipe * LAYERS / RECIPES + choice.below(LAYERS));
            let digest = data::sha256(&bytes);
            if blobs.insert(digest.clone(), Arc::clone(&bytes)).is_none() {
                layers.push(descriptor(oci::LAYER, &digest, bytes.len()));
            }
        }
        let digest = data::sha256(&settings);
        let mut value = json!({
            "schemaVersion": 2,
            "mediaType": oci::IMAGE,
            "config": descriptor(oci::CONFIG, &digest, settings.len()),
            "layers": layers,
        });
        if let Some(subject) = subject {
            value["subject"] = subject.descriptor();
        }
        blobs.insert(digest, Arc::new(settings));
        for (digest, bytes) in &blobs {
            self.have(digest, bytes);
        }
        let row = Row {
            manifest: Manifest::json(oci::IMAGE, &value),
            blobs,
            children: Vec::new(),
            subject: subject.map(|subject| subject.digest.clone()),
        };
        let tag = self.some_tag();
        let tag = (subject.is_none() && self.random.percent(80)).then_some(tag);
        self.put(row, tag.as_deref());
    }

    fn index(&mut self) {
        let mut children: Vec<Row> = Vec::new();
        for _ in 0..=self.random.below(3) {
            let known = |row: &Row| {
                let digest = &row.manifest.digest;
                children
                    .iter()
                    .all(|child| child.manifest.digest != *digest)
            };
            if let Some(row) = self.some_row().filter(known) {
                children.push(row);
            }
        }
        if children.is_empty() {
            return;
        }
        let manifests: Vec<&Manifest> = children.iter().map(|row| &row.manifest).collect();
        let row = Row {
            manifest: oci::index(&manifests),
            blobs: BTreeMap::new(),
            children: manifests.iter().map(|of| of.digest.clone()).collect(),
            subject: None,
        };
        let tag = self.some_tag();
        self.put(row, Some(&tag));
    }

    fn referrer(&mut self) {
        if let Some(subject) = self.some_row() {
            self.image(Some(&subject.manifest));
        }
    }

    fn retag(&mut self) {
        let tag = self.some_tag();
        if let Some(row) = self.some_row() {
            self.put(row, Some(&tag));
        }
    }

    fn untag(&mut self) {
        let tags: Vec<&String> = self.tags.keys().collect();
        if let Some(tag) = self.random.one(&tags).copied().cloned() {
            self.client.delete(&manifest(&self.name, &tag)).expect(202);
            self.tags.remove(&tag);
            self.told.deletes += 1;
        }
    }

    fn delete(&mut self) {
        let Some(row) = self.some_row() else { return };
        let digest = row.manifest.digest.clone();
        let mut others = self.rows.values().chain(self.loose.values());
        if others.any(|of| of.children.contains(&digest)) {
            return;
        }
        self.client
            .delete(&manifest(&self.name, &digest))
            .expect(202);
        self.told.deletes += 1;
        self.rows.remove(&digest);
        self.tags.retain(|_, of| *of != digest);
        self.listed.extend(row.children.iter().cloned());
        self.gone.insert(digest, row);
    }

    /// What nothing reaches any more and belonged to something.
    fn loosen(&mut self) {
        loop {
            let children = self.rows.values().flat_map(|row| &row.children);
            let reached: BTreeSet<&String> = children.chain(self.tags.values()).collect();
            let is_gone = |of: &String| self.gone.contains_key(of) || self.loose.contains_key(of);
            let is_loose = |(digest, row): &(&String, &Row)| {
                let subject = row.subject.as_ref();
                let belonged = self.listed.contains(*digest) || subject.is_some_and(is_gone);
                let is_held = subject.is_some_and(|of| self.rows.contains_key(of));
                belonged && !is_held && !reached.contains(*digest)
            };
            let loose = self.rows.iter().filter(is_loose);
            let loose: Vec<String> = loose.map(|(digest, _)| digest.clone()).collect();
            if loose.is_empty() {
                return;
            }
            for digest in loose {
                if let Some(row) = self.rows.remove(&digest) {
                    self.listed.extend(row.children.iter().cloned());
                    self.loose.insert(digest, row);
                }
            }
        }
    }

    fn pull_one(&mut self) {
        if let Some(row) = self.some_row() {
            self.pull(&row.manifest.digest);
        }
    }

    /// Pulls a manifest and its blobs, byte for byte.
    fn pull(&mut self, digest: &str) {
        let row = &self.rows[digest];
        row.manifest.is_at(&self.client, &self.name, digest);
        for (digest, bytes) in &row.blobs {
            self.client.blob_is(&self.name, digest, bytes);
        }
        self.told.pulls += 1;
    }

    /// Everything that was acknowledged and not deleted is there, and no tag
    /// beside.
    fn is_whole(&mut self) {
        for digest in self.rows.keys().cloned().collect::<Vec<_>>() {
            self.pull(&digest);
        }
        for (tag, digest) in &self.tags {
            assert_eq!(self.client.digest_of(&self.name, tag), *digest, "{tag}");
        }
        let listed = self.client.get(&format!("/v2/{}/tags/list", self.name));
        let listed = listed.expect_any(&[200, 404]);
        if listed.status == 200 {
            let listed = listed.json();
            let listed = listed["tags"].as_array().unwrap();
            let known: Vec<&String> = self.tags.keys().collect();
            assert!(listed.iter().eq(known), "{listed:?}");
        }
        for digest in self.gone.keys() {
            self.client.get(&manifest(&self.name, digest)).expect(404);
        }
    }

    /// Their own bytes too.
    fn contents(rows: &BTreeMap<String, Row>) -> impl Iterator<Item = String> {
        rows.iter().flat_map(|(digest, row)| {
            let blobs = row.blobs.keys().cloned();
            blobs.chain([digest.clone()])
        })
    }

    /// What is kept: also what rows list and are about, though that was deleted.
    fn named(rows: &BTreeMap<String, Row>) -> impl Iterator<Item = String> {
        let manifests = rows
            .values()
            .flat_map(|row| row.children.iter().chain(&row.subject).cloned());
        Pusher::contents(rows).chain(manifests)
    }
}

/// What the collections came to.
#[derive(Debug, Default, Clone, Copy)]
struct Collected {
    jobs: u64,
    cycles: u64,
    purged: u64,
    dead: u64,
    freed: u64,
}

impl Collected {
    /// One collection of what was deleted by now.
    fn collect(&mut self, server: &Server) -> u64 {
        let now = ["gc", "run", "--wait", "--undelete-window", "0s"];
        let ran = ask(server.data(), &now);
        let outcome = &ran["outcome"];
        let count = |of: &str| outcome[of].as_u64().unwrap_or_default();
        assert_eq!(count("bounded"), 0, "a delete explains all: {ran}");
        self.jobs += 1;
        self.cycles += count("cycles");
        self.purged += outcome["purged"][1].as_u64().unwrap();
        self.dead += count("dead");
        self.freed += count("freed");
        count("dead")
    }
}

#[test]
fn a_push_storm_beside_collections_loses_nothing() {
    let seed = std::env::var("ORLOP_SEED").map_or_else(
        |_| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            since.as_secs() % 1_000_000
        },
        |seed| seed.parse().unwrap(),
    );
    let seconds = figures::choose(4, 20, 600);
    println!(
        "seed {seed}; the same choices again: ORLOP_SEED={seed} ./x cargo test -p orlop-tests --test it push_storm"
    );
    let mut server = Setup::default()
        .env("ORLOP_GC_LEASE", "1m")
        .env("ORLOP_GC_SCHEDULE", "off")
        .start();
    let names: Vec<String> = (0..CLIENTS).map(|of| format!("storm/r{of}")).collect();
    let until = Instant::now() + Duration::from_secs(seconds);
    let over = AtomicBool::new(false);
    let (mut pushers, mut collected) = thread::scope(|scope| {
        let clients: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(number, name)| {
                let others = names.iter().filter(|of| *of != name).cloned().collect();
                let mut pusher = Pusher {
                    client: server.client(),
                    name: name.clone(),
                    others,
                    random: Random::part(seed, number as u64),
                    rows: BTreeMap::new(),
                    tags: BTreeMap::new(),
                    gone: BTreeMap::new(),
                    loose: BTreeMap::new(),
                    listed: BTreeSet::new(),
                    began: Instant::now(),
                    told: Told::default(),
                };
                scope.spawn(move || {
                    while Instant::now() < until {
                        pusher.step();
                    }
                    pusher
                })
            })
            .collect();
        let (server, over) = (&server, &over);
        let collector = scope.spawn(move || {
            let mut collected = Collected::default();
            while !over.load(Ordering::Relaxed) {
                collected.collect(server);
            }
            collected
        });
        let pushers: Vec<_> = clients
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        over.store(true, Ordering::Relaxed);
        let collected = collector.join().unwrap();
        let pushers: Vec<Pusher> = pushers.into_iter().map(Result::unwrap).collect();
        (pushers, collected)
    });
    println!("the storm: {collected:?}");
    assert!(collected.jobs > 0 && collected.purged > 0);
    pushers.iter_mut().for_each(Pusher::is_whole);
    if seconds > 2 * LEASE.as_secs() {
        assert!(collected.dead > 0, "nothing died in the storm");
        all_else_is_gone(&server, &pushers, &mut collected);
    }
    server.stop();
    let fsck = tools::try_run(
        Command::new(place::binary("orlop-fsck"))
            .env_clear()
            .arg(server.data()),
    );
    assert!(fsck.ok, "{}{}", fsck.out, fsck.err);
    server.start_again();
    for pusher in &mut pushers {
        pusher.client = server.client();
        pusher.is_whole();
        println!("{}: {:?}", pusher.name, pusher.told);
    }
    println!("{seconds} s of storm, seed {seed}: {collected:?}; fsck is clean");
    figures::record("seconds of the push storm", seconds, &seed.to_string());
}

/// Waits until leases are over; then what was deleted has no bytes left.
fn all_else_is_gone(server: &Server, pushers: &[Pusher], collected: &mut Collected) {
    let kept: BTreeSet<String> = pushers
        .iter()
        .flat_map(|of| Pusher::named(&of.rows).chain(Pusher::named(&of.loose)))
        .collect();
    let gone: BTreeSet<String> = pushers
        .iter()
        .flat_map(|of| Pusher::contents(&of.gone))
        .filter(|digest| !kept.contains(digest))
        .collect();
    assert!(!gone.is_empty());
    // A lease lasts for two terms at most.
    thread::sleep(LEASE * 2);
    collected.collect(server);
    let step = gone.len().div_ceil(SAMPLE);
    for digest in gone.iter().step_by(step) {
        let why = ask(server.data(), &["blob", "why", digest]);
        assert!(why["why"]["size"].is_null(), "{digest} is kept: {why}");
    }
    println!("{} contents of what was deleted are gone", gone.len());
}

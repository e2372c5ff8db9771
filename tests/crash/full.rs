//! Full file systems of a fixed size, in bytes and in files: pushes are
//! refused, all else goes on, and nothing is lost.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use orlop_tests::client::{Client, blob, manifest};
use orlop_tests::mount::Mount;
use orlop_tests::oci::{self, Manifest};
use orlop_tests::reply::Reply;
use orlop_tests::server::{Server, Setup};
use orlop_tests::{data, place, tools};

use crate::must_run;

const REPOSITORY: &str = "full/repo";
const SIZE: usize = 4 << 20;

/// A server on a small file system of its own.
struct Small {
    server: Server,
    mount: Mount,
    image: Manifest,
    blobs: Vec<Vec<u8>>,
}

impl Small {
    fn start(options: &str) -> Option<Small> {
        let Some(mount) = Mount::tmpfs(options) else {
            assert!(!must_run(), "no tmpfs can be mounted");
            return None;
        };
        let server = Setup::default()
            .data(mount.path().join("data"))
            .env("ORLOP_SPACE_RESERVE", "32MiB")
            .env("ORLOP_LOG_LEVEL", "info,access=off")
            .start();
        let client = server.client();
        let layer = data::bytes(1, SIZE);
        let image = oci::image(&client, REPOSITORY, &[&layer]);
        for tag in ["keep", "go", "go-too"] {
            image.put(&client, REPOSITORY, tag);
        }
        Some(Small {
            server,
            mount,
            image,
            blobs: vec![layer],
        })
    }

    fn client(&self) -> Client {
        self.server.client()
    }

    fn push(&self, bytes: &[u8]) -> Reply {
        let path = format!("/v2/{REPOSITORY}/blobs/uploads/");
        let opened = self.client().call("POST", &path, &[], "");
        if opened.status != 202 {
            return opened;
        }
        self.client()
            .finish(&opened.location(), &data::sha256(bytes), bytes.to_vec())
    }

    /// Pushes until it is refused, which is with 507.
    fn fill(&mut self, first: u64) {
        for seed in first..first + 400 {
            let bytes = data::bytes(seed, SIZE);
            let reply = self.push(&bytes);
            if reply.status != 201 {
                assert_eq!(reply.status, 507, "{}", reply.text());
                return;
            }
            self.blobs.push(bytes);
        }
        panic!("more was taken than there is room for");
    }

    /// Everything acknowledged is there.
    fn all_there(&self) {
        let client = self.client();
        for bytes in &self.blobs {
            client.blob_is(REPOSITORY, &data::sha256(bytes), bytes);
        }
        self.image.is_at(&client, REPOSITORY, "keep");
    }

    /// A delete is done, and stays done.
    fn delete(&self, tag: &str) {
        let path = manifest(REPOSITORY, tag);
        self.client().delete(&path).expect(202);
        self.client().get(&path).expect(404);
    }

    fn restart(&mut self, kill: bool) {
        if kill {
            self.server.kill();
        } else {
            self.server.stop();
        }
        self.server.start_again();
    }

    /// With room again pushes go on, without a restart or anything else.
    fn goes_on(&mut self, seed: u64) {
        let bytes = data::bytes(seed, SIZE);
        self.push(&bytes).expect(201);
        self.blobs.push(bytes);
        self.image.put(&self.client(), REPOSITORY, "again");
        self.all_there();
    }

    /// At the end the store is what the format says.
    fn is_clean(&mut self) {
        self.server.stop();
        let ran = tools::try_run(Command::new(place::binary("orlop-fsck")).arg(self.server.data()));
        assert!(ran.ok, "{}{}", ran.out, ran.err);
        self.server.start_again();
        self.all_there();
        self.server.stop();
    }
}

/// Takes what is left, to the last byte.
fn take_bytes(folder: &Path) -> PathBuf {
    let path = folder.join("filler");
    let mut file = File::create(&path).unwrap();
    for step in [1 << 20, 4096, 1] {
        let block = vec![7; step];
        while file.write_all(&block).is_ok() {}
    }
    path
}

/// Takes every file that can still be made.
fn take_files(folder: &Path) -> PathBuf {
    let path = folder.join("fillers");
    fs::create_dir(&path).unwrap();
    for number in 0.. {
        if File::create(path.join(number.to_string())).is_err() {
            break;
        }
    }
    path
}

#[test]
fn full_in_bytes() {
    let Some(mut small) = Small::start("size=640m") else {
        return;
    };
    small.fill(100);
    assert!(small.blobs.len() > 5, "full after {}", small.blobs.len());
    small.all_there();
    small.delete("go");
    small.restart(true);
    small.all_there();
    // To the last byte: what is there is served, over restarts too.
    let filler = take_bytes(&small.mount.path());
    assert_eq!(small.push(&data::bytes(9, SIZE)).status, 507);
    small.all_there();
    small.restart(true);
    small.all_there();
    small.restart(false);
    small.all_there();
    small.client().get(&manifest(REPOSITORY, "go")).expect(404);
    assert_eq!(small.push(&data::bytes(9, SIZE)).status, 507);
    fs::remove_file(filler).unwrap();
    small.delete("go-too");
    small.mount.resize("size=720m");
    small.goes_on(900);
    small.is_clean();
}

#[test]
fn full_in_files() {
    let Some(mut small) = Small::start("size=1g,nr_inodes=400") else {
        return;
    };
    let fillers = take_files(&small.mount.path());
    // What needs no new file may still be done; what does is refused.
    for seed in 100..200 {
        let bytes = data::bytes(seed, SIZE);
        let reply = small.push(&bytes);
        match reply.status {
            201 => small.blobs.push(bytes),
            status => {
                assert_eq!(status, 507, "{}", reply.text());
                break;
            }
        }
    }
    small.all_there();
    small.delete("go");
    small.restart(true);
    small.all_there();
    small.client().get(&manifest(REPOSITORY, "go")).expect(404);
    let absent = data::sha256(&data::bytes(9, SIZE));
    small.client().get(&blob(REPOSITORY, &absent)).expect(404);
    fs::remove_dir_all(fillers).unwrap();
    small.goes_on(900);
    small.is_clean();
}

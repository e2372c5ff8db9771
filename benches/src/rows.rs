//! The rows of the table: what each measures, with how many connections and
//! over how many objects, and how a server is filled for it.

use crate::client::Connection;
use crate::error::Result;
use crate::load::{Object, Work, runtime};
use crate::payload::{Payload, digest_of, unique};
use crate::push::{self, BlobPush, LAYERS, ManifestPush};
use crate::server::{Kind, Server};

/// Repository everything is pushed to.
pub(crate) const REPOSITORY: &str = "bench/app";
/// Size of the blobs that manifests name, in bytes.
const LAYER_SIZE: u64 = 4096;
/// Objects fetched and compared with their digests before a row is timed.
const VERIFIED: usize = 64;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// What a row repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// GET of a manifest by tag.
    ManifestGet,
    /// GET of a blob.
    BlobGet,
    /// POST and PUT of a new blob.
    BlobPush,
    /// PUT of a new manifest by a new tag.
    ManifestPut,
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// Name, as `--rows` matches it.
    pub(crate) name: &'static str,
    /// What is repeated.
    pub(crate) verb: Verb,
    /// Size of one object in bytes; 0 for manifests, whose size follows.
    pub(crate) size: u64,
    /// Connections that are kept busy.
    pub(crate) connections: usize,
    /// Different objects that are fetched; 0 where each is new.
    pub(crate) objects: usize,
}

const fn row(name: &'static str, verb: Verb, size: u64, connections: usize, objects: usize) -> Row {
    Row {
        name,
        verb,
        size,
        connections,
        objects,
    }
}

/// All rows of `quick`.
pub(crate) const ROWS: [Row; 8] = [
    row("manifest GET", Verb::ManifestGet, 0, 32, 64),
    row("blob GET 4 KiB", Verb::BlobGet, 4 * KIB, 32, 256),
    row("blob GET 1 MiB", Verb::BlobGet, MIB, 8, 64),
    row("blob GET 100 MiB", Verb::BlobGet, 100 * MIB, 2, 2),
    row("push 16 KiB", Verb::BlobPush, 16 * KIB, 32, 0),
    row("push 1 MiB", Verb::BlobPush, MIB, 8, 0),
    row("push 100 MiB", Verb::BlobPush, 100 * MIB, 2, 0),
    row("manifest PUT", Verb::ManifestPut, 0, 32, 0),
];

impl Row {
    /// Whether the row stores new data in every round.
    pub(crate) fn stores(&self) -> bool {
        matches!(self.verb, Verb::BlobPush | Verb::ManifestPut)
    }

    /// Whether CPU is told per GB (large objects) or per 1,000 requests.
    pub(crate) fn cpu_per_gb(&self) -> bool {
        self.size >= MIB
    }

    /// Fills `server` and returns what is to be repeated. Every object that
    /// will be fetched was read back and compared before (up to a bound).
    pub(crate) fn prepare(&self, server: &Server) -> Result<Work> {
        runtime()?.block_on(async {
            if server.kind == Kind::Loopback {
                return Ok(self.made_up());
            }
            let mut connection = Connection::open(server.addr).await?;
            let work = self.seed(&mut connection).await?;
            if let Work::Get(objects) = &work {
                for object in objects.iter().take(VERIFIED) {
                    if let Some(digest) = &object.digest {
                        push::verify(&mut connection, &object.path, digest).await?;
                    }
                }
            }
            Ok(work)
        })
    }

    async fn seed(&self, connection: &mut Connection) -> Result<Work> {
        match self.verb {
            Verb::BlobGet => {
                let push = BlobPush::new(REPOSITORY, Payload::new(self.size));
                let mut objects = Vec::with_capacity(self.objects);
                for _ in 0..self.objects {
                    crate::stop::check()?;
                    let digest = push.push(connection).await?;
                    let path = push::blob_path(REPOSITORY, &digest);
                    objects.push(object(path, self.size, Some(digest)));
                }
                Ok(Work::Get(objects))
            }
            Verb::ManifestGet => {
                let push = manifests(connection).await?;
                let mut objects = Vec::with_capacity(self.objects);
                for _ in 0..self.objects {
                    let number = unique();
                    push.push(connection, number).await?;
                    let path = push::manifest_path(REPOSITORY, &push::tag(number));
                    let body = push.body(number);
                    let digest = digest_of(body.as_bytes());
                    objects.push(object(path, body.len() as u64, Some(digest)));
                }
                Ok(Work::Get(objects))
            }
            Verb::BlobPush => Ok(self.pushes()),
            Verb::ManifestPut => Ok(Work::Manifest(manifests(connection).await?)),
        }
    }

    /// The same work for the loopback server, which stores nothing.
    fn made_up(&self) -> Work {
        let blob = (digest_of(b""), LAYER_SIZE);
        let manifests = ManifestPush::new(REPOSITORY, &vec![blob; LAYERS + 1]);
        let size = match self.verb {
            Verb::BlobGet => self.size,
            Verb::ManifestGet => manifests.body(0).len() as u64,
            Verb::BlobPush => return self.pushes(),
            Verb::ManifestPut => return Work::Manifest(manifests),
        };
        Work::Get(vec![object(format!("/bytes/{size}"), size, None)])
    }

    fn pushes(&self) -> Work {
        Work::Push(BlobPush::new(REPOSITORY, Payload::new(self.size)))
    }
}

fn object(path: String, size: u64, digest: Option<String>) -> Object {
    Object {
        request: push::get_request(&path),
        path,
        size,
        digest,
    }
}

/// Pushes a config and layers, and prepares manifests over them.
async fn manifests(connection: &mut Connection) -> Result<ManifestPush> {
    let push = BlobPush::new(REPOSITORY, Payload::new(LAYER_SIZE));
    let mut blobs = Vec::with_capacity(LAYERS + 1);
    for _ in 0..=LAYERS {
        blobs.push((push.push(connection).await?, push.size()));
    }
    Ok(ManifestPush::new(REPOSITORY, &blobs))
}

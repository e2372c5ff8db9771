//! First inputs of each target: pieces of the golden store, and texts as
//! clients and operators write them. The corpus grew from them.

use orlop::registry::note::{Deletion, Note};
use orlop_format::BLOCK;
use orlop_format::digest::{Algorithm, Digest};
use orlop_oci::RepositoryName;

use crate::golden;
use crate::mutate::Random;

const SHA256: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const EMPTY: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

/// First inputs of a target.
#[must_use]
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "group" => pieces(|bytes| bytes[5] == 1, 8192),
        "frame" => {
            let first = golden::files()
                .iter()
                .map(|(_, bytes)| bytes[..76].to_vec());
            first.chain(pieces(|bytes| bytes[5] >= 32, 600)).collect()
        }
        "record" => pieces(|_| true, 4096)
            .into_iter()
            .map(|record| {
                let body = u32::from_le_bytes(record[40..44].try_into().unwrap()) as usize;
                let body = record.iter().skip(64).take(body);
                std::iter::once(&record[5]).chain(body).copied().collect()
            })
            .collect(),
        "checkpoint" => {
            let bodies = pieces(|bytes| bytes[5] == 3, 4096);
            let ids = ["00112233445566778899aabbccddeeff", ""].map(|id| id.as_bytes().to_vec());
            let bodies = bodies.into_iter().map(|record| record[64..].to_vec());
            bodies.chain(ids).chain(noise(3, 300)).collect()
        }
        "superblock" => golden::files()
            .iter()
            .filter(|(path, _)| path.starts_with("superblock.0"))
            .flat_map(|(_, bytes)| bytes.chunks(BLOCK).map(|slot| slot[..108].to_vec()))
            .chain(noise(3, 200))
            .collect(),
        "row" => noise(12, 200),
        "segment_scan" => noise(8, 1500),
        "fsck" | "store" => noise(16, 120),
        "note" => notes(),
        "manifest" => manifests(),
        "digest" => texts(&[
            SHA256,
            &Digest::of(Algorithm::Sha512, b"").to_string(),
            "sha1:ab",
            "blake3:",
        ])
        .into_iter()
        .chain([Digest::of(Algorithm::Blake3, b"").encode().repeat(2)])
        .collect(),
        "name" => texts(&[
            "library/alpine",
            "a.b_c__d-e---f/0",
            "latest",
            "v1.0-rc_2",
            SHA256,
            "../a",
            "A/b",
        ]),
        "media_type" => texts(&[
            "application/vnd.oci.image.manifest.v1+json",
            "Application/vnd.oci.image.index.v1+json; charset=utf-8",
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "text/plain",
        ]),
        "range" => texts(&[
            "100\nbytes=0-9",
            "100\nbytes=-5",
            "100\nbytes=90-",
            "5\nBytes = 7-",
            "0\nbytes=0-0",
            "18446744073709551615\nbytes=0-18446744073709551615",
            "10\n0-9",
            "10\n 5 - 14 ",
        ]),
        "route" => routes(),
        "settings" => settings(),
        _ => Vec::new(),
    }
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Bytes at random, each input twice as long as the one before.
fn noise(count: usize, longest: usize) -> Vec<Vec<u8>> {
    let mut random = Random::new(5);
    (0..count)
        .map(|at| {
            let len = (longest * (at + 1)).div_ceil(count);
            (0..len)
                .map(|_| u8::try_from(random.below(256)).unwrap())
                .collect()
        })
        .collect()
}

/// From each record of the golden store that is wanted on.
fn pieces(wanted: impl Fn(&[u8]) -> bool, longest: usize) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for (_, bytes) in golden::files() {
        for at in (0..bytes.len().saturating_sub(64)).step_by(8) {
            let rest = &bytes[at..];
            if rest.starts_with(b"ORLR") && wanted(rest) {
                found.push(rest[..rest.len().min(longest)].to_vec());
            }
        }
    }
    found
}

fn notes() -> Vec<Vec<u8>> {
    let repository = RepositoryName::parse("library/alpine").unwrap();
    let digest = Digest::of(Algorithm::Sha256, b"");
    let notes = [
        Note::Manifest {
            repository: repository.clone(),
            digest,
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            tags: vec!["latest".to_owned(), "3.20".to_owned()],
        },
        Note::Link {
            repository: repository.clone(),
            digest,
            size: 258,
        },
        Note::Deletion(Deletion::Tag {
            repository: repository.clone(),
            tag: "3.20".to_owned(),
        }),
        Note::Deletion(Deletion::Manifest {
            repository: repository.clone(),
            digest,
        }),
        Note::Deletion(Deletion::Blob { repository, digest }),
    ];
    notes.iter().map(Note::encode).collect()
}

fn manifests() -> Vec<Vec<u8>> {
    let oci = "application/vnd.oci.image.manifest.v1+json";
    let index = "application/vnd.oci.image.index.v1+json";
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    let list = "application/vnd.docker.distribution.manifest.list.v2+json";
    let descriptor = |media: &str, more: &str| {
        format!(r#"{{"mediaType":"{media}","digest":"{EMPTY}","size":2{more}}}"#)
    };
    let config = descriptor("application/vnd.oci.image.config.v1+json", "");
    let layer = descriptor("application/vnd.oci.image.layer.v1.tar+gzip", "");
    let empty = descriptor("application/vnd.oci.empty.v1+json", r#","data":"e30=""#);
    let platform = r#","platform":{"os":"linux","architecture":"amd64"}"#;
    let child = descriptor(oci, platform);
    let image = format!(r#""config":{config},"layers":[{layer},{layer}]"#);
    texts(&[
        &format!(
            r#"{oci}{}{{"schemaVersion":2,"mediaType":"{oci}",{image}}}"#,
            '\n'
        ),
        &format!(
            r#"{}{{"schemaVersion":2,"mediaType":"{oci}",{image},"annotations":{{"a":"b"}}}}"#,
            '\n'
        ),
        &format!(
            r#"{oci}; charset=utf-8{}{{"schemaVersion":2,"artifactType":"application/x","config":{empty},"layers":[{empty}],"subject":{child}}}"#,
            '\n'
        ),
        &format!(
            r#"{index}{}{{"schemaVersion":2,"manifests":[{child},{layer}],"subject":{child}}}"#,
            '\n'
        ),
        &format!(
            r#"{docker}{}{{"schemaVersion":2,"mediaType":"{docker}",{image}}}"#,
            '\n'
        ),
        &format!(
            r#"{list}{}{{"schemaVersion":2,"mediaType":"{list}","manifests":[{child}]}}"#,
            '\n'
        ),
        &format!(
            r#"{oci}{}{{"schemaVersion":2,"config":{config},"layers":null,"x":[1,-2,3.5e3,true,null,"\u00e4"]}}"#,
            '\n'
        ),
        &format!(r#"{oci}{}{{"schemaVersion":2,"schemaVersion":2}}"#, '\n'),
        &format!("{index}\n{}", r#"{"a":["#.repeat(70)),
    ])
}

fn routes() -> Vec<Vec<u8>> {
    let digest = format!("/v2/a/b/blobs/{SHA256}");
    let escaped = digest.replace(':', "%3A").replace("a/b", "a%2fb");
    let referrers = format!("/v2/a/referrers/{SHA256}");
    let upload = "/v2/library/alpine/blobs/uploads/00112233445566778899aabbccddeeff";
    texts(&[
        "/livez",
        "/readyz",
        "/health",
        "/v2",
        "/v2/",
        "/v2/_catalog",
        &digest,
        &escaped,
        &referrers,
        upload,
        "/v2/a/blobs/uploads/",
        "/v2/a/blobs/uploads",
        "/v2/a/manifests/latest",
        "/v2/a/tags/list",
        "/v2/blobs/uploads/tags/list",
        "/v2/a%252fb/tags/list",
        "/v2/../a/tags/list",
        "/v2/a/manifests/a/b",
    ])
}

fn settings() -> Vec<Vec<u8>> {
    let all = "data = \"/srv/orlop\"\nlisten = \"127.0.0.1:5000\"\ndrain = \"30s\"\n\
        [server]\npublic_url = \"https://registry.example.org\"\ntrusted_proxies = [\"10.0.0.0/8\"]\n\
        [gc]\nlease = \"1h\"\nundelete_window = \"24h\"\nupload_expiry = \"24h\"\n\
        [push]\nsparse_manifests = true\n[disk]\nbackend = \"pool\"\n[space]\nreserve = \"1GiB\"\n\
        [cache]\nsize = 16777216\n[log]\nformat = \"json\"\nlevel = \"info,access=off\"\n\
        [ops]\nlisten = \"off\"\n[tls]\ncertificate = \"c.pem\"\nkey = \"k.pem\"\n";
    let file = format!("\0\0{all}");
    let mixed = format!("--gc-lease=2h\n--data=x\0ORLOP_GC_LEASE=3h\nORLOP_LOG_LEVEL=debug\0{all}");
    texts(&[
        &file,
        &mixed,
        "--insecure-anonymous\n--listen=0.0.0.0:5000\0",
        "\0AWS_SECRET=hunter2-secret\nORLOP_SECRET=hunter2-secret\0password = \"hunter2-secret\"\n",
        "\0\0[server]\npublic_url = \"https://admin:hunter2-secret@registry\"\n",
        "\0ORLOP_GC_LEESE=1h\0[gc]\nlease = 5\nlisten = \n",
    ])
}

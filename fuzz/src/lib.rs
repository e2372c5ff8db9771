//! Fuzz targets of everything in Orlop that reads bytes of others: a disk's, a
//! client's, an operator's.
//!
//! Owns: the table of [`ALL`] targets, each a function from bytes to nothing
//! that panics when a property does not hold, and what the drivers share. The
//! drivers are libFuzzer (`fuzz_targets/`) and the stable run (`tests/run.rs`).
//! Invariants: a target depends on its bytes alone, so that one file replays
//! it; it takes any bytes, and rather repairs than rejects them.
//! Refuses to know: which driver calls.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a target says by a panic what does not hold"
)]

pub mod corpus;
pub mod mutate;
pub mod seeds;
pub mod targets;

mod golden;
mod make;
mod repair;

/// A fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Panics when a property does not hold for these bytes.
    pub run: fn(&[u8]),
    /// Longest input that is worth a try, bytes.
    pub longest: usize,
    /// Words that the mutator puts in.
    pub words: &'static [&'static str],
}

macro_rules! targets {
    ($($name:ident $longest:literal $words:expr),+ $(,)?) => {
        /// Every target.
        pub const ALL: &[Target] = &[$(Target {
            name: stringify!($name),
            run: targets::$name::run,
            longest: $longest,
            words: $words,
        }),+];
    };
}

targets! {
    checkpoint 4096 &[],
    digest 512 &["sha256:", "sha512:", "blake3:", "sha1:", ":", "+b64u:"],
    frame 8192 &["ORLR", "ORLS", "ORLJ"],
    fsck 512 &[],
    group 8192 &["ORLR"],
    manifest 16_384 JSON,
    media_type 512 &[
        "application/", "vnd.oci.image.", "manifest", "index", ".v1+json", ";", "charset=utf-8", "/",
        "vnd.docker.distribution.manifest.v2+json",
    ],
    name 512 &["/", "__", "--", ".", "..", "_", "-", ":", "sha256:", "@"],
    note 2048 &["library/alpine"],
    range 512 &["bytes=", "-", "0-", "18446744073709551615", "18446744073709551616", ",", "bytes ", "*"],
    record 8192 &[],
    route 1024 ROUTE,
    row 4096 &[],
    segment_scan 4096 &["ORLR", "ORLS"],
    settings 4096 SETTINGS,
    store 512 &[],
    superblock 8192 &["ORLB"],
}

const JSON: &[&str] = &[
    "\"schemaVersion\":2",
    "\"mediaType\":",
    "\"artifactType\":",
    "\"config\":",
    "\"layers\":",
    "\"manifests\":",
    "\"subject\":",
    "\"annotations\":",
    "\"digest\":",
    "\"size\":",
    "\"data\":",
    "\"application/vnd.oci.image.manifest.v1+json\"",
    "\"application/vnd.oci.image.index.v1+json\"",
    "\"application/vnd.docker.distribution.manifest.v2+json\"",
    "\"application/vnd.docker.distribution.manifest.list.v2+json\"",
    "\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"",
    "[",
    "]",
    "{",
    "}",
    ",",
    "null",
    "1e999",
    "-1",
    "9223372036854775808",
    "\\u0061",
    "\\ud800",
];

const ROUTE: &[&str] = &[
    "/v2/",
    "/blobs/",
    "/blobs/uploads/",
    "/blobs/uploads",
    "/manifests/",
    "/tags/list",
    "/referrers/",
    "/_catalog",
    "%2F",
    "%25",
    "%2e%2e",
    "%3A",
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "00112233445566778899aabbccddeeff",
    "/livez",
    "..",
    "//",
];

const SETTINGS: &[&str] = &[
    "data = ",
    "listen = ",
    "public_url = ",
    "trusted_proxies = ",
    "[server]\n",
    "[gc]\n",
    "[ops]\n",
    "[tls]\n",
    "[log]\n",
    "[cache]\n",
    "lease = ",
    "undelete_window = ",
    "level = ",
    "size = ",
    "\"127.0.0.1:5000\"",
    "\"24h\"",
    "\"https://a:hunter2-secret@b\"",
    "hunter2-secret",
    "ORLOP_GC_LEASE=",
    "ORLOP_DATA=",
    "ORLOP_SERVER_PUBLIC_URL=",
    "ORLOP_CACHE_SIZE=",
    "ORLOP_LOG_LEVEL=",
    "--gc-lease=",
    "--listen=",
    "--server-public-url=",
    "--insecure-anonymous",
    "--server-trusted-proxies=",
    "\0",
    "\"\"\"",
    "512MiB",
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    ALL.iter().find(|target| target.name == name).copied()
}

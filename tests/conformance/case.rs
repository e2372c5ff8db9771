//! One scenario under one set of rules with one digest algorithm.
//!
//! Owns: the table of rules and algorithms, the server they share, the seed,
//! and repositories of the scenario's own.

use std::cell::Cell;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use orlop_tests::client::Client;
use orlop_tests::data::{self, Algorithm};
use orlop_tests::server::{Server, Setup, Shared};

/// What the client of a scenario knows of the specification. The registry is
/// the same for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rules {
    /// Release 1.1.1: no algorithm is announced; a tag is pushed by its own
    /// PUT, which only SHA-256 can do.
    Released,
    /// The main branch: `digest-algorithm` is announced, tags come as
    /// parameters of a push by digest.
    Main,
}

/// Makes each scenario, a function of a [`Case`], six tests.
macro_rules! scenarios {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            use crate::case::{Case, Rules};
            use orlop_tests::data::Algorithm;

            fn run(rules: Rules, algorithm: Algorithm) {
                super::$name(&Case::new(module_path!(), rules, algorithm));
            }

            #[test]
            fn released_sha256() {
                run(Rules::Released, Algorithm::Sha256);
            }

            #[test]
            fn released_sha512() {
                run(Rules::Released, Algorithm::Sha512);
            }

            #[test]
            fn released_blake3() {
                run(Rules::Released, Algorithm::Blake3);
            }

            #[test]
            fn main_sha256() {
                run(Rules::Main, Algorithm::Sha256);
            }

            #[test]
            fn main_sha512() {
                run(Rules::Main, Algorithm::Sha512);
            }

            #[test]
            fn main_blake3() {
                run(Rules::Main, Algorithm::Blake3);
            }
        }
    )+};
}

/// A scenario's surroundings.
pub(crate) struct Case {
    pub(crate) server: Arc<Server>,
    pub(crate) client: Client,
    pub(crate) rules: Rules,
    pub(crate) algorithm: Algorithm,
    /// A repository that no other case uses.
    pub(crate) repository: String,
    /// A second one.
    pub(crate) other: String,
    seed: Cell<u64>,
}

/// Bytes and their name.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    pub(crate) digest: String,
    pub(crate) bytes: Vec<u8>,
}

impl Case {
    /// A case named after its scenario's module, such as
    /// `conformance::blobs::mount`.
    pub(crate) fn new(module: &str, rules: Rules, algorithm: Algorithm) -> Case {
        let scenario = module.split("::").skip(1).collect::<Vec<_>>().join("/");
        let variant = match rules {
            Rules::Released => "released",
            Rules::Main => "main",
        };
        let repository = format!("{scenario}/{variant}-{}", algorithm.name());
        // Shown when the test fails.
        println!("ORLOP_CONFORMANCE_SEED={} makes the same content", seed());
        let mut own = seed();
        for byte in repository.bytes() {
            own = own.rotate_left(7).wrapping_add(u64::from(byte));
        }
        let server = Server::shared();
        Case {
            client: server.client(),
            server,
            rules,
            algorithm,
            other: format!("{repository}-other"),
            repository,
            seed: Cell::new(own),
        }
    }

    /// A case for what depends neither on rules nor on algorithm.
    pub(crate) fn plain(scenario: &str) -> Case {
        Case::new(
            &format!("conformance::{scenario}"),
            Rules::Main,
            Algorithm::Sha256,
        )
    }

    /// The same case at a server that takes manifests which are not whole.
    pub(crate) fn sparse(&self) -> Case {
        static SERVER: Shared = Shared::new(|| Setup::default().arg("--push-sparse-manifests"));
        let server = SERVER.get();
        Case {
            client: server.client(),
            server,
            repository: self.repository.clone(),
            other: self.other.clone(),
            seed: self.seed.clone(),
            ..*self
        }
    }

    /// The same case in a repository that others may use.
    pub(crate) fn within(self, repository: &str) -> Case {
        Case {
            repository: repository.to_owned(),
            ..self
        }
    }

    /// The next bytes of the seed, unlike all before.
    pub(crate) fn bytes(&self, len: usize) -> Vec<u8> {
        self.seed.set(self.seed.get().wrapping_add(1));
        data::bytes(self.seed.get(), len)
    }

    /// A word of the seed: sixteen hexadecimal digits.
    pub(crate) fn word(&self) -> String {
        self.bytes(8).iter().map(|b| format!("{b:02x}")).collect()
    }

    /// These bytes with their digest in the case's algorithm.
    pub(crate) fn blob_of(&self, bytes: impl Into<Vec<u8>>) -> Blob {
        let bytes = bytes.into();
        Blob {
            digest: self.algorithm.of(&bytes),
            bytes,
        }
    }

    /// A new blob.
    pub(crate) fn blob(&self, len: usize) -> Blob {
        self.blob_of(self.bytes(len))
    }

    /// A new blob of which the registry is told the digest of another.
    pub(crate) fn mislabelled(&self, len: usize) -> Blob {
        let mut blob = self.blob(len);
        blob.bytes.extend_from_slice(b" and more");
        blob
    }

    /// Where uploads are started in a repository, with what the rules ask.
    pub(crate) fn uploads(&self, repository: &str) -> String {
        let path = format!("/v2/{repository}/blobs/uploads/");
        if self.rules == Rules::Main && self.algorithm != Algorithm::Sha256 {
            format!("{path}?digest-algorithm={}", self.algorithm.name())
        } else {
            path
        }
    }

    /// Whether the client can tag manifests of this algorithm.
    pub(crate) fn can_tag(&self) -> bool {
        self.rules == Rules::Main || self.algorithm == Algorithm::Sha256
    }
}

/// The seed of this run: given, or of the moment.
fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| match std::env::var("ORLOP_CONFORMANCE_SEED") {
        Ok(given) => given.parse().expect("ORLOP_CONFORMANCE_SEED is a number"),
        Err(_) => SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
    })
}

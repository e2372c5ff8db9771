//! What the oracle pushes: blobs by a seed and a size, manifests by their bytes.

use serde_json::Value;

use crate::data;

/// Sizes of blobs: inline, at the border of inline, one page, one extent, many
/// pages.
const SIZES: [usize; 14] = [
    0, 1, 300, 300, 4_096, 4_096, 20_000, 65_535, 65_536, 65_537, 200_000, 262_144, 700_000,
    3_000_000,
];

/// Content of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// Of [`data::bytes`].
    pub seed: u64,
    /// In bytes.
    pub size: usize,
}

impl Content {
    /// The content that a seed stands for.
    #[must_use]
    pub fn of(seed: u64) -> Content {
        let choice = usize::try_from(seed % SIZES.len() as u64).unwrap_or(0);
        let size = SIZES.get(choice).copied().unwrap_or(1);
        // A size that nobody expects, half of the time.
        let odd = usize::try_from(seed >> 7).unwrap_or(0) % 97;
        let size = if seed & 64 == 0 { size } else { size + odd };
        Content { seed, size }
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(self) -> Vec<u8> {
        data::bytes(self.seed, self.size)
    }

    /// The digest of its bytes.
    #[must_use]
    pub fn digest(self) -> String {
        data::sha256(&self.bytes())
    }
}

/// A manifest that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its type.
    pub media_type: String,
    /// Its bytes.
    pub body: String,
}

impl Held {
    fn list(&self, key: &str) -> Vec<String> {
        let value: Value = serde_json::from_str(&self.body).expect("a manifest of the oracle");
        let digest = |v: &Value| v["digest"].as_str().map(str::to_owned);
        match &value[key] {
            Value::Array(all) => all.iter().filter_map(digest).collect(),
            one => digest(one).into_iter().collect(),
        }
    }

    /// Digests of the blobs it names.
    #[must_use]
    pub fn blobs(&self) -> Vec<String> {
        let mut all = self.list("config");
        all.extend(self.list("layers"));
        all
    }

    /// Digests of the manifests it lists.
    #[must_use]
    pub fn children(&self) -> Vec<String> {
        self.list("manifests")
    }

    /// The digest of its subject.
    #[must_use]
    pub fn subject(&self) -> Option<String> {
        self.list("subject").pop()
    }
}

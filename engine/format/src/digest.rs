//! Content digests: the algorithms Orlop knows, their text form
//! (`algorithm:hex`), their form on disk, and incremental hashing.
//!
//! Invariants: a [`Digest`] always has exactly as many bytes as its algorithm
//! produces; the text form is accepted only as it is printed (lower-case hex,
//! the right length), so that one digest has one spelling; algorithm numbers
//! never change, because they are written to disk.
//!
//! Knows nothing of where the hashed bytes are kept.

mod state;

use std::fmt;
use std::str::FromStr;

use sha2::digest::common::hazmat::SerializableState;
use sha2::{Digest as _, Sha256, Sha512};

/// The longest digest of any algorithm, in bytes.
pub const DIGEST_LEN_MAX: usize = 64;

/// The longest algorithm name that is named back in an error, in bytes.
const ALGORITHM_NAME_MAX: usize = 32;

/// Version of the saved hash state: the layout of crate `sha2` 0.11.
const STATE_VERSION: u8 = 1;

/// Bytes before the state itself: version, algorithm, length hashed so far.
const STATE_HEADER_LEN: usize = 10;

/// A hash algorithm. The numbers are those on disk and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Algorithm {
    /// SHA-256, 32 bytes. What almost every client uses.
    Sha256 = 1,
    /// SHA-512, 64 bytes.
    Sha512 = 2,
    /// BLAKE3 with its default length, 32 bytes.
    Blake3 = 3,
}

impl Algorithm {
    /// Every algorithm, in the order of their numbers.
    pub const ALL: [Algorithm; 3] = [Algorithm::Sha256, Algorithm::Sha512, Algorithm::Blake3];

    /// The name in the text form of a digest.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
            Algorithm::Blake3 => "blake3",
        }
    }

    /// Length of its digests, in bytes.
    pub const fn digest_len(self) -> usize {
        match self {
            Algorithm::Sha256 | Algorithm::Blake3 => 32,
            Algorithm::Sha512 => 64,
        }
    }

    /// The number written to disk.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The algorithm of a number read from disk.
    pub const fn from_code(code: u8) -> Option<Algorithm> {
        match code {
            1 => Some(Algorithm::Sha256),
            2 => Some(Algorithm::Sha512),
            3 => Some(Algorithm::Blake3),
            _ => None,
        }
    }

    /// The algorithm of a name, as in the text form of a digest.
    pub fn from_name(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|a| a.name() == name)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why something is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Well formed, but of an algorithm that is not supported.
    #[error("digest algorithm {0:?} is not supported (use sha256, sha512 or blake3)")]
    Unsupported(String),
    /// Not of the form `algorithm:hex` with lower-case hex of the right length.
    #[error(
        "not a digest: expected algorithm:hex with lower-case hex of the algorithm's full length"
    )]
    Malformed,
}

/// A digest: an algorithm and as many bytes as it produces.
///
/// Ordered by algorithm, then bytes, which is also the order of the encoded
/// form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    /// Zero past the algorithm's length.
    bytes: [u8; DIGEST_LEN_MAX],
}

impl Digest {
    /// A digest of these bytes. Malformed unless there are exactly
    /// [`Algorithm::digest_len`] of them.
    pub fn new(algorithm: Algorithm, bytes: &[u8]) -> Result<Digest, DigestError> {
        if bytes.len() != algorithm.digest_len() {
            return Err(DigestError::Malformed);
        }
        let mut padded = [0; DIGEST_LEN_MAX];
        for (to, from) in padded.iter_mut().zip(bytes) {
            *to = *from;
        }
        Ok(Digest {
            algorithm,
            bytes: padded,
        })
    }

    /// The algorithm.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The bytes, [`Algorithm::digest_len`] of them.
    pub fn bytes(&self) -> &[u8] {
        self.bytes
            .get(..self.algorithm.digest_len())
            .unwrap_or_default()
    }

    /// Parses `algorithm:hex`, exactly as it is printed.
    pub fn parse(text: &str) -> Result<Digest, DigestError> {
        let (name, hex) = text.split_once(':').ok_or(DigestError::Malformed)?;
        let Some(algorithm) = Algorithm::from_name(name) else {
            return Err(if is_foreign_digest(name, hex) {
                DigestError::Unsupported(name.to_owned())
            } else {
                DigestError::Malformed
            });
        };
        if Some(hex.len()) != algorithm.digest_len().checked_mul(2) {
            return Err(DigestError::Malformed);
        }
        let mut bytes = [0; DIGEST_LEN_MAX];
        let (pairs, _) = hex.as_bytes().as_chunks::<2>();
        for (to, [high, low]) in bytes.iter_mut().zip(pairs) {
            *to = (nibble(*high)? << 4) | nibble(*low)?;
        }
        Ok(Digest { algorithm, bytes })
    }

    /// The digest of `content`.
    pub fn of(algorithm: Algorithm, content: &[u8]) -> Digest {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(content);
        hasher.finish()
    }

    /// The bytes as lower-case hex, without the algorithm.
    pub fn hex(&self) -> String {
        let mut text = String::with_capacity(self.bytes().len().saturating_mul(2));
        for byte in self.bytes() {
            text.push(hex_digit(byte >> 4));
            text.push(hex_digit(byte & 0x0f));
        }
        text
    }

    /// The form on disk and as index key: the algorithm's number, then the
    /// bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_len());
        out.push(self.algorithm.code());
        out.extend_from_slice(self.bytes());
        out
    }

    /// Length of the encoded form: 33 or 65 bytes.
    pub const fn encoded_len(&self) -> usize {
        match self.algorithm {
            Algorithm::Sha256 | Algorithm::Blake3 => 33,
            Algorithm::Sha512 => 65,
        }
    }

    /// Reads an encoded digest from the start of `input`, which may go on
    /// after it. Also says how many bytes it took.
    pub fn decode(input: &[u8]) -> Result<(Digest, usize), DigestError> {
        let (code, rest) = input.split_first().ok_or(DigestError::Malformed)?;
        let algorithm = Algorithm::from_code(*code)
            .ok_or_else(|| DigestError::Unsupported(format!("number {code}")))?;
        let bytes = rest
            .get(..algorithm.digest_len())
            .ok_or(DigestError::Malformed)?;
        let digest = Digest::new(algorithm, bytes)?;
        Ok((digest, digest.encoded_len()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Digest, DigestError> {
        Digest::parse(text)
    }
}

/// Whether this has the general form of a digest, by the grammar of the image
/// specification, in an algorithm that is not ours.
fn is_foreign_digest(name: &str, encoded: &str) -> bool {
    !encoded.is_empty()
        && encoded
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'=' | b'_' | b'-'))
        && name.len() <= ALGORITHM_NAME_MAX
        && name.split(['+', '.', '_', '-']).all(|part| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        })
}

fn nibble(digit: u8) -> Result<u8, DigestError> {
    match digit {
        b'0'..=b'9' => Ok(digit.wrapping_sub(b'0')),
        b'a'..=b'f' => Ok(digit.wrapping_sub(b'a').wrapping_add(10)),
        _ => Err(DigestError::Malformed),
    }
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('0')
}

#[derive(Clone)]
enum State {
    Sha256(Sha256),
    Sha512(Sha512),
    Blake3(Box<blake3::Hasher>),
}

/// Hashes content as it passes.
#[derive(Clone)]
pub struct Hasher {
    state: State,
    len: u64,
}

impl Hasher {
    /// A hasher that has seen nothing.
    pub fn new(algorithm: Algorithm) -> Hasher {
        let state = match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Sha512::new()),
            Algorithm::Blake3 => State::Blake3(Box::new(blake3::Hasher::new())),
        };
        Hasher { state, len: 0 }
    }

    /// The algorithm.
    pub const fn algorithm(&self) -> Algorithm {
        match self.state {
            State::Sha256(_) => Algorithm::Sha256,
            State::Sha512(_) => Algorithm::Sha512,
            State::Blake3(_) => Algorithm::Blake3,
        }
    }

    /// Takes in more content.
    pub fn update(&mut self, content: &[u8]) {
        match &mut self.state {
            State::Sha256(hasher) => hasher.update(content),
            State::Sha512(hasher) => hasher.update(content),
            State::Blake3(hasher) => {
                hasher.update(content);
            }
        }
        let added = u64::try_from(content.len()).unwrap_or(u64::MAX);
        self.len = self.len.saturating_add(added);
    }

    /// Bytes taken in so far.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was taken in yet.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The digest of all that was taken in.
    pub fn finish(self) -> Digest {
        let mut bytes = [0; DIGEST_LEN_MAX];
        let (algorithm, output): (Algorithm, &[u8]) = match self.state {
            State::Sha256(hasher) => (Algorithm::Sha256, &hasher.finalize()),
            State::Sha512(hasher) => (Algorithm::Sha512, &hasher.finalize()),
            State::Blake3(hasher) => (Algorithm::Blake3, &<[u8; 32]>::from(hasher.finalize())),
        };
        for (to, from) in bytes.iter_mut().zip(output) {
            *to = *from;
        }
        Digest { algorithm, bytes }
    }

    /// The state, so that hashing can go on after a restart. It is a hint:
    /// whoever cannot restore it hashes the content again. None where the
    /// algorithm's state cannot be saved (BLAKE3).
    ///
    /// Layout: version (1 byte), algorithm (1), bytes hashed so far (8,
    /// little-endian), the state of crate `sha2`.
    pub fn save(&self) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(256);
        out.push(STATE_VERSION);
        out.push(self.algorithm().code());
        out.extend_from_slice(&self.len.to_le_bytes());
        match &self.state {
            State::Sha256(hasher) => out.extend_from_slice(&hasher.serialize()),
            State::Sha512(hasher) => out.extend_from_slice(&hasher.serialize()),
            State::Blake3(_) => return None,
        }
        Some(out)
    }

    /// A hasher from a saved state. None if it is not a state of this
    /// algorithm, of this version, or is damaged in a way that shows.
    pub fn restore(algorithm: Algorithm, saved: &[u8]) -> Option<Hasher> {
        let (header, state) = saved.split_at_checked(STATE_HEADER_LEN)?;
        let [version, code, len @ ..] = header else {
            return None;
        };
        if *version != STATE_VERSION || *code != algorithm.code() {
            return None;
        }
        let len = u64::from_le_bytes(len.try_into().ok()?);
        state::check(algorithm, len, state)?;
        let state = match algorithm {
            Algorithm::Sha256 => State::Sha256(state::restore(state)?),
            Algorithm::Sha512 => State::Sha512(state::restore(state)?),
            Algorithm::Blake3 => return None,
        };
        Some(Hasher { state, len })
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher")
            .field("algorithm", &self.algorithm())
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const ABC: [(Algorithm, &str); 3] = [
        (
            Algorithm::Sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ),
        (
            Algorithm::Sha512,
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ),
        (
            Algorithm::Blake3,
            "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85",
        ),
    ];

    /// Bytes without a period that matches any block size.
    fn content(len: usize) -> Vec<u8> {
        (0..len)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 7) as u8)
            .collect()
    }

    #[test]
    fn vectors() {
        for (algorithm, hex) in ABC {
            let digest = Digest::of(algorithm, b"abc");
            assert_eq!(digest.hex(), hex);
            assert_eq!(digest.to_string(), format!("{}:{hex}", algorithm.name()));
            assert_eq!(digest.bytes().len(), algorithm.digest_len());
        }
        assert_eq!(Digest::of(Algorithm::Sha256, b"").hex(), EMPTY_SHA256);
    }

    #[test]
    fn text_form_round_trips() {
        for (algorithm, hex) in ABC {
            let text = format!("{}:{hex}", algorithm.name());
            let digest: Digest = text.parse().unwrap();
            assert_eq!(digest, Digest::of(algorithm, b"abc"));
            assert_eq!(digest.to_string(), text);
        }
    }

    #[test]
    fn a03_malformed_digests_are_refused() {
        let upper = EMPTY_SHA256.to_uppercase();
        let short = &EMPTY_SHA256[1..];
        for text in [
            String::new(),
            ":".into(),
            "sha256".into(),
            "sha256:".into(),
            "sha256:../../x".into(),
            format!("sha256:{upper}"),
            format!("sha256:{short}"),
            format!("sha256:{EMPTY_SHA256}0"),
            format!("sha256:{short}g"),
            format!("sha256:{short}\0"),
            format!("sha256:{}é", &EMPTY_SHA256[2..]),
            format!("sha256:{EMPTY_SHA256} "),
            format!(" sha256:{EMPTY_SHA256}"),
            format!("SHA256:{EMPTY_SHA256}"),
            format!("sha512:{EMPTY_SHA256}"),
            format!("sha256::{EMPTY_SHA256}"),
            format!("{}:ab", "x".repeat(10_000)),
            format!("sha256:{}", "a".repeat(10_000)),
            "md5:".into(),
            "md5:d41d8cd98f00b204/9800998ecf8427e".into(),
            "md5+:00".into(),
            "+md5:00".into(),
        ] {
            assert_eq!(
                Digest::parse(&text),
                Err(DigestError::Malformed),
                "{text:.80}"
            );
        }
    }

    #[test]
    fn unknown_algorithms_are_named() {
        assert_eq!(
            Digest::parse("md5:d41d8cd98f00b204e9800998ecf8427e"),
            Err(DigestError::Unsupported("md5".into()))
        );
        assert_eq!(
            Digest::parse("multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8"),
            Err(DigestError::Unsupported("multihash+base58".into()))
        );
    }

    #[test]
    fn length_must_match_the_algorithm() {
        assert!(Digest::new(Algorithm::Sha256, &[0; 31]).is_err());
        assert!(Digest::new(Algorithm::Sha256, &[0; 64]).is_err());
        assert!(Digest::new(Algorithm::Sha512, &[0; 32]).is_err());
        assert!(Digest::new(Algorithm::Sha512, &[0; 64]).is_ok());
    }

    #[test]
    fn encoded_form_round_trips_and_keeps_order() {
        let mut digests: Vec<Digest> = Algorithm::ALL
            .into_iter()
            .flat_map(|a| (0..20u8).map(move |i| Digest::of(a, &[i])))
            .collect();
        for digest in &digests {
            let mut bytes = digest.encode();
            assert_eq!(bytes.len(), digest.encoded_len());
            bytes.extend_from_slice(b"what follows");
            assert_eq!(Digest::decode(&bytes), Ok((*digest, digest.encoded_len())));
        }
        digests.sort();
        assert!(digests.is_sorted_by_key(Digest::encode));
    }

    #[test]
    fn damaged_encodings_are_refused() {
        let bytes = Digest::of(Algorithm::Sha512, b"x").encode();
        for len in 0..bytes.len() {
            assert_eq!(
                Digest::decode(&bytes[..len]),
                Err(DigestError::Malformed),
                "{len} bytes"
            );
        }
        for code in [0u8, 4, 255] {
            assert!(matches!(
                Digest::decode(&[[code].as_slice(), &[0; 64]].concat()),
                Err(DigestError::Unsupported(_))
            ));
        }
    }

    #[test]
    fn codes_are_stable() {
        let codes: Vec<u8> = Algorithm::ALL.into_iter().map(Algorithm::code).collect();
        assert_eq!(codes, [1, 2, 3]);
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::from_code(algorithm.code()), Some(algorithm));
            assert_eq!(Algorithm::from_name(algorithm.name()), Some(algorithm));
        }
    }

    #[test]
    fn saved_state_goes_on_from_any_offset() {
        let content = content(1000);
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for cut in 0..300 {
                let mut first = Hasher::new(algorithm);
                first.update(&content[..cut]);
                let saved = first.save().unwrap();
                drop(first);
                let mut second = Hasher::restore(algorithm, &saved).unwrap();
                assert_eq!(second.len(), cut as u64);
                second.update(&content[cut..]);
                assert_eq!(second.len(), 1000);
                assert_eq!(
                    second.finish(),
                    Digest::of(algorithm, &content),
                    "cut {cut}"
                );
            }
        }
    }

    #[test]
    fn foreign_states_are_refused() {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(b"some content");
        let saved = hasher.save().unwrap();
        assert!(Hasher::restore(Algorithm::Sha512, &saved).is_none());
        assert!(Hasher::restore(Algorithm::Blake3, &saved).is_none());
        for len in 0..saved.len() {
            assert!(Hasher::restore(Algorithm::Sha256, &saved[..len]).is_none());
        }
        let mut longer = saved.clone();
        longer.push(0);
        assert!(Hasher::restore(Algorithm::Sha256, &longer).is_none());
        let mut newer = saved;
        newer[0] = STATE_VERSION + 1;
        assert!(Hasher::restore(Algorithm::Sha256, &newer).is_none());
        assert!(Hasher::new(Algorithm::Blake3).save().is_none());
    }

    #[test]
    fn pieces_hash_like_the_whole() {
        let content = content(10_000);
        for algorithm in Algorithm::ALL {
            let mut hasher = Hasher::new(algorithm);
            assert!(hasher.is_empty());
            for piece in content.chunks(77) {
                hasher.update(piece);
            }
            assert_eq!(hasher.len(), 10_000);
            assert_eq!(hasher.finish(), Digest::of(algorithm, &content));
        }
    }
}

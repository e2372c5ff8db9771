//! Digests, as text and as bytes.
//!
//! A text is a digest exactly when a reading of the grammar, written apart,
//! says so, and prints as it was read. Encoded bytes have one spelling and sort
//! as digests do.

use orlop_format::digest::{Algorithm, Digest, DigestError};

/// Runs the target.
pub fn run(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let parsed = Digest::parse(text);
        assert_eq!(parsed.is_ok(), is_digest(text), "{text:?}");
        match parsed {
            Ok(digest) => assert_eq!(digest.to_string(), text),
            Err(error @ DigestError::Unsupported(_)) => {
                // What is named back is short and plain.
                let message = error.to_string();
                assert!(message.len() < 200 && message.is_ascii(), "{message}");
            }
            Err(DigestError::Malformed) => {}
        }
    }
    let half = data.len() / 2;
    let halves = [&data[..half], &data[half..]];
    let decoded = halves.map(|bytes| Digest::decode(bytes).ok());
    for (bytes, decoded) in halves.into_iter().zip(decoded) {
        if let Some((digest, used)) = decoded {
            assert_eq!(digest.encode(), bytes[..used]);
            assert_eq!(digest.encoded_len(), used);
            assert_eq!(Digest::parse(&digest.to_string()), Ok(digest));
        }
    }
    if let [Some((one, _)), Some((other, _))] = decoded {
        assert_eq!(one.cmp(&other), one.encode().cmp(&other.encode()));
    }
    for algorithm in Algorithm::ALL {
        let digest = Digest::new(algorithm, data);
        assert_eq!(digest.is_ok(), data.len() == algorithm.digest_len());
    }
}

fn is_digest(text: &str) -> bool {
    [("sha256:", 64), ("sha512:", 128), ("blake3:", 64)]
        .iter()
        .any(|(start, len)| {
            text.strip_prefix(start).is_some_and(|hex| {
                hex.len() == *len && hex.bytes().all(|byte| b"0123456789abcdef".contains(&byte))
            })
        })
}

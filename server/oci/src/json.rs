//! A first pass over JSON of strangers: refuses what two readers could read
//! differently, or what would cost more than its bytes.
//!
//! Refused: a key that appears twice in one object, a number that does not
//! fit, too many keys or elements in one place. Depth is bounded by
//! serde_json itself (128).

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// Keys of one object.
pub(crate) const KEYS_MAX: usize = 4096;
/// Elements of one array: more descriptors than this have no manifest.
pub(crate) const ELEMENTS_MAX: usize = 65_536;

/// Reads the whole document, keeping nothing of it.
pub(crate) fn check(bytes: &[u8]) -> Result<(), serde_json::Error> {
    serde_json::from_slice::<Checked>(bytes).map(|Checked| ())
}

struct Checked;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Checked, D::Error> {
        deserializer.deserialize_any(Walk)
    }
}

/// A key, borrowed from the input where it has no escapes.
#[derive(PartialEq, Eq, Hash)]
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Key<'de>, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Read)
    }
}

struct Walk;

impl<'de> Visitor<'de> for Walk {
    type Value = Checked;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Checked, A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<Key<'de>>()? {
            if keys.len() >= KEYS_MAX {
                return Err(de::Error::custom(format_args!(
                    "an object has more than {KEYS_MAX} keys"
                )));
            }
            if !keys.insert(key) {
                return Err(de::Error::custom("a key appears twice in one object"));
            }
            map.next_value::<Checked>()?;
        }
        Ok(Checked)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Checked, A::Error> {
        let mut count = 0usize;
        while seq.next_element::<Checked>()?.is_some() {
            count = count.saturating_add(1);
            if count > ELEMENTS_MAX {
                return Err(de::Error::custom(format_args!(
                    "an array has more than {ELEMENTS_MAX} elements"
                )));
            }
        }
        Ok(Checked)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_str<E>(self, _: &str) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_unit<E>(self) -> Result<Checked, E> {
        Ok(Checked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        check(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn ordinary_documents_pass() {
        for text in [
            "{}",
            "[]",
            "null",
            r#"{"a":{"b":1},"c":{"b":1},"d":[1,-2,3.5,true,null,"\u0041"]}"#,
        ] {
            check(text.as_bytes()).unwrap();
        }
    }

    #[test]
    fn a14_double_keys() {
        assert!(refused(r#"{"a":1,"b":2,"a":1}"#).contains("twice"));
        assert!(refused(r#"{"x":[{"a":1,"\u0061":1}]}"#).contains("twice"));
    }

    #[test]
    fn a14_numbers_that_do_not_fit() {
        assert!(refused(r#"{"a":1e999}"#).contains("out of range"));
        refused(r#"{"a":NaN}"#);
        refused(r#"{"a":Infinity}"#);
    }

    #[test]
    fn a14_too_many() {
        let many = format!("[{}0]", "0,".repeat(ELEMENTS_MAX));
        assert!(refused(&many).contains("elements"));
        check(format!("[{}0]", "0,".repeat(ELEMENTS_MAX - 1)).as_bytes()).unwrap();
        let keys = |n| {
            let keys: Vec<String> = (0..n).map(|i| format!("\"{i}\":0")).collect();
            format!("{{{}}}", keys.join(","))
        };
        check(keys(KEYS_MAX).as_bytes()).unwrap();
        assert!(refused(&keys(KEYS_MAX + 1)).contains("keys"));
    }

    #[test]
    fn a13_depth_is_bounded_on_a_small_stack() {
        let deep = "[".repeat(100_000);
        let mixed = r#"{"a":["#.repeat(50_000);
        let thread = std::thread::Builder::new()
            .stack_size(256 * 1024)
            .spawn(move || (refused(&deep), refused(&mixed)))
            .unwrap();
        let (deep, mixed) = thread.join().unwrap();
        assert!(deep.contains("recursion"), "{deep}");
        assert!(mixed.contains("recursion"), "{mixed}");
    }

    #[test]
    fn trailing_content_is_refused() {
        assert!(refused("{} {}").contains("trailing"));
        check(b" {} \n").unwrap();
    }
}

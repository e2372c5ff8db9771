//! Manifests. The first line of the input is the `Content-Type`, empty for
//! none; the rest is the body.
//!
//! What is accepted is JSON to serde_json too, has no key twice and no depth
//! beyond its bound by a scanner written apart, and says in each field what the
//! generic JSON value says there. Other white space and escapes change nothing.
//! What is refused is refused in few words.

use orlop_oci::media_type::essence;
use orlop_oci::{Descriptor, Kind, MANIFEST_BYTES_MAX, Manifest, ManifestError, RefKind};
use serde_json::Value;

/// Depth of JSON that is read, as serde_json bounds it.
const DEPTH: usize = 127;

/// Runs the target.
pub fn run(data: &[u8]) {
    let (line, body) = match data.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (&[][..], data),
    };
    let header = std::str::from_utf8(line)
        .ok()
        .filter(|line| !line.is_empty());
    let value = serde_json::from_slice::<Value>(body);
    match Manifest::parse(body, header) {
        Ok(manifest) => {
            let value = value.unwrap();
            let text = std::str::from_utf8(body).unwrap();
            assert!(Scanner::new(text).document(), "a key is there twice");
            agrees(&manifest, &value, header);
            references(&manifest);
            for again in [
                serde_json::to_vec(&value).unwrap(),
                serde_json::to_vec_pretty(&value).unwrap(),
                escaped(&value),
            ] {
                let again = Manifest::parse(&again, header).unwrap();
                assert_eq!(format!("{again:?}"), format!("{manifest:?}"));
            }
        }
        Err(error) => {
            assert!(
                value.is_ok() || matches!(error, ManifestError::Json(_) | ManifestError::TooLarge),
                "{error}"
            );
            assert_eq!(
                matches!(error, ManifestError::TooLarge),
                body.len() > MANIFEST_BYTES_MAX
            );
            let words = error.to_string().len();
            assert!(words < 1000 + line.len() * 6, "{words} bytes: {error}");
        }
    }
}

/// Every field is what the generic value has in its place.
fn agrees(manifest: &Manifest, value: &Value, header: Option<&str>) {
    assert_eq!(value["schemaVersion"], 2);
    let name = manifest.media_type.as_str();
    if let Some(text) = value["mediaType"].as_str().filter(|text| !text.is_empty()) {
        assert_eq!(text, name);
    }
    if let Some(header) = header.map(essence).filter(|header| !header.is_empty()) {
        assert_eq!(header, name);
    }
    let is_docker = name.contains("docker");
    let oci = |key: &str| if is_docker { &Value::Null } else { &value[key] };
    let artifact = oci("artifactType").as_str().filter(|text| !text.is_empty());
    assert_eq!(manifest.artifact_type.as_deref(), artifact);
    one(manifest.subject.as_ref(), oci("subject"));
    one(manifest.config.as_ref(), &value["config"]);
    for (list, key) in [
        (&manifest.layers, "layers"),
        (&manifest.manifests, "manifests"),
    ] {
        let values = value[key].as_array().cloned().unwrap_or_default();
        assert_eq!(list.len(), values.len(), "{key}");
        for (descriptor, value) in list.iter().zip(&values) {
            one(Some(descriptor), value);
        }
    }
    let annotations = value["annotations"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    assert_eq!(manifest.annotations.len(), annotations.len());
    for (key, text) in &manifest.annotations {
        assert_eq!(annotations[key], text.as_str());
    }
}

fn one(descriptor: Option<&Descriptor>, value: &Value) {
    let Some(descriptor) = descriptor else {
        assert!(value.is_null(), "{value} was not read");
        return;
    };
    assert_eq!(value["mediaType"], descriptor.media_type.as_str());
    assert_eq!(value["digest"], descriptor.digest.to_string().as_str());
    assert_eq!(value["size"].as_u64(), Some(descriptor.size));
    assert!(i64::try_from(descriptor.size).is_ok());
}

fn references(manifest: &Manifest) {
    let kinds: Vec<_> = manifest.references().map(|one| one.kind).collect();
    let count = |kind| kinds.iter().filter(|one| **one == kind).count();
    assert_eq!(
        count(RefKind::Config),
        usize::from(manifest.config.is_some())
    );
    assert_eq!(
        count(RefKind::Subject),
        usize::from(manifest.subject.is_some())
    );
    assert_eq!(
        count(RefKind::Layer) + count(RefKind::Child),
        manifest.layers.len() + manifest.manifests.len()
    );
    assert_eq!(manifest.kind == Kind::Index, manifest.config.is_none());
    assert!(manifest.layers.is_empty() || count(RefKind::Child) == 0);
    for reference in manifest.references() {
        let must = matches!(reference.kind, RefKind::Config | RefKind::Child);
        assert!(reference.is_required() || !must);
        assert!(!(reference.is_required() && reference.kind == RefKind::Subject));
    }
}

/// The same value with every letter of every string as an escape.
fn escaped(value: &Value) -> Vec<u8> {
    fn string(text: &str, out: &mut String) {
        out.push('"');
        for unit in text.encode_utf16() {
            out.push_str(&format!("\\u{unit:04x}"));
        }
        out.push('"');
    }
    fn write(value: &Value, out: &mut String) {
        match value {
            Value::String(text) => string(text, out),
            Value::Array(values) => {
                out.push('[');
                for (at, value) in values.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    write(value, out);
                }
                out.push(']');
            }
            Value::Object(values) => {
                out.push('{');
                for (at, (key, value)) in values.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    string(key, out);
                    out.push(':');
                    write(value, out);
                }
                out.push('}');
            }
            other => out.push_str(&other.to_string()),
        }
    }
    let mut out = String::new();
    write(value, &mut out);
    out.into_bytes()
}

/// Walks JSON that is known to be valid, for what serde_json's value hides.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Scanner<'a> {
        Scanner { text, at: 0 }
    }

    /// Whether no object has a key twice. Panics when it is too deep.
    fn document(&mut self) -> bool {
        let bytes = self.text.as_bytes();
        // For each open bracket: the keys, and whether a key comes next.
        let mut open: Vec<(bool, Vec<String>)> = Vec::new();
        let mut key_next = false;
        while let Some(byte) = bytes.get(self.at) {
            self.at += 1;
            match byte {
                b'{' | b'[' => {
                    open.push((*byte == b'{', Vec::new()));
                    key_next = *byte == b'{';
                    assert!(open.len() <= DEPTH, "{} deep", open.len());
                }
                b'}' | b']' => {
                    open.pop();
                }
                b',' => key_next = open.last().is_some_and(|(object, _)| *object),
                b'"' => {
                    let text = self.string();
                    if std::mem::take(&mut key_next)
                        && let Some((_, keys)) = open.last_mut()
                    {
                        if keys.contains(&text) {
                            return false;
                        }
                        keys.push(text);
                    }
                }
                _ => {}
            }
        }
        true
    }

    /// The string whose opening quote was passed.
    fn string(&mut self) -> String {
        let bytes = self.text.as_bytes();
        let start = self.at - 1;
        while bytes[self.at] != b'"' {
            self.at += if bytes[self.at] == b'\\' { 2 } else { 1 };
        }
        self.at += 1;
        serde_json::from_str(&self.text[start..self.at]).unwrap()
    }
}

//! Media types.
//!
//! What is taken from a `Content-Type` is normal: taken again it is the same,
//! whatever parameters follow. A type that is well formed can stand in a header
//! and in JSON as it is, and each manifest's type is found by its own name only.

use orlop_oci::ManifestType;
use orlop_oci::media_type::{
    MEDIA_TYPE_LEN_MAX, essence, is_image_config, is_non_distributable, is_schema_1, is_well_formed,
};

/// Runs the target.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let bare = essence(text);
    assert_eq!(essence(&bare), bare, "{text:?}");
    assert!(!bare.contains(';') && bare.trim() == bare);
    assert!(!bare.bytes().any(|byte| byte.is_ascii_uppercase()));
    assert_eq!(essence(&format!("{text}; charset=utf-8")), bare);
    assert_eq!(essence(&format!(" \t{}", text.to_ascii_uppercase())), bare);

    if is_well_formed(text) {
        assert!(text.len() <= MEDIA_TYPE_LEN_MAX && text.is_ascii());
        assert_eq!(text.matches('/').count(), 1);
        assert!(http::HeaderValue::from_str(text).is_ok());
        assert_eq!(serde_json::to_string(text).unwrap(), format!("\"{text}\""));
    }
    match ManifestType::from_name(text) {
        Some(known) => {
            assert_eq!(known.as_str(), text);
            assert!(is_well_formed(text) && bare == text);
            assert!(!is_schema_1(text) && !is_image_config(text) && !is_non_distributable(text));
        }
        None => assert!(ManifestType::ALL.iter().all(|known| known.as_str() != text)),
    }
}

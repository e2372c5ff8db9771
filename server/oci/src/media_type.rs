//! The media types a registry tells apart, in one table.
//!
//! A layer or config may have any media type. A manifest may have one of
//! [`ManifestType`], since the registry must be able to read what it refers
//! to: content it cannot see a reference to, it would one day collect.

/// The longest media type that is accepted, in bytes (RFC 6838: 127 each
/// side of the `/`).
pub const MEDIA_TYPE_LEN_MAX: usize = 255;

/// Config of an OCI image.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Config of a Docker image.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// The empty JSON object, config of artifacts that have none.
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// Layers that a manifest may name without the registry having them.
const NON_DISTRIBUTABLE: [&str; 4] = [
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
];

/// Manifests of Docker's schema 1, which carry no digests of their own.
const SCHEMA_1: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

/// The kinds of manifest that can be pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ManifestType {
    /// OCI image manifest, also of artifacts.
    OciImage,
    /// OCI index.
    OciIndex,
    /// Docker image manifest, schema 2.
    DockerImage,
    /// Docker manifest list.
    DockerList,
}

impl ManifestType {
    /// All of them.
    pub const ALL: [ManifestType; 4] = [
        ManifestType::OciImage,
        ManifestType::OciIndex,
        ManifestType::DockerImage,
        ManifestType::DockerList,
    ];

    /// The media type.
    pub const fn as_str(self) -> &'static str {
        match self {
            ManifestType::OciImage => "application/vnd.oci.image.manifest.v1+json",
            ManifestType::OciIndex => "application/vnd.oci.image.index.v1+json",
            ManifestType::DockerImage => "application/vnd.docker.distribution.manifest.v2+json",
            ManifestType::DockerList => "application/vnd.docker.distribution.manifest.list.v2+json",
        }
    }

    /// The type of this name; None if no manifest has it.
    pub fn from_name(name: &str) -> Option<ManifestType> {
        ManifestType::ALL.into_iter().find(|t| t.as_str() == name)
    }

    /// Whether it lists manifests rather than layers.
    pub const fn is_index(self) -> bool {
        matches!(self, ManifestType::OciIndex | ManifestType::DockerList)
    }

    /// Whether it is one of Docker's own, which must name their type in the
    /// body and know neither subject nor artifact type.
    pub const fn is_docker(self) -> bool {
        matches!(self, ManifestType::DockerImage | ManifestType::DockerList)
    }
}

/// Whether layers of this type need not be in the registry.
pub fn is_non_distributable(media_type: &str) -> bool {
    NON_DISTRIBUTABLE.contains(&media_type)
}

/// Whether this is a manifest of Docker's schema 1.
pub fn is_schema_1(media_type: &str) -> bool {
    SCHEMA_1.contains(&media_type)
}

/// Whether a manifest with this config is a container image.
pub fn is_image_config(media_type: &str) -> bool {
    matches!(media_type, OCI_CONFIG | DOCKER_CONFIG)
}

/// The media type of a `Content-Type` value: in lower case, without
/// parameters.
pub fn essence(content_type: &str) -> String {
    let bare = content_type.split(';').next().unwrap_or_default();
    bare.trim().to_ascii_lowercase()
}

/// Whether a text has the form of a media type, `type/subtype`, loosely.
pub fn is_well_formed(text: &str) -> bool {
    let side = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b'"' | b'\\' | b','))
    };
    text.len() <= MEDIA_TYPE_LEN_MAX
        && text
            .split_once('/')
            .is_some_and(|(left, right)| side(left) && side(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for kind in ManifestType::ALL {
            assert_eq!(ManifestType::from_name(kind.as_str()), Some(kind));
            assert!(is_well_formed(kind.as_str()));
            assert!(!is_schema_1(kind.as_str()));
        }
        assert_eq!(ManifestType::from_name("application/json"), None);
    }

    #[test]
    fn essence_drops_parameters() {
        assert_eq!(
            essence(" Application/vnd.oci.image.index.v1+json ; charset=utf-8"),
            ManifestType::OciIndex.as_str()
        );
        assert_eq!(essence(""), "");
    }

    #[test]
    fn malformed_media_types() {
        for text in [
            "",
            "/",
            "a/",
            "/b",
            "a",
            "a b/c",
            "a/b/c",
            "a/\u{1b}[0m",
            "a/\"b",
        ] {
            assert!(!is_well_formed(text), "{text:?}");
        }
        assert!(!is_well_formed(&format!("a/{}", "b".repeat(300))));
        assert!(is_well_formed("application/vnd.cncf.helm.config.v1+json"));
    }
}

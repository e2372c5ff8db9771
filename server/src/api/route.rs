//! Paths: from what the client wrote to one typed [`Route`].
//!
//! Repository names contain slashes, so paths under `/v2/` are read from the
//! right. They are split first and decoded after that, exactly once, so that
//! an escaped slash never makes a segment.

use http::Method;

use super::error::ApiError;
use super::percent;
use crate::registry::{Digest, DigestError, NameError, Reference, RepositoryName, UploadId};

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/livez`
    Livez,
    /// `/readyz`
    Readyz,
    /// `/health`
    Health,
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/<name>/blobs/<digest>`
    Blob {
        /// The repository.
        name: RepositoryName,
        /// The blob.
        digest: Digest,
    },
    /// `/v2/<name>/blobs/uploads/`
    Uploads {
        /// The repository.
        name: RepositoryName,
    },
    /// `/v2/<name>/blobs/uploads/<id>`
    Upload {
        /// The repository.
        name: RepositoryName,
        /// The session.
        id: UploadId,
    },
    /// `/v2/<name>/manifests/<reference>`
    Manifest {
        /// The repository.
        name: RepositoryName,
        /// The manifest.
        reference: Reference,
    },
    /// `/v2/<name>/tags/list`
    Tags {
        /// The repository.
        name: RepositoryName,
    },
    /// `/v2/<name>/referrers/<digest>`
    Referrers {
        /// The repository.
        name: RepositoryName,
        /// What they are about.
        digest: Digest,
    },
}

const READ: &[Method] = &[Method::GET, Method::HEAD];
const BLOB: &[Method] = &[Method::GET, Method::HEAD, Method::DELETE];
const UPLOADS: &[Method] = &[Method::POST];
const UPLOAD: &[Method] = &[Method::GET, Method::PATCH, Method::PUT, Method::DELETE];
const MANIFEST: &[Method] = &[Method::GET, Method::HEAD, Method::PUT, Method::DELETE];

impl Route {
    /// Reads the path of a request.
    pub fn parse(path: &str) -> Result<Route, ApiError> {
        let path = match path {
            "/livez" => return Ok(Route::Livez),
            "/readyz" => return Ok(Route::Readyz),
            "/health" => return Ok(Route::Health),
            "/v2" | "/v2/" => return Ok(Route::Base),
            "/v2/_catalog" => return Ok(Route::Catalog),
            other => other.strip_prefix("/v2/").ok_or_else(ApiError::not_found)?,
        };
        let (rest, last) = path.rsplit_once('/').ok_or_else(ApiError::not_found)?;
        if let Some(name) = strip_keyword(rest, "blobs/uploads") {
            return if last.is_empty() {
                Ok(Route::Uploads {
                    name: parse_name(name)?,
                })
            } else {
                upload(name, last)
            };
        }
        if let Some(name) = strip_keyword(rest, "blobs") {
            return match last {
                "uploads" => Ok(Route::Uploads {
                    name: parse_name(name)?,
                }),
                _ => blob(name, last),
            };
        }
        if let Some(name) = strip_keyword(rest, "manifests") {
            return manifest(name, last);
        }
        if let Some(name) = strip_keyword(rest, "referrers") {
            let (name, digest) = name_and_digest(name, last)?;
            return Ok(Route::Referrers { name, digest });
        }
        if last == "list"
            && let Some(name) = strip_keyword(rest, "tags")
        {
            return Ok(Route::Tags {
                name: parse_name(name)?,
            });
        }
        Err(unmatched(path))
    }

    /// The methods it has.
    pub fn methods(&self) -> &'static [Method] {
        match self {
            Route::Livez
            | Route::Readyz
            | Route::Health
            | Route::Base
            | Route::Catalog
            | Route::Tags { .. }
            | Route::Referrers { .. } => READ,
            Route::Blob { .. } => BLOB,
            Route::Uploads { .. } => UPLOADS,
            Route::Upload { .. } => UPLOAD,
            Route::Manifest { .. } => MANIFEST,
        }
    }

    /// What it is about, by name, for the detail of errors.
    pub(super) fn subject(&self) -> Vec<(&'static str, String)> {
        let (name, more) = match self {
            Route::Livez | Route::Readyz | Route::Health | Route::Base | Route::Catalog => {
                return Vec::new();
            }
            Route::Uploads { name } | Route::Tags { name } => (name, None),
            Route::Blob { name, digest } | Route::Referrers { name, digest } => {
                (name, Some(("digest", digest.to_string())))
            }
            Route::Upload { name, id } => (name, Some(("upload", id.to_string()))),
            Route::Manifest { name, reference } => {
                (name, Some(("reference", reference.to_string())))
            }
        };
        let mut subject = vec![("name", name.to_string())];
        subject.extend(more);
        subject
    }

    /// Whether it has this method.
    pub fn allows(&self, method: &Method) -> bool {
        self.methods().contains(method)
    }
}

/// What stands before `/<keyword>` at the end of a path. A path that is only
/// the keyword has an empty name.
fn strip_keyword<'a>(path: &'a str, keyword: &str) -> Option<&'a str> {
    let rest = path.strip_suffix(keyword)?;
    if rest.is_empty() {
        return Some(rest);
    }
    rest.strip_suffix('/')
}

fn parse_name(raw: &str) -> Result<RepositoryName, ApiError> {
    let name = percent::decode(raw).ok_or_else(|| {
        // Points at the escape, which no name has in its place.
        ApiError::name_invalid(NameError::Character {
            at: raw.find('%').unwrap_or_default(),
        })
    })?;
    RepositoryName::parse(&name).map_err(ApiError::name_invalid)
}

fn name_and_digest(name: &str, last: &str) -> Result<(RepositoryName, Digest), ApiError> {
    let name = parse_name(name)?;
    let text = percent::decode(last).unwrap_or_default();
    let digest = Digest::parse(&text).map_err(|e| ApiError::digest_invalid(&e))?;
    Ok((name, digest))
}

fn blob(name: &str, last: &str) -> Result<Route, ApiError> {
    let (name, digest) = name_and_digest(name, last)?;
    Ok(Route::Blob { name, digest })
}

fn upload(name: &str, last: &str) -> Result<Route, ApiError> {
    let name = parse_name(name)?;
    let id = UploadId::parse(last).ok_or_else(ApiError::upload_unknown)?;
    Ok(Route::Upload { name, id })
}

fn manifest(name: &str, last: &str) -> Result<Route, ApiError> {
    let name = parse_name(name)?;
    let text = percent::decode(last).unwrap_or_default();
    let reference = Reference::parse(&text).map_err(|e| ApiError::reference_invalid(&e))?;
    Ok(Route::Manifest { name, reference })
}

/// The error for a path of no known form. Where a keyword shows what was
/// meant, what follows it is at fault, because it has a slash.
fn unmatched(path: &str) -> ApiError {
    let mut segments = path.split('/').skip(1);
    while let Some(segment) = segments.next() {
        match segment {
            "manifests" => return ApiError::reference_has_slash(),
            "referrers" => return ApiError::digest_invalid(&DigestError::Malformed),
            "blobs" if segments.next() == Some("uploads") => return ApiError::upload_unknown(),
            "blobs" => return ApiError::digest_invalid(&DigestError::Malformed),
            _ => {}
        }
    }
    ApiError::not_found()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Algorithm;
    use proptest::prelude::*;

    const ID: &str = "00112233445566778899aabbccddeeff";

    fn name(text: &str) -> RepositoryName {
        RepositoryName::parse(text).unwrap()
    }

    fn digest() -> Digest {
        Digest::of(Algorithm::Sha256, b"x")
    }

    fn refused(path: &str) -> (u16, &'static str) {
        let error = Route::parse(path).unwrap_err();
        (error.status().as_u16(), error.code())
    }

    #[test]
    fn routes() {
        let d = digest();
        for (path, route) in [
            ("/livez".to_owned(), Route::Livez),
            ("/readyz".into(), Route::Readyz),
            ("/v2".into(), Route::Base),
            ("/v2/".into(), Route::Base),
            (
                format!("/v2/a/b/blobs/{d}"),
                Route::Blob {
                    name: name("a/b"),
                    digest: d,
                },
            ),
            (
                format!("/v2/a%2Fb/blobs/{}", d.to_string().replace(':', "%3A")),
                Route::Blob {
                    name: name("a/b"),
                    digest: d,
                },
            ),
            (
                "/v2/a/blobs/uploads/".into(),
                Route::Uploads { name: name("a") },
            ),
            (
                "/v2/a/blobs/uploads".into(),
                Route::Uploads { name: name("a") },
            ),
            (
                format!("/v2/a/blobs/uploads/{ID}"),
                Route::Upload {
                    name: name("a"),
                    id: UploadId::parse(ID).unwrap(),
                },
            ),
            (
                "/v2/a/manifests/latest".into(),
                Route::Manifest {
                    name: name("a"),
                    reference: Reference::parse("latest").unwrap(),
                },
            ),
            (
                format!("/v2/a/manifests/{d}"),
                Route::Manifest {
                    name: name("a"),
                    reference: Reference::Digest(d),
                },
            ),
            (
                "/v2/a/b/c/tags/list".into(),
                Route::Tags {
                    name: name("a/b/c"),
                },
            ),
            ("/v2/_catalog".into(), Route::Catalog),
            (
                format!("/v2/a/b/referrers/{d}"),
                Route::Referrers {
                    name: name("a/b"),
                    digest: d,
                },
            ),
            // Keywords are good names too.
            (
                "/v2/blobs/uploads/manifests/tags".into(),
                Route::Manifest {
                    name: name("blobs/uploads"),
                    reference: Reference::parse("tags").unwrap(),
                },
            ),
            (
                "/v2/tags/list/tags/list".into(),
                Route::Tags {
                    name: name("tags/list"),
                },
            ),
            (
                format!("/v2/blobs/blobs/{d}"),
                Route::Blob {
                    name: name("blobs"),
                    digest: d,
                },
            ),
        ] {
            assert_eq!(Route::parse(&path).ok(), Some(route), "{path}");
        }
    }

    #[test]
    fn a01_traversal() {
        for path in [
            "/v2/..%2f..%2fetc%2fpasswd/manifests/x",
            "/v2/%2F%2F%2Fetc/manifests/x",
            "/v2/../../etc/passwd/manifests/x",
            "/v2//manifests/x",
            "/v2/manifests/x",
        ] {
            assert_eq!(refused(path), (400, "NAME_INVALID"), "{path}");
        }
        for path in [
            "/",
            "//v2/a/manifests/x",
            "/../etc/passwd",
            "/v2/%2e%2e",
            "/v1/",
            "/v2x",
        ] {
            assert_eq!(refused(path).0, 404, "{path}");
        }
    }

    #[test]
    fn a02_a06_names() {
        for name in [
            "A/b",
            "a//b",
            "a/../b",
            "_blobstore",
            "-x",
            "a%00b",
            "a%0d%0ab",
            "%252e%252e",
            "%D0%B0",
            "a%zzb",
            "a%",
            "%ff",
            &"a".repeat(256),
        ] {
            for rest in ["manifests/x", "tags/list", "blobs/uploads/"] {
                let path = format!("/v2/{name}/{rest}");
                assert_eq!(refused(&path), (400, "NAME_INVALID"), "{path}");
            }
        }
    }

    #[test]
    fn a03_digests() {
        let hex = digest().hex();
        for text in [
            "sha256:..%2F..%2Fx".to_owned(),
            "sha256:../../x".into(),
            format!("sha256:{}", hex.to_uppercase()),
            format!("sha256:{}", &hex[1..]),
            "sha256:".into(),
            "md5:d41d8cd98f00b204e9800998ecf8427e".into(),
            format!("sha256:{}", "a".repeat(10_000)),
            "%zz".into(),
            "x".into(),
        ] {
            let path = format!("/v2/a/blobs/{text}");
            assert_eq!(refused(&path), (400, "DIGEST_INVALID"), "{path:.80}");
            let path = format!("/v2/a/referrers/{text}");
            assert_eq!(refused(&path), (400, "DIGEST_INVALID"), "{path:.80}");
            if text.contains(':') && !text.contains("../") {
                let path = format!("/v2/a/manifests/{text}");
                assert_eq!(refused(&path), (400, "DIGEST_INVALID"), "{path:.80}");
            }
        }
    }

    #[test]
    fn a04_tags() {
        for tag in ["a%2Fb", "a/b", "a%00", ".a", "a%20b", &"t".repeat(129), ""] {
            let path = format!("/v2/a/manifests/{tag}");
            assert_eq!(refused(&path), (400, "MANIFEST_INVALID"), "{path}");
        }
        assert_eq!(refused("/v2/a/manifests/a:b").0, 400);
    }

    #[test]
    fn a05_upload_ids() {
        for id in [
            "..",
            "%2e%2e",
            "x",
            "00112233445566778899aabbccddeef",
            "../../x",
            "00112233445566778899AABBCCDDEEFF",
            "00112233-4455-6677-8899-aabbccddeeff",
        ] {
            let path = format!("/v2/a/blobs/uploads/{id}");
            assert_eq!(refused(&path), (404, "BLOB_UPLOAD_UNKNOWN"), "{path}");
        }
    }

    #[test]
    fn what_is_not_there() {
        for path in ["/v2/a", "/v2/_catalog/", "/v2/a/_catalog"] {
            assert_eq!(refused(path), (404, "UNSUPPORTED"), "{path}");
        }
    }

    #[test]
    fn a40_methods() {
        let route = Route::parse("/v2/a/manifests/x").unwrap();
        assert!(route.allows(&Method::PUT));
        for method in [
            Method::TRACE,
            Method::CONNECT,
            Method::OPTIONS,
            Method::POST,
        ] {
            assert!(!route.allows(&method));
        }
        assert!(!route.allows(&Method::from_bytes(b"BREW").unwrap()));
    }

    proptest! {
        #[test]
        fn any_path_has_an_answer(path in "/(v2/)?([a.%/:]|%2[fFeE]|blobs|uploads|manifests|referrers|tags|list|_catalog){0,20}") {
            if let Err(error) = Route::parse(&path) {
                prop_assert!(matches!(error.status().as_u16(), 400 | 404));
            }
        }
    }
}

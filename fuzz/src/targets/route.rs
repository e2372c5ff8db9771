//! Paths of requests.
//!
//! A path is accepted exactly when it has one reading by the list of forms,
//! tried one by one and apart, and never when it has two. What was accepted
//! prints as a path that reads as the same. Escapes are undone once: what is
//! escaped in full reads as the same, what is escaped twice never as a name.

use orlop::api::route::Route;
use orlop_format::record::UploadId;
use orlop_oci::{Digest, Reference, RepositoryName};

/// Runs the target.
pub fn run(data: &[u8]) {
    let Ok(path) = std::str::from_utf8(data) else {
        return;
    };
    let readings = readings(path);
    assert!(readings.len() <= 1, "{path:?} reads as {readings:?}");
    let parsed = Route::parse(path);
    assert_eq!(parsed.as_ref().ok(), readings.first(), "{path:?}");
    match parsed {
        Ok(route) => accepted(path, &route),
        Err(error) => {
            let status = error.status().as_u16();
            assert!(matches!(status, 400 | 404), "{path:?} gives {status}");
        }
    }
}

fn accepted(path: &str, route: &Route) {
    assert!(!route.methods().is_empty());
    assert!(route.methods().iter().all(|method| route.allows(method)));
    assert!(
        !path.contains("%25"),
        "an escape was undone twice: {path:?}"
    );
    assert_eq!(
        Route::parse(&print(route, str::to_owned)).ok().as_ref(),
        Some(route)
    );
    let escape = |text: &str| {
        let bytes = text.bytes().map(|byte| format!("%{byte:02X}"));
        bytes.collect::<String>()
    };
    assert_eq!(
        Route::parse(&print(route, escape)).ok().as_ref(),
        Some(route)
    );
    // Twice escaped, it is another path, if it is one at all.
    let twice = print(route, |text| escape(text).replace('%', "%25"));
    assert_eq!(
        Route::parse(&twice).ok().as_ref(),
        Some(route).filter(|_| twice == print(route, escape))
    );
}

/// The path of a route, its names as `name` writes them.
fn print(route: &Route, name: impl Fn(&str) -> String) -> String {
    match route {
        Route::Livez => "/livez".to_owned(),
        Route::Readyz => "/readyz".to_owned(),
        Route::Health => "/health".to_owned(),
        Route::Base => "/v2/".to_owned(),
        Route::Catalog => "/v2/_catalog".to_owned(),
        Route::Blob { name: n, digest } => {
            format!(
                "/v2/{}/blobs/{}",
                name(n.as_str()),
                name(&digest.to_string())
            )
        }
        Route::Uploads { name: n } => format!("/v2/{}/blobs/uploads/", name(n.as_str())),
        // Ids are of our making and are never escaped.
        Route::Upload { name: n, id } => format!("/v2/{}/blobs/uploads/{id}", name(n.as_str())),
        Route::Manifest { name: n, reference } => format!(
            "/v2/{}/manifests/{}",
            name(n.as_str()),
            name(&reference.to_string())
        ),
        Route::Tags { name: n } => format!("/v2/{}/tags/list", name(n.as_str())),
        Route::Referrers { name: n, digest } => format!(
            "/v2/{}/referrers/{}",
            name(n.as_str()),
            name(&digest.to_string())
        ),
    }
}

/// Every way to read a path, form by form.
fn readings(path: &str) -> Vec<Route> {
    let fixed = [
        ("/livez", Route::Livez),
        ("/readyz", Route::Readyz),
        ("/health", Route::Health),
        ("/v2", Route::Base),
        ("/v2/", Route::Base),
        ("/v2/_catalog", Route::Catalog),
    ];
    let mut all: Vec<Route> = fixed
        .into_iter()
        .filter(|(text, _)| *text == path)
        .map(|(_, route)| route)
        .collect();
    let Some(rest) = path.strip_prefix("/v2/") else {
        return all;
    };
    let segments: Vec<&str> = rest.split('/').collect();
    for cut in 1..segments.len() {
        let Some(name) = decode(&segments[..cut].join("/")) else {
            continue;
        };
        let Ok(name) = RepositoryName::parse(&name) else {
            continue;
        };
        all.extend(tail(&name, &segments[cut..]));
    }
    all
}

/// What the segments behind a name can mean.
fn tail(name: &RepositoryName, segments: &[&str]) -> Vec<Route> {
    let name = name.clone();
    let digest = |text: &str| Digest::parse(&decode(text)?).ok();
    let route = match segments {
        ["blobs", "uploads"] | ["blobs", "uploads", ""] => Some(Route::Uploads { name }),
        ["blobs", "uploads", id] => UploadId::parse(id).map(|id| Route::Upload { name, id }),
        ["blobs", text] => digest(text).map(|digest| Route::Blob { name, digest }),
        ["manifests", text] => decode(text)
            .and_then(|text| Reference::parse(&text).ok())
            .map(|reference| Route::Manifest { name, reference }),
        ["tags", "list"] => Some(Route::Tags { name }),
        ["referrers", text] => digest(text).map(|digest| Route::Referrers { name, digest }),
        _ => None,
    };
    route.into_iter().collect()
}

/// Escapes undone once, by their places.
fn decode(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut out = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        out.push(u8::from_str_radix(digits, 16).ok()?);
        out.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(out).ok()
}

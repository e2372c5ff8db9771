//! `/v2/<name>/referrers/<digest>`: what is about a manifest, as an index.

use std::fmt::Write as _;

use http::header::{HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::value::RawValue;

use super::Call;
use super::body::Answer;
use super::error::ApiError;
use super::list::{self, Asked};
use super::percent;
use crate::registry::{Digest, Referrer, RepositoryName};

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u8,
    media_type: &'static str,
    manifests: Vec<Descriptor<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor<'a> {
    media_type: &'a str,
    digest: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<&'a RawValue>,
}

pub(super) async fn list(
    call: &Call<'_>,
    name: &RepositoryName,
    subject: &Digest,
) -> Result<Answer, ApiError> {
    let Asked { n, last } = Asked::of(call)?;
    let last = last
        .map(|last| Digest::parse(&last).map_err(|_| ApiError::last_invalid()))
        .transpose()?;
    let wanted = percent::parameter(call.head.uri.query(), "artifactType")
        .map(|text| {
            text.filter(|text| !text.contains('\0'))
                .ok_or_else(ApiError::artifact_type_invalid)
        })
        .transpose()?
        .filter(|text| !text.is_empty());
    let registry = call.registry;
    let listed = registry.referrer_list(
        call.subject,
        name,
        subject,
        wanted.as_deref(),
        last.as_ref(),
        n,
    );
    let page = listed.await?;
    let index = Index {
        schema_version: 2,
        media_type: INDEX,
        manifests: page
            .entries
            .iter()
            .map(descriptor)
            .collect::<Result<_, _>>()
            .map_err(ApiError::internal)?,
    };
    let body = serde_json::to_string(&index).map_err(ApiError::internal)?;
    let mut answer = list::page(body, INDEX);
    let mut more = String::new();
    if let Some(wanted) = &wanted {
        answer
            .headers_mut()
            .insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
        // Writing to a string does not fail.
        let _ = write!(more, "&artifactType={}", percent::encode(wanted));
    }
    if let Some(last) = &page.more_after {
        let path = format!("/v2/{name}/referrers/{subject}");
        list::link_next(&mut answer, &path, page.limit, last, &more);
    }
    Ok(answer)
}

fn descriptor(referrer: &Referrer) -> Result<Descriptor<'_>, serde_json::Error> {
    let annotations = referrer.annotations.as_deref();
    Ok(Descriptor {
        media_type: &referrer.media_type,
        digest: referrer.digest.to_string(),
        size: referrer.size,
        artifact_type: referrer.artifact_type.as_deref(),
        annotations: annotations.map(serde_json::from_str).transpose()?,
    })
}

//! `/v2/<name>/tags/list`: tags in pages.

use bytes::Bytes;
use http::Response;
use http::header::{self, HeaderValue};
use serde_json::json;

use super::Call;
use super::body::{Answer, AnswerBody};
use super::error::ApiError;
use super::{percent, wire};
use crate::registry::RepositoryName;

/// The longest `last` that is looked for. No tag is longer.
const LAST_LEN_MAX: usize = 256;

pub(super) async fn list(call: &Call<'_>, name: &RepositoryName) -> Result<Answer, ApiError> {
    let query = call.head.uri.query();
    let n = match percent::parameter(query, "n") {
        None => None,
        Some(text) => Some(number(&text.unwrap_or_default())?),
    };
    let last = percent::parameter(query, "last")
        .map(|text| text.ok_or_else(ApiError::last_invalid))
        .transpose()?
        .filter(|text| !text.is_empty());
    if last
        .as_ref()
        .is_some_and(|last| last.len() > LAST_LEN_MAX || last.contains('\0'))
    {
        return Err(ApiError::last_invalid());
    }
    let page = call
        .registry
        .tag_list(call.subject, name, last.as_deref(), n)
        .await?;
    let body = json!({ "name": name.as_str(), "tags": page.tags });
    let mut answer = Response::new(AnswerBody::full(Bytes::from(body.to_string())));
    let headers = answer.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    if page.more
        && let Some(last) = page.tags.last()
    {
        let next = format!(
            "</v2/{name}/tags/list?n={}&last={last}>; rel=\"next\"",
            page.limit
        );
        headers.insert(header::LINK, wire::value(&next));
    }
    Ok(answer)
}

/// A number of digits alone. Too large counts as the largest.
fn number(text: &str) -> Result<u64, ApiError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ApiError::pagination_invalid());
    }
    Ok(text.parse().unwrap_or(u64::MAX))
}

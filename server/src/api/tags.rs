//! `/v2/<name>/tags/list`: tags in pages.

use serde_json::json;

use super::Call;
use super::body::Answer;
use super::error::ApiError;
use super::list::{self, Asked};
use crate::registry::RepositoryName;

pub(super) async fn list(call: &Call<'_>, name: &RepositoryName) -> Result<Answer, ApiError> {
    let Asked { n, last } = Asked::of(call)?;
    let listed = call
        .registry
        .tag_list(call.subject, name, last.as_deref(), n);
    let page = listed.await?;
    let body = json!({ "name": name.as_str(), "tags": page.entries }).to_string();
    let mut answer = list::page(body, "application/json");
    if let Some(last) = &page.more_after {
        let path = format!("/v2/{name}/tags/list");
        list::link_next(&mut answer, &path, page.limit, last, "");
    }
    Ok(answer)
}

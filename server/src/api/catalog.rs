//! `/v2/_catalog`: repositories in pages.

use serde_json::json;

use super::Call;
use super::body::Answer;
use super::error::ApiError;
use super::list::{self, Asked};

pub(super) async fn list(call: &Call<'_>) -> Result<Answer, ApiError> {
    let Asked { n, last } = Asked::of(call)?;
    let listed = call
        .registry
        .repository_list(call.subject, last.as_deref(), n);
    let page = listed.await?;
    let names: Vec<&str> = page.entries.iter().map(|name| name.as_str()).collect();
    let body = json!({ "repositories": names }).to_string();
    let mut answer = list::page(body, "application/json");
    if let Some(last) = &page.more_after {
        list::link_next(&mut answer, "/v2/_catalog", page.limit, last, "");
    }
    Ok(answer)
}

//! The distribution API: `/v2/` and the health pages, over HTTP and nothing
//! else.
//!
//! A request is read into one [`route::Route`], handed to the registry as
//! typed values, and its outcome written as an answer. Knows no SQL, no
//! engine and no rule of the protocol beyond its wire form.

mod base;
mod blobs;
pub mod body;
mod catalog;
pub mod error;
mod health;
mod list;
mod manifests;
mod percent;
mod piece;
mod reader;
mod referrers;
pub mod route;
mod tags;
mod uploads;
mod warning;
pub mod wire;

pub use body::{Answer, AnswerBody};
pub use error::ApiError;
pub use health::{Readiness, State, is_ready};
pub use piece::{Allowance, Piece, Watch};

use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};

use crate::registry::{Body, Registry, Subject};
use route::Route;

/// Tells clients which protocol this is.
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// Methods that some path has.
const METHODS: &[Method] = &[
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
];

/// Methods of pages that are only read.
const READ: &[Method] = &[Method::GET, Method::HEAD];

/// One request of the protocol, on its way to its resource.
struct Call<'a> {
    registry: &'a Registry,
    subject: Subject,
    head: &'a Parts,
}

/// Answers a request. While the registry is read-only, every answer of the
/// protocol says so.
pub async fn handle(state: &dyn Readiness, head: &Parts, body: Body) -> Result<Answer, ApiError> {
    let mut answer = respond(state, head, body).await;
    if head.uri.path().starts_with("/v2")
        && let Some(read_only) = state.read_only()
    {
        let text = format!("read-only for maintenance: {}", read_only.reason);
        answer = match answer {
            Ok(mut answer) => {
                warning::add(answer.headers_mut(), &text);
                Ok(answer)
            }
            Err(error) => Err(error.with_warning(&text)),
        };
    }
    answer
}

/// Answers a request for a health page; None for anything else.
pub async fn health(state: &dyn Readiness, head: &Parts) -> Option<Answer> {
    if !READ.contains(&head.method) {
        return None;
    }
    match Route::parse(head.uri.path()).ok()? {
        Route::Livez => Some(health::livez()),
        Route::Readyz => Some(health::readyz(state).await),
        Route::Health => Some(health::health(state).await),
        _ => None,
    }
}

async fn respond(state: &dyn Readiness, head: &Parts, body: Body) -> Result<Answer, ApiError> {
    if !METHODS.contains(&head.method) {
        return Err(ApiError::method_not_allowed(METHODS));
    }
    let route = Route::parse(head.uri.path())?;
    if !route.allows(&head.method) {
        return Err(ApiError::method_not_allowed(route.methods()));
    }
    let mut answer = match &route {
        Route::Livez => health::livez(),
        Route::Readyz => health::readyz(state).await,
        Route::Health => health::health(state).await,
        _ => protocol(state, head, body, &route).await?,
    };
    if answer.status() != StatusCode::NOT_MODIFIED {
        answer.headers_mut().insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
    }
    Ok(answer)
}

async fn protocol(
    state: &dyn Readiness,
    head: &Parts,
    body: Body,
    route: &Route,
) -> Result<Answer, ApiError> {
    let registry = match state.state() {
        State::Ready(registry) => registry,
        State::Starting(_) => return Err(ApiError::starting()),
    };
    let call = Call {
        registry: &registry,
        subject: Subject::Anonymous,
        head,
    };
    let mut answer = resource(&call, body, route)
        .await
        .map_err(|error| error.about(&route.subject()))?;
    answer
        .headers_mut()
        .insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    Ok(answer)
}

async fn resource(call: &Call<'_>, body: Body, route: &Route) -> Result<Answer, ApiError> {
    let method = &call.head.method;
    Ok(match route {
        Route::Base => base::base(),
        Route::Catalog => catalog::list(call).await?,
        Route::Blob { name, digest } if *method == Method::DELETE => {
            blobs::delete(call, name, digest).await?
        }
        Route::Blob { name, digest } => blobs::get(call, name, digest).await?,
        Route::Manifest { name, reference } if *method == Method::PUT => {
            manifests::put(call, body, name, reference).await?
        }
        Route::Manifest { name, reference } if *method == Method::DELETE => {
            manifests::delete(call, name, reference).await?
        }
        Route::Manifest { name, reference } => manifests::get(call, name, reference).await?,
        Route::Uploads { name } => uploads::post(call, body, name).await?,
        Route::Upload { name, id } => match *method {
            Method::PATCH => uploads::patch(call, body, name, *id).await?,
            Method::PUT => uploads::put(call, body, name, *id).await?,
            Method::DELETE => uploads::delete(call, name, *id).await?,
            _ => uploads::status(call, name, *id)?,
        },
        Route::Tags { name } => tags::list(call, name).await?,
        Route::Referrers { name, digest } => referrers::list(call, name, digest).await?,
        Route::Livez | Route::Readyz | Route::Health => return Err(ApiError::not_found()),
    })
}

#[cfg(test)]
mod tests;

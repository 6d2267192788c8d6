//! The routes, and what every request passes on its way to them.

mod executions;
mod native;
mod observe;
mod public;
mod transfer;

use std::borrow::Cow;
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{DefaultBodyLimit, MatchedPath, RawPathParams, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use boxlite::Error;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use crate::app::App;
use crate::body::MAX_JSON_BYTES;
use crate::caller::Caller;
use crate::failure::HttpFailure;
use crate::{auth, drain, page, request_id};

/// The service that answers every request.
pub(crate) type RouterService =
    BoxCloneSyncService<hyper::Request<hyper::body::Incoming>, Response, std::convert::Infallible>;

/// Returns the service over `app`.
pub(crate) fn service(app: &Arc<App>) -> RouterService {
    let routes = Router::new()
        .merge(public::routes(app))
        .merge(executions::routes())
        .merge(native::routes())
        .route_layer(middleware::from_fn_with_state(Arc::clone(app), admitted_to_box))
        .merge(observe::routes())
        .merge(page::routes())
        .fallback(nothing_there)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_JSON_BYTES))
        .layer(middleware::from_fn_with_state(Arc::clone(&app.gate), auth::admitted))
        .layer(middleware::from_fn(page::guarded))
        .layer(middleware::from_fn(drain::refused_when_late))
        .layer(middleware::from_fn(closed_when_refused))
        .layer(middleware::from_fn(request_id::named))
        .with_state(Arc::clone(app));
    BoxCloneSyncService::new(routes.map_request(|request: hyper::Request<hyper::body::Incoming>| {
        unprefixed(request.map(axum::body::Body::new))
    }))
}

/// Lets a request about a box pass if the box exists for its caller.
async fn admitted_to_box(
    State(app): State<Arc<App>>,
    caller: Caller,
    route: MatchedPath,
    parameters: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Response {
    // A path that cannot be decoded is the route's to refuse.
    let id =
        parameters.iter().flat_map(RawPathParams::iter).find_map(|(name, id)| (name == "id").then_some(id));
    if let (Caller::Named(_), Some(id), true) = (&caller, id, route.as_str().contains("/boxes/{id}")) {
        match app.runtime.inspect(id).await {
            Ok(info) if caller.sees(&info) => {}
            Ok(_) => {
                return HttpFailure::from(Error::not_found(format!("there is no box {id}"))).into_response();
            }
            Err(error) => return HttpFailure::from(error).into_response(),
        }
    }
    next.run(request).await
}

/// Ends the connection with the refusal of a tunnel or a WebSocket: a client that sent its first bytes along, without waiting
/// for the answer, must not have them taken for requests.
async fn closed_when_refused(request: Request, next: Next) -> Response {
    let wants_socket = request.method() == Method::CONNECT || request.headers().contains_key(header::UPGRADE);
    let mut response = next.run(request).await;
    let status = response.status();
    if wants_socket && !status.is_success() && status != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn nothing_there(uri: Uri) -> Response {
    HttpFailure::no_route(format!("there is nothing at {}", uri.path())).into_response()
}

async fn wrong_method(request: Request) -> Response {
    let message = format!("{} does not take {}", request.uri().path(), request.method());
    HttpFailure::wrong_method(message).into_response()
}

/// Removes the one or two tenant segments that some clients put into the path, although there is only one tenant, and gives
/// a `CONNECT TOKEN@HOST`, which has no path, the one of its tunnel.
fn unprefixed(mut request: Request) -> Request {
    let path = match tunnel_token(&request) {
        Some(token) => Cow::Owned(format!("/v1/tunnels/{token}")),
        None => without_prefix(request.uri().path()),
    };
    // A path of its own, because no description of an API has a word for this method.
    let path = if request.method() == Method::CONNECT && path.ends_with("/network/tunnel") {
        Cow::Owned(format!("{path}/connection"))
    } else {
        path
    };
    if let Cow::Owned(path) = path {
        let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
        if let Ok(uri) = format!("{path}{query}").parse::<Uri>() {
            *request.uri_mut() = uri;
        }
    }
    request
}

/// The token in the target of a `CONNECT`: letters and digits.
fn tunnel_token(request: &Request) -> Option<&str> {
    if request.method() != Method::CONNECT {
        return None;
    }
    let (user, _) = request.uri().authority()?.as_str().rsplit_once('@')?;
    let token = user.split_once(':').map_or(user, |(token, _)| token);
    token.bytes().all(|byte| byte.is_ascii_alphanumeric()).then_some(token)
}

/// Returns `/v1/boxes/…` for `/v1/ANYTHING/boxes/…` and `/v1/ANY/THING/boxes/…`.
fn without_prefix(path: &str) -> Cow<'_, str> {
    const SCOPED: [&str; 5] = ["boxes", "images", "metrics", "volumes", "api-keys"];
    const MAX_TENANT_SEGMENTS: usize = 2;
    let Some(mut rest) = path.strip_prefix("/v1/") else { return Cow::Borrowed(path) };
    for removed in 0..=MAX_TENANT_SEGMENTS {
        let (first, after) = rest.split_once('/').unwrap_or((rest, ""));
        if SCOPED.contains(&first) {
            return if removed == 0 { Cow::Borrowed(path) } else { Cow::Owned(format!("/v1/{rest}")) };
        }
        if first.is_empty() || (removed == 0 && first == "runtime") {
            break;
        }
        rest = after;
    }
    Cow::Borrowed(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_or_two_tenant_segments_are_removed_from_scoped_paths() {
        for (given, meant) in [
            ("/v1/default/boxes", "/v1/boxes"),
            ("/v1/default/boxes/x/exec", "/v1/boxes/x/exec"),
            ("/v1/a%2Fb/metrics", "/v1/metrics"),
            ("/v1/org/project/boxes/x/exec", "/v1/boxes/x/exec"),
            ("/v1/org/project/more/boxes", "/v1/org/project/more/boxes"),
            ("/v1//boxes", "/v1//boxes"),
            ("/v1/boxes/boxes", "/v1/boxes/boxes"),
            ("/v1/boxes/metrics", "/v1/boxes/metrics"),
            ("/v1/images/volumes/x", "/v1/images/volumes/x"),
            ("/v1/runtime/boxes", "/v1/runtime/boxes"),
            ("/v1/default/config", "/v1/default/config"),
            ("/v1/config", "/v1/config"),
            ("/metrics", "/metrics"),
        ] {
            assert_eq!(without_prefix(given), meant);
        }
    }
}

//! Tunnels to ports inside a box.
//!
//! `POST …/network/tunnel?port=N` answers with a URL, whose host is asked to `CONNECT` with the URL's user part. `GET` and
//! `CONNECT` of the same path connect at once: over a WebSocket, or over the socket itself.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::http::header::{CONNECTION, HOST, UPGRADE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::{connect, get};
use axum::{Json, Router};
use boxlite::wire::{TUNNEL_PROTOCOL, TunnelQuery};
use boxlite::{Error, ErrorKind};
use hyper::upgrade::OnUpgrade;
use serde::Serialize;

use crate::app::App;
use crate::body::{PathParams, QueryParams};
use crate::failure::HttpFailure;
use crate::tunnels::{self, Grant};
use crate::websocket::WebSocketRequest;

/// Returns the routes of tunnels.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/boxes/{id}/network/tunnel", get(over_upgrade).post(prepare).delete(revoke))
        .route("/v1/boxes/{id}/network/tunnel/connection", connect(over_connect))
        .route("/v1/tunnels/{token}", connect(by_token))
}

/// A tunnel that is there for the taking.
#[derive(Debug, Serialize)]
struct TunnelDescriptor {
    uri: String,
}

async fn prepare(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
    QueryParams(query): QueryParams<TunnelQuery>,
    headers: HeaderMap,
) -> Result<Json<TunnelDescriptor>, HttpFailure> {
    let grant = grant(&app, &id, query).await?;
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else {
        return Err(Error::invalid("the header Host is missing: the tunnel's URL names it").into());
    };
    let scheme = if app.is_encrypted { "https" } else { "http" };
    let token = app.grants.issue(grant, Instant::now());
    Ok(Json(TunnelDescriptor { uri: format!("{scheme}://{token}@{host}") }))
}

async fn revoke(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
    QueryParams(query): QueryParams<TunnelQuery>,
) -> Result<StatusCode, HttpFailure> {
    app.grants.revoke(&grant(&app, &id, query).await?);
    Ok(StatusCode::NO_CONTENT)
}

async fn grant(app: &App, id: &str, query: TunnelQuery) -> Result<Grant, HttpFailure> {
    if query.port == 0 {
        return Err(Error::invalid("0 is no port; ports are 1 to 65535").into());
    }
    Ok(Grant { id: app.runtime.inspect(id).await?.id, port: query.port })
}

async fn over_connect(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
    QueryParams(query): QueryParams<TunnelQuery>,
    RawUpgrade(upgrade): RawUpgrade,
) -> Result<Response, HttpFailure> {
    over_socket(&app, &Grant { id, port: query.port }, upgrade, StatusCode::OK).await
}

async fn by_token(
    State(app): State<Arc<App>>,
    PathParams(token): PathParams<String>,
    RawUpgrade(upgrade): RawUpgrade,
) -> Result<Response, HttpFailure> {
    let Some(grant) = app.grants.redeem(&token, Instant::now()) else {
        let message = "this tunnel has ended, or never was; ask for another one";
        return Err(Error::new(ErrorKind::Denied, message).into());
    };
    over_socket(&app, &grant, upgrade, StatusCode::OK).await
}

async fn over_upgrade(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
    QueryParams(query): QueryParams<TunnelQuery>,
    mut parts: Parts,
) -> Result<Response, HttpFailure> {
    if parts
        .headers
        .get(UPGRADE)
        .is_some_and(|wanted| wanted.as_bytes().eq_ignore_ascii_case(TUNNEL_PROTOCOL.as_bytes()))
    {
        let RawUpgrade(upgrade) = RawUpgrade::from_request_parts(&mut parts, &()).await?;
        let grant = Grant { id, port: query.port };
        return over_socket(&app, &grant, upgrade, StatusCode::SWITCHING_PROTOCOLS).await;
    }
    let request = WebSocketRequest::from_request_parts(&mut parts, &()).await?;
    let tunnel = app.runtime.dial(&id, query.port).await?;
    let (sessions, closing) = (app.sessions.clone(), app.closing.clone());
    Ok(request.accept(move |socket| sessions.track_future(tunnels::over_websocket(tunnel, socket, closing))))
}

/// Connects, and only then hands the client's socket over.
async fn over_socket(
    app: &App,
    grant: &Grant,
    upgrade: OnUpgrade,
    status: StatusCode,
) -> Result<Response, HttpFailure> {
    let tunnel = app.runtime.dial(&grant.id, grant.port).await?;
    app.sessions.spawn(tunnels::over_socket(tunnel, upgrade, app.closing.clone()));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        response.headers_mut().insert(UPGRADE, HeaderValue::from_static(TUNNEL_PROTOCOL));
    }
    Ok(response)
}

/// The socket below a request, once that is answered.
struct RawUpgrade(OnUpgrade);

impl<S: Send + Sync> FromRequestParts<S> for RawUpgrade {
    type Rejection = HttpFailure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, HttpFailure> {
        parts.extensions.remove::<OnUpgrade>().map(Self).ok_or_else(|| {
            HttpFailure::malformed(StatusCode::BAD_REQUEST, "this connection cannot change its protocol")
        })
    }
}

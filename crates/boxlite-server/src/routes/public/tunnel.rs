//! Tunnels to ports inside a box.
//!
//! `POST …/network/tunnel?port=N` answers with a URL, whose host is asked to `CONNECT` with the URL's user part. `GET` and
//! `CONNECT` of the same path connect at once: over a WebSocket, or over the socket itself.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::{connect, get};
use axum::{Extension, Json, Router};
use boxlite::wire::{TUNNEL_PROTOCOL, TunnelQuery};
use boxlite::{Error, ErrorKind, Tunnel};
use hyper::upgrade::OnUpgrade;
use serde::Serialize;

use crate::app::App;
use crate::body::{PathParams, QueryParams};
use crate::caller::Caller;
use crate::connections::ConnectionPermit;
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
    caller: Caller,
    PathParams(id): PathParams<String>,
    QueryParams(query): QueryParams<TunnelQuery>,
    headers: HeaderMap,
) -> Result<Json<TunnelDescriptor>, HttpFailure> {
    let grant = grant(&app, &caller, &id, query).await?;
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else {
        return Err(Error::invalid("the header Host is missing: the tunnel's URL names it").into());
    };
    let scheme = if app.is_encrypted { "https" } else { "http" };
    let token = app.grants.issue(grant, Instant::now());
    Ok(Json(TunnelDescriptor { uri: format!("{scheme}://{token}@{host}") }))
}

async fn revoke(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathParams(id): PathParams<String>,
    QueryParams(query): QueryParams<TunnelQuery>,
) -> Result<StatusCode, HttpFailure> {
    app.grants.revoke(&grant(&app, &caller, &id, query).await?);
    Ok(StatusCode::NO_CONTENT)
}

async fn grant(app: &App, caller: &Caller, id: &str, query: TunnelQuery) -> Result<Grant, HttpFailure> {
    if query.port == 0 {
        return Err(Error::invalid("0 is no port; ports are 1 to 65535").into());
    }
    Ok(Grant { id: app.runtime.inspect(id).await?.id, port: query.port, to: caller.grantee() })
}

async fn over_connect(
    State(app): State<Arc<App>>,
    PathParams(id): PathParams<String>,
    QueryParams(query): QueryParams<TunnelQuery>,
    RawUpgrade(upgrade): RawUpgrade,
) -> Result<Response, HttpFailure> {
    over_socket(&app, (&id, query.port), upgrade, StatusCode::OK).await
}

async fn by_token(
    State(app): State<Arc<App>>,
    PathParams(token): PathParams<String>,
    permit: Option<Extension<Arc<ConnectionPermit>>>,
    RawUpgrade(upgrade): RawUpgrade,
) -> Result<Response, HttpFailure> {
    let granted = app.grants.redeem(&token, Instant::now());
    let Some(grant) = granted.filter(|grant| app.gate.still_has(grant.to.as_ref())) else {
        let message = "this tunnel has ended, or never was; ask for another one";
        return Err(Error::new(ErrorKind::Denied, message).into());
    };
    // The gate let this pass without a key, and only a token that is good counts as one.
    if permit.is_some_and(|Extension(permit)| !permit.prove()) {
        return Err(HttpFailure::overloaded("this server has its most connections; try again"));
    }
    over_socket(&app, (&grant.id, grant.port), upgrade, StatusCode::OK).await
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
        return over_socket(&app, (&id, query.port), upgrade, StatusCode::SWITCHING_PROTOCOLS).await;
    }
    let request = WebSocketRequest::from_request_parts(&mut parts, &()).await?;
    let tunnel = dial(&app, &id, query.port).await?;
    let (sessions, closing) = (app.drain.sessions.clone(), app.drain.closing.clone());
    Ok(request.accept(move |socket| sessions.track_future(tunnels::over_websocket(tunnel, socket, closing))))
}

/// Connects to a port of the box.
async fn dial(app: &App, id: &str, port: u16) -> Result<Tunnel, HttpFailure> {
    app.runtime.dial(id, port).await.map_err(|error| match error.kind() {
        ErrorKind::Busy => HttpFailure::too_many("too_many_tunnels", error),
        _ => error.into(),
    })
}

/// Connects, and only then hands the client's socket over.
async fn over_socket(
    app: &App,
    (id, port): (&str, u16),
    upgrade: OnUpgrade,
    status: StatusCode,
) -> Result<Response, HttpFailure> {
    let tunnel = dial(app, id, port).await?;
    app.drain.sessions.spawn(tunnels::over_socket(tunnel, upgrade, app.drain.closing.clone()));
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
        // Such a body would be the tunnel's first bytes to some and none of them to others.
        if parts.headers.contains_key(CONTENT_LENGTH) || parts.headers.contains_key(TRANSFER_ENCODING) {
            let message = "a request for a tunnel has no body";
            return Err(HttpFailure::malformed(StatusCode::BAD_REQUEST, message));
        }
        parts.extensions.remove::<OnUpgrade>().map(Self).ok_or_else(|| {
            HttpFailure::malformed(StatusCode::BAD_REQUEST, "this connection cannot change its protocol")
        })
    }
}

//! The page for people at `/`, and the files that it consists of.
//!
//! They are static, the same for everybody, and answered without a key: what the page shows comes from the API, with the
//! key that its user types in. The browser is told to run nothing but these files, and to ask nobody but this server.

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// The page's content security policy. Trusted types make the browser refuse to take any text for markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";
/// The policy of any other answer: it may do nothing.
const NO_POLICY: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const TEXT: &str = "text/plain; charset=utf-8";

/// Declares the files of the page, which are part of the program.
macro_rules! files {
    ($($name:literal: $kind:expr,)*) => {
        const FILES: &[(&str, &str, &str)] =
            &[$((concat!("/page/", $name), $kind, include_str!(concat!("../page/", $name))),)*];
    };
}

files! {
    "index.html": HTML,
    "page.css": CSS,
    "icon.svg": SVG,
    "main.js": SCRIPT,
    "api.js": SCRIPT,
    "boxes.js": SCRIPT,
    "curves.js": SCRIPT,
    "dom.js": SCRIPT,
    "events.js": SCRIPT,
    "garbage.js": SCRIPT,
    "gauge.js": SCRIPT,
    "treemap.js": SCRIPT,
    "units.js": SCRIPT,
    "vendor/d3-hierarchy.js": SCRIPT,
    "vendor/d3-hierarchy.LICENSE": TEXT,
    "vendor/uplot.js": SCRIPT,
    "vendor/uplot.css": CSS,
    "vendor/uplot.LICENSE": TEXT,
}

/// Returns the routes.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let index = FILES[0];
    let mut router = Router::new().route("/", get(move || async move { file(index) }));
    for found in &FILES[1..] {
        router = router.route(found.0, get(move || async move { file(*found) }));
    }
    router
}

/// Tells whether the path is one of the page's.
pub(crate) fn is_file(path: &str) -> bool {
    path == "/" || FILES[1..].iter().any(|(known, ..)| *known == path)
}

fn file((_, kind, text): (&str, &'static str, &'static str)) -> Response {
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")];
    let mut response = (headers, text).into_response();
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

/// Tells browsers to do nothing with an answer but what it is for.
pub(crate) async fn guarded(request: Request, next: Next) -> Response {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, NO_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    let mut response = next.run(request).await;
    for (name, value) in headers {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_page_is_served() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("page");
        let names = |folder: &std::path::Path| {
            let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            entries.filter(|path| path.is_file()).collect::<Vec<_>>()
        };
        let mut found = 0;
        for path in names(&folder).into_iter().chain(names(&folder.join("vendor"))) {
            let name = path.strip_prefix(&folder).unwrap().to_str().unwrap();
            if path.extension().is_some_and(|kind| kind == "json") || name == "vendor/FILES" {
                continue;
            }
            found += 1;
            assert!(FILES.iter().any(|(known, ..)| known.strip_prefix("/page/") == Some(name)), "{name}");
        }
        assert_eq!(found, FILES.len());
    }

    /// Inline scripts and styles would need a weaker policy.
    #[test]
    fn the_page_has_nothing_inline() {
        let (_, _, html) = FILES[0];
        for line in html.lines() {
            assert!(!line.contains("style=") && !line.contains("<style"), "{line}");
            assert!(!line.contains("<script") || line.contains("src=\"/page/"), "{line}");
            assert!(!line.contains(" on"), "{line}");
            assert!(!line.contains("//") || line.contains("http://www.w3.org/"), "{line}");
        }
        assert!(!POLICY.contains("unsafe"));
    }
}

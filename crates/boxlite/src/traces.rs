//! Traces of starts, sent to an OpenTelemetry collector as JSON over HTTP (OTLP).
//!
//! A start is one trace: a span for the whole, and one below it for each stage. Traces are sent in the background, at most
//! [`MAX_WAITING`] of them wait, and those that do not fit or that the collector does not take are dropped: no start waits for a
//! collector or fails with one.

use std::fmt::Write as _;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use boxlite_types::{Error, Result};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::litebox::{StartWatch, TimedStage};

/// Traces that wait to be sent.
const MAX_WAITING: usize = 256;
/// Traces that are sent together.
const MAX_BATCH: usize = 64;
/// How long a collector may take to answer.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// A span inside one program, in OTLP's numbers.
const SPAN_KIND_INTERNAL: u32 = 1;
/// A span that ended with an error, in OTLP's numbers.
const STATUS_ERROR: u32 = 2;

/// Sends traces to the collector at one URL.
#[derive(Debug)]
pub(crate) struct TraceExporter {
    url: String,
    /// Made by the first trace, since sending needs an asynchronous runtime.
    sending: OnceLock<mpsc::Sender<Vec<Value>>>,
}

impl TraceExporter {
    /// The exporter to the full URL of a collector's traces, such as `http://localhost:4318/v1/traces`.
    ///
    /// # Errors
    /// `InvalidInput` when it is no URL of HTTP.
    pub(crate) fn new(url: &str) -> Result<Self> {
        let parsed = reqwest::Url::parse(url);
        if parsed.as_ref().is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
            return Ok(Self { url: url.to_owned(), sending: OnceLock::new() });
        }
        Err(Error::invalid(format!(
            "{url:?} is no collector's URL; it looks like http://localhost:4318/v1/traces"
        )))
    }

    /// Sends the trace of a start that has just ended, of the box `(id, name)`. Never waits.
    pub(crate) fn start_ended(&self, watch: &StartWatch, of_box: (&str, &str), error: Option<&Error>) {
        let sending = self.sending.get_or_init(|| {
            let (sender, waiting) = mpsc::channel(MAX_WAITING);
            tokio::spawn(send_all(self.url.clone(), waiting));
            sender
        });
        if sending.try_send(spans(watch, of_box, error)).is_err() {
            tracing::debug!("a trace was dropped: too many wait for the collector");
        }
    }
}

async fn send_all(url: String, mut waiting: mpsc::Receiver<Vec<Value>>) {
    let client = reqwest::Client::builder().timeout(SEND_TIMEOUT).build().unwrap_or_default();
    let mut batch = Vec::new();
    let mut failed = false;
    while waiting.recv_many(&mut batch, MAX_BATCH).await > 0 {
        let spans: Vec<Value> = batch.drain(..).flatten().collect();
        let request = client.post(&url).json(&export(&spans));
        let sent = request.send().await.and_then(reqwest::Response::error_for_status);
        // Said once for each time that the collector goes.
        if let (Err(error), false) = (&sent, failed) {
            tracing::warn!(%error, url, "traces could not be sent");
        }
        failed = sent.is_err();
    }
}

/// The spans of one start, the whole first.
fn spans(watch: &StartWatch, (id, name): (&str, &str), error: Option<&Error>) -> Vec<Value> {
    let trace = Uuid::new_v4().simple().to_string();
    let root = span_id();
    let at = |since: Duration| nanoseconds(watch.began + since);
    let status = |failed: bool, message: Option<String>| match (failed, message) {
        (false, _) => json!({}),
        (true, None) => json!({"code": STATUS_ERROR}),
        (true, Some(message)) => json!({"code": STATUS_ERROR, "message": message}),
    };
    let span = |span: &str, name: &str, began: Duration, ended: Duration, status: Value| {
        json!({
            "traceId": trace,
            "spanId": span,
            "name": name,
            "kind": SPAN_KIND_INTERNAL,
            "startTimeUnixNano": at(began),
            "endTimeUnixNano": at(ended),
            "status": status,
        })
    };
    let mut whole = span(
        &root,
        "boxlite.start",
        Duration::ZERO,
        watch.elapsed(),
        status(error.is_some(), error.map(|error| error.chain().to_string())),
    );
    whole["attributes"] = json!([attribute("boxlite.box.id", id), attribute("boxlite.box.name", name)]);
    let stages = watch.stages().into_iter().map(|TimedStage { stage, began, took, failed }| {
        let name = format!("boxlite.start.{}", stage.name());
        let mut span = span(&span_id(), &name, began, began + took, status(failed, None));
        span["parentSpanId"] = json!(root);
        span
    });
    std::iter::once(whole).chain(stages).collect()
}

/// The message that carries spans.
fn export(spans: &[Value]) -> Value {
    let resource =
        [attribute("service.name", "boxlite"), attribute("service.version", env!("CARGO_PKG_VERSION"))];
    json!({
        "resourceSpans": [{
            "resource": {"attributes": resource},
            "scopeSpans": [{
                "scope": {"name": "boxlite", "version": env!("CARGO_PKG_VERSION")},
                "spans": spans,
            }],
        }],
    })
}

fn attribute(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

/// OTLP's JSON writes 64-bit numbers as text.
fn nanoseconds(at: SystemTime) -> String {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}

/// Eight random bytes in hexadecimal, not all zero.
fn span_id() -> String {
    Uuid::new_v4().as_bytes()[..8].iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use boxlite_types::StartStage;
    use serde::Deserialize;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// `ExportTraceServiceRequest` of OTLP 1.x in its JSON form, strictly: a field that a collector does not know is an error.
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Request {
        resource_spans: Vec<ResourceSpans>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct ResourceSpans {
        resource: Resource,
        scope_spans: Vec<ScopeSpans>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Resource {
        attributes: Vec<KeyValue>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct ScopeSpans {
        scope: Scope,
        spans: Vec<ReceivedSpan>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Scope {
        name: String,
        #[allow(dead_code, reason = "must be there")]
        version: String,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct ReceivedSpan {
        trace_id: String,
        span_id: String,
        #[serde(default)]
        parent_span_id: String,
        name: String,
        kind: u32,
        start_time_unix_nano: String,
        end_time_unix_nano: String,
        #[serde(default)]
        attributes: Vec<KeyValue>,
        status: Status,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Status {
        code: u32,
        message: String,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct KeyValue {
        key: String,
        value: AnyValue,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct AnyValue {
        string_value: String,
    }

    /// Takes one request as a collector does, and returns its body.
    async fn receive(listener: &TcpListener) -> Vec<u8> {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        loop {
            read.push(stream.read_u8().await.unwrap());
            if read.ends_with(b"\r\n\r\n") {
                break;
            }
        }
        let head = String::from_utf8(read).unwrap().to_lowercase();
        assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
        assert!(head.contains("content-type: application/json\r\n"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
        body
    }

    #[tokio::test]
    async fn a_collector_understands_the_trace_of_a_failed_start() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let exporter = TraceExporter::new(&format!("http://{}/v1/traces", listener.local_addr().unwrap()));
        let watch = StartWatch::start();
        watch.time(StartStage::Admission, || Ok(())).unwrap();
        let failure =
            watch.time(StartStage::Image, || Err::<(), _>(Error::not_found("no image"))).unwrap_err();
        exporter.unwrap().start_ended(&watch, ("0123", "web"), Some(&failure));

        let request: Request = serde_json::from_slice(&receive(&listener).await).unwrap();
        let [ResourceSpans { resource, scope_spans }] = &request.resource_spans[..] else {
            panic!("{request:?}")
        };
        let service = resource.attributes.iter().find(|attribute| attribute.key == "service.name").unwrap();
        assert_eq!(service.value.string_value, "boxlite");
        let [ScopeSpans { scope, spans }] = &scope_spans[..] else { panic!("{request:?}") };
        assert_eq!(scope.name, "boxlite");
        let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(names, ["boxlite.start", "boxlite.start.admission", "boxlite.start.image"]);
        let codes: Vec<_> = spans.iter().map(|span| span.status.code).collect();
        assert_eq!(codes, [STATUS_ERROR, 0, STATUS_ERROR]);
        assert_eq!(spans[0].status.message, "no image");
        assert_eq!(spans[0].attributes[1].value.string_value, "web");
        let hexadecimal = |id: &str, bytes: usize| {
            id.len() == 2 * bytes
                && id.bytes().all(|byte| byte.is_ascii_hexdigit())
                && id.bytes().any(|byte| byte != b'0')
        };
        for span in spans {
            assert!(hexadecimal(&span.trace_id, 16) && hexadecimal(&span.span_id, 8), "{span:?}");
            assert_eq!((&span.trace_id, span.kind), (&spans[0].trace_id, SPAN_KIND_INTERNAL));
            let time = |text: &str| text.parse::<u128>().unwrap();
            assert!(time(&span.start_time_unix_nano) <= time(&span.end_time_unix_nano), "{span:?}");
            assert!(time(&spans[0].start_time_unix_nano) <= time(&span.start_time_unix_nano), "{span:?}");
        }
        assert!(spans[0].parent_span_id.is_empty());
        assert!(spans[1..].iter().all(|span| span.parent_span_id == spans[0].span_id));
    }

    #[test]
    fn only_urls_of_http_name_a_collector() {
        for bad in ["", "localhost:4318", "grpc://localhost:4317", "http://"] {
            assert!(TraceExporter::new(bad).is_err(), "{bad}");
        }
        assert!(TraceExporter::new("https://collector.example/v1/traces").is_ok());
    }
}

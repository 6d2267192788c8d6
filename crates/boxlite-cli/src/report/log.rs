//! The library's events, on standard error.

use std::fmt;

use tracing::{Event, Level, Subscriber, field::Visit};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, format::Writer};
use tracing_subscriber::registry::LookupSpan;

/// Shows warnings in plain words, or, when asked to, everything that `filter` or `--debug` selects.
pub(crate) fn trace(debug: bool, filter: Option<&str>) {
    let verbose = debug || filter.is_some();
    let base = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false);
    if verbose {
        let filter = EnvFilter::new(filter.unwrap_or("warn,boxlite=debug"));
        base.with_env_filter(filter).init();
    } else {
        // A dependency's warning comes back in the error that it leads to, in better words.
        base.with_env_filter(EnvFilter::new("boxlite=warn")).event_format(PlainFormat).init();
    }
}

/// `boxlite: warning: what happened (field=value)`.
struct PlainFormat;

impl<S, N> FormatEvent<S, N> for PlainFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut seen = EventFields::default();
        event.record(&mut seen);
        let level = if *event.metadata().level() == Level::ERROR { "error" } else { "warning" };
        write!(writer, "boxlite: {level}: {}", super::visible(&seen.message))?;
        if !seen.fields.is_empty() {
            write!(writer, " ({})", super::visible(&seen.fields.join(", ")))?;
        }
        writeln!(writer)
    }
}

#[derive(Default)]
struct EventFields {
    message: String,
    fields: Vec<String>,
}

impl Visit for EventFields {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.fields.push(format!("{}={value:?}", field.name()));
        }
    }

    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.fields.push(format!("{}={value}", field.name()));
        }
    }
}

//! Events of the library on standard error.

use std::fmt;

use tracing::{Event, Level, Subscriber, field::Visit};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, format::Writer};
use tracing_subscriber::registry::LookupSpan;

use crate::args::GlobalArgs;

/// Shows warnings in plain words, or, when asked to, everything that `BOXLITE_LOG` or `--debug` selects.
pub(crate) fn trace(global: &GlobalArgs) {
    let filter = std::env::var("BOXLITE_LOG").ok().filter(|filter| !filter.is_empty());
    let verbose = global.debug || filter.is_some();
    let base = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false);
    if verbose {
        let filter = EnvFilter::new(filter.as_deref().unwrap_or("warn,boxlite=debug"));
        base.with_env_filter(filter).init();
    } else {
        // What a dependency warns of is in the error that comes of it, in words that help.
        base.with_env_filter(EnvFilter::new("boxlite=warn")).event_format(Plain).init();
    }
}

/// `boxlite: warning: what happened (field=value)`.
struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
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
        let mut words = Words::default();
        event.record(&mut words);
        let level = if *event.metadata().level() == Level::ERROR { "error" } else { "warning" };
        write!(writer, "boxlite: {level}: {}", words.message)?;
        if !words.fields.is_empty() {
            write!(writer, " ({})", words.fields.join(", "))?;
        }
        writeln!(writer)
    }
}

#[derive(Default)]
struct Words {
    message: String,
    fields: Vec<String>,
}

impl Visit for Words {
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

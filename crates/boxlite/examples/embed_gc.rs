//! Collects garbage from within a program and reports progress: `cargo run -p boxlite --example embed_gc`.
//!
//! A dry run says first what can be removed. While the collection runs, the home's free space shows how far it is. Any
//! number of boxes may start meanwhile: gc and starts never wait for each other.

mod common;

use std::time::Duration;

use boxlite::{GcOptions, GcReport, Runtime};

const REPORT_INTERVAL: Duration = Duration::from_millis(200);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = Runtime::local(common::runtime_options()?)?;

    let plan = runtime.collect_garbage(GcOptions { dry_run: true, ..GcOptions::default() }).await?;
    for item in plan.removed() {
        println!("can be removed: {} ({} bytes)", item.name, item.allocated);
    }

    let collection = runtime.collect_garbage(GcOptions::default());
    tokio::pin!(collection);
    let report: GcReport = loop {
        tokio::select! {
            report = &mut collection => break report?,
            () = tokio::time::sleep(REPORT_INTERVAL) => {
                if let Some(space) = runtime.info().await?.space {
                    println!("collecting: {:?}", space.free);
                }
            }
        }
    };

    println!("reclaimed {} bytes", report.reclaimed);
    // An unreadable path keeps everything that it might need; the report names it.
    for unreadable in &report.unreadable {
        println!("kept what it may need: {}: {}", unreadable.path.display(), unreadable.reason);
    }
    for failure in &report.failures {
        println!("not removed: {}: {}", failure.path.display(), failure.reason);
    }
    if report.failed() { Err("the collection is incomplete".into()) } else { Ok(()) }
}

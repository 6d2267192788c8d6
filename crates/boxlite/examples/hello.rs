//! Runs one command in a fresh box and prints what it says: `cargo run --example hello -- IMAGE COMMAND…`.

use std::io::Write;
use std::sync::Arc;

use boxlite::{BoxOptions, LiteBox, MainProcess, OutputStream, RemoveOptions, Runtime, RuntimeOptions};
use futures::StreamExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let image = arguments.next().ok_or("usage: hello IMAGE [COMMAND…]")?;
    let command: Vec<String> = arguments.collect();
    let command = (!command.is_empty()).then_some(command);

    let runtime = Runtime::local(RuntimeOptions::default())?;
    let main = MainProcess::Image { entrypoint: None, command };
    let options = BoxOptions { image, main, ..BoxOptions::default() };
    let litebox = LiteBox::create(&runtime, options, Arc::new(())).await?;
    litebox.start(Arc::new(())).await?;

    let mut execution = litebox.attach().await?;
    while let Some(chunk) = execution.output.next().await {
        let chunk = chunk?;
        match chunk.stream {
            OutputStream::Stdout => std::io::stdout().write_all(&chunk.bytes)?,
            OutputStream::Stderr => std::io::stderr().write_all(&chunk.bytes)?,
        }
    }
    let status = execution.control.wait().await?;
    litebox.remove(RemoveOptions::default()).await?;
    std::process::exit(status.code);
}

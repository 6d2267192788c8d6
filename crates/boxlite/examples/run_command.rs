//! Runs one command in a fresh box, passes its output on and exits with its status, like `docker run --rm`:
//! `cargo run -p boxlite --example run_command -- IMAGE [COMMAND…]`.

mod common;

use std::io::Write;
use std::sync::Arc;

use boxlite::{BoxOptions, LiteBox, MainProcess, OutputStream, RemoveOptions, Runtime};
use futures::StreamExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let image = arguments.next().ok_or("usage: run_command IMAGE [COMMAND…]")?;
    let command: Vec<String> = arguments.collect();
    let command = (!command.is_empty()).then_some(command);

    let runtime = Runtime::local(common::runtime_options()?)?;
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

//! Keeps a pool of running boxes and shares commands among them:
//! `cargo run -p boxlite --example box_pool -- IMAGE SIZE COMMAND…` runs the command once in each box of the pool.
//!
//! One box is prepared and cloned: the clones share its disk, so that a pool takes little more space than one box.

mod common;

use std::sync::Arc;

use boxlite::{BoxOptions, CloneOptions, ExecOptions, LiteBox, MainProcess, RemoveOptions, Result, Runtime};
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::{Mutex, mpsc};

/// Running boxes that wait for work.
struct Pool {
    free: Mutex<mpsc::UnboundedReceiver<LiteBox>>,
    give_back: mpsc::UnboundedSender<LiteBox>,
    boxes: Vec<LiteBox>,
}

impl Pool {
    /// Creates one box of `image`, clones it until there are `size`, and starts them all.
    async fn start(runtime: &Runtime, image: String, size: usize) -> Result<Self> {
        let options = BoxOptions { image, main: MainProcess::Idle, ..BoxOptions::default() };
        let mut boxes = vec![LiteBox::create(runtime, options, Arc::new(())).await?];
        while boxes.len() < size {
            boxes.push(boxes[0].clone_box(CloneOptions::default()).await?);
        }
        try_join_all(boxes.iter().map(|litebox| litebox.start(Arc::new(())))).await?;
        let (give_back, free) = mpsc::unbounded_channel();
        for litebox in &boxes {
            let _ = give_back.send(litebox.clone());
        }
        Ok(Self { free: Mutex::new(free), give_back, boxes })
    }

    /// Runs a command in the next free box and returns its output and its exit status.
    async fn run(&self, command: Vec<String>) -> Result<(Vec<u8>, i32)> {
        let Some(litebox) = self.free.lock().await.recv().await else {
            unreachable!("the pool holds a sender itself")
        };
        let outcome = async {
            let execution = litebox.exec(ExecOptions { command, ..ExecOptions::default() }).await?;
            let output = execution.output.map(|chunk| chunk.map(|chunk| chunk.bytes));
            let output: Vec<_> = output.try_collect().await?;
            Ok((output.concat(), execution.control.wait().await?.code))
        };
        let outcome = outcome.await;
        let _ = self.give_back.send(litebox);
        outcome
    }

    /// Removes the boxes, running or not.
    async fn remove(self) -> Result<()> {
        let removals = self.boxes.iter().map(|litebox| litebox.remove(RemoveOptions { force: true }));
        try_join_all(removals).await.map(drop)
    }
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: box_pool IMAGE SIZE COMMAND…";
    let image = arguments.next().ok_or(usage)?;
    let size: usize = arguments.next().ok_or(usage)?.parse()?;
    let command: Vec<String> = arguments.collect();

    let runtime = Runtime::local(common::runtime_options()?)?;
    let pool = Pool::start(&runtime, image, size).await?;
    let outcomes = try_join_all((0..size).map(|_| pool.run(command.clone()))).await;
    pool.remove().await?;
    for (output, code) in outcomes? {
        print!("{}", String::from_utf8_lossy(&output));
        println!("exit status {code}");
    }
    Ok(())
}

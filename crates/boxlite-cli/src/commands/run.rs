//! `run`: creates a box, starts it and attaches to it.

use std::ops::ControlFlow::{self, Break, Continue};

use boxlite::{ErrorKind, RemoveOptions, RestartPolicy, Runtime, StopOptions};
use clap::Args;
use futures::FutureExt;

use super::id_file::IdFile;
use super::pause::PauseNotices;
use crate::args::BoxArgs;
use crate::environment::Environment;
use crate::node::engine::Job;
use crate::render::{print_line, progress};
use crate::report::{CommandFailure, Exit, Topic, note};
use crate::terminal::{DetachArgs, Interruptions, SessionExit, Wiring, connect};

/// `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Print the box's id and leave it running
    #[arg(short, long)]
    detach: bool,
    /// End the box with this process, even one that is killed [default: in a job of Slurm, unless detached]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tie: Option<bool>,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    keys: DetachArgs,
    #[command(flatten)]
    pub(super) options: BoxArgs,
}

impl RunArgs {
    /// Tells whether the box is to end with this process, whose environment may say that it is part of a job.
    ///
    /// # Errors
    /// Where that was asked for beside an option by which the box outlives this process.
    pub(super) fn is_tied(&self, environment: &Environment, remote: bool) -> Result<bool, CommandFailure> {
        let obstacle = match (self.detach, self.options.restart != RestartPolicy::No, remote) {
            (true, _, _) => Some("--detach"),
            (_, true, _) => Some("--restart"),
            (_, _, true) => Some("a server"),
            _ => None,
        };
        match (self.tie, obstacle) {
            (Some(true), Some(obstacle)) => Err(CommandFailure::local(format!(
                "--tie and {obstacle} contradict each other: the box would outlive this process"
            ))),
            (Some(tie), _) => Ok(tie),
            (None, obstacle) => Ok(obstacle.is_none() && Job::of(environment).is_some()),
        }
    }
}

pub(super) async fn run(
    runtime: &Runtime,
    environment: &Environment,
    mut args: RunArgs,
) -> Result<Exit, CommandFailure> {
    for text in args.options.container.notes().chain(args.options.guest.note()) {
        note(&text);
    }
    let mut id_file = IdFile::make(args.options.cidfile.take())?;
    let mut interruptions = Interruptions::watch()?;
    let detach = args.detach;
    let options = args.options.options(runtime, environment).await?;
    let wiring = Wiring { tty: options.tty, stdin: options.stdin, keys: args.keys.detach_keys };
    if !detach {
        wiring.check()?;
    }
    let remove = options.auto_remove;
    let creating = runtime.create(options, progress(args.quiet));
    let mut new = match interruptions.before(creating).await {
        Continue(Ok(info)) => NewRun { runtime, id: info.id, remove },
        Continue(Err(error)) => return Err(CommandFailure::of(&error, Topic::NewBox)),
        Break(exit) => return Ok(exit),
    };
    let created = new.id.clone();
    if let Some(file) = &mut id_file {
        file.write(&created)?;
    }
    let started = new.start(args.quiet, &mut interruptions).await;
    if let Some(file) = id_file.as_mut().filter(|_| new.id != created) {
        file.write(&new.id)?;
    }
    if let Break(exit) = started? {
        return Ok(exit);
    }
    if detach {
        return print_line(&new.id).map(|()| Exit::OK);
    }
    let ended = match interruptions.before(runtime.attach(&new.id)).await {
        Continue(Ok(execution)) => {
            let session = connect(execution, wiring, interruptions);
            PauseNotices::of(runtime, &new.id).during(session, wiring).await
        }
        Continue(Err(error)) => Err(CommandFailure::of(&error, Topic::Start)),
        Break(exit) => {
            new.call_off(std::future::ready(()), &mut interruptions).await;
            return Ok(exit);
        }
    };
    // A box that may still run removes itself when it ends.
    let may_run = match &ended {
        Ok(SessionExit::LeftRunning(_)) => true,
        Ok(SessionExit::Ended(_)) => false,
        Err(failure) => failure.is_of_server(),
    };
    if remove && !may_run {
        // Signals that were meant for the command do not count any more.
        new.unless_interrupted(&mut Interruptions::watch()?, new.remove_ended()).await;
    }
    ended.map(SessionExit::exit)
}

/// A box that this command has created to run it.
struct NewRun<'a> {
    runtime: &'a Runtime,
    id: String,
    /// It is removed when it ends.
    remove: bool,
}

impl NewRun<'_> {
    /// Starts the box; returns our exit status if that was interrupted.
    ///
    /// A box that is interrupted before it runs is called off; one that fails is removed if it was to remove itself.
    /// Where several servers were named, one that refuses it for want of room is followed by the next.
    async fn start(
        &mut self,
        quiet: bool,
        interruptions: &mut Interruptions,
    ) -> Result<ControlFlow<Exit>, CommandFailure> {
        loop {
            let refusal = match self.start_here(quiet, interruptions).await? {
                Continue(None) => return Ok(Continue(())),
                Continue(Some(refusal)) => refusal,
                Break(exit) => return Ok(Break(exit)),
            };
            let placing = self.runtime.place_elsewhere(&self.id, progress(quiet));
            match interruptions.before(placing).await {
                Continue(Ok(Some(info))) => self.id = info.id,
                Continue(Ok(None)) => return Err(self.failed(&refusal, interruptions).await),
                Continue(Err(error)) => return Err(self.failed(&error, interruptions).await),
                Break(exit) => return Ok(Break(exit)),
            }
        }
    }

    /// Starts the box where it is; returns the refusal if there is no room for it.
    async fn start_here(
        &self,
        quiet: bool,
        interruptions: &mut Interruptions,
    ) -> Result<ControlFlow<Exit, Option<boxlite::Error>>, CommandFailure> {
        let mut starting = Box::pin(self.runtime.start(&self.id, progress(quiet)));
        match interruptions.before(&mut starting).await {
            Continue(Ok(_)) => Ok(Continue(None)),
            Continue(Err(error)) if error.kind() == ErrorKind::ResourceExhausted => Ok(Continue(Some(error))),
            Continue(Err(error)) => Err(self.failed(&error, interruptions).await),
            Break(exit) => {
                self.call_off(starting.map(drop), interruptions).await;
                Ok(Break(exit))
            }
        }
    }

    /// The failure of a start, after which a box that was to remove itself is removed.
    async fn failed(&self, error: &boxlite::Error, interruptions: &mut Interruptions) -> CommandFailure {
        if self.remove {
            self.unless_interrupted(interruptions, self.remove_ended()).await;
        }
        CommandFailure::of(error, Topic::Start)
    }

    /// Stops the box, whose start was interrupted, and removes it if it was to remove itself.
    ///
    /// The start goes on meanwhile, because it may hold the box's lock.
    async fn call_off(&self, starting: impl Future<Output = ()>, interruptions: &mut Interruptions) {
        let ending = async {
            if self.remove {
                return self.remove_ended().await;
            }
            self.stop().await;
        };
        let both = async {
            tokio::join!(starting, ending);
            // The start may have locked the box only after that stop.
            if !self.remove {
                self.stop().await;
            }
        };
        self.unless_interrupted(interruptions, both).await;
    }

    /// Stops the box at once, unless another process has removed it.
    async fn stop(&self) {
        if let Err(error) = self.runtime.stop(&self.id, StopOptions { timeout: Some(0) }).await
            && error.kind() != ErrorKind::NotFound
        {
            CommandFailure::of(&error, Topic::Box).print();
        }
    }

    /// Removes the box, unless another process already did.
    async fn remove_ended(&self) {
        if let Err(error) = self.runtime.remove(&self.id, RemoveOptions { force: true }).await
            && error.kind() != ErrorKind::NotFound
        {
            CommandFailure::of(&error, Topic::Removal).print();
        }
    }

    /// Cleans up after the box until the user interrupts.
    async fn unless_interrupted(
        &self,
        interruptions: &mut Interruptions,
        cleaning: impl Future<Output = ()>,
    ) {
        if interruptions.before(cleaning).await.is_break() {
            note(&format!("boxlite: warning: box {} is left as it is", self.id));
        }
    }
}

//! One module for each command: what is asked of the library, and what is printed of its answer.

mod attach;
mod clone;
mod cp;
mod create;
mod each;
mod exec;
mod gc;
mod images;
mod info;
mod inspect;
mod kill;
mod logs;
mod ls;
mod open;
mod pull;
mod restart;
mod rm;
mod rmi;
mod run;
mod serve;
mod start;
mod stop;
mod system;
mod version;
mod wait;

use clap::CommandFactory;

use crate::args::{Cli, Command, SystemCommand};
use crate::render::print;
use crate::report::{Exit, Failure};

/// Carries out a command line.
pub(crate) async fn run(cli: Cli) -> Result<Exit, Failure> {
    let global = cli.global;
    match cli.command {
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "boxlite", &mut script);
            print(&String::from_utf8_lossy(&script)).map(|()| Exit::OK)
        }
        Command::Version(args) => version::version(args),
        Command::Pull(args) => pull::pull(&open::runtime(&global)?, args).await,
        Command::Images(args) => images::images(&open::runtime(&global)?, args).await,
        Command::Rmi(args) => rmi::rmi(&open::runtime(&global)?, args).await,
        Command::Run(args) => run::run(&open::runtime(&global)?, args).await,
        Command::Create(args) => create::create(&open::runtime(&global)?, args).await,
        Command::Clone(args) => clone::clone(&open::runtime(&global)?, args).await,
        Command::Start(args) => start::start(&open::runtime(&global)?, args).await,
        Command::Exec(args) => exec::exec(&open::runtime(&global)?, args).await,
        Command::Attach(args) => attach::attach(&open::runtime(&global)?, args).await,
        Command::Stop(args) => stop::stop(&open::runtime(&global)?, args).await,
        Command::Kill(args) => kill::kill(&open::runtime(&global)?, args).await,
        Command::Restart(args) => restart::restart(&open::runtime(&global)?, args).await,
        Command::Rm(args) => rm::rm(&open::runtime(&global)?, args).await,
        Command::Ls(args) => ls::ls(&open::runtime(&global)?, args).await,
        Command::Inspect(args) => inspect::inspect(&open::runtime(&global)?, args).await,
        Command::Logs(args) => logs::logs(&open::runtime(&global)?, args).await,
        Command::Wait(args) => wait::wait(&open::runtime(&global)?, args).await,
        Command::Info(args) | Command::System(SystemCommand::Info(args)) => {
            info::info(&open::runtime(&global)?, args).await
        }
        Command::Serve(args) => serve::serve(&global, args).await,
        Command::Gc(args) => gc::gc(&open::runtime(&global)?, args).await,
        Command::System(SystemCommand::Df(args)) => system::df(&open::runtime(&global)?, args).await,
        Command::Cp(args) => cp::cp(&open::runtime(&global)?, args).await,
    }
}

/// A variable of our own environment, if it is text.
fn host_env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

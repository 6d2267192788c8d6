//! `login` and `logout`.

use std::io::{self, BufRead, Read};

use boxlite::{Login, Runtime};
use clap::Args;

use crate::render::print_line;
use crate::report::{CommandFailure, Exit, Topic};
use crate::terminal::QuietTerminal;

/// The longest password that is read.
const MAX_PASSWORD: u64 = 64 << 10;

/// `login`.
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// User name [default: asked for]
    #[arg(short, long)]
    username: Option<String>,
    /// Read the password from standard input, as it is but for the end of its line
    #[arg(long)]
    password_stdin: bool,
    /// Allow plain HTTP and untrusted certificates with the registry, which is sent the password all the same
    #[arg(long)]
    insecure: bool,
    /// The registry, `HOST[:PORT]` [default: Docker Hub]
    #[arg(value_name = "REGISTRY")]
    registry: Option<String>,
}

/// `logout`.
#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    /// The registry, `HOST[:PORT]` [default: Docker Hub]
    #[arg(value_name = "REGISTRY")]
    registry: Option<String>,
}

const HUB: &str = "docker.io";

pub(super) async fn login(runtime: &Runtime, args: LoginArgs) -> Result<Exit, CommandFailure> {
    let registry = args.registry.unwrap_or_else(|| HUB.to_owned());
    let (user, from_stdin) = (args.username, args.password_stdin);
    let asking = tokio::task::spawn_blocking(move || ask(user, from_stdin));
    let (user, password) = tokio::select! {
        asked = asking => {
            asked.map_err(|error| CommandFailure::local(format!("asking failed: {error}")))??
        }
        // The thread that asks is left behind; what it changed about the terminal is not.
        _ = tokio::signal::ctrl_c() => {
            QuietTerminal::restore();
            return Ok(Exit::of_signal(libc::SIGINT));
        }
    };
    let login = Login { registry: registry.clone(), user, password, insecure: args.insecure };
    let kept = runtime.login(login).await.map_err(|error| CommandFailure::of(&error, Topic::Push))?;
    print_line(&format!("logged in to {registry}; the password is kept in {}", kept.display()))
        .map(|()| Exit::OK)
}

pub(super) async fn logout(runtime: &Runtime, args: LogoutArgs) -> Result<Exit, CommandFailure> {
    let registry = args.registry.unwrap_or_else(|| HUB.to_owned());
    let out = runtime.logout(&registry).await.map_err(|error| CommandFailure::of(&error, Topic::Push))?;
    let state = if out.was_logged_in { "logged out of" } else { "not logged in to" };
    let others = out.still_in.map(|file| {
        format!(
            "; {} has credentials for it, which are used as well: `podman logout {registry}`",
            file.display()
        )
    });
    print_line(&format!("{state} {registry}{}", others.unwrap_or_default())).map(|()| Exit::OK)
}

/// Returns the user's name and password.
fn ask(user: Option<String>, from_stdin: bool) -> Result<(String, String), CommandFailure> {
    let failed = |error: io::Error| CommandFailure::local(format!("reading the password failed: {error}"));
    if from_stdin {
        let user = user.ok_or_else(|| {
            CommandFailure::local("--password-stdin leaves no way to ask for the user name")
                .hint("name it with -u")
        })?;
        let mut text = String::new();
        io::stdin().lock().take(MAX_PASSWORD).read_to_string(&mut text).map_err(failed)?;
        return Ok((user, without_line_end(text)));
    }
    if !rustix::termios::isatty(rustix::stdio::stdin()) {
        return Err(CommandFailure::local(
            "standard input is not a terminal, so that no password can be asked for",
        )
        .hint("boxlite login -u USER --password-stdin REGISTRY < FILE"));
    }
    let line = || -> Result<String, CommandFailure> {
        let mut text = String::new();
        io::stdin().lock().take(MAX_PASSWORD).read_line(&mut text).map_err(failed)?;
        Ok(without_line_end(text))
    };
    let user = if let Some(user) = user {
        user
    } else {
        eprint!("User name: ");
        line()?
    };
    let quiet = QuietTerminal::enter().map_err(failed)?;
    eprint!("Password: ");
    let password = line();
    drop(quiet);
    eprintln!();
    Ok((user, password?))
}

fn without_line_end(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

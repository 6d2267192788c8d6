//! `ssh`: a shell or a command in a box, with the arguments and the habits of the SSH client.
//!
//! No SSH is spoken: the command goes the way of `exec`, so any image with a shell will do. Programs that start an SSH client and
//! talk through it (`rsync -e`, `GIT_SSH_COMMAND`) can be given this one. Those that want the protocol itself, as editors do,
//! need a server in the box: docs/network-and-volumes.md.

use std::io::IsTerminal;

use boxlite::{ExecOptions, Runtime, WindowSize};
use clap::Args;

use super::exec::run_attached;
use crate::report::{CommandFailure, Exit};
use crate::terminal::{DetachKeys, Interruptions, window_size_or_default};

/// Does in the box what an SSH server does: the user's own shell, in the user's directory.
const LOGIN: &str = r#"
name=$(id -un 2>/dev/null) || name=root
while IFS=: read -r entry _ _ _ _ directory program; do
    if [ "$entry" = "$name" ]; then home=$directory shell=$program; fi
done 2>/dev/null </etc/passwd
if [ ! -x "$shell" ]; then shell=/bin/sh; fi
export USER="$name" LOGNAME="$name" SHELL="$shell" HOME="${home:-${HOME:-/}}"
cd "$HOME" 2>/dev/null || cd /
if [ $# = 0 ]; then exec "$shell" -l; fi
exec "$shell" -c "$1"
"#;

/// `ssh`.
#[derive(Debug, Args)]
pub(crate) struct SshArgs {
    /// The user in the box
    #[arg(short = 'l', long = "login", value_name = "USER")]
    user: Option<String>,
    /// A terminal for a command too
    #[arg(short = 't', action = clap::ArgAction::Count)]
    tty: u8,
    /// No terminal, not even for a shell
    #[arg(short = 'T', conflicts_with = "tty")]
    no_tty: bool,
    /// No standard input
    #[arg(short = 'n')]
    no_input: bool,
    #[command(flatten)]
    ignored: SshOnlyArgs,
    /// The box; a command makes one line for its user's shell, as with SSH
    #[arg(required = true, num_args = 1.., trailing_var_arg = true, value_names = ["[USER@]BOX", "COMMAND"])]
    box_and_command: Vec<String>,
}

/// Options of SSH clients that other programs pass, and that have no meaning here.
#[derive(Debug, Args)]
struct SshOnlyArgs {
    #[arg(short = 'o', hide = true, value_name = "OPTION")]
    option: Vec<String>,
    #[arg(short = 'p', hide = true, value_name = "PORT")]
    port: Option<String>,
    #[arg(short = 'i', hide = true, value_name = "FILE")]
    identity: Vec<String>,
    #[arg(short = 'x', hide = true)]
    no_x11: bool,
    #[arg(short = 'a', hide = true)]
    no_agent: bool,
    #[arg(short = 'q', hide = true, action = clap::ArgAction::Count)]
    quiet: u8,
    #[arg(short = 'C', hide = true)]
    compress: bool,
    #[arg(short = '4', hide = true)]
    ipv4: bool,
    #[arg(short = '6', hide = true)]
    ipv6: bool,
}

impl SshArgs {
    /// The box and the library's options; `on_terminal` says whether standard input is one.
    fn options(self, on_terminal: bool, size: WindowSize) -> (String, ExecOptions) {
        let mut words = self.box_and_command.into_iter();
        let destination = words.next().unwrap_or_default();
        let (user, id) = match destination.rsplit_once('@') {
            Some((user, id)) => (Some(user.to_owned()), id.to_owned()),
            None => (None, destination),
        };
        let line = words.collect::<Vec<_>>().join(" ");
        let is_shell = line.is_empty();
        let tty = !self.no_tty && on_terminal && (is_shell || self.tty > 0);
        let mut command = ["/bin/sh", "-c", LOGIN, "ssh"].map(str::to_owned).to_vec();
        command.extend((!is_shell).then_some(line));
        let options = ExecOptions {
            command,
            user: self.user.or(user),
            tty: tty.then_some(size),
            stdin: !self.no_input,
            ..ExecOptions::default()
        };
        (id, options)
    }
}

pub(super) async fn ssh(runtime: &Runtime, args: SshArgs) -> Result<Exit, CommandFailure> {
    let interruptions = Interruptions::watch()?;
    let (id, options) = args.options(std::io::stdin().is_terminal(), window_size_or_default());
    run_attached(runtime, &id, options, DetachKeys::default(), interruptions).await
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: SshArgs,
    }

    fn parsed(line: &str, on_terminal: bool) -> (String, ExecOptions) {
        let words = std::iter::once("ssh").chain(line.split_whitespace());
        Line::parse_from(words).args.options(on_terminal, WindowSize { rows: 24, columns: 80 })
    }

    /// The command lines that rsync 3.2 and git 2.39 give an SSH client.
    #[test]
    fn programs_that_start_an_ssh_client_are_understood() {
        let (id, options) = parsed("-l me web rsync --server -vlogDtpre.iLsfxCIvu . /srv", false);
        assert_eq!((id.as_str(), options.user.as_deref()), ("web", Some("me")));
        assert_eq!(options.command[4], "rsync --server -vlogDtpre.iLsfxCIvu . /srv");
        assert!(options.tty.is_none() && options.stdin);
        let (id, options) = parsed("-o SendEnv=GIT_PROTOCOL -p 22 me@web git-upload-pack '/repo'", true);
        assert_eq!((id.as_str(), options.user.as_deref()), ("web", Some("me")));
        assert_eq!(options.command[4], "git-upload-pack '/repo'");
        assert!(options.tty.is_none());
    }

    #[test]
    fn a_shell_has_the_terminal_that_there_is_and_a_command_one_on_demand() {
        let has_tty = |line, on_terminal| parsed(line, on_terminal).1.tty.is_some();
        assert!(has_tty("web", true) && !has_tty("web", false) && !has_tty("-T web", true));
        assert!(has_tty("-t web top", true) && !has_tty("web top", true));
        assert_eq!(parsed("web", true).1.command.len(), 4);
        assert!(!parsed("-n web true", true).1.stdin);
    }
}

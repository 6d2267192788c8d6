//! Asking whether what a command is about to remove may go.

use std::io::{IsTerminal, Write};

use crate::report::CommandFailure;

/// Asks on standard error whether to go on after saying `what` follows, and refuses unless the answer is yes.
pub(super) fn ask(what: &str) -> Result<(), CommandFailure> {
    let question = format!("{what}\nGo on? [y/N] ");
    std::io::stderr().write_all(question.as_bytes()).map_err(|error| CommandFailure::output(&error))?;
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    if !std::io::stdin().is_terminal() {
        eprintln!();
    }
    if read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(CommandFailure::local("nothing was removed").hint("answer y, or use --force"))
}

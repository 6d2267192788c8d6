//! One action on several boxes or images.

use crate::report::{CommandFailure, Exit, Topic};

/// Runs `act` for each name in turn and prints the line that it returns.
///
/// A failure is printed at once and does not stop the others; it makes the exit status boxlite's own.
pub(super) async fn each(
    ids: &[String],
    topic: Topic,
    mut act: impl AsyncFnMut(&str) -> Result<Option<String>, boxlite::Error>,
) -> Result<Exit, CommandFailure> {
    let mut exit = Exit::OK;
    for id in ids {
        match act(id).await {
            Ok(Some(line)) => crate::render::print_line(&line)?,
            Ok(None) => {}
            Err(error) => {
                let failure = CommandFailure::of(&error, topic);
                failure.print();
                exit = failure.exit();
            }
        }
    }
    Ok(exit)
}

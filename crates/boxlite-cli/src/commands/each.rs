//! The same done to several boxes: one that fails does not keep the others from their turn.

use crate::report::{Exit, Failure, Topic};

/// Does `act` to each; failures are printed as they come and make the exit status boxlite's own.
pub(super) async fn each(
    ids: &[String],
    topic: Topic,
    mut act: impl AsyncFnMut(&str) -> Result<Option<String>, boxlite::Error>,
) -> Result<Exit, Failure> {
    let mut exit = Exit::OK;
    for id in ids {
        match act(id).await {
            Ok(Some(line)) => crate::render::print_line(&line)?,
            Ok(None) => {}
            Err(error) => {
                let failure = Failure::of(&error, topic);
                failure.print();
                exit = failure.exit();
            }
        }
    }
    Ok(exit)
}

//! Answers that take time: a stream of JSON lines, with a beat whenever there is nothing else to say.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use boxlite::wire::{Event, LogEvent, LogRecord};
use boxlite::{LogLine, Progress, ProgressSink};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::failure::HttpFailure;
use crate::{drain, request_id};

/// How long the stream may be silent before a beat is sent.
const BEAT_INTERVAL: Duration = Duration::from_secs(5);
/// Progress steps that wait for a slow client; further ones are dropped.
const MAX_QUEUED_STEPS: usize = 256;

/// Queues progress for the client and drops the steps that a slow one has no room for.
struct ProgressQueue(mpsc::Sender<Progress>);

impl ProgressSink for ProgressQueue {
    fn report(&self, progress: Progress) {
        // A full queue loses a step, never the outcome.
        let _ = self.0.try_send(progress);
    }
}

type JobFuture<T> = Pin<Box<dyn Future<Output = Result<T, HttpFailure>> + Send>>;

struct StreamedJob<T> {
    work: Option<JobFuture<T>>,
    steps: mpsc::Receiver<Progress>,
    outcome: Option<Result<T, HttpFailure>>,
}

impl<T> StreamedJob<T> {
    /// Returns the next line; `None` after the outcome.
    async fn next(&mut self) -> Option<Event<Result<T, HttpFailure>>> {
        if let Some(work) = &mut self.work {
            tokio::select! {
                biased;
                Some(step) = self.steps.recv() => return Some(Event::Progress(step)),
                outcome = work => self.outcome = Some(outcome),
                () = tokio::time::sleep(BEAT_INTERVAL) => return Some(Event::Beat),
            }
            self.work = None;
        }
        if let Ok(step) = self.steps.try_recv() {
            return Some(Event::Progress(step));
        }
        self.outcome.take().map(Event::Done)
    }
}

/// Answers with the progress of `work` and its outcome.
///
/// A failure before the first line is a plain error answer. A client that disconnects cancels the work, as dropping the
/// library's own future does.
pub(crate) async fn events<T, F>(work: impl FnOnce(Arc<dyn ProgressSink>) -> F) -> Response
where
    T: Serialize + Send + 'static,
    F: Future<Output = Result<T, HttpFailure>> + Send + 'static,
{
    let (sender, steps) = mpsc::channel(MAX_QUEUED_STEPS);
    let work: JobFuture<T> = Box::pin(work(Arc::new(ProgressQueue(sender))));
    let mut job = StreamedJob { work: Some(work), steps, outcome: None };
    let id = request_id::current();
    let first = match job.next().await {
        Some(Event::Done(Err(failure))) => return failure.into_response(),
        first => first,
    };
    let rest = stream::unfold(job, |mut job| async move { job.next().await.map(|event| (event, job)) });
    lines(stream::iter(first).chain(rest).map(move |event| match event {
        Event::Progress(step) => Event::Progress(step),
        Event::Done(Ok(done)) => Event::Done(done),
        Event::Done(Err(failure)) => Event::Failed(failure.body(id.clone())),
        Event::Beat | Event::Failed(_) => Event::Beat,
    }))
}

/// Answers with the lines of a log, until `stopping` is cancelled: the next server has the log as well.
pub(crate) fn log(
    log: BoxStream<'static, boxlite::Result<LogLine>>,
    stopping: CancellationToken,
) -> Response {
    let id = request_id::current();
    let failed = move |failure: HttpFailure| LogEvent::Failed(failure.body(id.clone()));
    let events = stream::unfold(Some((log, failed, stopping)), |state| async move {
        let (mut log, failed, stopping) = state?;
        let next = tokio::select! {
            biased;
            () = stopping.cancelled() => return Some((failed(drain::stopping()), None)),
            next = tokio::time::timeout(BEAT_INTERVAL, log.next()) => next,
        };
        match next {
            Err(_) => Some((LogEvent::Beat, Some((log, failed, stopping)))),
            Ok(Some(Ok(line))) => {
                Some((LogEvent::Line(LogRecord::from(line)), Some((log, failed, stopping))))
            }
            Ok(Some(Err(error))) => Some((failed(error.into()), None)),
            Ok(None) => Some((LogEvent::End, None)),
        }
    });
    lines(events)
}

fn lines<T: Serialize>(events: impl Stream<Item = T> + Send + 'static) -> Response {
    let lines = events.map(|event| {
        let mut line = serde_json::to_vec(&event).unwrap_or_default();
        line.push(b'\n');
        Ok::<_, Infallible>(line)
    });
    let mut response = Body::from_stream(lines).into_response();
    let kind = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use boxlite::Error;
    use http_body_util::BodyExt;

    use super::*;

    async fn text(response: Response) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn steps_come_before_the_outcome_and_beats_fill_the_silence() {
        let response = events(|progress| async move {
            progress.report(Progress::Built);
            tokio::time::sleep(BEAT_INTERVAL * 2 + BEAT_INTERVAL / 2).await;
            progress.report(Progress::Built);
            Ok(7)
        });
        let lines = text(response.await).await;
        assert_eq!(
            lines,
            "{\"progress\":\"built\"}\n\"beat\"\n\"beat\"\n{\"progress\":\"built\"}\n{\"done\":7}\n"
        );
    }

    #[tokio::test]
    async fn a_failure_is_an_answer_before_the_first_line_and_a_line_after_it() {
        let at_once = events(|_| async { Err::<(), _>(Error::not_found("no").into()) }).await;
        assert_eq!(at_once.status().as_u16(), 404);
        let later = events(|progress| async move {
            progress.report(Progress::Built);
            Err::<(), _>(HttpFailure::from(Error::not_found("no")))
        });
        let later = later.await;
        assert_eq!(later.status().as_u16(), 200);
        assert!(text(later).await.ends_with("\"detail\":{\"kind\":\"not_found\"}}}\n"));
    }
}

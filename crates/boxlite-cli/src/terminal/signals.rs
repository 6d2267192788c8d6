//! Signals to us: they interrupt what we are preparing, and are passed on to a command in a box once there is one.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Once};
use std::task::{Context, Poll};
use std::time::Duration;

use boxlite::ExecutionControl;
use futures::{Stream, StreamExt};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use super::tty::window_size;
use crate::report::{CommandFailure, Exit};

/// The signals that are watched for: each can be passed on.
const WATCHED: [i32; 6] =
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2];

/// The INT or TERM of this number ends us although the command keeps running.
const MAX_URGENT_SIGNALS: u32 = 3;

/// How often a guest is asked for a sign of life once its command was asked to end. A command may take its time for that, as
/// with `docker run`; a guest that hangs must not keep us for good.
const LIVENESS_INTERVAL: Duration = Duration::from_secs(5);
/// After so many that it did not answer, each of which takes some seconds more, its command is left running.
const MAX_SILENCES: u32 = 3;

/// How long delivering a signal may take before it counts as failed; the runtime itself gives a guest up 1 s earlier.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(5);

/// How often each signal has arrived, by its number.
///
/// tokio loses a signal that arrives after it has installed its handler and before it has registered the first listener.
/// Our own handler, which is there earlier and which tokio's calls first, counts that one too.
static ARRIVED: [AtomicU32; 32] = [const { AtomicU32::new(0) }; 32];

/// The handlers are installed once: to install ours again would replace tokio's.
static COUNTING: Once = Once::new();

extern "C" fn count(number: libc::c_int) {
    if let Some(arrived) = ARRIVED.get(number as usize) {
        arrived.fetch_add(1, Ordering::AcqRel);
    }
}

fn arrived(number: i32) -> u32 {
    ARRIVED[number as usize].load(Ordering::Acquire)
}

/// The signals to this process since [`Interruptions::watch`], which from then on do not end the process any more.
///
/// A command makes one before it awaits anything and uses it for all of its phases, so that no signal falls between two
/// of them.
#[derive(Debug)]
pub(crate) struct Interruptions {
    sources: Vec<SignalSource>,
}

/// The signals of one number.
#[derive(Debug)]
struct SignalSource {
    number: i32,
    /// Wakes us; [`ARRIVED`] has the count.
    wakes: Signal,
    /// How many were taken.
    taken: u32,
}

impl Interruptions {
    /// Begins to watch.
    pub(crate) fn watch() -> Result<Self, CommandFailure> {
        let taken = WATCHED.map(arrived);
        COUNTING.call_once(|| {
            for number in WATCHED {
                // SAFETY: the handler does nothing but add to an atomic integer, which is allowed at any moment.
                #[allow(unsafe_code)]
                unsafe {
                    libc::signal(number, count as *const () as libc::sighandler_t);
                }
            }
        });
        let source = |(number, taken)| {
            Ok(SignalSource { number, wakes: signal(SignalKind::from_raw(number))?, taken })
        };
        let sources = WATCHED.into_iter().zip(taken).map(source).collect::<Result<_, _>>();
        let sources = sources.map_err(|error| CommandFailure::io("listening for signals failed", &error))?;
        Ok(Self { sources })
    }

    /// Returns what `work` returns, or our exit status if a signal that would end a program arrives first; `work` then
    /// stands still.
    pub(crate) async fn before<T>(&mut self, work: impl Future<Output = T>) -> ControlFlow<Exit, T> {
        tokio::select! {
            biased;
            done = work => ControlFlow::Continue(done),
            Some(number) = self.next() => ControlFlow::Break(Exit::of_signal(number)),
        }
    }
}

impl Stream for Interruptions {
    type Item = i32;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<i32>> {
        for source in &mut self.sources {
            // Asked until it has nothing to tell, because only then does it wake us again.
            while let Poll::Ready(Some(())) = source.wakes.poll_recv(context) {}
            if arrived(source.number) != source.taken {
                source.taken = source.taken.wrapping_add(1);
                return Poll::Ready(Some(source.number));
            }
        }
        Poll::Pending
    }
}

/// A signal after which a session leaves its command running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LastSignal {
    pub(super) number: i32,
    /// It has reached the command's guest.
    pub(super) delivered: bool,
}

/// Passes signals on to a command, until one cannot be delivered, its guest hangs, or the user insists on leaving.
pub(super) async fn pass_on(interruptions: Interruptions, control: Arc<dyn ExecutionControl>) -> LastSignal {
    let asked = Arc::clone(&control);
    let deliver = |number| {
        let control = Arc::clone(&control);
        async move { control.signal(number).await }
    };
    let answers = || {
        let control = Arc::clone(&asked);
        async move { control.answers().await }
    };
    match pass_on_each(interruptions, deliver, answers).await {
        Some(last) => last,
        None => std::future::pending().await,
    }
}

async fn pass_on_each<D, A>(
    mut arriving: impl Stream<Item = i32> + Unpin,
    deliver: impl Fn(i32) -> D,
    answers: impl Fn() -> A,
) -> Option<LastSignal>
where
    D: Future<Output = boxlite::Result<()>>,
    A: Future<Output = boxlite::Result<()>>,
{
    let (mut urgent, mut last_urgent, mut silences) = (0, None, 0);
    loop {
        let arrived = match last_urgent {
            None => arriving.next().await,
            Some(number) => {
                let Ok(arrived) = timeout(LIVENESS_INTERVAL, arriving.next()).await else {
                    let answered = timeout(DELIVERY_TIMEOUT, answers()).await;
                    silences = if matches!(answered, Ok(Ok(()))) { 0 } else { silences + 1 };
                    if silences == MAX_SILENCES {
                        return Some(LastSignal { number, delivered: false });
                    }
                    continue;
                };
                arrived
            }
        };
        let number = arrived?;
        if matches!(number, libc::SIGINT | libc::SIGTERM) {
            urgent += 1;
            last_urgent = Some(number);
        }
        let delivered = match timeout(DELIVERY_TIMEOUT, deliver(number)).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::debug!("passing on signal {number} failed: {}", error.chain());
                false
            }
            Err(_) => {
                tracing::debug!("passing on signal {number} takes too long");
                false
            }
        };
        if urgent == MAX_URGENT_SIGNALS || (urgent > 0 && !delivered) {
            return Some(LastSignal { number, delivered });
        }
    }
}

/// Sets the size of the command's terminal to ours, now and whenever ours changes.
pub(super) async fn follow_size(control: Arc<dyn ExecutionControl>) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    loop {
        if let Some(size) = window_size()
            && let Err(error) = control.resize(size).await
        {
            tracing::debug!("resizing the command's terminal failed: {}", error.chain());
        }
        if changes.recv().await.is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    async fn left_after<F: Future<Output = boxlite::Result<()>>>(
        numbers: &[i32],
        deliver: impl Fn(i32) -> F,
    ) -> Option<LastSignal> {
        pass_on_each(stream::iter(numbers.iter().copied()), deliver, || std::future::ready(Ok(()))).await
    }

    /// Before: `timeout 10 boxlite exec …` sends TERM once, and waited for ever for a guest that hung after it had taken that.
    ///
    /// Mutation tried: without the questions, the last of the three never ends.
    #[tokio::test(start_paused = true)]
    async fn a_command_is_waited_for_after_term_as_long_as_its_guest_answers() {
        let hour = Duration::from_secs(3600);
        let once = |number: i32| Box::pin(stream::once(std::future::ready(number)).chain(stream::pending()));
        let delivered = |_| std::future::ready(Ok(()));
        let alive = || std::future::ready(Ok(()));
        let hanging = || std::future::pending();
        let waited = timeout(hour, pass_on_each(once(libc::SIGTERM), delivered, alive)).await;
        assert!(waited.is_err(), "a command that takes its time is waited for");
        let waited = timeout(hour, pass_on_each(once(libc::SIGUSR1), delivered, hanging)).await;
        assert!(waited.is_err(), "nobody has asked it to end");
        let began = tokio::time::Instant::now();
        let left = timeout(hour, pass_on_each(once(libc::SIGTERM), delivered, hanging)).await.unwrap();
        assert_eq!(left, Some(LastSignal { number: libc::SIGTERM, delivered: false }));
        assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    }

    /// Mutation tried: without the timeout this test never ends.
    #[tokio::test(start_paused = true)]
    async fn a_command_that_takes_no_signal_is_left_running() {
        let last = left_after(&[libc::SIGINT], |_| std::future::pending()).await;
        assert_eq!(last, Some(LastSignal { number: libc::SIGINT, delivered: false }));
    }

    #[tokio::test]
    async fn the_third_urgent_signal_is_delivered_and_ends_the_session() {
        let delivered = std::cell::RefCell::new(Vec::new());
        let deliver = |number| {
            delivered.borrow_mut().push(number);
            std::future::ready(Ok(()))
        };
        assert_eq!(left_after(&[libc::SIGINT, libc::SIGUSR1, libc::SIGINT], &deliver).await, None);
        delivered.borrow_mut().clear();
        let numbers = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGTERM];
        let last = LastSignal { number: libc::SIGTERM, delivered: true };
        assert_eq!(left_after(&numbers, &deliver).await, Some(last));
        assert_eq!(*delivered.borrow(), numbers);
    }

    /// Before: each phase subscribed anew, and what arrived between two was lost.
    #[tokio::test]
    async fn a_signal_that_arrives_between_two_phases_interrupts_the_second() {
        let mut interruptions = Interruptions::watch().unwrap();
        assert_eq!(interruptions.before(async { 7 }).await, ControlFlow::Continue(7));
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::INT).unwrap();
        let second = interruptions.before(std::future::pending::<()>()).await;
        assert_eq!(second, ControlFlow::Break(Exit::of_signal(libc::SIGINT)));
    }

    /// Before: one of 2,000 interruptions was lost, most likely in that instant.
    #[tokio::test(start_paused = true)]
    async fn a_signal_that_arrives_before_tokio_listens_is_not_lost() {
        let mut interruptions = Interruptions::watch().unwrap();
        count(libc::SIGUSR2);
        let work = tokio::time::sleep(Duration::from_secs(60));
        assert_eq!(interruptions.before(work).await, ControlFlow::Break(Exit::of_signal(libc::SIGUSR2)));
        let work = tokio::time::sleep(Duration::from_secs(60));
        assert_eq!(interruptions.before(work).await, ControlFlow::Continue(()), "it counts once");
    }
}

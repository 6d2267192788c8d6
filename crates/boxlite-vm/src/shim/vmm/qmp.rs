//! The little of QMP that a shim speaks, over a socket it made itself.
//!
//! Events that this version does not know are ignored: a newer QEMU's vocabulary must not end the connection,
//! which is why a crate with a closed event type is not used here.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{mpsc, oneshot};

use super::qemu::ROOT_DEVICE;

/// QEMU's unasked messages, as far as a shim acts on them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum QmpEvent {
    /// A disk request failed and the guest is paused; `nospace` when the host had no room for it.
    BlockError {
        /// Whether the host's filesystem was full.
        nospace: bool,
        /// The block node that failed.
        node: String,
    },
    /// The guest powered off, reset or panicked; QEMU is about to exit.
    Shutdown {
        /// Whether the guest did it rather than a QMP command or a signal.
        guest: bool,
        /// QEMU's own word: `guest-shutdown`, `guest-reset`, `guest-panic`, `host-qmp-quit`, …
        reason: String,
    },
    /// The guest is paused.
    Stopped,
    /// The guest runs again.
    Resumed,
    /// The guest is paused for good, with the reason.
    Broken {
        /// Why, for people.
        reason: &'static str,
    },
    /// The devices' state was written or read, or that failed.
    Migration {
        /// Whether it went well.
        completed: bool,
    },
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum QmpError {
    #[error("QEMU refused {command}: {reason}")]
    Refused { command: &'static str, reason: String },
    #[error("the QMP connection ended before {command} was answered")]
    Gone { command: &'static str },
}

/// The largest rate that QEMU takes, in bytes per second: a petabyte.
const MAX_RATE: u64 = 1_000_000_000_000_000;

type Answer = Result<Value, String>;
type Pending = Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>;

/// The commanding side of a QMP connection.
#[derive(Debug)]
pub(crate) struct Qmp {
    write: tokio::sync::Mutex<(OwnedWriteHalf, u64)>,
    pending: Pending,
    /// Weak, so that the channel closes with the connection.
    events: mpsc::WeakUnboundedSender<QmpEvent>,
}

impl Qmp {
    /// Leaves the greeting state and starts reading; events arrive in the returned channel, which closes when
    /// QEMU closes the connection.
    ///
    /// Nothing is waited for: QEMU answers commands in the order in which they were written.
    pub(crate) async fn start(
        stream: UnixStream,
    ) -> io::Result<(Arc<Self>, mpsc::UnboundedReceiver<QmpEvent>)> {
        let (read, mut write) = stream.into_split();
        write.write_all(b"{\"execute\":\"qmp_capabilities\"}\n").await?;
        let (events, receiver) = mpsc::unbounded_channel();
        let qmp = Arc::new(Self {
            write: tokio::sync::Mutex::new((write, 0)),
            pending: Pending::default(),
            events: events.downgrade(),
        });
        tokio::spawn(read_messages(read, events, Arc::clone(&qmp.pending)));
        Ok((qmp, receiver))
    }

    /// Pauses the guest.
    pub(crate) async fn stop(&self) -> Result<(), QmpError> {
        self.execute("stop", Value::Null).await.map(drop)
    }

    /// Lets the guest run on.
    pub(crate) async fn cont(&self) -> Result<(), QmpError> {
        self.execute("cont", Value::Null).await.map(drop)
    }

    /// Asks QEMU in the background why the guest is paused; [`QmpEvent::Broken`] follows where it cannot go on.
    pub(crate) fn examine_stop(self: &Arc<Self>) {
        let qmp = Arc::clone(self);
        tokio::spawn(async move {
            match qmp.execute("query-status", Value::Null).await {
                Ok(status) => {
                    let state = status.get("status").and_then(Value::as_str).unwrap_or_default();
                    if let (Some(reason), Some(events)) = (why_broken(state), qmp.events.upgrade()) {
                        let _ = events.send(QmpEvent::Broken { reason });
                    }
                }
                Err(error) => tracing::debug!(%error, "it is not known why the guest is paused"),
            }
        });
    }

    /// Asks QEMU to flush its disks and exit.
    pub(crate) async fn quit(&self) -> Result<(), QmpError> {
        self.execute("quit", Value::Null).await.map(drop)
    }

    /// Bounds the bytes per second of the disk, reads and writes together; `None` takes the bound away.
    ///
    /// QEMU holds requests back itself, so this works on every host and as every user, and no device changes by it: a
    /// template fits boxes with and without.
    pub(crate) async fn limit_disk(&self, bytes_per_second: Option<u64>) -> Result<(), QmpError> {
        let bps = bytes_per_second.map_or(0, |bytes| bytes.min(MAX_RATE));
        let limits = json!({
            "id": ROOT_DEVICE, "bps": bps, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0
        });
        self.execute("block_set_io_throttle", limits).await.map(drop)
    }

    /// Gives QEMU a copy of `descriptor` under `name`.
    pub(crate) async fn give(&self, name: &str, descriptor: BorrowedFd<'_>) -> Result<(), QmpError> {
        self.ask("getfd", json!({ "fdname": name }), Some(descriptor)).await.map(drop)
    }

    /// Gives QEMU a copy of `descriptor` in the set `set`, or in a new one; returns the number of the set.
    pub(crate) async fn add_descriptor(
        &self,
        descriptor: BorrowedFd<'_>,
        set: Option<i64>,
    ) -> Result<i64, QmpError> {
        let command = "add-fd";
        let arguments = set.map_or_else(|| json!({}), |set| json!({ "fdset-id": set }));
        let added = self.ask(command, arguments, Some(descriptor)).await?;
        let unheard = || QmpError::Refused { command, reason: format!("it answered {added}") };
        added.get("fdset-id").and_then(Value::as_i64).ok_or_else(unheard)
    }

    /// Runs `command`; `arguments` are an object, or null for none.
    pub(crate) async fn execute(&self, command: &'static str, arguments: Value) -> Result<Value, QmpError> {
        self.ask(command, arguments, None).await
    }

    async fn ask(
        &self,
        command: &'static str,
        arguments: Value,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<Value, QmpError> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut write = self.write.lock().await;
            write.1 += 1;
            let id = write.1;
            lock(&self.pending).insert(id, sender);
            let mut message = json!({ "execute": command, "id": id });
            if !arguments.is_null() {
                message["arguments"] = arguments;
            }
            let line = format!("{message}\n");
            if write_line(&mut write.0, line.as_bytes(), descriptor).await.is_err() {
                lock(&self.pending).remove(&id);
                return Err(QmpError::Gone { command });
            }
        }
        match receiver.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(reason)) => Err(QmpError::Refused { command, reason }),
            Err(_) => Err(QmpError::Gone { command }),
        }
    }
}

/// Writes `line`, of which the first byte carries `descriptor` along.
async fn write_line(
    write: &mut OwnedWriteHalf,
    line: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let Some(descriptor) = descriptor else { return write.write_all(line).await };
    let (first, rest) = line.split_at(1);
    let descriptors = [descriptor];
    let send = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let bytes = [io::IoSlice::new(first)];
        Ok(rustix::net::sendmsg(write.as_ref(), &bytes, &mut control, SendFlags::NOSIGNAL)?)
    };
    write.as_ref().async_io(Interest::WRITABLE, send).await?;
    write.write_all(rest).await
}

fn lock(pending: &Pending) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Answer>>> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read_messages(
    read: impl AsyncRead + Unpin,
    events: mpsc::UnboundedSender<QmpEvent>,
    pending: Pending,
) {
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(Message::Event { event, data }) => {
                tracing::debug!(event, %data, "QEMU says");
                if let Some(event) = classify(&event, &data) {
                    let _ = events.send(event);
                }
            }
            Ok(Message::Return { id: Some(id), value }) => answer(&pending, id, Ok(value)),
            Ok(Message::Error { id: Some(id), error }) => answer(&pending, id, Err(error.desc)),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, line, "QEMU sent a line that is not QMP"),
        }
    }
    lock(&pending).clear();
}

fn answer(pending: &Pending, id: u64, answer: Answer) {
    if let Some(sender) = lock(pending).remove(&id) {
        let _ = sender.send(answer);
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Message {
    Event {
        event: String,
        #[serde(default)]
        data: Value,
    },
    Return {
        #[serde(rename = "return")]
        value: Value,
        id: Option<u64>,
    },
    Error {
        error: Refusal,
        id: Option<u64>,
    },
    Greeting {
        #[serde(rename = "QMP")]
        _qmp: Value,
    },
}

#[derive(Deserialize)]
struct Refusal {
    desc: String,
}

fn classify(event: &str, data: &Value) -> Option<QmpEvent> {
    let text = |key: &str| data.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let flag = |key: &str| data.get(key).and_then(Value::as_bool).unwrap_or(false);
    match event {
        "BLOCK_IO_ERROR" if text("action") == "stop" => {
            Some(QmpEvent::BlockError { nospace: flag("nospace"), node: text("node-name") })
        }
        "SHUTDOWN" => Some(QmpEvent::Shutdown { guest: flag("guest"), reason: text("reason") }),
        "STOP" => Some(QmpEvent::Stopped),
        "RESUME" => Some(QmpEvent::Resumed),
        "MIGRATION" => match text("status").as_str() {
            "completed" => Some(QmpEvent::Migration { completed: true }),
            "failed" | "cancelled" => Some(QmpEvent::Migration { completed: false }),
            _ => None,
        },
        _ => None,
    }
}

/// Why a guest that QEMU has put into the run state `state` can never go on; nothing where it can, or where another event
/// says what is to be done about it (`io-error`).
fn why_broken(state: &str) -> Option<&'static str> {
    match state {
        "internal-error" => {
            Some("the accelerator could not run the guest's code any further (internal error)")
        }
        "guest-panicked" => Some("the guest's kernel panicked"),
        "watchdog" => Some("the guest's watchdog expired"),
        "shutdown" => Some("the guest has shut down, and QEMU keeps it"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The run states of QEMU 7.2's `RunState`.
    #[test]
    fn a_guest_that_can_go_on_is_not_broken() {
        for state in ["internal-error", "guest-panicked", "watchdog", "shutdown"] {
            assert!(why_broken(state).is_some(), "{state}");
        }
        let others =
            ["debug", "inmigrate", "io-error", "paused", "postmigrate", "prelaunch", "finish-migrate"];
        for state in
            others.into_iter().chain(["restore-vm", "running", "save-vm", "suspended", "colo", "new"])
        {
            assert_eq!(why_broken(state), None, "{state}");
        }
    }

    /// Mutation tried: without the question, the second event never comes.
    #[tokio::test]
    async fn a_stop_for_good_is_told_with_its_reason_and_another_is_not() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (qmp, mut events) = Qmp::start(ours).await.unwrap();
        let qemu = tokio::spawn(async move {
            let (read, mut write) = theirs.into_split();
            let mut lines = BufReader::new(read).lines();
            lines.next_line().await.unwrap();
            for (id, state) in ["paused", "internal-error"].into_iter().enumerate() {
                assert!(lines.next_line().await.unwrap().unwrap().contains("query-status"));
                let answer = json!({"return": {"running": false, "status": state}, "id": id + 1});
                write.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
            }
            (lines, write)
        });
        qmp.examine_stop();
        qmp.examine_stop();
        let Some(QmpEvent::Broken { reason }) = events.recv().await else { panic!("nothing was told") };
        assert!(reason.contains("internal error"), "{reason}");
        drop(qemu.await.unwrap());
        assert_eq!(events.recv().await, None);
    }

    #[test]
    fn events_are_recognised_and_unknown_ones_ignored() {
        let nospace =
            json!({"device": "", "node-name": "d0", "nospace": true, "operation": "write", "action": "stop"});
        assert_eq!(
            classify("BLOCK_IO_ERROR", &nospace),
            Some(QmpEvent::BlockError { nospace: true, node: "d0".into() })
        );
        let reported = json!({"nospace": false, "operation": "read", "action": "report"});
        assert_eq!(classify("BLOCK_IO_ERROR", &reported), None);
        assert_eq!(
            classify("SHUTDOWN", &json!({"guest": true, "reason": "guest-reset"})),
            Some(QmpEvent::Shutdown { guest: true, reason: "guest-reset".into() })
        );
        assert_eq!(classify("EVENT_OF_THE_YEAR_2040", &json!({"x": 1})), None);
    }

    #[tokio::test]
    async fn answers_find_their_command_among_events() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (qmp, mut events) = Qmp::start(ours).await.unwrap();
        let qemu = tokio::spawn(async move {
            let (read, mut write) = theirs.into_split();
            let mut lines = BufReader::new(read).lines();
            write.write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\n").await.unwrap();
            assert!(lines.next_line().await.unwrap().unwrap().contains("qmp_capabilities"));
            write.write_all(b"{\"return\": {}}\n").await.unwrap();
            assert!(lines.next_line().await.unwrap().unwrap().contains("\"stop\""));
            let said = "{\"event\":\"FUTURE\",\"data\":{\"new\":[1]},\"timestamp\":{}}\n\
                        {\"event\":\"STOP\",\"timestamp\":{}}\n{\"return\":{},\"id\":1}\n";
            write.write_all(said.as_bytes()).await.unwrap();
            assert!(lines.next_line().await.unwrap().unwrap().contains("\"cont\""));
            write
                .write_all(b"{\"error\":{\"class\":\"GenericError\",\"desc\":\"no\"},\"id\":2}\n")
                .await
                .unwrap();
        });
        qmp.stop().await.unwrap();
        assert_eq!(events.recv().await, Some(QmpEvent::Stopped));
        assert!(matches!(qmp.cont().await, Err(QmpError::Refused { reason, .. }) if reason == "no"));
        qemu.await.unwrap();
        assert!(matches!(qmp.quit().await, Err(QmpError::Gone { .. })));
        assert_eq!(events.recv().await, None);
    }
}

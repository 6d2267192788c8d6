use boxlite_proto::{Frame, Op, OpEvent, Stream, ToGuest};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::{Duration, timeout};

use super::super::ops::Ops;
use super::*;
use crate::shim::sink::{self, FrameSink, FrameSource};

/// Longer than everything that has a limit.
const FOR_GOOD: Duration = Duration::from_secs(3600);

const DONE: &[&str] = &["\"return\":{}"];
/// The switch, and all that undoes its preparation.
const REFUSED: &[&str] = &["\"error\":{\"desc\":\"no\"}"; 4];

/// The guest's side of a switch.
struct Rig {
    ops: Ops,
    guest: FrameSink,
    to_guest: FrameSource,
    channel: u32,
}

/// A guest that was asked to stand still.
fn asked() -> (Rig, GuestHold) {
    let (guest, mut to_guest) = sink::queue();
    let mut ops = Ops::new();
    let hold = GuestHold::ask(&mut ops, &guest, 5000).unwrap();
    let Some(Frame::Control(json)) = to_guest.take().pop() else { panic!("nothing was asked") };
    let ToGuest::Op(Op::Freeze { id: channel, timeout_ms: 5000 }) = Frame::parse_control(&json).unwrap()
    else {
        panic!("another request")
    };
    (Rig { ops, guest, to_guest, channel }, hold)
}

impl Rig {
    fn stands_still(&mut self) {
        let told = Frame::Data { channel: self.channel, stream: Stream::Stdout, bytes: b"f".to_vec() };
        self.ops.guest_frame(told).unwrap();
    }

    fn has_thawed(&mut self) {
        self.ops.event(OpEvent::Thawed { id: self.channel, frozen_us: 7, expired: false });
    }

    fn goes_on(&self) -> Frame {
        Frame::Eof { channel: self.channel, stream: Stream::Stdin }
    }
}

/// A QEMU that gives these answers to commands, in turn, and then hangs; and the commands that it was given.
async fn qemu(answers: &'static [&'static str]) -> (Arc<Qmp>, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (told, commands) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (read, mut write) = theirs.into_split();
        let mut lines = BufReader::new(read).lines();
        lines.next_line().await.unwrap();
        for (number, answer) in answers.iter().enumerate() {
            let Some(command) = lines.next_line().await.unwrap() else { return };
            let _ = told.send(command);
            let answer = format!("{{{answer},\"id\":{}}}\n", number + 1);
            write.write_all(answer.as_bytes()).await.unwrap();
        }
        std::future::pending::<()>().await;
    });
    let (qmp, _) = Qmp::start(ours).await.unwrap();
    (qmp, commands)
}

fn disks() -> (TopNode, PreparedDisk) {
    let file = || tempfile::tempfile().unwrap();
    let node = |number| TopNode { number, set: number.into(), reader: Arc::new(file()) };
    (node(0), PreparedDisk { overlay: file(), top: node(1) })
}

/// Before, a box that was paused between the request and its answer kept the snapshot, and with it the box's guard, for good.
///
/// Mutation tried: without the time limit in `GuestHold::standing`, the switch never ends.
#[tokio::test(start_paused = true)]
async fn a_guest_that_does_not_stand_still_keeps_no_switch_for_good() {
    let ((mut rig, hold), (from, prepared)) = (asked(), disks());
    let (qmp, mut commands) = qemu(&[]).await;
    let outcome = timeout(FOR_GOOD, switch(&from, prepared, hold, &qmp)).await.expect("an end");
    let StepOutcome::Failed(Some(_), (kind, _)) = outcome else { panic!("{outcome:?}") };
    assert_eq!(kind, ShimError::Unavailable);
    assert!(commands.try_recv().is_err(), "QEMU was asked for nothing, and the overlay stays prepared");
    // Once it runs, it goes on.
    let kill = Op::Signal { id: rig.channel, signo: libc::SIGKILL };
    let expected = [Frame::control(&ToGuest::Op(kill)).unwrap(), rig.goes_on()];
    assert_eq!(rig.to_guest.take(), expected);
}

/// Mutations tried: the release after the wait for the thaw, and left out where QEMU refuses: the guest is never told to go on.
#[tokio::test(start_paused = true)]
async fn the_guest_goes_on_as_soon_as_qemu_has_answered_whatever_becomes_of_the_client() {
    for (answers, switches) in [(DONE, true), (REFUSED, false)] {
        let ((mut rig, hold), (from, prepared)) = (asked(), disks());
        let (qmp, mut commands) = qemu(answers).await;
        rig.ops.abandon(1, &rig.guest, false);
        assert_eq!(rig.to_guest.take(), [], "the switch is the shim's own");
        let switching = tokio::spawn(async move { switch(&from, prepared, hold, &qmp).await });
        rig.stands_still();
        assert!(commands.recv().await.unwrap().contains("blockdev-snapshot"));
        let going = timeout(FOR_GOOD, rig.to_guest.next()).await.expect("word for the guest");
        assert_eq!(going, Some(rig.goes_on()));
        if switches {
            rig.has_thawed();
        }
        match switching.await.unwrap() {
            StepOutcome::Switched(_, Ok(Standstill { frozen_us: 7, expired: false })) if switches => {}
            StepOutcome::Failed(None, (ShimError::Vm, reason)) if !switches => {
                assert!(reason.contains("no"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The switch counts although the guest does not say that it goes on.
#[tokio::test(start_paused = true)]
async fn a_guest_that_does_not_say_that_it_goes_on_keeps_no_switch_for_good() {
    let ((mut rig, hold), (from, prepared)) = (asked(), disks());
    let (qmp, _commands) = qemu(DONE).await;
    rig.stands_still();
    let outcome = timeout(FOR_GOOD, switch(&from, prepared, hold, &qmp)).await.expect("an end");
    let StepOutcome::Switched(_, Err((ShimError::Unavailable, _))) = outcome else { panic!("{outcome:?}") };
}

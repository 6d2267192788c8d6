use boxlite_proto::{ExecSpec, ProcessExit};

use super::*;
use crate::shim::sink::{self, FrameSource};

struct Rig {
    ops: Ops,
    guest: FrameSink,
    to_guest: FrameSource,
    sink: FrameSink,
    to_client: FrameSource,
}

fn rig() -> Rig {
    let (guest, to_guest) = sink::queue();
    let (sink, to_client) = sink::queue();
    Rig { ops: Ops::new(), guest, to_guest, sink, to_client }
}

impl Rig {
    fn exec(&mut self, client: ClientId, id: u32) -> Result<u32, Refused> {
        let op = Op::Exec { id, spec: ExecSpec::default() };
        self.ops.begin(client, &self.sink, op, &self.guest)?;
        let Some(Frame::Control(json)) = self.to_guest.take().pop() else { panic!("nothing was sent") };
        let ToGuest::Op(op) = Frame::parse_control(&json).unwrap() else { panic!("not an operation") };
        Ok(op.id())
    }

    fn client_sends(&mut self, client: ClientId, frame: Frame) -> Result<Vec<Frame>, ProtoError> {
        self.ops.client_frame(client, frame, &self.guest)?;
        Ok(self.to_guest.take())
    }

    fn guest_sends(&mut self, frame: Frame) -> Result<Vec<Frame>, ProtoError> {
        self.ops.guest_frame(frame)?;
        Ok(self.to_client.take())
    }
}

fn data(channel: u32, stream: Stream, length: usize) -> Frame {
    Frame::Data { channel, stream, bytes: vec![0; length] }
}

fn credit(channel: u32, stream: Stream, bytes: u32) -> Frame {
    Frame::Credit { channel, stream, bytes }
}

#[test]
fn clients_choose_their_numbers_and_never_meet() {
    let mut rig = rig();
    let (first, second) = (rig.exec(1, 1).unwrap(), rig.exec(2, 1).unwrap());
    assert_ne!(first, second);
    assert!(first != MAIN_CHANNEL && second != MAIN_CHANNEL);
    assert_eq!(rig.exec(1, 1), Err(Refused::IdInUse));
    assert_eq!(rig.client_sends(2, data(1, Stream::Stdin, 5)).unwrap(), [data(second, Stream::Stdin, 5)]);
    assert_eq!(rig.guest_sends(data(first, Stream::Stderr, 7)).unwrap(), [data(1, Stream::Stderr, 7)]);
    rig.ops.event(OpEvent::Exited { id: first, status: ProcessExit::Code(0), memory_kills: 0 });
    assert_eq!(rig.to_client.take().len(), 1);
    assert_eq!(rig.client_sends(1, data(1, Stream::Stdin, 5)).unwrap(), [], "the exec has ended");
    rig.exec(1, 1).unwrap();
}

/// Mutation tried: forwarding before the check fails this, and would cost the guest its shim.
#[test]
fn a_client_that_overruns_a_window_is_refused_before_the_guest_sees_it() {
    let mut rig = rig();
    let ours = rig.exec(1, 9).unwrap();
    assert!(rig.client_sends(1, data(9, Stream::Stdin, WINDOW as usize)).is_ok());
    assert!(rig.client_sends(1, data(9, Stream::Stdin, 1)).is_err());
    assert!(rig.to_guest.take().is_empty());
    rig.guest_sends(credit(ours, Stream::Stdin, 10)).unwrap();
    assert!(rig.client_sends(1, data(9, Stream::Stdin, 10)).is_ok());

    assert!(rig.client_sends(1, credit(9, Stream::Stdout, 1)).is_err(), "credit for output that never came");
    rig.guest_sends(data(ours, Stream::Stdout, 100)).unwrap();
    assert!(rig.client_sends(1, credit(9, Stream::Stdout, 101)).is_err());
    assert_eq!(
        rig.client_sends(1, credit(9, Stream::Stdout, 100)).unwrap(),
        [credit(ours, Stream::Stdout, 100)]
    );
    assert!(rig.client_sends(1, data(9, Stream::Stdout, 1)).is_err(), "a client has no output to send");
}

#[test]
fn a_guest_that_overruns_a_window_is_at_fault() {
    let mut rig = rig();
    let ours = rig.exec(1, 1).unwrap();
    assert!(rig.guest_sends(credit(ours, Stream::Stdin, 1)).is_err(), "the window was full");
    for _ in 0..4 {
        rig.guest_sends(data(ours, Stream::Stdout, WINDOW as usize / 4)).unwrap();
    }
    assert!(rig.guest_sends(data(ours, Stream::Stdout, 1)).is_err());
    assert!(rig.guest_sends(data(ours, Stream::Stdin, 1)).is_err(), "a guest has no input to send");
}

#[test]
fn a_vanished_client_closes_its_streams_and_its_leftovers_go_nowhere() {
    let mut rig = rig();
    let ours = rig.exec(1, 1).unwrap();
    let theirs = rig.exec(2, 1).unwrap();
    rig.ops.abandon(1, &rig.guest, false);
    let sent = rig.to_guest.take();
    assert_eq!(
        sent,
        [
            Frame::Eof { channel: ours, stream: Stream::Stdin },
            Frame::Close { channel: ours, stream: Stream::Stdout },
            Frame::Close { channel: ours, stream: Stream::Stderr },
        ]
    );
    for _ in 0..100 {
        assert_eq!(rig.guest_sends(data(ours, Stream::Stdout, 60_000)).unwrap(), []);
    }
    assert_ne!(rig.exec(2, 2).unwrap(), ours, "the number stays taken until the exec has ended");
    rig.ops.event(OpEvent::Exited { id: ours, status: ProcessExit::Signal(13), memory_kills: 0 });
    assert!(rig.to_client.take().is_empty());
    assert_eq!(rig.guest_sends(data(theirs, Stream::Stdout, 1)).unwrap().len(), 1);
}

/// Mutation tried: without `NeededInput::Partial` in `abandon`, it is not.
#[test]
fn of_the_execs_of_a_vanished_client_that_with_a_part_of_its_input_is_killed() {
    let mut rig = rig();
    let mut with_input = |id| {
        let spec = ExecSpec { stdin: true, ..ExecSpec::default() };
        rig.ops.begin(1, &rig.sink, Op::Exec { id, spec }, &rig.guest).unwrap();
        rig.to_guest.take();
        if id > 1 {
            rig.client_sends(1, data(id, Stream::Stdin, 5)).unwrap();
        }
        if id > 2 {
            rig.client_sends(1, Frame::Eof { channel: id, stream: Stream::Stdin }).unwrap();
        }
        rig.ops.by_client[&(1, id)]
    };
    let (unused, partial, whole) = (with_input(1), with_input(2), with_input(3));
    rig.ops.abandon(1, &rig.guest, false);
    let kill = |id| Frame::control(&ToGuest::Op(Op::Signal { id, signo: 9 })).unwrap();
    let sent = rig.to_guest.take();
    assert!(sent.contains(&kill(partial)), "{sent:?}");
    assert!(!sent.contains(&kill(unused)) && !sent.contains(&kill(whole)), "{sent:?}");
}

#[test]
fn what_was_given_up_before_it_began_is_killed_when_a_paused_guest_resumes() {
    let mut rig = rig();
    let begun = rig.exec(1, 1).unwrap();
    rig.ops.event(OpEvent::Started { id: begun, pid: 7 });
    let waiting = rig.exec(1, 2).unwrap();
    rig.ops.abandon(1, &rig.guest, true);
    let kill = |id| Frame::control(&ToGuest::Op(Op::Signal { id, signo: 9 })).unwrap();
    let sent = rig.to_guest.take();
    assert!(sent.contains(&kill(waiting)) && !sent.contains(&kill(begun)));
}

#[test]
fn signals_reach_only_ones_own_execs() {
    let mut rig = rig();
    let ours = rig.exec(1, 4).unwrap();
    rig.ops.begin(2, &rig.sink, Op::Signal { id: 4, signo: 9 }, &rig.guest).unwrap();
    assert!(rig.to_guest.take().is_empty());
    rig.ops.begin(1, &rig.sink, Op::Signal { id: 4, signo: 9 }, &rig.guest).unwrap();
    let expected = Frame::control(&ToGuest::Op(Op::Signal { id: ours, signo: 9 })).unwrap();
    assert_eq!(rig.to_guest.take(), [expected]);
}

#[test]
fn tunnels_have_a_limit_of_their_own_until_the_guest_has_ended_them() {
    let mut rig = rig();
    let dial = |rig: &mut Rig, client| {
        let op = Op::Dial { id: 1, port: 80 };
        rig.ops.begin(client, &rig.sink, op, &rig.guest)
    };
    for client in 0..MAX_TUNNELS as ClientId {
        dial(&mut rig, client).unwrap();
    }
    assert_eq!(dial(&mut rig, 1000), Err(Refused::TooManyTunnels));
    assert_eq!(rig.ops.under_way(), MAX_TUNNELS);
    let last = rig.exec(1001, 1).expect("no tunnel");
    rig.ops.abandon(0, &rig.guest, false);
    assert_eq!(dial(&mut rig, 1000), Err(Refused::TooManyTunnels), "the guest has not ended it");
    rig.ops.event(OpEvent::Exited {
        id: last - MAX_TUNNELS as u32,
        status: ProcessExit::Signal(9),
        memory_kills: 0,
    });
    dial(&mut rig, 1000).unwrap();
}

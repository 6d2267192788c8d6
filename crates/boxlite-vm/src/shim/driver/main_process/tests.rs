use super::*;
use crate::shim::sink::{self, FrameSource};

struct Rig {
    _dir: tempfile::TempDir,
    main: MainRun,
    guest: FrameSink,
    to_guest: FrameSource,
}

/// The messages that a client has seen.
struct Seen {
    source: FrameSource,
    sink: FrameSink,
    bytes: Vec<u8>,
    positions: Vec<u64>,
    ended: u32,
}

fn rig() -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("main.log");
    let main = MainRun::new(MainLogWriter::start(&path, 0).unwrap());
    let (guest, to_guest) = sink::queue();
    Rig { _dir: dir, main, guest, to_guest }
}

impl Rig {
    fn says(&mut self, length: usize) -> Vec<u8> {
        let from = self.main.log.position();
        let bytes: Vec<u8> = (from..from + length as u64).map(|i| (i % 251) as u8).collect();
        self.main.output(Stream::Stdout, bytes.clone(), &self.guest).unwrap();
        bytes
    }

    fn paid(&mut self) -> u32 {
        let credit = |frame| match frame {
            Frame::Credit { bytes, .. } => bytes,
            _ => 0,
        };
        self.to_guest.take().into_iter().map(credit).sum()
    }

    fn attach(&mut self, client: ClientId, from: Option<u64>, stdin: bool) -> Seen {
        let (sink, source) = sink::queue();
        self.main.attach(client, sink.clone(), 5, from, stdin);
        Seen { source, sink, bytes: Vec::new(), positions: Vec::new(), ended: 0 }
    }

    /// The client reads what came and grants credit for it, until nothing more comes.
    fn reads(&mut self, client: ClientId, seen: &mut Seen) {
        loop {
            let length = seen.look();
            if length == 0 {
                return;
            }
            let frame = Frame::Credit { channel: 5, stream: Stream::Stdout, bytes: length as u32 };
            self.main.client_frame(client, frame, &self.guest).unwrap();
        }
    }
}

impl Seen {
    fn look(&mut self) -> usize {
        let before = self.bytes.len();
        for frame in self.source.take() {
            match frame {
                Frame::Data { channel: 5, bytes, .. } => self.bytes.extend_from_slice(&bytes),
                Frame::Control(json) => match Frame::parse_control(&json).unwrap() {
                    ShimReply::Attached { position, .. } => self.positions.push(position),
                    ShimReply::Event(event) if event.is_last() => self.ended += 1,
                    _ => {}
                },
                _ => {}
            }
        }
        self.bytes.len() - before
    }
}

const EXITED: OpEvent = OpEvent::Exited { id: MAIN_CHANNEL, status: ProcessExit::Code(3), memory_kills: 0 };

#[test]
fn without_a_client_the_guest_is_paid_at_once() {
    let mut rig = rig();
    for _ in 0..100 {
        rig.says(60_000);
    }
    assert!(rig.paid() > 100 * 60_000 - WINDOW);
    assert!(rig.main.unpaid.is_empty());
}

#[test]
fn a_client_that_reads_slowly_slows_the_writer_down_and_misses_nothing() {
    let mut rig = rig();
    let mut seen = rig.attach(1, Some(0), false);
    let mut said = Vec::new();
    let mut room = WINDOW;
    for _ in 0..200 {
        while room >= 60_000 {
            said.extend(rig.says(60_000));
            room -= 60_000;
        }
        rig.reads(1, &mut seen);
        room += rig.paid();
    }
    rig.main.event(&EXITED);
    rig.reads(1, &mut seen);
    assert!(said.len() > 1_000_000);
    assert!(seen.bytes == said && seen.positions == [0] && seen.ended == 1);
}

/// Mutation tried: paying at once, even with clients attached, lets the writer run ahead.
#[test]
fn a_client_that_takes_nothing_gets_a_window_and_holds_the_writer() {
    let mut rig = rig();
    let mut seen = rig.attach(1, Some(0), false);
    for expected in [WINDOW, 0] {
        for _ in 0..4 {
            rig.says(WINDOW as usize / 4);
        }
        assert_eq!(rig.paid(), expected, "only what the client was sent is paid");
    }
    assert!(rig.main.output(Stream::Stdout, vec![0], &rig.guest).is_err(), "the guest has no credit left");
    assert_eq!(seen.look(), WINDOW as usize);
    rig.main.detach(1, &rig.guest);
    assert_eq!(rig.paid(), WINDOW, "a client that has gone holds nothing up");
}

#[test]
fn a_stalled_client_is_fed_from_the_log_later_and_told_what_it_missed() {
    let mut rig = rig();
    let mut seen = rig.attach(1, Some(0), false);
    let mut said = Vec::new();
    // One window goes to the client; what follows finds it full.
    for _ in 0..8 {
        said.extend(rig.says(WINDOW as usize / 4));
    }
    assert_eq!(rig.paid(), WINDOW);
    rig.main.patience = Duration::ZERO;
    rig.main.tick(&rig.guest);
    assert!(rig.main.unpaid.is_empty(), "a stalled client does not hold the box up");
    for _ in 0..20 {
        said.extend(rig.says(60_000));
    }
    rig.main.event(&EXITED);
    rig.reads(1, &mut seen);
    assert_eq!(seen.ended, 1);
    assert_eq!(seen.positions.len(), 2, "the log rotated past the client, which is told so");
    let missed = seen.positions[1] as usize;
    let kept = said.len() - missed;
    assert_eq!(seen.bytes[seen.bytes.len() - kept..], said[missed..]);
}

#[test]
fn a_late_client_gets_the_log_and_then_the_end() {
    let mut rig = rig();
    let said: Vec<u8> = [rig.says(100_000), rig.says(10_000)].concat();
    rig.main.event(&EXITED);
    for from in [0, 99_999, 110_000, u64::MAX] {
        let mut seen = rig.attach(from, Some(from), false);
        rig.reads(from, &mut seen);
        let start = from.min(110_000) as usize;
        assert!(seen.bytes == said[start..], "from {from}: {} bytes", seen.bytes.len());
        assert_eq!((seen.positions, seen.ended), (vec![start as u64], 1));
    }
    let mut seen = rig.attach(77, None, false);
    rig.reads(77, &mut seen);
    assert!(seen.bytes.is_empty() && seen.ended == 1);
}

#[test]
fn the_first_client_feeds_the_input_and_a_later_one_takes_over() {
    let mut rig = rig();
    let first = rig.attach(1, None, true);
    let mut second = rig.attach(2, None, true);
    let refused = Frame::Close { channel: 5, stream: Stream::Stdin };
    assert!(second.source.take().contains(&refused));
    let input = |bytes: &[u8]| Frame::Data { channel: 5, stream: Stream::Stdin, bytes: bytes.to_vec() };
    rig.main.client_frame(1, input(b"one"), &rig.guest).unwrap();
    rig.main.client_frame(2, input(b"two"), &rig.guest).unwrap();
    let arrived = Frame::Data { channel: MAIN_CHANNEL, stream: Stream::Stdin, bytes: b"one".to_vec() };
    assert_eq!(rig.to_guest.take(), [arrived]);
    drop(first.sink);
    rig.main.detach(1, &rig.guest);
    assert!(rig.to_guest.take().is_empty(), "the input stays open for another feeder");
    let _third = rig.attach(3, None, true);
    // A guest that takes nothing: the rest waits in the shim, and then arrives in order.
    for _ in 0..4 {
        rig.main.client_frame(3, input(&vec![7; 65_536]), &rig.guest).unwrap();
    }
    rig.main.client_frame(3, Frame::Eof { channel: 5, stream: Stream::Stdin }, &rig.guest).unwrap();
    let lengths = |frames: Vec<Frame>| -> usize {
        frames.iter().map(|frame| if let Frame::Data { bytes, .. } = frame { bytes.len() } else { 0 }).sum()
    };
    assert_eq!(lengths(rig.to_guest.take()), WINDOW as usize - 3);
    let credit = Frame::Credit { channel: MAIN_CHANNEL, stream: Stream::Stdin, bytes: 100 };
    rig.main.guest_frame(&credit, &rig.guest).unwrap();
    let rest = rig.to_guest.take();
    assert_eq!(rest.last(), Some(&Frame::Eof { channel: MAIN_CHANNEL, stream: Stream::Stdin }));
    assert_eq!(lengths(rest), 3);
}

#[test]
fn a_client_that_wants_no_output_still_learns_the_end() {
    let mut rig = rig();
    let mut seen = rig.attach(1, Some(0), false);
    for _ in 0..8 {
        rig.says(WINDOW as usize / 4);
    }
    rig.paid();
    rig.main.client_frame(1, Frame::Close { channel: 5, stream: Stream::Stdout }, &rig.guest).unwrap();
    assert_eq!(rig.paid(), WINDOW);
    seen.look();
    rig.says(1000);
    rig.main.event(&EXITED);
    assert_eq!((seen.look(), seen.ended), (0, 1));
}

use boxlite_proto::{ExecutionLimit, Op, ProcessExit, ShimError, ShimReply, ToGuest};

use super::*;
use crate::shim::sink::{self, FrameSource};

const CHANNEL: u32 = 1;
const NO_SIGNALS: [i32; 0] = [];

struct Rig {
    held: HeldExecutions,
    guest: FrameSink,
    to_guest: FrameSource,
    /// Operations that run beside.
    others: usize,
}

struct Client {
    id: ClientId,
    sink: FrameSink,
    received: FrameSource,
}

/// The messages that a client was sent.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    output: Vec<u8>,
    credit: u32,
    end: Option<(i32, Option<String>)>,
    conflicts: usize,
    begun: usize,
}

fn client(id: ClientId) -> Client {
    let (sink, received) = sink::queue();
    Client { id, sink, received }
}

impl Client {
    fn heard(&mut self) -> Heard {
        let mut heard = Heard::default();
        for frame in self.received.take() {
            match frame {
                Frame::Data { bytes, .. } => heard.output.extend(bytes),
                Frame::Credit { bytes, .. } => heard.credit += bytes,
                Frame::Control(json) => match Frame::parse_control(&json).unwrap() {
                    ShimReply::ExecutionEnded { end, .. } => heard.end = Some((end.code, end.reason)),
                    ShimReply::Error { kind: ShimError::Conflict, .. } => heard.conflicts += 1,
                    ShimReply::Execution(_) => heard.begun += 1,
                    _ => {}
                },
                _ => {}
            }
        }
        heard
    }
}

impl Rig {
    fn new() -> Self {
        let (guest, to_guest) = sink::queue();
        Self { held: HeldExecutions::new(), guest, to_guest, others: 0 }
    }

    fn begin_on(&mut self, id: &str, spec: ExecSpec, terms: HoldTerms) -> Result<(), HoldRefusal> {
        let by = client(99);
        self.held.begin((by.id, &by.sink), id, spec, terms, &self.guest, self.others)
    }

    /// Begins a command with input and without a terminal, and returns its channel.
    fn begin(&mut self, id: &str) -> u32 {
        self.begin_on(id, ExecSpec { stdin: true, ..ExecSpec::default() }, terms()).unwrap();
        self.to_guest.take();
        let channel = self.held.by_id[id].channel();
        self.held.event(OpEvent::Started { id: channel, pid: 7 });
        channel
    }

    fn attach_with(
        &mut self,
        id: &str,
        to: &Client,
        options: (Option<u64>, bool, bool),
    ) -> Result<(), HoldRefusal> {
        let (from, replace, resumes) = options;
        let (client, sink) = (to.id, to.sink.clone());
        let request = SeatRequest { client, channel: CHANNEL, sink, from, replace, resumes, stdin: true };
        self.held.attach(id, request, &self.guest)
    }

    fn attach(&mut self, id: &str, to: &Client) -> Result<(), HoldRefusal> {
        self.attach_with(id, to, (None, false, false))
    }

    fn prints(&mut self, channel: u32, bytes: &[u8]) -> Result<(), ProtoError> {
        let frame = Frame::Data { channel, stream: Stream::Stdout, bytes: bytes.to_vec() };
        self.held.guest_frame(frame, &self.guest)
    }

    fn types(&mut self, from: &Client, bytes: &[u8]) {
        let frame = Frame::Data { channel: CHANNEL, stream: Stream::Stdin, bytes: bytes.to_vec() };
        self.held.client_frame(from.id, frame, &self.guest).unwrap();
    }

    fn ends_input(&mut self, from: &Client) {
        let frame = Frame::Eof { channel: CHANNEL, stream: Stream::Stdin };
        self.held.client_frame(from.id, frame, &self.guest).unwrap();
    }

    /// Signals and input that the guest was sent, and credit for output.
    fn guest_got(&mut self) -> (Vec<i32>, Vec<u8>, bool, u32) {
        let (mut signals, mut input, mut ended, mut credit) = (Vec::new(), Vec::new(), false, 0);
        for frame in self.to_guest.take() {
            match frame {
                Frame::Control(json) => {
                    if let ToGuest::Op(Op::Signal { signo, .. }) = Frame::parse_control(&json).unwrap() {
                        signals.push(signo);
                    }
                }
                Frame::Data { bytes, .. } => input.extend(bytes),
                Frame::Eof { .. } => ended = true,
                Frame::Credit { bytes, .. } => credit += bytes,
                Frame::Close { .. } => {}
            }
        }
        (signals, input, ended, credit)
    }

    fn exits(&mut self, channel: u32, status: ProcessExit) {
        self.held.event(OpEvent::Exited { id: channel, status, memory_kills: 0 });
    }
}

fn terms() -> HoldTerms {
    HoldTerms { unattended: UnattendedPolicy::HangUp, limit: None }
}

/// Mutation tried: `attach` that begins at the end in place of the first byte that is held.
#[test]
fn the_next_client_goes_on_where_the_last_one_s_reader_was() {
    let mut rig = Rig::new();
    let channel = rig.begin("a");
    let (mut first, mut second) = (client(1), client(2));
    rig.prints(channel, b"abcdef").unwrap();
    rig.attach("a", &first).unwrap();
    assert_eq!(first.heard().output, b"abcdef");
    assert!(matches!(rig.attach("a", &second), Err(HoldRefusal::Conflict(_))));
    rig.held.get("a").unwrap().taken(4, &rig.guest);
    rig.held.client_lost(first.id, &rig.guest, false);
    rig.prints(channel, b"ghi").unwrap();
    rig.exits(channel, ProcessExit::Code(3));
    rig.attach("a", &second).unwrap();
    let heard = second.heard();
    assert_eq!((heard.output, heard.end), (b"efghi".to_vec(), Some((3, None))));

    // One that knows better what it has had takes the place of the other.
    let mut third = client(3);
    assert!(matches!(rig.attach_with("a", &third, (Some(3), true, true)), Err(HoldRefusal::Conflict(_))));
    assert!(matches!(rig.attach_with("a", &third, (Some(10), true, true)), Err(HoldRefusal::Conflict(_))));
    rig.attach_with("a", &third, (Some(7), true, true)).unwrap();
    assert_eq!(third.heard().output, b"hi");
    assert_eq!(rig.held.list()[0].held, 5);
    rig.held.get("a").unwrap().taken(9, &rig.guest);
    assert_eq!(rig.held.list()[0].held, 0);
}

/// Mutation tried: credit that is granted as output arrives, with which the shim would hold what a command prints for ever.
#[test]
fn a_command_that_nobody_reads_gets_no_credit_beyond_its_windows() {
    let mut rig = Rig::new();
    let channel = rig.begin("a");
    for _ in 0..WINDOW / 1024 {
        rig.prints(channel, &[0; 1024]).unwrap();
    }
    assert_eq!(rig.guest_got().3, 0, "credit for output that nobody took");
    assert!(rig.prints(channel, b"x").is_err(), "the guest has no credit left");
    let mut reader = client(1);
    rig.attach("a", &reader).unwrap();
    assert_eq!(reader.heard().output.len(), WINDOW as usize);
    assert_eq!(rig.guest_got().3, 0, "it was sent, and has not arrived");
    rig.held.get("a").unwrap().taken(u64::from(WINDOW), &rig.guest);
    assert_eq!(rig.guest_got().3, WINDOW);
}

/// Mutations tried: with a `break_off` that records nothing, the end arrives; without `is_partial` in `client_lost`, the command
/// waits for ever; without the exception for a client that resumes, that one's command is killed.
#[test]
fn input_that_was_lost_with_its_client_ends_as_a_failure() {
    // A part has come, and the client is gone without a word: its server was killed.
    let mut rig = Rig::new();
    let channel = rig.begin("a");
    let server = client(1);
    rig.attach("a", &server).unwrap();
    rig.types(&server, b"half");
    assert_eq!(rig.guest_got().1, b"half");
    rig.held.client_lost(server.id, &rig.guest, false);
    assert_eq!(rig.guest_got(), (vec![SIGKILL], Vec::new(), false, 0));
    rig.exits(channel, ProcessExit::Signal(SIGKILL));
    let end = rig.held.list()[0].end.clone().unwrap();
    assert!(end.code == 137 && end.reason.unwrap().contains("did not arrive whole"));

    // Nothing has come, so something may have been lost: the next client may read, but nothing may follow.
    let mut rig = Rig::new();
    rig.begin("b");
    rig.attach("b", &server).unwrap();
    rig.held.client_lost(server.id, &rig.guest, false);
    assert_eq!(rig.guest_got().0, NO_SIGNALS);
    let next = client(2);
    rig.attach("b", &next).unwrap();
    rig.ends_input(&next);
    assert_eq!(rig.guest_got(), (vec![SIGKILL], Vec::new(), false, 0));

    // All had come.
    let mut rig = Rig::new();
    rig.begin("c");
    rig.attach("c", &server).unwrap();
    rig.types(&server, b"all");
    rig.ends_input(&server);
    rig.held.client_lost(server.id, &rig.guest, false);
    assert_eq!(rig.guest_got(), (Vec::new(), b"all".to_vec(), true, 0));

    // A client that resumes sends the rest again.
    let mut rig = Rig::new();
    rig.begin("d");
    rig.attach_with("d", &server, (Some(0), false, true)).unwrap();
    rig.types(&server, b"half");
    rig.held.client_lost(server.id, &rig.guest, false);
    rig.attach_with("d", &next, (Some(0), true, true)).unwrap();
    rig.types(&next, b"rest");
    rig.ends_input(&next);
    assert_eq!(rig.guest_got(), (Vec::new(), b"halfrest".to_vec(), true, 0));
}

/// Mutation tried: without the window that the next client finds in use, it could send as much again, and again.
#[test]
fn the_next_client_finds_the_window_of_the_input_in_use() {
    let mut rig = Rig::new();
    let channel = rig.begin("a");
    let first = client(1);
    rig.attach_with("a", &first, (Some(0), false, true)).unwrap();
    // Once for the guest, which does not read, and once for the queue here.
    for _ in 0..8 {
        rig.types(&first, &vec![b'x'; WINDOW as usize / 8]);
    }
    for _ in 0..8 {
        rig.types(&first, &vec![b'y'; WINDOW as usize / 8]);
    }
    assert_eq!(rig.guest_got().1.len(), WINDOW as usize);
    let mut second = client(2);
    rig.attach_with("a", &second, (Some(0), true, true)).unwrap();
    let more = Frame::Data { channel: CHANNEL, stream: Stream::Stdin, bytes: vec![b'z'] };
    assert!(rig.held.client_frame(second.id, more, &rig.guest).is_err());
    second.heard();
    let credit = Frame::Credit { channel, stream: Stream::Stdin, bytes: WINDOW };
    rig.held.guest_frame(credit, &rig.guest).unwrap();
    assert_eq!(rig.guest_got().1, vec![b'y'; WINDOW as usize]);
    assert_eq!(second.heard().credit, WINDOW);
}

/// Mutation tried: without the look for the id, the command runs twice.
#[test]
fn beginning_again_changes_nothing_and_a_flood_is_refused() {
    let mut rig = Rig::new();
    rig.begin("a");
    rig.begin_on("a", ExecSpec::default(), terms()).unwrap();
    assert_eq!(rig.to_guest.take(), [], "begun twice");
    let spec = || ExecSpec { stdin: true, ..ExecSpec::default() };
    for n in 1..MAX_RUNNING {
        rig.begin_on(&n.to_string(), spec(), terms()).unwrap();
    }
    assert!(matches!(rig.begin_on("more", spec(), terms()), Err(HoldRefusal::TooMany(_))));
    rig.begin_on("a", spec(), terms()).unwrap();
    // Ended ones that nobody fetched take what is set aside, until they are old.
    for n in 1..MAX_RUNNING {
        let channel = rig.held.by_id[&n.to_string()].channel();
        rig.prints(channel, &vec![b'x'; WINDOW as usize]).unwrap();
        rig.exits(channel, ProcessExit::Code(0));
    }
    let room = (MAX_HELD_BYTES - (MAX_RUNNING - 1) * WINDOW as usize) / reservation(true) - 1;
    for n in 0..room {
        rig.begin_on(&format!("next-{n}"), spec(), terms()).unwrap();
    }
    assert!(matches!(rig.begin_on("more", spec(), terms()), Err(HoldRefusal::TooMany(_))));
    let discarded = HoldTerms { unattended: UnattendedPolicy::Discard, ..terms() };
    rig.begin_on("quiet", ExecSpec::default(), discarded).unwrap();
    let channel = rig.held.by_id["a"].channel();
    rig.exits(channel, ProcessExit::Code(0));
    rig.begin_on("more", spec(), terms()).unwrap();
    for id in ["", "a b", "../x", &"x".repeat(65)] {
        assert!(matches!(rig.begin_on(id, spec(), terms()), Err(HoldRefusal::Invalid(_))), "{id}");
    }
}

/// Before, the guest refused the 129th, as an error that no client takes for a reason to try again, and tunnels kept commands
/// out.
#[test]
fn what_runs_beside_counts_towards_the_limit() {
    let mut rig = Rig::new();
    rig.others = MAX_RUNNING - 1;
    let channel = rig.begin("a");
    assert!(matches!(rig.begin_on("b", ExecSpec::default(), terms()), Err(HoldRefusal::TooMany(_))));
    rig.exits(channel, ProcessExit::Code(0));
    rig.begin_on("b", ExecSpec::default(), terms()).unwrap();
}

/// Before, each kept what its client named, up to a megabyte, and a list of a few of them did not fit a message: the client
/// waited for ever.
#[test]
fn texts_that_others_chose_take_little_memory_and_lists_fit_a_message() {
    let mut rig = Rig::new();
    let long = "é".repeat(2000);
    for n in 0..MAX_HELD {
        let spec = ExecSpec { argv: vec![long.clone()], ..ExecSpec::default() };
        rig.begin_on(&n.to_string(), spec, terms()).unwrap();
        let channel = rig.held.by_id[&n.to_string()].channel();
        let message = long.clone();
        rig.held.event(OpEvent::ExecFailed {
            id: channel,
            kind: boxlite_proto::ExecFailure::NotFound,
            message,
        });
        rig.to_guest.take();
    }
    rig.begin("runs");
    let list = rig.held.list();
    assert_eq!((list[0].id.as_str(), rig.held.by_id.len()), ("runs", MAX_HELD));
    assert!(list.len() > 500, "{}", list.len());
    assert!(list.iter().all(|state| state.program.len() < 300));
    Frame::control(&ShimReply::Executions(list)).expect("a message");
}

/// Mutation tried: without the second loop of `make_room`, all are kept.
#[test]
fn ended_commands_are_kept_up_to_a_number() {
    let mut rig = Rig::new();
    for n in 0..=MAX_HELD {
        let channel = rig.begin(&n.to_string());
        rig.exits(channel, ProcessExit::Code(0));
        rig.to_guest.take();
    }
    assert_eq!((rig.held.by_id.len(), rig.held.by_channel.len()), (MAX_HELD, 0));
    assert!(rig.held.get("0").is_err() && rig.held.get("1").is_ok());
}

#[tokio::test(start_paused = true)]
async fn time_hangs_up_kills_and_forgets() {
    let mut rig = Rig::new();
    let wait = async |rig: &mut Rig, seconds: u64| {
        tokio::time::advance(Duration::from_secs(seconds)).await;
        rig.held.tick(Instant::now(), &rig.guest);
        rig.guest_got().0
    };
    let channel = rig.begin("a");
    assert_eq!(wait(&mut rig, 299).await, NO_SIGNALS);
    assert_eq!(wait(&mut rig, 2).await, [1]);
    assert_eq!(wait(&mut rig, 30).await, [15]);
    assert_eq!(wait(&mut rig, 30).await, [9]);
    rig.exits(channel, ProcessExit::Signal(9));
    assert_eq!(wait(&mut rig, 299).await, NO_SIGNALS);
    assert_eq!(rig.held.list().len(), 1);
    wait(&mut rig, 2).await;
    assert_eq!(rig.held.list().len(), 0);

    // A limit with a status of its own, which a box that does not kill cannot keep.
    let limit = Some(ExecutionLimit { ms: 5000, code: Some(124) });
    rig.begin_on("b", ExecSpec::default(), HoldTerms { limit, ..terms() }).unwrap();
    assert_eq!(wait(&mut rig, 4).await, NO_SIGNALS);
    assert_eq!(wait(&mut rig, 1).await, [SIGKILL]);
    assert!(rig.held.list()[0].end.is_none());
    wait(&mut rig, 2).await;
    let end = rig.held.list()[0].end.clone().unwrap();
    assert!(end.code == 124 && end.reason.unwrap().contains("may run on"));
}

#[test]
fn a_client_that_gives_up_on_a_paused_box_leaves_nothing_behind() {
    let mut rig = Rig::new();
    let by = client(5);
    rig.held.begin((by.id, &by.sink), "a", ExecSpec::default(), terms(), &rig.guest, 0).unwrap();
    rig.to_guest.take();
    rig.held.client_lost(by.id, &rig.guest, true);
    assert_eq!(rig.guest_got().0, [SIGKILL]);
}

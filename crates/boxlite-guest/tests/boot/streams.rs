//! Streams: binary, large, blocked, ended, on a terminal, many at once.

use std::fmt::Write;
use std::time::{Duration, Instant};

use boxlite_proto::{ExecSpec, Op, OpEvent, ProcessExit, Stream, WINDOW, WinSize};
use sha2::{Digest, Sha256};

use crate::machine::{Arrival, GUEST_TIMEOUT, spec};
use crate::shared;

fn with_input(argv: &[&str]) -> ExecSpec {
    ExecSpec { stdin: true, ..spec(argv) }
}

fn on_terminal(argv: &[&str]) -> ExecSpec {
    ExecSpec { stdin: true, tty: Some(WinSize { rows: 33, cols: 77 }), ..spec(argv) }
}

/// Bytes that compression cannot shrink and a line discipline would change.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]);
        }
    }
}

#[test]
fn a_hundred_megabytes_go_in_and_come_out() {
    const TOTAL: usize = 100 << 20;
    let Some(machine) = shared() else { return };
    let cat = machine.exec(with_input(&["cat"])).started();
    let started = Instant::now();
    let (sent, received) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut noise = Noise(88_172_645_463_325_252);
            let mut hash = Sha256::new();
            let mut buffer = vec![0; 1 << 20];
            for _ in 0..TOTAL >> 20 {
                noise.fill(&mut buffer);
                hash.update(&buffer);
                assert!(cat.write(&buffer));
            }
            cat.end_input();
            hash.finalize()
        });
        let mut hash = Sha256::new();
        let mut length = 0;
        loop {
            match cat.next() {
                Arrival::Data(Stream::Stdout, bytes) => {
                    length += bytes.len();
                    hash.update(&bytes);
                }
                Arrival::Event(OpEvent::Exited { status, .. }) => {
                    assert_eq!(status, ProcessExit::Code(0));
                    break;
                }
                Arrival::Eof(_) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(length, TOTAL);
        (writer.join().unwrap(), hash.finalize())
    });
    assert_eq!(sent, received);
    eprintln!("100 MiB there and back: {:?}", started.elapsed());
}

/// Nothing is lost at exit, however the output compares to pipes and windows. Mutation tried: ending an output at
/// the exit of its process instead of at the end of its pipe.
#[test]
fn all_output_comes_before_the_end() {
    let Some(machine) = shared() else { return };
    for bytes in [1, 65_535, 65_536, 65_537, WINDOW as usize, WINDOW as usize + 1, 3_000_000] {
        let ended = machine.run(&["head", "-c", &bytes.to_string(), "/dev/zero"]);
        assert_eq!((ended.stdout.len(), ended.outcome), (bytes, Ok(ProcessExit::Code(0))));
    }
}

/// A process that outruns its reader blocks after one window, delays no other process, and loses nothing.
#[test]
fn a_slow_reader_blocks_only_its_own_process() {
    let Some(machine) = shared() else { return };
    let bulk = machine.exec(spec(&["sh", "-c", "head -c 2000000 /dev/urandom | tee /tmp/bulk; sync"]));
    bulk.withhold();
    let mut received = Vec::new();
    while received.len() < WINDOW as usize {
        match bulk.next() {
            Arrival::Data(_, mut bytes) => received.append(&mut bytes),
            Arrival::Event(OpEvent::Started { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(received.len(), WINDOW as usize);
    assert!(bulk.next_within(Duration::from_secs(1)).is_none(), "more than its window");
    assert_eq!(machine.run(&["echo", "others run"]).out(), "others run");
    let exited = loop {
        bulk.grant(Stream::Stdout, WINDOW);
        let mut batch = 0;
        let exited = loop {
            match bulk.next() {
                Arrival::Data(_, mut bytes) => {
                    batch += bytes.len();
                    received.append(&mut bytes);
                    if batch == WINDOW as usize {
                        break false;
                    }
                }
                Arrival::Event(OpEvent::Exited { .. }) => break true,
                _ => {}
            }
        };
        if exited {
            break exited;
        }
    };
    assert!(exited);
    assert_eq!(received.len(), 2_000_000);
    let wanted = machine.sh("sha256sum /tmp/bulk; rm /tmp/bulk");
    let mut digest = String::new();
    for byte in Sha256::digest(&received) {
        write!(digest, "{byte:02x}").unwrap();
    }
    assert!(wanted.starts_with(&digest));
}

#[test]
fn what_nobody_wants_is_dropped_and_the_process_lives_on() {
    let Some(machine) = shared() else { return };
    let bulk =
        machine.exec(spec(&["sh", "-c", "head -c 3000000 /dev/zero && echo done > /tmp/unwanted"])).started();
    bulk.withhold();
    bulk.close(Stream::Stdout);
    bulk.close(Stream::Stderr);
    loop {
        if let Arrival::Event(OpEvent::Exited { status, .. }) = bulk.next() {
            assert_eq!(status, ProcessExit::Code(0));
            break;
        }
    }
    assert_eq!(machine.sh("cat /tmp/unwanted"), "done");
}

#[test]
fn a_closed_input_is_told_and_the_rest_dropped() {
    let Some(machine) = shared() else { return };
    let head =
        machine.exec(with_input(&["sh", "-c", "head -c 3; exec <&-; sleep 0.2; echo; exit 4"])).started();
    let zeros = vec![b'x'; 64 * 1024];
    let all_taken = (0..100).all(|_| head.write(&zeros));
    assert!(!all_taken, "the guest takes input that nobody reads");
    let ended = head.wait();
    assert_eq!((ended.out().as_str(), ended.outcome), ("xxx", Ok(ProcessExit::Code(4))));
}

#[test]
fn without_input_there_is_dev_null() {
    let Some(machine) = shared() else { return };
    assert_eq!(machine.run(&["cat"]).outcome, Ok(ProcessExit::Code(0)));
    assert_eq!(machine.sh("readlink /proc/self/fd/0"), "/dev/null");
}

/// A child that keeps the output open delays neither the exit of its parent nor the output before it.
#[test]
fn a_grandchild_does_not_hold_the_end_up() {
    let Some(machine) = shared() else { return };
    let started = Instant::now();
    let ended = machine.run(&["sh", "-c", "sleep 1000 & echo first; (sleep 0.02; echo late) & exit 6"]);
    assert_eq!(ended.outcome, Ok(ProcessExit::Code(6)));
    assert!(ended.out().starts_with("first"), "{ended:?}");
    let ended = machine.run(&["sh", "-c", "yes & echo $! >&2; exit 0"]);
    assert_eq!(ended.outcome, Ok(ProcessExit::Code(0)));
    machine.sh(&format!("kill {}; killall sleep", String::from_utf8(ended.stderr).unwrap().trim()));
    assert!(started.elapsed() < GUEST_TIMEOUT / 2);
}

#[test]
fn a_terminal_has_a_size_a_session_and_a_user() {
    let Some(machine) = shared() else { return };
    let asked = ExecSpec { user: "web".into(), ..on_terminal(&["sh"]) };
    let shell = machine.exec(asked).started();
    shell.write(b"stty size; tty; ls -ln $(tty); echo T$TERM\n");
    let seen = shell.until("Txterm");
    assert!(seen.contains("33 77") && seen.contains("/dev/pts/"), "{seen}");
    assert!(seen.contains(" 33 ") || seen.contains(" 33       5 "), "the terminal is not its user's: {seen}");
    machine
        .send(&boxlite_proto::ToGuest::Op(Op::Resize { id: shell.id, size: WinSize { rows: 11, cols: 22 } }));
    shell.write(b"trap 'echo winch' WINCH; stty size; echo en''d\n");
    let seen = shell.until("end");
    assert!(seen.contains("11 22"), "{seen}");
    // Control-C goes to the foreground process, by way of the controlling terminal.
    shell.write(b"echo be''gin; /bin/sleep 4321\n");
    shell.until("begin");
    let runs = || machine.run(&["ps", "-o", "args"]).out().lines().any(|line| line == "/bin/sleep 4321");
    assert!((0..200).any(|_| runs()), "{}", machine.run(&["ps", "-o", "pid,stat,args"]).out());
    shell.write(b"\x03echo back''again\n");
    shell.until("backagain");
    // The end of input is control-D.
    shell.end_input();
    assert!(matches!(shell.wait().outcome, Ok(ProcessExit::Code(0 | 130))));
}

#[test]
fn a_terminal_loses_no_last_line() {
    let Some(machine) = shared() else { return };
    for round in 0..10 {
        let ended = machine.exec(on_terminal(&["sh", "-c", &format!("seq 1 2000; echo last{round}")])).wait();
        assert_eq!(ended.out().lines().count(), 2001, "{round}");
        assert!(ended.out().ends_with(&format!("last{round}")), "{round}");
    }
}

#[test]
fn many_at_once_keep_their_output_apart() {
    let Some(machine) = shared() else { return };
    std::thread::scope(|scope| {
        for worker in 0..12 {
            scope.spawn(move || {
                for round in 0..4 {
                    let word = format!("w{worker}r{round}");
                    let ended = machine.exec(with_input(&[
                        "sh",
                        "-c",
                        &format!("seq 1 500 | sed s/^/{word}-/; cat; exit {worker}"),
                    ]));
                    ended.write(word.as_bytes());
                    ended.end_input();
                    let ended = ended.wait();
                    assert_eq!(ended.outcome, Ok(ProcessExit::Code(worker)));
                    let out = ended.out();
                    assert!(out.lines().all(|line| line.starts_with(&word)), "{out}");
                    assert_eq!(out.lines().count(), 501);
                }
            });
        }
    });
}

/// A ping among bulk data waits only for what has been sent already. The limit is generous, for machines that are busy
/// with other tests.
#[test]
fn a_ping_overtakes_bulk() {
    let Some(machine) = shared() else { return };
    let bulk = machine.exec(spec(&["cat", "/dev/zero"])).started();
    let mut all = Vec::new();
    for _ in 0..50 {
        let started = Instant::now();
        assert!(matches!(machine.ask(Op::Ping { id: 0 }), OpEvent::Pong { .. }));
        all.push(started.elapsed());
    }
    bulk.signal(9);
    all.sort();
    eprintln!("ping under bulk: median {:?}, worst {:?}", all[all.len() / 2], all[all.len() - 1]);
    assert!(all[all.len() / 2] < Duration::from_millis(500));
}

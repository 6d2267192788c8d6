use std::task::Waker;

use super::*;

fn give(flow: &FlowControl, bytes: &[u8]) -> Poll<io::Result<usize>> {
    flow.poll_give(&mut Context::from_waker(Waker::noop()), bytes)
}

fn input(flow: &FlowControl) -> Vec<u8> {
    let mut input = Vec::new();
    while let Some(Outgoing::Input(bytes)) = flow.try_next_outgoing() {
        input.extend_from_slice(&bytes);
    }
    input
}

#[test]
fn nothing_is_sent_before_the_server_has_said_what_it_has() {
    let flow = FlowControl::default();
    flow.begin_attachment();
    assert!(matches!(give(&flow, b"abc"), Poll::Ready(Ok(3))));
    assert_eq!(flow.try_next_outgoing(), None);
    flow.input_arrived(0, false).unwrap();
    assert_eq!(input(&flow), b"abc");
    flow.input_arrived(2, false).unwrap();
    assert_eq!(input(&flow), b"", "what is on its way is not sent twice on one connection");
    flow.begin_attachment();
    flow.input_arrived(2, false).unwrap();
    assert_eq!(input(&flow), b"c", "but on the next");
}

#[test]
fn input_is_bounded_and_its_end_comes_after_it() {
    let flow = FlowControl::default();
    let plenty = vec![0; 2 * WINDOW];
    assert!(matches!(give(&flow, &plenty), Poll::Ready(Ok(WINDOW))));
    assert!(give(&flow, b"x").is_pending());
    flow.end_input();
    flow.begin_attachment();
    flow.input_arrived(0, false).unwrap();
    assert_eq!(input(&flow).len(), WINDOW);
    flow.begin_attachment();
    flow.input_arrived(WINDOW as u64, false).unwrap();
    assert_eq!(flow.try_next_outgoing(), Some(Outgoing::Frame(ClientFrame::StdinEof)));
    assert_eq!(flow.try_next_outgoing(), None, "once");
    assert!(matches!(give(&flow, b"x"), Poll::Ready(Err(_))));
}

#[test]
fn what_can_not_be_is_not_believed() {
    let flow = FlowControl::default();
    assert!(matches!(give(&flow, b"abc"), Poll::Ready(Ok(3))));
    assert!(flow.input_arrived(4, false).is_err());
    flow.input_arrived(2, false).unwrap();
    assert!(flow.input_arrived(1, false).is_err(), "what was acknowledged stays so");
    for _ in 0..2 {
        assert_eq!(flow.output_arrived(WINDOW), Ok(true));
    }
    assert!(flow.output_arrived(1).is_err());
}

#[test]
fn what_nobody_reads_counts_as_taken() {
    let flow = FlowControl::default();
    flow.begin_attachment();
    assert_eq!(flow.output_arrived(WINDOW), Ok(true));
    assert_eq!(flow.try_next_outgoing(), None, "nothing was taken yet");
    flow.discard_output();
    let all = ClientFrame::Ack { output: WINDOW as u64 };
    assert_eq!(flow.try_next_outgoing(), Some(Outgoing::Frame(all)));
    for _ in 0..9 {
        assert_eq!(flow.output_arrived(WINDOW), Ok(false));
    }
    assert_eq!(flow.begin_attachment(), 10 * WINDOW as u64);
}

#[test]
fn every_connection_hears_what_was_taken() {
    let flow = FlowControl::default();
    assert_eq!(flow.begin_attachment(), 0);
    flow.output_arrived(WINDOW).unwrap();
    flow.output_taken(WINDOW - 1);
    let taken = ClientFrame::Ack { output: WINDOW as u64 - 1 };
    for _ in 0..3 {
        assert_eq!(flow.try_next_outgoing(), Some(Outgoing::Frame(taken)));
        assert_eq!(flow.try_next_outgoing(), None, "once");
        assert_eq!(flow.begin_attachment(), WINDOW as u64);
    }
}

use std::sync::Arc;
use std::time::Duration;

use boxlite::OutputStream;

use super::*;

fn said(stream: OutputStream, bytes: &[u8]) -> Piece {
    Piece::Output(OutputChunk { stream, bytes: bytes.to_vec().into() })
}

fn piece(length: usize) -> Piece {
    said(OutputStream::Stdout, &vec![b'x'; length])
}

async fn next_length(buffer: &Buffer) -> Option<usize> {
    match buffer.next().await? {
        Piece::Output(chunk) => Some(chunk.bytes.len()),
        Piece::Trouble(_) => Some(0),
    }
}

/// Mutation tried: without the comparison with the window, the writer does not wait.
#[tokio::test]
async fn a_writer_waits_for_its_reader_and_nothing_is_lost() {
    let buffer = Arc::new(Buffer::default());
    buffer.push(piece(WINDOW)).await;
    let waiting = tokio::time::timeout(Duration::from_millis(50), buffer.push(piece(1)));
    assert!(waiting.await.is_err(), "the buffer grows without a bound");

    let writer = Arc::clone(&buffer);
    let writing = tokio::spawn(async move {
        for length in 1..2000 {
            writer.push(piece(length)).await;
        }
        writer.close();
    });
    let mut length = 0;
    while let Some(next) = next_length(&buffer).await {
        // A reader that goes away before it was passed on finds it again.
        assert!(buffer.begin(None));
        assert!((next..=LONGEST).contains(&next_length(&buffer).await.unwrap()));
        length += next_length(&buffer).await.unwrap();
        buffer.passed_on();
    }
    writing.await.unwrap();
    assert_eq!(length, WINDOW + (1..2000).sum::<usize>());
    assert!(buffer.is_empty());
}

/// Mutation tried: dropping what was sent instead of what was acknowledged loses bytes at the first break.
#[tokio::test]
async fn a_reader_that_acknowledges_goes_on_where_it_says_after_every_break() {
    let buffer = Buffer::default();
    let all: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
    for (bytes, stream) in all.chunks(777).zip([OutputStream::Stderr, OutputStream::Stdout].iter().cycle()) {
        buffer.push(said(*stream, bytes)).await;
        buffer.push(Piece::Trouble("x".into())).await;
    }
    buffer.close();
    let (mut had, mut round) = (Vec::new(), 0_usize);
    'attachments: loop {
        assert!(buffer.begin(Some(had.len() as u64)));
        for count in 0.. {
            let Some(next) = buffer.next().await else { break 'attachments };
            buffer.sent();
            if let Piece::Output(chunk) = next {
                round += 1;
                // Of the piece during which the connection breaks, a part arrives.
                let breaks = count > round % 7;
                let arrived = if breaks { chunk.bytes.len() / 3 } else { chunk.bytes.len() };
                had.extend_from_slice(&chunk.bytes[..arrived]);
                if breaks {
                    continue 'attachments;
                }
                buffer.acknowledge(had.len() as u64 - (round % 900).min(had.len()) as u64);
            }
        }
    }
    assert_eq!(had, all);
    buffer.acknowledge(had.len() as u64);
    assert!(buffer.is_empty());
    assert!(!buffer.begin(Some(had.len() as u64 - 1)) && !buffer.begin(Some(had.len() as u64 + 1)));
}

#[tokio::test]
async fn coming_back_acknowledges_nothing() {
    let buffer = Buffer::default();
    buffer.push(piece(WINDOW)).await;
    let mut received = 0;
    for round in 0..5 {
        assert!(buffer.begin(Some(received)), "round {round}");
        while received < WINDOW as u64 {
            received += next_length(&buffer).await.unwrap() as u64;
            buffer.sent();
        }
        let waiting = tokio::time::timeout(Duration::from_millis(20), buffer.push(piece(1)));
        assert!(waiting.await.is_err(), "round {round}: there is room for what nobody took");
    }
    let part = LONGEST as u64 + 7;
    assert!(buffer.begin(Some(part)));
    assert_eq!(next_length(&buffer).await, Some(LONGEST));
    buffer.acknowledge(part + 1);
    assert_eq!(next_length(&buffer).await, Some(LONGEST), "what was not sent is not acknowledged");
    buffer.sent();
    assert_eq!(buffer.sent_to(), part + LONGEST as u64);
    buffer.push(piece(1)).await;
    buffer.acknowledge(part + 3);
    assert!(!buffer.begin(Some(part + 2)) && buffer.begin(Some(part + 3)), "what was sent may be on its way");
    assert!(buffer.begin(Some(WINDOW as u64 + 1)) && !buffer.begin(Some(WINDOW as u64 + 2)));
}

/// Mutations tried: each piece in a run of its own; room that is given back only once nothing is left.
#[tokio::test]
async fn pieces_of_one_byte_cost_little_more_than_they_hold() {
    use OutputStream::{Stderr, Stdout};
    for (streams, most) in [([Stdout, Stdout], 2 * WINDOW + 100), ([Stdout, Stderr], 18 * WINDOW)] {
        let buffer = Buffer::default();
        for position in 0..WINDOW {
            buffer.push(said(streams[position % 2], &[position as u8])).await;
            // The reader has all of it at once, and its acknowledgement is late.
            buffer.next().await.unwrap();
            buffer.sent();
        }
        let cost = buffer.state().output.cost();
        assert!(cost <= most, "{cost} bytes");
        assert!(buffer.begin(Some(1)));
        for position in 1..WINDOW / 2 {
            let Some(Piece::Output(chunk)) = buffer.next().await else { panic!("no output at {position}") };
            buffer.sent();
            assert_eq!((chunk.stream, chunk.bytes[0]), (streams[position % 2], position as u8));
            if streams[0] == streams[1] {
                break;
            }
        }
        buffer.acknowledge(u64::MAX);
        buffer.begin(None);
        while buffer.state().output.len() > 100 {
            buffer.next().await.unwrap();
            buffer.passed_on();
        }
        let rest = buffer.state().output.cost();
        assert!(rest <= 4 * 9 * 100, "{rest} bytes are kept for the rest");
    }
}

/// Mutation tried: with as many bytes counted as sent as there are by then, the second byte is lost.
#[tokio::test]
async fn what_comes_while_a_piece_is_being_sent_is_not_counted_as_sent() {
    let buffer = Buffer::default();
    let mut had = Vec::new();
    for byte in 0..4_u8 {
        buffer.push(said(OutputStream::Stdout, &[byte])).await;
        let Some(Piece::Output(chunk)) = buffer.next().await else { panic!("no output") };
        buffer.push(said(OutputStream::Stdout, &[byte + 100])).await;
        buffer.sent();
        had.extend_from_slice(&chunk.bytes);
    }
    assert_eq!(had, [0, 100, 1, 101, 2, 102, 3]);
    assert_eq!(buffer.next().await, Some(said(OutputStream::Stdout, &[103])));
}

#[tokio::test]
async fn troubles_are_told_in_their_place_and_do_not_pile_up() {
    let buffer = Buffer::default();
    let trouble = |reason: &str| Piece::Trouble(reason.to_owned());
    buffer.push(trouble("first")).await;
    buffer.push(said(OutputStream::Stdout, b"ab")).await;
    buffer.push(trouble("second")).await;
    buffer.push(said(OutputStream::Stdout, b"cd")).await;
    for _ in 0..2 * TROUBLES {
        buffer.push(trouble("last")).await;
    }
    buffer.close();
    let all = [trouble("first"), said(OutputStream::Stdout, b"ab"), trouble("second")];
    for piece in all.iter().chain(&[said(OutputStream::Stdout, b"cd")]) {
        assert_eq!(buffer.next().await.as_ref(), Some(piece));
        buffer.sent();
    }
    // Who comes back is told what goes with what it did not have.
    assert!(buffer.begin(Some(1)));
    assert_eq!(buffer.next().await, Some(said(OutputStream::Stdout, b"b")));
    buffer.sent();
    buffer.acknowledge(1);
    assert!(buffer.begin(Some(2)));
    let mut told = Vec::new();
    while let Some(piece) = buffer.next().await {
        told.push(piece);
        buffer.passed_on();
    }
    assert_eq!(told[..2], [trouble("second"), said(OutputStream::Stdout, b"cd")]);
    assert_eq!(told[2..], vec![trouble("last"); TROUBLES - 2]);
    assert!(buffer.is_empty());
}

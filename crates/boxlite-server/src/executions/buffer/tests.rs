use std::sync::Arc;
use std::time::Duration;

use boxlite::OutputStream;

use super::*;

fn output(stream: OutputStream, bytes: &[u8]) -> OutputPiece {
    OutputPiece::Output(OutputChunk { stream, bytes: bytes.to_vec().into() })
}

fn piece(length: usize) -> OutputPiece {
    output(OutputStream::Stdout, &vec![b'x'; length])
}

async fn next_length(buffer: &OutputBuffer) -> Option<usize> {
    match buffer.next().await? {
        OutputPiece::Output(chunk) => Some(chunk.bytes.len()),
        OutputPiece::Loss(_) => Some(0),
    }
}

/// Mutation tried: without the comparison with the window, the writer does not wait.
#[tokio::test]
async fn a_writer_waits_for_its_reader_and_nothing_is_lost() {
    let buffer = Arc::new(OutputBuffer::default());
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
        // A reader that leaves before the piece was passed on finds it again.
        assert!(buffer.begin(None));
        assert!((next..=MAX_PIECE_BYTES).contains(&next_length(&buffer).await.unwrap()));
        length += next_length(&buffer).await.unwrap();
        buffer.passed_on();
    }
    writing.await.unwrap();
    assert_eq!(length, WINDOW + (1..2000).sum::<usize>());
    assert!(buffer.is_empty());
}

/// Mutation tried: dropping sent output instead of acknowledged output loses bytes at the first break.
#[tokio::test]
async fn a_reader_that_acknowledges_resumes_where_it_says_after_every_break() {
    let buffer = OutputBuffer::default();
    let all: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
    for (bytes, stream) in all.chunks(777).zip([OutputStream::Stderr, OutputStream::Stdout].iter().cycle()) {
        buffer.push(output(*stream, bytes)).await;
        buffer.push(OutputPiece::Loss("x".into())).await;
    }
    buffer.close();
    let (mut had, mut round) = (Vec::new(), 0_usize);
    'attachments: loop {
        assert!(buffer.begin(Some(had.len() as u64)));
        for count in 0.. {
            let Some(next) = buffer.next().await else { break 'attachments };
            buffer.sent();
            if let OutputPiece::Output(chunk) = next {
                round += 1;
                // Only a part of the piece arrives when the connection breaks.
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
    let buffer = OutputBuffer::default();
    buffer.push(piece(WINDOW)).await;
    let mut received = 0;
    for round in 0..5 {
        assert!(buffer.begin(Some(received)), "round {round}");
        while received < WINDOW as u64 {
            received += next_length(&buffer).await.unwrap() as u64;
            buffer.sent();
        }
        let waiting = tokio::time::timeout(Duration::from_millis(20), buffer.push(piece(1)));
        assert!(waiting.await.is_err(), "round {round}: there is room although nothing was acknowledged");
    }
    let part = MAX_PIECE_BYTES as u64 + 7;
    assert!(buffer.begin(Some(part)));
    assert_eq!(next_length(&buffer).await, Some(MAX_PIECE_BYTES));
    buffer.acknowledge(part + 1);
    assert_eq!(
        next_length(&buffer).await,
        Some(MAX_PIECE_BYTES),
        "output that was not sent is not acknowledged"
    );
    buffer.sent();
    assert_eq!(buffer.sent_to(), part + MAX_PIECE_BYTES as u64);
    buffer.push(piece(1)).await;
    buffer.acknowledge(part + 3);
    assert!(!buffer.begin(Some(part + 2)) && buffer.begin(Some(part + 3)), "sent output may be on its way");
    assert!(buffer.begin(Some(WINDOW as u64 + 1)) && !buffer.begin(Some(WINDOW as u64 + 2)));
}

/// Mutations tried: a run for each piece; freeing memory only once nothing is left.
#[tokio::test]
async fn pieces_of_one_byte_cost_little_more_than_they_hold() {
    use OutputStream::{Stderr, Stdout};
    for (streams, most) in [([Stdout, Stdout], 2 * WINDOW + 100), ([Stdout, Stderr], 18 * WINDOW)] {
        let buffer = OutputBuffer::default();
        for position in 0..WINDOW {
            buffer.push(output(streams[position % 2], &[position as u8])).await;
            // The reader gets each byte at once and acknowledges late.
            buffer.next().await.unwrap();
            buffer.sent();
        }
        let cost = buffer.state().output.cost();
        assert!(cost <= most, "{cost} bytes");
        assert!(buffer.begin(Some(1)));
        for position in 1..WINDOW / 2 {
            let Some(OutputPiece::Output(chunk)) = buffer.next().await else {
                panic!("no output at {position}")
            };
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

/// Mutation tried: counting everything that has arrived by then as sent loses the second byte.
#[tokio::test]
async fn output_that_arrives_while_a_piece_is_sent_is_not_counted_as_sent() {
    let buffer = OutputBuffer::default();
    let mut had = Vec::new();
    for byte in 0..4_u8 {
        buffer.push(output(OutputStream::Stdout, &[byte])).await;
        let Some(OutputPiece::Output(chunk)) = buffer.next().await else { panic!("no output") };
        buffer.push(output(OutputStream::Stdout, &[byte + 100])).await;
        buffer.sent();
        had.extend_from_slice(&chunk.bytes);
    }
    assert_eq!(had, [0, 100, 1, 101, 2, 102, 3]);
    assert_eq!(buffer.next().await, Some(output(OutputStream::Stdout, &[103])));
}

#[tokio::test]
async fn losses_are_told_in_their_place_and_do_not_pile_up() {
    let buffer = OutputBuffer::default();
    let loss = |reason: &str| OutputPiece::Loss(reason.to_owned());
    buffer.push(loss("first")).await;
    buffer.push(output(OutputStream::Stdout, b"ab")).await;
    buffer.push(loss("second")).await;
    buffer.push(output(OutputStream::Stdout, b"cd")).await;
    for _ in 0..2 * MAX_LOSSES {
        buffer.push(loss("last")).await;
    }
    buffer.close();
    let all = [loss("first"), output(OutputStream::Stdout, b"ab"), loss("second")];
    for piece in all.iter().chain(&[output(OutputStream::Stdout, b"cd")]) {
        assert_eq!(buffer.next().await.as_ref(), Some(piece));
        buffer.sent();
    }
    // A client that comes back learns the losses within the output that it did not have.
    assert!(buffer.begin(Some(1)));
    assert_eq!(buffer.next().await, Some(output(OutputStream::Stdout, b"b")));
    buffer.sent();
    buffer.acknowledge(1);
    assert!(buffer.begin(Some(2)));
    let mut told = Vec::new();
    while let Some(piece) = buffer.next().await {
        told.push(piece);
        buffer.passed_on();
    }
    assert_eq!(told[..2], [loss("second"), output(OutputStream::Stdout, b"cd")]);
    assert_eq!(told[2..], vec![loss("last"); MAX_LOSSES - 2]);
    assert!(buffer.is_empty());
}

use std::sync::Arc;
use std::time::Duration;

use boxlite::OutputStream;

use super::*;

fn piece(length: usize) -> Piece {
    Piece::Output(OutputChunk { stream: OutputStream::Stdout, bytes: vec![b'x'; length].into() })
}

/// Mutation tried: without the comparison in `push_short`, the writer does not wait.
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
    let mut lengths = Vec::new();
    while let Some(next) = buffer.next().await {
        // A reader that goes away before it was passed on finds the same piece again.
        assert!(buffer.begin(None));
        assert_eq!(buffer.next().await, Some(next.clone()));
        lengths.push(next.length());
        buffer.passed_on();
    }
    writing.await.unwrap();
    assert_eq!(lengths, [LONGEST; 4].into_iter().chain(1..2000).collect::<Vec<_>>());
    assert!(buffer.is_empty());
}

/// Mutation tried: dropping what was sent instead of what was acknowledged loses bytes at the first break.
#[tokio::test]
async fn a_reader_that_acknowledges_goes_on_where_it_says_after_every_break() {
    let buffer = Buffer::default();
    let all: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
    for bytes in all.chunks(777) {
        let bytes = bytes.to_vec().into();
        buffer.push(Piece::Output(OutputChunk { stream: OutputStream::Stderr, bytes })).await;
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
            received += buffer.next().await.unwrap().length() as u64;
            buffer.sent();
        }
        let waiting = tokio::time::timeout(Duration::from_millis(20), buffer.push(piece(1)));
        assert!(waiting.await.is_err(), "round {round}: there is room for what nobody took");
    }
    // What was received in part goes on within its piece, and is dropped whole once it is acknowledged.
    let part = LONGEST as u64 + 7;
    assert!(buffer.begin(Some(part)));
    assert_eq!(buffer.next().await.unwrap().length(), LONGEST - 7);
    buffer.acknowledge(part);
    assert_eq!(buffer.next().await.unwrap().length(), LONGEST - 7);
    buffer.sent();
    assert_eq!(buffer.next().await.unwrap().length(), LONGEST);
    assert_eq!(buffer.sent_to(), 2 * LONGEST as u64);
    buffer.push(piece(1)).await;
    assert!(!buffer.begin(Some(LONGEST as u64 - 1)) && buffer.begin(Some(WINDOW as u64 + 1)));
}

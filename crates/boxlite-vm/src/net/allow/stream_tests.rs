use proptest::prelude::*;

use super::super::super::oracle::{ACK, data, tcp};
use super::*;

const SITE: [u8; 4] = [93, 184, 216, 34];
const ASKED: u32 = u32::MAX - 6;
const START: u32 = ASKED.wrapping_add(1);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a.b\r\n\r\n";

const FIRST: Acceptance = Acceptance { number: 1000, order: 0 };

struct One;

impl Permits for One {
    fn name(&self, name: &str) -> bool {
        name == "a.b"
    }

    fn nameless(&self) -> bool {
        true
    }
}

fn accepted() -> ClientStream {
    let mut stream = ClientStream::asked(ASKED, None);
    stream.accepted(START, FIRST);
    stream
}

fn at(offset: usize, said: &[u8]) -> Vec<u8> {
    data(SITE, 1, 80, START.wrapping_add(offset as u32), said)
}

fn hear(stream: &mut ClientStream, frame: &[u8]) -> StreamVerdict {
    stream.hear(frame, &TcpSegment::read(frame).unwrap(), &One)
}

fn say(stream: &mut ClientStream, offset: usize, said: &[u8]) -> StreamVerdict {
    hear(stream, &at(offset, said))
}

// Mutation tried: `Hold` that carries.
#[test]
fn nothing_is_carried_before_it_was_read_and_in_order() {
    let mut stream = accepted();
    let (first, rest) = REQUEST.split_at(20);
    assert_eq!(say(&mut stream, 0, first), StreamVerdict::Hold);
    assert_eq!(say(&mut stream, 0, first), StreamVerdict::Lose, "said again, it waits already");
    assert_eq!(say(&mut stream, 21, &rest[1..]), StreamVerdict::Lose, "a byte is missing before it");
    assert_eq!(stream.next_to_carry(), START);
    let frames = vec![at(0, first), at(20, rest)];
    assert_eq!(say(&mut stream, 20, rest), StreamVerdict::Release(frames));
    assert_eq!(stream.next_to_carry(), START.wrapping_add(REQUEST.len() as u32));
    assert_eq!(say(&mut stream, 0, REQUEST), StreamVerdict::Carry, "said again, it is carried again");
    assert_eq!(say(&mut stream, REQUEST.len(), REQUEST), StreamVerdict::Carry);
}

// Mutation tried: without comparing what is said again.
#[test]
fn other_bytes_never_take_the_place_of_those_that_were_read() {
    let mut stream = accepted();
    assert_eq!(say(&mut stream, 0, REQUEST), StreamVerdict::Carry);
    let other = b"GET / HTTP/1.1\r\nHost: x.y\r\n\r\n";
    assert_eq!(say(&mut stream, 0, other), StreamVerdict::Lose);
    assert_eq!(say(&mut stream, 22, b"x.y\r\n\r\n"), StreamVerdict::Lose);
    assert_eq!(
        say(&mut stream, 22, b"a.b\r\n\r\nPOST / HTTP/1.1\r\nHost: x.y\r\n\r\n"),
        StreamVerdict::Refuse(Some("x.y".into()))
    );
}

// Mutations tried: `accepted` by any number; data before it.
#[test]
fn nothing_is_read_until_the_connection_that_was_asked_for_is_accepted() {
    let mut stream = ClientStream::asked(ASKED, None);
    assert!(stream.is_awaiting(ASKED) && !stream.is_awaiting(START));
    assert_eq!(hear(&mut stream, &tcp(SITE, 1, 80, ACK)), StreamVerdict::Carry, "an acknowledgement");
    assert_eq!(say(&mut stream, 0, REQUEST), StreamVerdict::Lose);
    stream.accepted(START.wrapping_add(100), FIRST);
    assert_eq!(say(&mut stream, 0, REQUEST), StreamVerdict::Lose);
    stream.accepted(START, FIRST);
    assert!(!stream.is_awaiting(ASKED), "asked again, it is another connection");
    assert_eq!(say(&mut stream, 0, REQUEST), StreamVerdict::Carry);
}

// The stack takes a question that it has answered for a late repetition, and goes on with its connection. Mutation tried:
// without `earlier`, what it has already and what is read part here.
#[test]
fn a_repeated_acceptance_is_not_of_the_connection_that_is_asked_for_now() {
    let mut stream = accepted();
    assert_eq!(say(&mut stream, 0, REQUEST), StreamVerdict::Carry);
    for _ in 0..2 {
        stream = ClientStream::asked(ASKED, Some(&stream));
        stream.accepted(START, FIRST);
        assert_eq!(say(&mut stream, 0, REQUEST), StreamVerdict::Lose);
    }
    stream.accepted(START, Acceptance { number: 2000, order: 1 });
    assert_eq!(say(&mut stream, 0, REQUEST), StreamVerdict::Carry);
}

#[test]
fn what_is_acknowledged_is_forgotten() {
    let mut stream = accepted();
    let count = REQUEST.len() as u32;
    assert_eq!(say(&mut stream, 0, REQUEST), StreamVerdict::Carry);
    stream.acknowledged(START.wrapping_add(count + 1));
    assert_eq!(stream.unacknowledged.len(), REQUEST.len(), "more than was carried");
    stream.acknowledged(START.wrapping_add(10));
    stream.acknowledged(START.wrapping_add(5));
    assert_eq!(stream.unacknowledged, REQUEST[10..]);
    assert_eq!(say(&mut stream, 0, REQUEST), StreamVerdict::Carry, "the stack takes the rest of it");
    assert_eq!(say(&mut stream, 0, b"other"), StreamVerdict::Carry, "the stack takes nothing of it");
    stream.acknowledged(START.wrapping_add(count));
    assert!(stream.unacknowledged.is_empty());
    let both = [&REQUEST[20..], REQUEST].concat();
    assert_eq!(say(&mut stream, 20, &both), StreamVerdict::Carry, "old and new in one segment");
    assert_eq!(stream.unacknowledged, REQUEST);
}

// Mutations tried: urgent data read; without a bound of what waits, of frames or of bytes.
#[test]
fn a_greeting_that_cannot_be_completed_ends_the_connection() {
    let mut stream = accepted();
    assert_eq!(say(&mut stream, 0, b"GET / "), StreamVerdict::Hold);
    assert_eq!(hear(&mut stream, &tcp(SITE, 1, 80, ACK | FIN)), StreamVerdict::Refuse(None));
    let mut stream = accepted();
    let mut urgent = at(0, REQUEST);
    urgent[14 + 20 + 13] |= URGENT;
    assert_eq!(hear(&mut stream, &urgent), StreamVerdict::Lose);
    let mut stream = accepted();
    let last = (0..100).find(|at| say(&mut stream, *at, b"a") != StreamVerdict::Hold);
    assert_eq!(last, Some(MAX_HELD));
    let mut stream = accepted();
    say(&mut stream, 0, b"POST / HTTP/1.1\r\nHost: a.b\r\nContent-Length: 999999\r\n\r\n");
    let mut next = stream.unacknowledged.len();
    while say(&mut stream, next, &[0; 1000]) == StreamVerdict::Carry {
        next += 1000;
        assert!(next <= MAX_UNACKNOWLEDGED);
    }
}

// Mutation tried: `acknowledged` that stays behind once nothing is read any more fails at the sixteenth.
#[test]
fn what_is_not_read_any_more_flows_for_ever() {
    let mut stream = accepted();
    assert_eq!(say(&mut stream, 0, b"SSH-2.0-x\r\n"), StreamVerdict::Carry);
    assert_eq!(say(&mut stream, 11, b"5678 "), StreamVerdict::Carry);
    stream.acknowledged(START.wrapping_add(16));
    for lap in 1..20u32 {
        // The sixteenth is again where the first bytes were.
        let next = lap.wrapping_mul(0x3000_0000);
        stream.acknowledged(START.wrapping_add(next));
        assert_eq!(say(&mut stream, next as usize, b"other bytes"), StreamVerdict::Carry, "{next:#x}");
    }
}

proptest! {
    // The receiver may lose any frame, and the guest say anything anywhere: each byte that is carried at a place is the one
    // that was read there first, up to what the receiver has acknowledged.
    #[test]
    fn what_arrives_is_what_was_read(
        pieces in proptest::collection::vec((0usize..90, 1usize..40, 0u8..8, 0usize..90), 1..80),
    ) {
        let said = [REQUEST, REQUEST, b"GET / HTTP/1.1\r\nHost: evil\r\n\r\n"].concat();
        let mut stream = accepted();
        let (mut arrived, mut acknowledged): (Vec<Option<u8>>, usize) = (vec![None; 300], 0);
        for (start, length, kind, acknowledge) in pieces {
            let mut piece = said[start.min(said.len() - 1)..(start + length).min(said.len())].to_vec();
            if kind == 0 {
                piece[0] ^= 1;
            }
            let carried = match say(&mut stream, start, &piece) {
                StreamVerdict::Carry => vec![at(start, &piece)],
                StreamVerdict::Release(frames) => frames,
                StreamVerdict::Refuse(_) => break,
                StreamVerdict::Hold | StreamVerdict::Lose => continue,
            };
            for frame in carried {
                let segment = TcpSegment::read(&frame).unwrap();
                let offset = segment.sequence.wrapping_sub(START) as usize;
                for (place, byte) in (offset..).zip(segment.data) {
                    if place >= acknowledged {
                        prop_assert!(arrived[place].is_none_or(|first| first == *byte), "byte {}", place);
                        arrived[place] = Some(*byte);
                    }
                }
            }
            let whole = arrived.iter().take_while(|byte| byte.is_some()).count();
            acknowledged = acknowledged.max(acknowledge.min(whole));
            stream.acknowledged(START.wrapping_add(acknowledged as u32));
        }
        let text: Vec<u8> = arrived.into_iter().map_while(|byte| byte).collect();
        prop_assert!(!text.windows(4).any(|window| window == b"evil"), "{:?}", String::from_utf8_lossy(&text));
    }
}

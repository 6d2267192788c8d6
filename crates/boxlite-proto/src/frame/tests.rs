use proptest::prelude::*;

use super::*;
use crate::{ExecSpec, FromGuest, Op, ShimRequest, ToGuest, WinSize};

fn streams() -> impl Strategy<Value = Stream> {
    prop_oneof![Just(Stream::Stdin), Just(Stream::Stdout), Just(Stream::Stderr)]
}

fn frames() -> impl Strategy<Value = Frame> {
    let bytes = prop::collection::vec(any::<u8>(), 1..2000);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..2000).prop_map(Frame::Control),
        Just(Frame::Control(vec![7; MAX_PAYLOAD * 2 + 5])),
        Just(Frame::Control(vec![8; MAX_PAYLOAD * 2])),
        (any::<u32>(), streams(), bytes).prop_map(|(channel, stream, bytes)| Frame::Data {
            channel,
            stream,
            bytes
        }),
        (any::<u32>(), streams(), any::<u32>()).prop_map(|(channel, stream, bytes)| Frame::Credit {
            channel,
            stream,
            bytes
        }),
        (any::<u32>(), streams()).prop_map(|(channel, stream)| Frame::Eof { channel, stream }),
        (any::<u32>(), streams()).prop_map(|(channel, stream)| Frame::Close { channel, stream }),
    ]
}

fn decode_in_pieces(wire: &[u8], cuts: &[usize]) -> Result<Vec<Frame>, ProtoError> {
    let mut decoder = Decoder::new();
    let mut out = Vec::new();
    let mut rest = wire;
    let mut cuts = cuts.iter().cycle();
    while !rest.is_empty() {
        let (mut piece, tail) = rest.split_at((*cuts.next().unwrap()).clamp(1, rest.len()));
        while let Some(frame) = decoder.next(&mut piece)? {
            out.push(frame);
        }
        assert!(piece.is_empty());
        rest = tail;
    }
    assert!(decoder.is_at_boundary());
    Ok(out)
}

proptest! {
    #[test]
    fn frames_survive_any_split(frames in prop::collection::vec(frames(), 0..12),
                                cuts in prop::collection::vec(1usize..5000, 1..20)) {
        let mut wire = Vec::new();
        for frame in &frames {
            frame.encode(&mut wire);
        }
        prop_assert_eq!(decode_in_pieces(&wire, &cuts).unwrap(), frames);
    }

    /// Nothing is kept beyond what a frame and a control message may hold, and an error is final.
    #[test]
    fn garbage_never_panics_and_stays_bounded(wire in prop::collection::vec(any::<u8>(), 0..4000),
                                              cut in 1usize..300) {
        let mut decoder = Decoder::new();
        'pieces: for mut piece in wire.chunks(cut) {
            loop {
                let outcome = decoder.next(&mut piece);
                let bounded = decoder.payload.len() <= MAX_PAYLOAD && decoder.control.len() <= MAX_CONTROL;
                prop_assert!(bounded);
                match outcome {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => {
                        prop_assert_eq!(decoder.next(&mut &[0u8; 64][..]), Err(error));
                        break 'pieces;
                    }
                }
            }
        }
    }

    #[test]
    fn a_flipped_byte_never_panics(frames in prop::collection::vec(frames(), 1..4), at in any::<prop::sample::Index>(),
                                   with in any::<u8>()) {
        let mut wire = Vec::new();
        for frame in &frames {
            frame.encode(&mut wire);
        }
        let at = at.index(wire.len());
        wire[at] ^= with;
        let mut decoder = Decoder::new();
        let mut input = &wire[..];
        while let Ok(Some(frame)) = decoder.next(&mut input) {
            if let Frame::Control(json) = frame {
                let _ = Frame::parse_control::<ToGuest>(&json);
                let _ = Frame::parse_control::<FromGuest>(&json);
            }
        }
    }
}

/// Mutation tried: the length check in `check_header` left out.
#[test]
fn an_oversize_payload_is_refused_before_it_is_read() {
    let mut header = Vec::new();
    header.extend_from_slice(&(MAX_PAYLOAD as u32 + 1).to_le_bytes());
    header.extend_from_slice(&[KIND_DATA, 0, 0, 0, 0]);
    let refused = Decoder::new().next(&mut &header[..]);
    assert_eq!(refused, Err(ProtoError::Oversize { length: 65537, limit: 65536 }));
}

#[test]
fn endless_control_parts_are_refused() {
    let mut part = Vec::new();
    put(&mut part, KIND_CONTROL_PART, 0, &vec![b' '; MAX_PAYLOAD]);
    let mut decoder = Decoder::new();
    let parts = (0..100).take_while(|_| decoder.next(&mut &part[..]) == Ok(None)).count();
    assert_eq!(parts, MAX_CONTROL / MAX_PAYLOAD);
    assert!(matches!(decoder.next(&mut &part[..]), Err(ProtoError::ControlOversize { .. })));
}

#[test]
fn empty_control_parts_do_not_spin() {
    let mut wire = Vec::new();
    put(&mut wire, KIND_CONTROL_PART, 0, &[]);
    assert!(matches!(Decoder::new().next(&mut &wire[..]), Err(ProtoError::Payload { .. })));
}

#[test]
fn data_above_the_cap_is_split() {
    let bytes: Vec<u8> = (0..=MAX_PAYLOAD * 3).map(|i| i as u8).collect();
    let wire = Frame::Data { channel: 3, stream: Stream::Stderr, bytes: bytes.clone() }.to_bytes();
    let frames = decode_in_pieces(&wire, &[8192]).unwrap();
    assert_eq!(frames.len(), 4);
    let joined: Vec<u8> = frames
        .into_iter()
        .flat_map(|f| match f {
            Frame::Data { channel: 3, stream: Stream::Stderr, bytes } => bytes,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(joined, bytes);
}

#[test]
fn messages_survive() {
    let spec = ExecSpec {
        argv: vec!["sh".into(), "-c".into(), "x".repeat(200_000)],
        tty: Some(WinSize { rows: 24, cols: 80 }),
        ..ExecSpec::default()
    };
    let message = ToGuest::Op(Op::Exec { id: 9, spec: spec.clone() });
    let frame = Frame::control(&message).unwrap();
    let frames = decode_in_pieces(&frame.to_bytes(), &[1000]).unwrap();
    let [Frame::Control(json)] = &frames[..] else { panic!("{} frames", frames.len()) };
    assert_eq!(Frame::parse_control::<ToGuest>(json).unwrap(), message);

    let request = ShimRequest::Op(Op::Exec { id: 9, spec }.with_id(12));
    let Frame::Control(json) = Frame::control(&request).unwrap() else { unreachable!() };
    let ShimRequest::Op(op) = Frame::parse_control(&json).unwrap() else { panic!() };
    assert_eq!(op.id(), 12);
    assert!(Frame::parse_control::<FromGuest>(&json).is_err());
}

#[test]
fn an_oversize_message_is_refused_by_its_sender() {
    let spec = ExecSpec { argv: vec!["x".repeat(MAX_CONTROL)], ..ExecSpec::default() };
    assert!(matches!(Frame::control(&Op::Exec { id: 1, spec }), Err(ProtoError::ControlOversize { .. })));
}

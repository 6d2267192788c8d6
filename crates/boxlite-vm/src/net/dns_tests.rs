use proptest::prelude::*;

use super::super::oracle::name_query as query;
use super::*;

/// An answer to `query`: an alias, and then these addresses.
fn answer(query: &[u8], addresses: &[[u8; 4]]) -> Vec<u8> {
    let mut message = query.to_vec();
    message[2..4].copy_from_slice(&[0x81, 0x80]);
    message[7] = addresses.len() as u8 + 1;
    message.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 2, 0xc0, 12]);
    for address in addresses {
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4]);
        message.extend(address);
    }
    message
}

fn read(message: &[u8]) -> Option<(Question, Vec<AddressRecord>)> {
    let question = question_of_answer(message)?;
    let records = addresses(message, &question);
    Some((question, records))
}

#[test]
fn a_question_and_its_addresses_are_read() {
    let query = query("Api.Example.com");
    let question = question_of_query(&query).unwrap();
    assert_eq!((question.name.as_str(), question.end), ("api.example.com", query.len()));
    let (answered, records) = read(&answer(&query, &[[1, 2, 3, 4], [5, 6, 7, 8]])).unwrap();
    assert!(answered.is_same(&question));
    let found: Vec<_> = records.iter().map(|record| (record.address.octets(), record.seconds)).collect();
    assert_eq!(found, [([1, 2, 3, 4], 256), ([5, 6, 7, 8], 256)]);
    assert_eq!(question_of_answer(&query), None, "a query answers nothing");
    assert_eq!(question_of_query(&answer(&query, &[])), None, "an answer asks nothing");
    let mut failed = answer(&query, &[[1, 2, 3, 4]]);
    failed[3] |= 3;
    assert!(read(&failed).unwrap().1.is_empty(), "an error gives no address");
}

// Mutation tried: a dot as an ordinary letter.
#[test]
fn what_other_readers_could_read_otherwise_is_no_question() {
    let good = query("a.b");
    for (at, byte) in [(5, 2), (2, 0x28), (12, 0xc0), (12, 0x41), (13, b'.'), (13, 0), (13, b' ')] {
        let mut message = good.clone();
        message[at] = byte;
        assert_eq!(question_of_query(&message), None, "byte {at} as {byte:#x}");
    }
    assert_eq!(question_of_query(&good[..good.len() - 1]), None);
    assert_eq!(question_of_query(&query(&"a.".repeat(130))), None, "a name that is too long");
}

#[test]
fn questions_of_services_are_told_apart() {
    let mut query = query("a.b");
    assert!(!question_of_query(&query).unwrap().is_of_service());
    let at = query.len() - 3;
    query[at] = 65;
    assert!(question_of_query(&query).unwrap().is_of_service());
}

#[test]
fn an_own_answer_repeats_the_question_and_nothing_else() {
    let mut query = query("a.b");
    let question = question_of_query(&query).unwrap();
    query[11] = 1;
    query.extend([0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0]);
    let own = own_answer(&query, &question, OwnAnswer::NoSuchName);
    assert_eq!(own[..4], [0xab, 0xcd, 0x81, 0x83]);
    assert_eq!(own[4..12], [0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(own[12..], query[12..question.end]);
}

// Mutation tried: following pointers, which need not end, instead of stepping over them.
#[test]
fn names_that_point_at_themselves_end() {
    let query = query("a.b");
    let mut message = answer(&query, &[]);
    let at = message.len() as u8;
    message[7] = 2;
    message.extend([1, b'x', 0xc0, at, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 9, 9, 9, 9]);
    assert_eq!(read(&message).unwrap().1.len(), 1);
}

// Mutation tried: without a bound of records.
#[test]
fn many_answers_are_read_up_to_a_bound() {
    let mut message = query("a.b");
    message[2..8].copy_from_slice(&[0x81, 0x80, 0, 1, 0xff, 0xff]);
    for number in 0..4000u16 {
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 9, 9]);
        message.extend(number.to_be_bytes());
    }
    assert_eq!(read(&message).unwrap().1.len(), usize::from(MAX_RECORDS));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120), cut in 0usize..80) {
        let _ = (question_of_query(&bytes), read(&bytes));
        let whole = answer(&query("api.example.com"), &[[1, 2, 3, 4]]);
        let cut = &whole[..cut.min(whole.len())];
        if let Some((_, records)) = read(cut) {
            prop_assert!(records.len() <= 1);
        }
        let mut changed = whole.clone();
        for (place, byte) in changed.iter_mut().skip(12).zip(&bytes) {
            *place ^= byte;
        }
        if let Some((question, _)) = read(&changed) {
            prop_assert!(question.name.bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }
}

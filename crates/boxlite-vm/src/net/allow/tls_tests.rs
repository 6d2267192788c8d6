use proptest::prelude::*;

use super::*;

fn vector(bytes: usize, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32).to_be_bytes();
    [&length[4 - bytes..], body].concat()
}

fn extension(kind: usize, body: &[u8]) -> Vec<u8> {
    [&(kind as u16).to_be_bytes()[..], &vector(2, body)].concat()
}

fn server_names(names: &[(u8, &str)]) -> Vec<u8> {
    let list: Vec<u8> =
        names.iter().flat_map(|(kind, name)| [&[*kind][..], &vector(2, name.as_bytes())].concat()).collect();
    extension(SERVER_NAME, &vector(2, &list))
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind, 3, 3][..], &vector(2, content)].concat()
}

/// A client's hello with these extensions, in records of at most `most` bytes.
fn hello(extensions: &[u8], most: usize) -> Vec<u8> {
    let body = [
        &[3, 3][..],
        &[7; 32],
        &vector(1, &[9; 32]),
        &vector(2, &[0x13, 1]),
        &vector(1, &[0]),
        &vector(2, &[&extension(10, &[0, 2, 0, 29])[..], extensions].concat()),
    ]
    .concat();
    let message = [&[CLIENT_HELLO][..], &vector(3, &body)].concat();
    message.chunks(most).flat_map(|piece| record(HANDSHAKE, piece)).collect()
}

fn named(name: &str, most: usize) -> Vec<u8> {
    hello(&server_names(&[(0, name)]), most)
}

fn read(bytes: &[u8]) -> Result<HelloFinding, Nameless> {
    ClientRecords::default().read(bytes)
}

fn asks(name: &str) -> HelloFinding {
    HelloFinding::Asks(name.into())
}

// Mutation tried: forgetting the message at each record.
#[test]
fn a_hello_names_its_server_in_however_many_records_and_pieces() {
    for most in [1, 7, 50, 16 * 1024] {
        let hello = named("Api.Example.com.", most);
        assert_eq!(read(&hello), Ok(asks("api.example.com")));
        for cut in 0..hello.len() {
            let mut records = ClientRecords::default();
            assert_eq!(records.read(&hello[..cut]), Ok(HelloFinding::Incomplete), "{cut} of {}", hello.len());
            assert!(records.is_within_hello());
            assert_eq!(records.read(&hello[cut..]), Ok(asks("api.example.com")), "{cut} of {}", hello.len());
            assert!(!records.is_within_hello());
        }
    }
}

// Mutations tried, each of which fails here: the first or the last of two names; the extensions' end not checked; early data
// or encrypted hellos not looked for.
#[test]
fn a_hello_that_hides_its_server_or_could_be_read_in_two_ways_names_nobody() {
    let name = server_names(&[(0, "a.b")]);
    for extensions in [
        vec![],
        server_names(&[]),
        server_names(&[(1, "a.b")]),
        server_names(&[(0, "a.b"), (0, "c.d")]),
        [&name[..], &server_names(&[(0, "c.d")])].concat(),
        [&name[..], &extension(0xfe0d, &[0; 40])].concat(),
        [&name[..], &extension(0xffce, &[0; 40])].concat(),
        [&name[..], &extension(42, &[])].concat(),
        [&name[..], &[0, 0]].concat(),
        server_names(&[(0, "a\0b")]),
        server_names(&[(0, "")]),
        extension(SERVER_NAME, &[&vector(2, &[&[0][..], &vector(2, b"a.b")].concat())[..], &[0]].concat()),
    ] {
        assert_eq!(read(&hello(&extensions, 999)), Err(Nameless), "{extensions:02x?}");
    }
    let good = named("a.b", 999);
    for (at, byte) in [(0, 23), (0, 20), (0, 25), (1, 2), (5, 2), (6, 1)] {
        let mut other = good.clone();
        other[at] = byte;
        assert_eq!(read(&other), Err(Nameless), "byte {at} as {byte}");
    }
    let two_messages = [&good[5..], &[CLIENT_HELLO][..]].concat();
    assert_eq!(read(&record(HANDSHAKE, &two_messages)), Err(Nameless), "more than the hello");
    assert_eq!(read(&record(HANDSHAKE, &[])), Err(Nameless), "an empty record");
    assert_eq!(read(&[22, 3, 1, 0xff, 0xff]), Err(Nameless), "a giant record");
    assert_eq!(read(&record(HANDSHAKE, &[1, 0, 0xff, 0xff])), Err(Nameless), "a giant hello");
}

// Mutation tried: `Closed` after the first hello.
#[test]
fn a_second_hello_must_ask_for_the_same_server() {
    let (change, alert) = (record(CHANGE_CIPHER_SPEC, &[1]), record(ALERT, &[1, 0]));
    for between in [vec![], change.clone(), alert, [&change[..], &change].concat()] {
        for most in [1, 999] {
            let mut records = ClientRecords::default();
            assert_eq!(records.read(&named("a.b", 999)), Ok(asks("a.b")));
            assert_eq!(records.read(&between), Ok(HelloFinding::Open));
            assert_eq!(records.read(&named("evil.org", most)), Err(Nameless));
            let mut records = ClientRecords::default();
            let all = [&named("a.b", 999)[..], &between, &named("A.b", most)].concat();
            assert_eq!(records.read(&all), Ok(asks("a.b")));
        }
    }
}

#[test]
fn what_follows_the_hellos_is_not_read() {
    for next in [
        record(APPLICATION_DATA, &[1; 90]),
        record(HANDSHAKE, &[16, 0, 0, 90]),
        record(HANDSHAKE, &[200; 40]),
    ] {
        let mut records = ClientRecords::default();
        records.read(&named("a.b", 999)).unwrap();
        assert_eq!(records.read(&record(CHANGE_CIPHER_SPEC, &[1])), Ok(HelloFinding::Open));
        assert_eq!(records.read(&next), Ok(HelloFinding::Closed));
    }
    let mut records = ClientRecords::default();
    records.read(&named("a.b", 999)).unwrap();
    assert_eq!(records.read(b"GET / HTTP/1.1"), Err(Nameless));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        changes in proptest::collection::vec((0usize..120, any::<u8>()), 0..4),
    ) {
        let mut hello = named("api.example.com", 60);
        for (at, byte) in changes {
            if let Some(place) = hello.get_mut(at) {
                *place = byte;
            }
        }
        let mut records = ClientRecords::default();
        let _ = records.read(&hello).and_then(|_| records.read(&bytes));
        let _ = read(&[&[22, 3, 1][..], &bytes].concat());
    }

    #[test]
    fn nothing_waits_for_ever(filling in any::<u8>()) {
        let mut records = ClientRecords::default();
        let piece = record(HANDSHAKE, &[filling; 200]);
        let read = (0..200).map(|_| records.read(&piece)).take_while(|read| *read == Ok(HelloFinding::Incomplete));
        prop_assert!(read.count() <= MAX_HELLO / 200 + 1);
    }
}

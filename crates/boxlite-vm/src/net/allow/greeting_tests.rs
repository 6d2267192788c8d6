use proptest::prelude::*;

use super::*;

/// Permits names below `ok`, and other protocols where its field says so.
struct Below(bool);

impl Permits for Below {
    fn name(&self, name: &str) -> bool {
        name.strip_suffix(".ok").is_some()
    }

    fn nameless(&self) -> bool {
        self.0
    }
}

fn heard(bytes: &[u8]) -> Heard {
    Greeting::default().read(bytes, &Below(true))
}

#[test]
fn http_may_ask_for_permitted_names_alone_in_each_of_its_requests() {
    let mut greeting = Greeting::default();
    for (said, expected) in [
        ("GET / HTTP/1.1\r\n", Heard::More),
        ("Host: a.ok\r\n\r\nGET /2 HTTP/1.1\r\nHost: b.ok\r\n\r\n", Heard::Fine),
        ("GET /3 HTTP/1.1\r\nHost: a", Heard::More),
        (".ok\r\n\r\nGET /4 HTTP/1.1\r\nHost: evil.org\r\n\r\n", Heard::Refused(Some("evil.org".into()))),
    ] {
        assert_eq!(greeting.read(said.as_bytes(), &Below(false)), expected, "{said:?}");
    }
}

// Mutation tried: without `first`.
#[test]
fn the_first_host_of_a_connection_stays_permitted() {
    struct Once(std::cell::Cell<bool>);
    impl Permits for Once {
        fn name(&self, name: &str) -> bool {
            name == "a.ok" && !self.0.replace(true)
        }
        fn nameless(&self) -> bool {
            false
        }
    }
    let (mut greeting, once) = (Greeting::default(), Once(false.into()));
    let request = b"GET / HTTP/1.1\r\nHost: a.ok\r\n\r\n";
    assert_eq!(greeting.read(request, &once), Heard::Fine);
    assert_eq!(greeting.read(request, &once), Heard::Fine);
    assert_eq!(Greeting::default().read(request, &once), Heard::Refused(Some("a.ok".into())));
}

// Mutations tried, each of which fails here: empty lines, other records, SSL 2, lower case or requests without a version as
// another protocol.
#[test]
fn what_a_lenient_server_could_take_for_http_or_tls_is_no_other_protocol() {
    for said in [
        &b"\r\nGET / HTTP/1.1\r\nHost: a.ok\r\n\r\n"[..],
        b"\nGET / HTTP/1.1\r\n",
        b" GET / HTTP/1.1\r\n",
        b"get / HTTP/1.1\r\nHost: a.ok\r\n\r\n",
        b"get /\r\nX: y\r\n\r\n",
        b"x y http/1.1\r\nHost: a.ok\r\n\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1 HTTP/\r\n\r\n",
        b"\r\n\r\n\0\r\nQUIT\n",
        &[20, 3, 3, 0, 1, 1],
        &[21, 3, 3, 0, 2, 1, 0],
        &[23, 3, 3, 0, 1, 0],
        &[24, 3, 3, 0, 1, 0],
        &[0x80, 46, 1, 0, 2],
        &[22, 2, 0, 0, 1],
        &[b'a'; MAX_LINE],
    ] {
        assert_eq!(heard(said), Heard::Refused(None), "{said:?}");
    }
}

#[test]
fn another_protocol_passes_where_it_is_permitted() {
    for said in [
        &b"SSH-2.0-x\r\n"[..],
        b"EHLO a\r\n",
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        b"a001 LOGIN\n",
        b"*1\r\n",
        b"\xff\0\0\0",
    ] {
        assert_eq!(heard(said), Heard::Fine, "{said:?}");
        assert_eq!(Greeting::default().read(said, &Below(false)), Heard::Refused(None), "{said:?}");
    }
    for said in [&b"SSH-2.0"[..], b"G", b"\xff", b"\x80\x01"] {
        assert_eq!(heard(said), Heard::More, "{said:?}");
    }
}

#[test]
fn tls_may_ask_for_permitted_names_alone() {
    // The hello of OpenSSL 3.0 for `a.ok` and TLS 1.2, shortened by its ciphers and extensions.
    let body =
        [&[3, 3][..], &[5; 32], &[0, 0, 2, 0xc0, 0x2f, 1, 0, 0, 13], &[0, 0, 0, 9, 0, 7, 0, 0, 4], b"a.ok"]
            .concat();
    let length = body.len() as u8;
    let hello = [&[22, 3, 1, 0, length + 4, 1, 0, 0, length], &body[..]].concat();
    for cut in 1..hello.len() {
        let mut greeting = Greeting::default();
        assert_eq!(greeting.read(&hello[..cut], &Below(false)), Heard::More);
        assert_eq!(greeting.read(&hello[cut..], &Below(false)), Heard::Fine);
        assert!(!greeting.is_over());
        assert_eq!(greeting.read(&[23, 3, 3, 0, 1, 0], &Below(false)), Heard::Fine);
        assert!(greeting.is_over());
    }
    let other = [&hello[..hello.len() - 1], b"x"].concat();
    assert_eq!(heard(&other), Heard::Refused(Some("a.ox".into())));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_wait_without_end(
        start in proptest::sample::select(vec![&b""[..], b"\x16\x03\x01", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x40\x00\x01\x00\x3f\x00", b"\x80"]),
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        filling in any::<u8>(),
    ) {
        let mut greeting = Greeting::default();
        let mut last = greeting.read(&[start, &bytes].concat(), &Below(true));
        for _ in 0..40 {
            if last == Heard::More {
                last = greeting.read(&[filling; 1000], &Below(true));
            }
        }
        prop_assert_ne!(last, Heard::More);
    }
}

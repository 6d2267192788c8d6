use proptest::prelude::*;

use super::*;

/// Returns the hosts that a connection asks for when it says this, piece by piece.
fn hosts(pieces: &[&[u8]]) -> Result<Vec<String>, Malformed> {
    let (mut requests, mut hosts) = (Requests::new(), Vec::new());
    for piece in pieces {
        requests.read(piece, |host| {
            hosts.push(host.to_owned());
            true
        })?;
    }
    Ok(hosts)
}

fn said(text: &str) -> Result<Vec<String>, Malformed> {
    hosts(&[text.as_bytes()])
}

const SESSION: &[u8] = b"POST /x HTTP/1.1\r\nHost: a.b\r\nContent-Length: 22\r\n\r\nGET / HTTP/1.1\r\nHost: X\
    GET / HTTP/1.1\r\naccept: *\r\nhOst: C.d:8080\r\n\r\n\
    PUT /y HTTP/1.1\r\nHost:e.f.\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n1A\r\nGET / HTTP/1.1\r\nHost: evil\r\n0\r\n\r\n\
    GET /z HTTP/1.0\r\nHost: g.h\r\n\r\n";

// Mutations tried: a body that is not stepped over; a chunk's size read as a decimal.
#[test]
fn each_request_of_a_connection_names_its_host() {
    assert_eq!(hosts(&[SESSION]).unwrap(), ["a.b", "c.d", "e.f", "g.h"]);
}

#[test]
fn it_reads_the_same_however_it_is_cut() {
    for cut in 0..SESSION.len() {
        let (start, end) = SESSION.split_at(cut);
        assert_eq!(hosts(&[start, end]).unwrap().len(), 4, "cut at {cut}");
    }
    let bytes: Vec<&[u8]> = SESSION.chunks(1).collect();
    assert_eq!(hosts(&bytes).unwrap(), ["a.b", "c.d", "e.f", "g.h"]);
}

#[test]
fn it_tells_when_a_head_has_begun() {
    let mut requests = Requests::new();
    assert!(!requests.is_within_head());
    for (piece, within) in [
        (&b"POST / HTTP/1.1\r\nHost: a.b\r\nContent-Le"[..], true),
        (b"ngth: 3\r\n\r\nab", false),
        (b"cG", true),
        (b"ET / HTTP/1.1\r\nHost: a.b\r\n\r\n", false),
    ] {
        requests.read(piece, |_| true).unwrap();
        assert_eq!(requests.is_within_head(), within, "{piece:?}");
    }
}

// Mutation tried: going on after a host that `meet` refuses.
#[test]
fn a_host_that_is_refused_ends_the_reading() {
    let mut met = Vec::new();
    let read = Requests::new().read(SESSION, |host| {
        met.push(host.to_owned());
        host == "a.b"
    });
    assert_eq!((read, met), (Ok(false), vec!["a.b".to_owned(), "c.d".to_owned()]));
}

// Mutations tried, each of which fails here: taking the first or last of two fields; trimming a field's name; a bare line
// feed as the end of a line; `number` by `parse` alone; requests without a path; a coding with a length; HTTP/1.0 with chunks.
#[test]
fn what_servers_could_read_in_two_ways_is_malformed() {
    for head in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\nX: y\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\nX\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\nGET / HTTP/1.1\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\rHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET http://evil.org/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT evil.org:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "get / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\tx HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        "GET /\r\nHost: a\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        assert_eq!(said(head), Err(Malformed), "{head:?}");
    }
    for chunks in [
        "g\r\n",
        "\r\n",
        " 1\r\n",
        "1 \r\n",
        "1;x=y\r\n",
        "1\n",
        "0x1\r\n",
        "-1\r\n",
        "1\r\nab",
        "0\r\nX: y\r\n",
        "1\r\na\n",
        "0000000000000000\r\n",
    ] {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        assert_eq!(said(&text), Err(Malformed), "{chunks:?}");
    }
}

// Mutation tried: a bound of twice as much.
#[test]
fn a_head_has_a_bound() {
    let fields = "x: y\r\n".repeat(MAX_HEAD / 6);
    assert_eq!(said(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")), Err(Malformed));
    let mut requests = Requests::new();
    let endless = std::iter::repeat_n(b"GET /aaaaaaaaaaaa".as_slice(), MAX_HEAD);
    let read = endless.map(|piece| requests.read(piece, |_| true)).take_while(Result::is_ok).count();
    assert!(read <= MAX_HEAD / 17, "{read} pieces");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        starts in proptest::collection::vec(proptest::sample::select(vec![
            &b"GET / HTTP/1.1\r\n"[..], b"Host: a\r\n", b"\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n",
            b"5\r\n", b"0\r\n", b"\n", b"\r", b"ffffffffffffff\r\n",
        ]), 0..30),
        bytes in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut requests = Requests::new();
        for piece in starts.iter().copied().chain([&bytes[..]]) {
            if requests.read(piece, |_| true).is_err() {
                break;
            }
        }
    }

    #[test]
    fn what_is_cut_anywhere_reads_as_the_whole(
        cuts in proptest::collection::vec(1usize..60, 1..20),
        change in proptest::option::of((0usize..SESSION.len(), any::<u8>())),
    ) {
        let mut session = SESSION.to_vec();
        if let Some((at, byte)) = change {
            session[at] = byte;
        }
        let (mut pieces, mut rest) = (Vec::new(), &session[..]);
        for cut in cuts {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces.push(rest);
        prop_assert_eq!(hosts(&pieces).ok(), hosts(&[&session]).ok());
    }
}

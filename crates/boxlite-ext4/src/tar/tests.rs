use std::io::BufReader;

use proptest::prelude::*;

use super::header::number;
use super::*;

fn block(typeflag: u8, name: &[u8], size: u64) -> [u8; 512] {
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name);
    block[100..108].copy_from_slice(b"0000644\0");
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[156] = typeflag;
    block[257..265].copy_from_slice(b"ustar\x0000");
    sealed(block)
}

fn sealed(mut block: [u8; 512]) -> [u8; 512] {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// A pax header of lines `KEY=VALUE`.
fn pax(lines: &str) -> Vec<u8> {
    let mut records = String::new();
    for line in lines.lines() {
        let length =
            (0..99).find(|length: &usize| length.to_string().len() + line.len() + 2 == *length).unwrap();
        records.extend([length.to_string().as_str(), " ", line, "\n"]);
    }
    [&block(b'x', b"pax", records.len() as u64)[..], &padded(records.as_bytes())].concat()
}

type NameAndContent = (Vec<u8>, Vec<u8>);

/// Reads everything: names with their content. The reader must come to an end, whatever the bytes are.
fn read(archive: &[u8], capacity: usize) -> Result<Vec<NameAndContent>, TarError> {
    let mut reader = TarReader::new(BufReader::with_capacity(capacity, archive));
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        loop {
            let data = reader.data()?;
            if data.is_empty() {
                break;
            }
            content.extend_from_slice(data);
            let count = data.len();
            reader.consume(count);
        }
        if let Some(segments) = &entry.segments {
            assert_eq!(segments.iter().map(|segment| segment.length).sum::<u64>(), content.len() as u64);
        }
        all.push((entry.name, content));
    }
    assert!(reader.position <= archive.len() as u64);
    Ok(all)
}

#[test]
fn numbers_in_all_their_forms() {
    for (field, expected) in [
        (&b"0000644\0"[..], Some(0o644)),
        (b"    644 ", Some(0o644)),
        (b"644\0junk", Some(0o644)),
        (b"\0\0\0\0", Some(0)),
        (b"        ", Some(0)),
        (b"77777777", Some(0o7777_7777)),
        (b"0000008\0", None),
        (b"-000001\0", None),
        (b"\x80\0\0\0\0\0\x01\0", Some(256)),
        (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
        (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
        (b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", None),
        (b"\x80\0\0\x01\0\0\0\0\0\0\0\0", None),
        (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", Some(i64::MIN)),
        (b"\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff", None),
    ] {
        assert_eq!(number(field), expected, "{}", field.escape_ascii());
    }
}

#[test]
fn gnu_names_win_over_pax_and_pax_over_the_header() {
    let long =
        |typeflag, text: &[u8]| [&block(typeflag, b"long", text.len() as u64)[..], &padded(text)].concat();
    let archive = [
        pax("path=pax"),
        block(b'0', b"header", 0).to_vec(),
        pax("path=pax"),
        long(b'L', b"gnu\0"),
        block(b'0', b"header", 0).to_vec(),
        pax("path=pax\npath="),
        block(b'0', b"header", 0).to_vec(),
        block(b'0', b"next", 0).to_vec(),
    ]
    .concat();
    let names: Vec<_> = read(&archive, 512).unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [&b"pax"[..], b"gnu", b"header", b"next"]);
}

#[test]
fn global_headers_have_no_effect() {
    let mut global = pax("path=pax");
    global[156] = b'g';
    let head: [u8; 512] = global[..512].try_into().unwrap();
    global[..512].copy_from_slice(&sealed(head));
    let archive = [global, block(b'0', b"name", 3).to_vec(), padded(b"abc")].concat();
    assert_eq!(read(&archive, 100).unwrap(), [(b"name".to_vec(), b"abc".to_vec())]);
}

/// Go before 1.8 wrote this; images of that age exist.
#[test]
fn a_prefix_under_gnu_magic_is_a_prefix() {
    let mut head = block(b'0', b"name", 0);
    head[257..265].copy_from_slice(b"ustar  \0");
    head[345..354].copy_from_slice(b"directory");
    assert_eq!(read(&sealed(head), 512).unwrap()[0].0, b"directory/name");
    head[345..357].copy_from_slice(b"14000000000\0");
    assert_eq!(read(&sealed(head), 512).unwrap()[0].0, b"name");
}

#[test]
fn links_and_directories_carry_no_data_whatever_they_say() {
    let archive = [block(b'5', b"dir", 700), block(b'1', b"link", 700), block(b'0', b"file", 0)].concat();
    assert_eq!(read(&archive, 512).unwrap().len(), 3);
}

/// `umoci insert` of Debian 12 writes such archives. Mutation tried: a reader that insists on the padding.
#[test]
fn the_padding_of_the_last_entry_may_be_missing() {
    let whole =
        [block(b'0', b"first", 3).to_vec(), padded(b"abc"), block(b'0', b"last", 700).to_vec(), vec![7; 700]]
            .concat();
    for padding in [0, 1, 323, 324] {
        let archive = [whole.clone(), vec![0; padding]].concat();
        let read = read(&archive, 512).unwrap();
        assert_eq!(read[1], (b"last".to_vec(), vec![7; 700]), "with {padding} bytes of padding");
    }
    assert!(
        matches!(read(&whole[..whole.len() - 1], 512), Err(TarError::Truncated(_))),
        "content is missing"
    );
}

#[test]
fn an_extended_header_needs_an_entry() {
    assert!(matches!(read(&pax("path=pax"), 512), Err(TarError::Truncated(_))));
    let archive = [pax("path=pax"), vec![0; 1024]].concat();
    assert!(matches!(read(&archive, 512), Err(TarError::Truncated(_))));
}

#[test]
fn one_block_of_zeros_is_no_end() {
    let archive = [vec![0; 512], block(b'0', b"file", 0).to_vec()].concat();
    assert!(matches!(read(&archive, 512), Err(TarError::Corrupt { position: 0, .. })));
    assert!(read(&[0; 512], 512).unwrap().is_empty());
}

/// An archive with an entry of every kind that takes a path of its own through the reader.
fn specimen() -> Vec<u8> {
    let mut old_sparse = block(b'S', b"old-sparse", 512 + 5);
    old_sparse[257..265].copy_from_slice(b"ustar  \0");
    old_sparse[386..398].copy_from_slice(b"00000000000\0");
    old_sparse[398..410].copy_from_slice(b"00000001000\0");
    old_sparse[482] = 1;
    old_sparse[483..495].copy_from_slice(b"00000100000\0");
    let mut extension = [0; 512];
    extension[..12].copy_from_slice(b"00000010000\0");
    extension[12..24].copy_from_slice(b"00000000005\0");
    [
        block(b'5', b"dir", 0).to_vec(),
        block(b'0', b"file", 700).to_vec(),
        padded(&[7; 700]),
        pax("path=pax\nsize=600\nmtime=1234567890.123456789\nSCHILY.xattr.user.a=b"),
        block(b'0', b"x", 0).to_vec(),
        padded(&[8; 600]),
        block(b'L', b"l", 5).to_vec(),
        padded(b"long\0"),
        block(b'2', b"x", 0).to_vec(),
        sealed(old_sparse).to_vec(),
        extension.to_vec(),
        padded(&[9; 517]),
        pax("GNU.sparse.major=1\nGNU.sparse.minor=0\nGNU.sparse.name=named\nGNU.sparse.realsize=9000"),
        block(b'0', b"x", 512 + 3).to_vec(),
        padded(b"1\n4096\n3\n"),
        padded(b"abc"),
        pax("GNU.sparse.map=10,5,20"),
        vec![0; 1024],
    ]
    .concat()
}

#[test]
fn the_specimen_reads_up_to_its_broken_end() {
    assert!(matches!(read(&specimen(), 512), Err(TarError::Truncated(_))));
    let whole = &specimen()[..specimen().len() - 2048];
    let names: Vec<_> = read(whole, 512).unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [&b"dir"[..], b"file", b"pax", b"long", b"old-sparse", b"named"]);
}

/// Makes the header checksums right again, so that mutations get past the first gate.
fn resealed(mut archive: Vec<u8>) -> Vec<u8> {
    for start in (0..archive.len().saturating_sub(511)).step_by(512) {
        if &archive[start + 257..start + 262] == b"ustar" {
            let head: [u8; 512] = archive[start..start + 512].try_into().unwrap();
            archive[start..start + 512].copy_from_slice(&sealed(head));
        }
    }
    archive
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// Whatever happens to an archive, reading it ends, in entries or in an error, and never panics.
    #[test]
    fn mutated_archives_end(
        flips in prop::collection::vec((0_usize..6000, any::<u8>()), 0..12),
        cut in prop::option::of(0_usize..6000),
        moved in prop::option::of((0_usize..12, 0_usize..12)),
        reseal in any::<bool>(),
    ) {
        let mut archive = specimen();
        if let Some((from, to)) = moved {
            let block: Vec<u8> = archive[from * 512..(from + 1) * 512].to_vec();
            archive.splice(to * 512..to * 512, block);
        }
        for (position, value) in flips {
            if let Some(byte) = archive.get_mut(position) {
                *byte = value;
            }
        }
        if let Some(cut) = cut {
            archive.truncate(cut);
        }
        if reseal {
            archive = resealed(archive);
        }
        let _ = read(&archive, 512);
    }

    /// The entries that are read do not depend on how the stream is cut into pieces.
    #[test]
    fn pieces_do_not_matter(capacity in 1_usize..3000, flips in prop::collection::vec((0_usize..6000, any::<u8>()), 0..3)) {
        let mut archive = specimen();
        for (position, value) in flips {
            if let Some(byte) = archive.get_mut(position) {
                *byte = value;
            }
        }
        let archive = resealed(archive);
        prop_assert_eq!(format!("{:?}", read(&archive, capacity)), format!("{:?}", read(&archive, 1 << 16)));
    }

    /// Bytes that were never an archive.
    #[test]
    fn noise_ends(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let _ = read(&bytes, 512);
        let _ = pax::PaxRecords::parse(&bytes);
    }
}

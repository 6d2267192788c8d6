use boxlite_types::ErrorKind;

use super::*;
use crate::gc::Catalog;

fn store(records: &[(&str, &str, &[u8])]) -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("boxlite.db")).unwrap();
    for (id, name, record) in records {
        let insert = "INSERT INTO boxes VALUES (?1, ?2, 'sha256:i', 'sha256:d', 1000, CAST(?3 AS TEXT))";
        let insert =
            |transaction: &Transaction<'_>| Ok(transaction.execute(insert, params![id, name, record])?);
        store.write(insert).unwrap();
    }
    (directory, store)
}

/// A record that cannot be read pins nothing, and hides no other box's snapshots.
#[test]
fn snapshots_are_read_out_of_records() {
    let whole = br#"{"id": "cc33", "snapshots": [{"name": "a", "base": "1.qcow2"}, {"name": "b", "base": null}, {"name": "c", "base": "2.qcow2"}]}"#;
    let records: [(&str, &str, &[u8]); 4] = [
        ("aa11", "cut", b"{\"snapshots\": ["),
        ("bb22", "foreign", b"{\"id\": \"\xff\"}"),
        ("cc33", "kept", whole),
        ("dd44", "plain", b"{}"),
    ];
    let (_directory, store) = store(&records);
    let mut found = Vec::new();
    Catalog::snapshots(&store, &mut |id, base| found.push(format!("{id} {base}"))).unwrap();
    assert_eq!(found, ["cc33 1.qcow2", "cc33 2.qcow2"]);
}

/// Mutation tried: failing with the first record that cannot be read.
#[test]
fn a_damaged_record_is_shown_by_its_columns_and_pins_its_image() {
    let (_directory, store) =
        store(&[("aa11", "cut", b"{\"id\": \"aa11"), ("bb22", "foreign", b"{\"id\": \"\xff\"}")]);
    let damaged: Vec<(String, String, String)> = (store.boxes().unwrap().into_iter())
        .map(|listed| match listed {
            ListedBox::Damaged(found) => (found.id, found.name, found.why),
            ListedBox::Whole(record) => panic!("{record:?}"),
        })
        .collect();
    let [(id, name, why), (other, ..)] = &damaged[..] else { panic!("{damaged:?}") };
    assert_eq!((id.as_str(), name.as_str(), other.as_str()), ("aa11", "cut", "bb22"));
    assert!(why.contains("aa11") && why.contains("rm -f"), "{why}");

    for wanted in ["cut", "aa11", "a"] {
        assert_eq!(store.find_box(wanted).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(store.find_box_id(wanted).unwrap(), "aa11");
    }
    assert_eq!(store.find_box_id("").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.find_box_id("nobody").unwrap_err().kind(), ErrorKind::NotFound);
    let mut pinned = Vec::new();
    Catalog::boxes(&store, &mut |pin| pinned.push((pin.id.to_owned(), pin.disk_digest.to_owned()))).unwrap();
    assert_eq!(pinned, [("aa11".to_owned(), "d".to_owned()), ("bb22".to_owned(), "d".to_owned())]);
}

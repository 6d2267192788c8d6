use boxlite_types::{ErrorKind, ImageConfig, Platform};
use jiff::Timestamp;

use super::super::boxes::use_image;
use super::*;
use crate::catalog::Catalog;

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("boxlite.db")).unwrap();
    (directory, store)
}

fn image(name: &str, references: &[&str]) -> Image {
    let layer = |at: u8| Layer {
        digest: Digest::of(&[at]),
        diff_id: Digest::of(&[at, at]),
        media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
        length: u64::from(at),
    };
    Image {
        digest: Digest::of(name.as_bytes()),
        references: references.iter().map(|text| (*text).to_owned()).collect(),
        platform: Platform::host(),
        config: ImageConfig { cmd: vec!["sh".to_owned()], ..ImageConfig::default() },
        // The same layer may occur twice.
        layers: vec![layer(1), layer(2), layer(1)],
        pulled_at: Timestamp::from_millisecond(1_000).unwrap(),
        last_used_at: Timestamp::from_millisecond(1_000).unwrap(),
    }
}

fn insert(store: &Store, image: &Image) {
    let document = |text: &[u8]| Document { digest: Digest::of(text), length: text.len() as u64 };
    store.insert_image(image, document(b"manifest"), document(b"config"), NameOrigin::Source).unwrap();
}

fn with_box(store: &Store, image: &Image) {
    let sql =
        "INSERT INTO boxes (id, name, image, disk_digest, created_at, record) VALUES (?1, ?2, ?3, '', 0, '')";
    let values = ["0123456789abcdef".to_owned(), "web".to_owned(), image.digest.to_string()];
    store.write(|transaction| Ok(transaction.execute(sql, values.clone())?)).unwrap();
}

#[test]
fn what_goes_in_comes_out() {
    let (_directory, store) = store();
    let first = image("first", &["docker.io/library/a:1", "docker.io/library/a:2"]);
    insert(&store, &first);
    assert_eq!(store.image(first.digest).unwrap(), Some(first.clone()));
    assert_eq!(store.image_named("docker.io/library/a:2").unwrap(), Some(first.clone()));
    assert_eq!(store.image_named("a:2").unwrap(), None);
    for blob in [b"manifest".as_slice(), b"config", &[1], &[2]] {
        assert!(store.blob_is_referenced(&Digest::of(blob).hex()).unwrap());
    }
    assert!(!store.blob_is_referenced(&Digest::of(b"other").hex()).unwrap());
    insert(&store, &first);
    assert_eq!(store.images().unwrap().len(), 1);

    let second = image("second", &["docker.io/library/a:1"]);
    insert(&store, &second);
    let names = |image: &Image| store.image(image.digest).unwrap().unwrap().references;
    assert_eq!(names(&first), ["docker.io/library/a:2"], "a name means one image");
    assert_eq!(names(&second), ["docker.io/library/a:1"]);
    assert_eq!(store.images_beginning("").unwrap().len(), 2);
    assert_eq!(store.images_beginning(&first.digest.hex()[..8]).unwrap().len(), 1);
}

#[test]
fn use_is_noted_and_never_goes_back() {
    let (_directory, store) = store();
    let image = image("x", &[]);
    insert(&store, &image);
    let at = |milliseconds| Timestamp::from_millisecond(milliseconds).unwrap();
    for milliseconds in [9_000, 5_000] {
        let digest = image.digest.to_string();
        assert!(store.write(|transaction| use_image(transaction, &digest, at(milliseconds))).unwrap());
    }
    assert_eq!(store.image(image.digest).unwrap().unwrap().last_used_at, at(9_000));
}

/// Mutation tried: leaving out the question for users lets the image go.
#[test]
fn an_image_that_a_box_uses_goes_only_by_force() {
    let (_directory, store) = store();
    let image = image("x", &["docker.io/library/a:1", "docker.io/library/a:2"]);
    insert(&store, &image);
    with_box(&store, &image);
    let remove = |reference: Option<&str>, force| store.remove_image(image.digest, reference, force);
    let untagged = |name: &str| Removal::Untagged(name.to_owned());
    assert_eq!(
        remove(Some("docker.io/library/a:1"), false).unwrap(),
        [untagged("a:1")],
        "another name is left"
    );
    let error = remove(Some("docker.io/library/a:2"), false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("box web (0123456789ab)"), "{error}");
    assert_eq!(remove(None, false).unwrap_err().kind(), ErrorKind::Conflict);
    assert!(store.image(image.digest).unwrap().is_some(), "nothing was lost");
    assert_eq!(remove(None, true).unwrap(), [untagged("a:2"), Removal::Deleted(image.digest)]);
    assert!(!store.blob_is_referenced(&Digest::of(b"manifest").hex()).unwrap());
    assert_eq!(remove(None, true).unwrap_err().kind(), ErrorKind::NotFound);
}

use boxlite_types::{ErrorKind, ImageConfig, Platform};
use jiff::Timestamp;

use super::super::Document;
use super::*;
use crate::catalog::Catalog;

const FOUND: &str = "docker.io/library/found:1";
const GIVEN: &str = "docker.io/library/given:1";

fn insert(store: &Store, name: &str, references: &[&str], origin: NameOrigin) -> Digest {
    try_insert(store, name, references, origin).unwrap()
}

fn try_insert(store: &Store, name: &str, references: &[&str], origin: NameOrigin) -> Result<Digest> {
    let layer = boxlite_types::Layer {
        digest: Digest::of(name.as_bytes()),
        diff_id: Digest::of(name.as_bytes()),
        media_type: String::new(),
        length: 1,
    };
    let image = Image {
        digest: Digest::of(format!("manifest of {name}").as_bytes()),
        references: references.iter().map(|text| (*text).to_owned()).collect(),
        platform: Platform::host(),
        config: ImageConfig::default(),
        layers: vec![layer],
        pulled_at: Timestamp::UNIX_EPOCH,
        last_used_at: Timestamp::UNIX_EPOCH,
    };
    let document = Document { digest: image.digest, length: 1 };
    store.insert_image(&image, document, document, origin)?;
    Ok(image.digest)
}

fn registry_names(store: &Store) -> Vec<Option<String>> {
    let mut names = Vec::new();
    Catalog::images(store, &mut |pin| names.push(pin.registry.map(str::to_owned))).unwrap();
    names.sort();
    names
}

/// Mutation tried: `name_image` without its note of names given here fails this.
#[test]
fn only_a_name_under_which_an_image_was_found_is_a_registrys() {
    let scratch = tempfile::tempdir().unwrap();
    let store = Store::open(&scratch.path().join("boxlite.db")).unwrap();
    let digest = insert(&store, "one", &[FOUND], NameOrigin::Source);
    store.tag_image(digest, GIVEN).unwrap();
    // Given once more, the name under which it was found is still that.
    store.tag_image(digest, FOUND).unwrap();
    assert_eq!(registry_names(&store), [Some(FOUND.to_owned())]);
    assert_eq!(store.registry_names_of_blob(Digest::of(b"one")).unwrap(), [FOUND]);
    store.remove_image(digest, Some(FOUND), false).unwrap();
    assert_eq!(registry_names(&store), [None]);
    assert!(!store.layer_users(&Digest::of(b"one").hex()).unwrap().unwrap()[0].of_registry);
    store.note_pushed(digest, GIVEN).unwrap();
    assert_eq!(registry_names(&store), [Some(GIVEN.to_owned())]);
    // A name that moves to another image says nothing about where that is.
    let other = insert(&store, "two", &[GIVEN], NameOrigin::Here);
    assert_eq!(registry_names(&store), [None, None]);
    store.note_pushed(digest, GIVEN).unwrap();
    assert_eq!(registry_names(&store), [None, None]);
    insert(&store, "two", &[GIVEN], NameOrigin::Source);
    assert_eq!(registry_names(&store), [None, Some(GIVEN.to_owned())]);
    assert_eq!(store.image_named(GIVEN).unwrap().unwrap().digest, other);
    let missing = store.tag_image(Digest::of(b"none"), GIVEN).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[test]
fn a_pull_that_keeps_given_names_moves_none_of_them() {
    let scratch = tempfile::tempdir().unwrap();
    let store = Store::open(&scratch.path().join("boxlite.db")).unwrap();
    let pull =
        |name, references: &[&str]| try_insert(&store, name, references, NameOrigin::SourceUnlessGiven);
    // Before any name was given, and one that was found.
    pull("one", &[FOUND]).unwrap();
    let digest = insert(&store, "two", &[GIVEN], NameOrigin::Here);
    assert_eq!(pull("three", &[GIVEN]).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(store.image_named(GIVEN).unwrap().unwrap().digest, digest);
    assert_eq!(store.images().unwrap().len(), 2, "the refused image is not recorded");
    pull("three", &[FOUND]).unwrap();
    // The registry has the same image under that name.
    pull("two", &[GIVEN]).unwrap();
}

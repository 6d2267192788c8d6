use std::collections::BTreeSet;
use std::path::PathBuf;

use boxlite_home::{Home, HomeIdentity};
use boxlite_types::ErrorKind;
use rusqlite::Connection;

use super::*;
use crate::store::schema::tests::make_version_1;

fn home() -> (tempfile::TempDir, Home) {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::open(&directory.path().join("home")).unwrap();
    (directory, home)
}

fn intents(store: &Store) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    store
        .visit_intents(&mut |Intent { kind, id, .. }| {
            found.insert((column(kind).to_owned(), id.to_owned()));
        })
        .unwrap();
    found
}

fn pair(kind: &str, id: &str) -> (String, String) {
    (kind.to_owned(), id.to_owned())
}

#[test]
fn a_home_of_version_1_gets_its_identity_and_keeps_its_records() {
    let (_directory, home) = home();
    make_version_1(&home.database());
    std::fs::create_dir(home.boxes().join("0".repeat(32))).unwrap();
    let store = Store::open_in(&home).unwrap();
    assert_eq!(store.boxes().unwrap().len(), 1, "the record is still there");
    let id = HomeIdentity::read(&home).unwrap().unwrap().id;
    assert_eq!(store.shared_id().unwrap().as_deref(), Some(&*id));
    assert_eq!(store.stranger().unwrap(), None);
    store.intend(IntentKind::Box, "a", "a test").unwrap();

    // A first open that was cut short before it published the identity.
    std::fs::remove_file(home.identity()).unwrap();
    let again = Store::open_in(&home).unwrap();
    assert_eq!(HomeIdentity::read(&home).unwrap().unwrap().id, id);
    assert!(again.has_intent(IntentKind::Box, "a").unwrap());
}

/// A build that knows less must not open it; this is the check that version 1's build makes, too.
#[test]
fn a_database_from_the_future_is_refused() {
    let (_directory, home) = home();
    Store::open_in(&home).unwrap();
    let connection = Connection::open(home.database()).unwrap();
    connection.pragma_update(None, "user_version", 3).unwrap();
    let refused = Store::open_in(&home).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert!(refused.to_string().contains("version 3"), "{refused}");
}

#[test]
fn the_database_of_another_home_is_a_stranger_until_it_is_adopted() {
    let ((_one, ours), (_other, theirs)) = (home(), home());
    drop((Store::open_in(&ours).unwrap(), Store::open_in(&theirs).unwrap()));
    std::fs::copy(theirs.database(), ours.database()).unwrap();
    let store = Store::open_in(&ours).unwrap();
    let why = store.stranger().unwrap().expect("another home's database");
    assert!(why.contains("--adopt-home"), "{why}");
    store.adopt_home().unwrap();
    assert_eq!(store.stranger().unwrap(), None);
    drop(store);

    // The copy of another home's home.json.
    std::fs::copy(theirs.identity(), ours.identity()).unwrap();
    let store = Store::open_in(&ours).unwrap();
    assert!(store.stranger().unwrap().is_some());
    store.adopt_home().unwrap();
    assert_eq!(store.stranger().unwrap(), None);

    // A database from before the home had an identity.
    drop(store);
    std::fs::remove_file(ours.database()).unwrap();
    make_version_1(&ours.database());
    let store = Store::open_in(&ours).unwrap();
    assert!(store.stranger().unwrap().is_some());
    store.adopt_home().unwrap();
    assert_eq!(store.stranger().unwrap(), None);
}

#[test]
fn a_whole_home_that_was_copied_is_no_stranger() {
    let (_one, ours) = home();
    drop(Store::open_in(&ours).unwrap());
    let (_other, copy) = home();
    std::fs::copy(ours.database(), copy.database()).unwrap();
    std::fs::copy(ours.identity(), copy.identity()).unwrap();
    assert_eq!(Store::open_in(&copy).unwrap().stranger().unwrap(), None);
}

/// Mutation tried: writing the base's intent with its first box instead of its last.
#[test]
fn a_base_is_released_with_the_last_box_that_was_put_on_it() {
    let (_directory, home) = home();
    let store = Store::open_in(&home).unwrap();
    let base = |name: &str| PathBuf::from("/h/bases").join(name);
    let stand = |id: &str, bases: &[PathBuf]| {
        let put = |transaction: &rusqlite::Transaction<'_>| {
            bases.iter().try_for_each(|base| use_base(transaction, &base_name(base), id))
        };
        store.write(put).unwrap();
    };
    store.note_base(&base("b1"), "source").unwrap();
    stand("clone", &[base("b1")]);
    store.note_base(&base("b2"), "source").unwrap();
    stand("second", &[base("b2"), base("b1")]);

    store.delete_box("clone", &[]).unwrap();
    assert_eq!(intents(&store), BTreeSet::from([pair("box", "clone")]));
    store.drop_intent(IntentKind::Box, "clone").unwrap();
    store.delete_box("source", &[]).unwrap();
    assert_eq!(intents(&store), BTreeSet::from([pair("box", "source")]), "the second clone stands on both");
    store.delete_box("second", &[]).unwrap();
    let released = [("base", "b1"), ("base", "b2"), ("box", "second"), ("box", "source")];
    assert_eq!(intents(&store), released.iter().map(|(kind, id)| pair(kind, id)).collect());
}

#[test]
fn a_box_releases_the_bases_that_it_has_left() {
    let (_directory, home) = home();
    let store = Store::open_in(&home).unwrap();
    let base = |name: &str| PathBuf::from("/h/bases").join(name);
    for (name, id) in [("b1", "one"), ("b2", "one"), ("b3", "one"), ("b2", "other")] {
        store.note_base(&base(name), id).unwrap();
    }
    let left = |kept: &[&str]| {
        let kept: Vec<String> = kept.iter().map(|&name| name.to_owned()).collect();
        store.write(|transaction| leave(transaction, "one", &kept, "a test")).unwrap();
    };
    left(&["b1", "b2", "b3"]);
    assert_eq!(intents(&store), BTreeSet::new());
    left(&["b1"]);
    assert_eq!(intents(&store), BTreeSet::from([pair("base", "b3")]), "the other box stands on b2");
    store.delete_box("other", &[]).unwrap();
    assert!(intents(&store).contains(&pair("base", "b2")));
    assert!(!intents(&store).contains(&pair("base", "b1")));
    store.delete_box("one", &[]).unwrap();
    assert!(intents(&store).contains(&pair("base", "b1")));
}

/// The options of boxes may be secrets.
#[test]
fn nobody_else_may_read_the_database() {
    use std::os::unix::fs::PermissionsExt;
    let (_directory, home) = home();
    Store::open_in(&home).unwrap().intend(IntentKind::Box, "a", "a test").unwrap();
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(home.database()), 0o600);
    assert_eq!(mode(home.root().join("boxlite.db-journal")), 0o600);
    assert_eq!(mode(home.identity()), 0o600);
}

/// All who stood on a base with an intent were removed, so a box that is adopted is its only user, and the base goes
/// with it. Mutation tried: asking for users alone; the base stayed for ever.
#[test]
fn a_base_that_was_released_is_released_again_with_an_adopted_box() {
    let (_directory, home) = home();
    let store = Store::open_in(&home).unwrap();
    let bases = [PathBuf::from("/h/bases/released"), PathBuf::from("/h/bases/unknown")];
    store.intend(IntentKind::Base, "released", "a test").unwrap();
    store.write(|transaction| store.explain(transaction, "adopted", &bases)).unwrap();
    assert_eq!(intents(&store), BTreeSet::new());
    store.delete_box("adopted", &[]).unwrap();
    assert_eq!(intents(&store), BTreeSet::from([pair("box", "adopted"), pair("base", "released")]));
}

/// Dropping every intent of a removal would leave the directory of a killed `rm` unexplained.
#[test]
fn a_removal_drops_the_intents_of_earlier_ones_that_are_named() {
    let (_directory, home) = home();
    let store = Store::open_in(&home).unwrap();
    for id in ["gone", "there"] {
        store.delete_box(id, &[]).unwrap();
    }
    store.intend(IntentKind::Box, "made", "its creation was cut short").unwrap();
    let removed: BTreeSet<String> = store.removed_boxes(9).unwrap().into_iter().collect();
    assert_eq!(removed, BTreeSet::from(["gone".to_owned(), "there".to_owned()]));
    assert_eq!(store.removed_boxes(1).unwrap().len(), 1);
    store.delete_box("last", &["gone".to_owned()]).unwrap();
    assert_eq!(
        intents(&store),
        BTreeSet::from([pair("box", "last"), pair("box", "made"), pair("box", "there")])
    );
}

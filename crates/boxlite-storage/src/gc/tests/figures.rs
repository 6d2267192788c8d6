//! The figures of a home: those of `du`, and the same in every view.

use boxlite_types::gc::{NodeKind, TreeNode};

use super::place::{AGED, FRESH, Place, digest, du};
use crate::disk::qcow2::BackingFormat::Raw;
use crate::gc::{BoxNames, tree, usage};

#[test]
fn the_figures_are_those_of_du() {
    let place = Place::new();
    place.image("i", 40_960, AGED);
    place.image("o", 4096, AGED);
    place.sparse_image("s", 1 << 30, AGED);
    for name in ["one", "two"] {
        place.overlay(name, &place.image_path("i"), Raw);
        place.record(name, "s");
        std::fs::write(place.home.of_box(name).console_log(), vec![b'x'; 10_000]).unwrap();
    }
    place.blob("b", AGED);
    let usage =
        usage(&place.home, &place.catalog(), &place.settings, &std::collections::BTreeSet::new()).unwrap();
    let root = |name: &str| place.home.of_box(name).root().to_owned();
    for found in &usage.boxes {
        assert_eq!(found.overlays + found.logs, du(&root(&found.id)));
        assert_eq!(found.overlays, du(&place.home.of_box(&found.id).overlay()));
        assert_eq!(found.below, du(&place.image_path("i")) + du(&place.image_path("s")));
    }
    for image in &usage.images {
        assert_eq!(image.allocated, du(&place.home.disk_image(&image.digest)));
    }
    assert_eq!(usage.shared, du(&place.image_path("i")) + du(&place.image_path("s")));
    assert_eq!(usage.disk_images.reclaimable, du(&place.image_path("o")));
    assert_eq!(usage.blobs.allocated, du(&place.home.blobs().join(digest("b"))));
    assert_eq!(usage.reclaimable, usage.disk_images.reclaimable + usage.blobs.reclaimable);
    assert!(du(&place.image_path("s")) < 1 << 20, "the sparse image is not sparse");
}

fn check_sums(node: &TreeNode) {
    if !node.children.is_empty() {
        let below = node.children.iter().map(|child| child.allocated).sum::<u64>();
        assert_eq!(node.allocated, below, "{}", node.name);
    }
    node.children.iter().for_each(check_sums);
}

/// A base that is another name of an overlay counts once, and each file has the reason that gc gives.
#[test]
fn the_tree_adds_up_to_the_home_and_to_the_rows_of_df() {
    let place = Place::new();
    place.image("i", 40_960, AGED);
    place.image("o", 4096, AGED);
    place.image("young", 8192, FRESH);
    for name in ["one", "two"] {
        place.overlay(name, &place.image_path("i"), Raw);
        place.record(name, "i");
        std::fs::write(place.home.of_box(name).console_log(), vec![b'x'; 10_000]).unwrap();
    }
    std::fs::hard_link(place.home.of_box("one").overlay(), place.home.bases().join("same.qcow2")).unwrap();
    place.blob("b", AGED);
    let (catalog, running) = (place.catalog(), std::collections::BTreeSet::new());
    let usage = usage(&place.home, &catalog, &place.settings, &running).unwrap();
    let names = BoxNames::from([("one".to_owned(), ("web".to_owned(), boxlite_types::BoxState::Running))]);
    let tree = tree(&place.home, &catalog, &place.settings, &names).unwrap();
    assert_eq!(tree.root.allocated, du(place.home.root()), "the whole home");
    assert_eq!(tree.reclaimable, usage.reclaimable);
    assert_eq!(tree.root.reclaimable, usage.reclaimable, "each reclaimable byte is somewhere");
    check_sums(&tree.root);
    let row = |kind| tree.root.children.iter().find(|row| row.kind == kind);
    for (kind, share) in [
        (NodeKind::DiskImage, usage.disk_images),
        (NodeKind::Overlay, usage.overlays),
        (NodeKind::Base, usage.bases),
        (NodeKind::Blob, usage.blobs),
        (NodeKind::Log, usage.logs),
        (NodeKind::Database, usage.database),
        (NodeKind::Reserve, usage.reserves),
    ] {
        let row = row(kind).map_or((0, 0), |row| (row.allocated, row.reclaimable));
        assert_eq!(row, (share.allocated, share.reclaimable), "{kind:?}");
    }
    let images = &row(NodeKind::DiskImage).unwrap().children;
    let why = |name: &str| {
        let mut files = images.iter().flat_map(|group| &group.children);
        files
            .find(|file| file.id == Some(format!("{}.ext4", digest(name))))
            .and_then(|file| file.why.clone())
            .unwrap()
    };
    assert!(why("i").starts_with("kept for ") && why("i").contains("box web"), "{}", why("i"));
    assert_eq!(why("o"), "gc would remove it: no box, base or lease needs it");
    assert_eq!(why("young"), "left alone: modified within the grace");
    let overlays = &row(NodeKind::Overlay).unwrap().children;
    assert!(
        overlays.iter().any(|overlay| overlay.why.as_deref() == Some("box web is running")),
        "{overlays:?}"
    );
}

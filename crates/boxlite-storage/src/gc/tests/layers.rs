//! Layers that can be fetched again, and disk images that could not be made again without them.

use std::collections::BTreeSet;
use std::fs::File;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use boxlite_ext4::BuildOptions;
use boxlite_home::admission::{Collector, Goal, Missing};
use boxlite_home::settings::KeepBlobs;
use boxlite_types::gc::{Fate, Skip};
use boxlite_types::{Digest, GcOptions, Verdict};

use super::place::{AGED, Place, digest};
use super::skipped;
use crate::catalog::AskRegistries;
use crate::gc::{explain, usage};
use crate::image::disk_digest;

/// Registries that have these images, and what they were asked.
#[derive(Default)]
struct Answers {
    having: BTreeSet<String>,
    asked: Mutex<Vec<String>>,
}

impl AskRegistries for Answers {
    fn having(&self, images: &[(String, String)]) -> BTreeSet<String> {
        let digests = images.iter().map(|(_, digest)| digest.clone());
        self.asked.lock().unwrap().extend(digests.clone());
        digests.filter(|digest| self.having.contains(digest)).collect()
    }
}

impl Place {
    /// An image of these layers, which are blobs; with a name in a registry unless it is called `local`.
    fn layered(&self, image: &str, layers: &[&str]) {
        if !image.starts_with("local") {
            self.name_in_registry(image, &format!("example.com/{image}:1"));
        }
        self.catalogue(image, layers, AGED);
        for layer in layers {
            self.blob(layer, AGED);
        }
    }

    /// The path of the disk image of these layers.
    fn built_path(&self, layers: &[&str]) -> PathBuf {
        self.home.disk_image(&built_digest(self, layers))
    }

    /// Builds a disk image of that name: an empty filesystem with the right identity.
    fn build(&self, layers: &[&str]) {
        let path = self.built_path(layers);
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let identity = Digest::from_hex(&built_digest(self, layers)).unwrap();
        let options = BuildOptions { virtual_size: 64 << 20, ..BuildOptions::new(*identity.bytes()) };
        boxlite_ext4::build(Vec::new(), &file, &options, &mut |_| ControlFlow::Continue(())).unwrap();
        self.age(&path, AGED);
    }

    /// Collects as a start does that finds too little space, until the file is gone or there is no more to remove.
    fn press(&self, until_gone: &str, answers: &Arc<Answers>) {
        let path = self.home.blobs().join(digest(until_gone));
        let missing = || {
            if path.exists() { Missing { bytes: 1 << 40, ..Missing::default() } } else { Missing::default() }
        };
        let goal = Goal { keep: &[], missing: &missing, outlook: &|_| Verdict::Ok };
        let asker = Arc::clone(answers) as Arc<dyn AskRegistries>;
        let collected = self.automatic().asking(asker).collect(&goal).unwrap();
        assert_eq!(collected.failures, [""; 0]);
    }

    fn has(&self, blob: &str) -> bool {
        self.home.blobs().join(digest(blob)).exists()
    }
}

fn built_digest(place: &Place, layers: &[&str]) -> String {
    let diff_ids: Vec<Digest> = layers.iter().map(|name| Digest::from_hex(&digest(name)).unwrap()).collect();
    disk_digest(&diff_ids, place.settings.disk_size.value.0)
}

/// Images of which the first has all that its layers can be spared for: `asked`, `silent`, `unbuilt`, `local`.
fn images() -> (Place, Arc<Answers>) {
    let place = Place::new();
    place.layered("asked", &["base", "a1"]);
    place.layered("silent", &["base", "s1"]);
    place.layered("unbuilt", &["u1"]);
    place.layered("local", &["l1"]);
    for layers in [&["base", "a1"][..], &["base", "s1"], &["l1"]] {
        place.build(layers);
    }
    let having = ["asked", "unbuilt", "local"].map(str::to_owned).into();
    (place, Arc::new(Answers { having, ..Answers::default() }))
}

/// Mutation tried: a layer goes when it may go for one of its images; `base` went.
#[test]
fn under_pressure_layers_go_before_disk_images_where_the_registry_still_has_them() {
    let (place, answers) = images();
    place.press("a1", &answers);
    assert!(!place.has("a1"));
    for kept in ["base", "s1", "u1", "l1"] {
        assert!(place.has(kept), "{kept}");
    }
    assert_eq!(place.images(), 3, "a disk image went although a layer sufficed");
    assert_eq!(*answers.asked.lock().unwrap(), ["asked", "silent"]);
    place.blob("unending", super::place::FRESH);
    super::super::note_release(&place.home);
    place.press("unending", &answers);
    for kept in ["base", "s1", "u1", "l1"] {
        assert!(place.has(kept), "{kept} when nothing suffices");
    }
}

/// Mutation tried: no `Skip::OnlyCopy`.
#[test]
fn a_disk_image_whose_layers_are_gone_stays_unless_its_registry_answers() {
    let (place, answers) = images();
    place.press("a1", &answers);
    let report = place.gc(&GcOptions::default());
    assert!(!report.failed(), "{report:?}");
    assert_eq!(skipped(&report, &built_digest(&place, &["base", "a1"])), Skip::OnlyCopy);
    assert_eq!(place.images(), 1, "the others can be built again");
    // It is within its grace, so that no pass is ever done.
    place.blob("unending", super::place::FRESH);
    place.press("unending", &Arc::new(Answers::default()));
    assert!(place.built_path(&["base", "a1"]).exists());
    super::super::note_release(&place.home);
    place.press("unending", &answers);
    assert!(!place.built_path(&["base", "a1"]).exists());
}

#[test]
fn an_ordinary_pass_asks_nobody_and_removes_no_layer() {
    let (place, _) = images();
    let report = place.gc(&GcOptions { all: false, ..GcOptions::default() });
    assert!(!report.failed(), "{report:?}");
    for kept in ["base", "a1", "s1", "u1", "l1"] {
        assert!(place.has(kept), "{kept}");
    }
}

/// Mutation tried: layers of images without a disk image.
#[test]
fn never_and_always_mean_what_they_say() {
    let (mut place, answers) = images();
    place.settings.keep_blobs.value = KeepBlobs::Always;
    place.press("a1", &answers);
    assert!(place.has("a1") && answers.asked.lock().unwrap().is_empty());

    let (mut place, _) = images();
    place.settings.keep_blobs.value = KeepBlobs::Never;
    let plan = place.gc(&super::dry_run());
    let report = place.gc(&GcOptions::default());
    assert!(!report.failed(), "{report:?}");
    assert_eq!(plan.blobs, report.blobs);
    for gone in ["base", "a1", "s1"] {
        assert!(!place.has(gone), "{gone}");
    }
    assert!(place.has("u1") && place.has("l1"));
    // The only copy stays; the image from files can be built from its layer.
    assert_eq!(place.images(), 2);
    assert_eq!(place.gc(&GcOptions::default()).reclaimed, 0);
}

/// Mutation tried: layers planned beside the image that they go with.
#[test]
fn a_pass_over_the_catalogue_takes_an_image_with_all_that_it_has() {
    let (mut place, _) = images();
    place.settings.keep_blobs.value = KeepBlobs::Never;
    let all = GcOptions { all: true, ..GcOptions::default() };
    let plan = place.gc(&GcOptions { dry_run: true, ..all.clone() });
    let report = place.gc(&all);
    assert!(!report.failed(), "{report:?}");
    assert_eq!((&plan.blobs, &plan.disk_images), (&report.blobs, &report.disk_images));
    assert_eq!((report.blobs.len(), place.images()), (5, 0), "{report:?}");
    assert_eq!(place.gc(&all).reclaimed, 0);
}

#[test]
fn an_image_that_no_registry_has_goes_only_when_that_is_said() {
    let place = Place::new();
    place.catalogue("sha256:made", &["a"], AGED);
    place.only_here("sha256:made");
    place.catalogue("sha256:pulled", &["b"], AGED);
    let (made, pulled) = (place.blob("a", AGED), place.blob("b", AGED));
    let all = GcOptions { all: true, ..GcOptions::default() };
    let report = place.gc(&all);
    assert_eq!(skipped(&report, "sha256:made"), Skip::OnlyHere, "{report:?}");
    assert_eq!((made.exists(), pulled.exists()), (true, false));
    let local = GcOptions { local: true, ..all };
    place.gc(&local);
    assert!(!made.exists());
    assert_eq!(place.gc(&local).reclaimed, 0);
}

/// Mutation tried: `confirm_layer` that believes the plan.
#[test]
fn a_layer_stays_while_its_disk_image_is_damaged() {
    let (place, answers) = images();
    std::fs::write(place.built_path(&["base", "a1"]), vec![7; 1 << 20]).unwrap();
    place.press("a1", &answers);
    assert!(place.has("a1"));
}

/// Mutation tried: a file that two images have is not counted as shared.
#[test]
fn usage_says_what_images_share_and_explanations_show_chains() {
    let place = Place::new();
    place.layered("one", &["base", "one"]);
    place.layered("two", &["base", "two"]);
    place.layered("third", &["base", "none"]);
    let [base, one, two] =
        [&["base"][..], &["base", "one"], &["base", "two"]].map(|of| built_digest(&place, of));
    place.build(&["base"]);
    std::fs::create_dir(place.home.deltas()).unwrap();
    for digest in [&one, &two] {
        let path = place.home.delta(digest);
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let writer = crate::disk::qcow2::delta::DeltaWriter::new(&file, 1 << 30);
        writer
            .finish(&format!("../disk-images/{base}.ext4"), crate::disk::qcow2::BackingFormat::Raw)
            .unwrap();
        place.age(&path, AGED);
    }
    let du = super::place::du;
    let shared = du(&place.home.disk_image(&base));
    let found = usage(&place.home, &place.catalog(), &place.settings, &std::collections::BTreeSet::new())
        .unwrap()
        .image_shares;
    let rows: Vec<_> = found.iter().map(|row| (&*row.digest, row.files, row.shared, row.unique)).collect();
    let unique = |digest: &str| du(&place.home.delta(digest));
    assert_eq!(
        rows,
        [("one", 2, shared, unique(&one)), ("third", 0, 0, 0), ("two", 2, shared, unique(&two))],
        "{found:?}"
    );
    assert!(found.iter().all(|row| row.allocated == row.shared + row.unique && row.layers_in_all == 2));

    let explanation =
        explain(&place.home, &place.catalog(), &place.settings, std::slice::from_ref(&one)).unwrap();
    assert_eq!(explanation.subjects[0].item.name, format!("{one}.qcow2"));
    let needs: Vec<_> = explanation.needs.iter().map(|found| found.item.name.clone()).collect();
    assert_eq!(needs, [format!("{base}.ext4")]);
    assert!(matches!(explanation.needs[0].item.fate, Fate::Removed { .. }));
}

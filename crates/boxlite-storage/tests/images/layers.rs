//! Layers that go while their images stay, against a real registry.

use std::sync::Arc;

use boxlite_home::admission::{Collector, Goal, Missing};
use boxlite_home::settings::{Settings, SettingsOptions, SettingsVariables};
use boxlite_storage::disk_image::{digest, ensure, lease};
use boxlite_storage::gc::Automatic;
use boxlite_storage::image::{RegistryPolicy, RegistryProbe};
use boxlite_storage::store::Store;
use boxlite_testkit::registry::Registry;
use boxlite_types::{ErrorKind, Image, PullOptions, Verdict};

use crate::disk::VIRTUAL;
use crate::fixture::*;
use crate::registry::{largest, served};

/// A home with these settings besides the size of disks.
fn set_up(settings: &str) -> Scratch {
    let mut scratch = Scratch::new();
    let text = format!("disk_size = \"512MiB\"\ngrace = 0\n{settings}");
    std::fs::write(scratch.home.config(), text).unwrap();
    scratch.images = open_images(&scratch.home).unwrap();
    scratch
}

fn layers_of(scratch: &Scratch, image: &Image) -> usize {
    let blobs = scratch.blobs();
    image.layers.iter().filter(|layer| blobs.contains(&layer.digest.hex())).count()
}

fn remove_disk_image(scratch: &Scratch, image: &Image) {
    std::fs::remove_file(scratch.home.disk_image(&digest(image, VIRTUAL))).unwrap();
}

/// Mutation tried: `release_layers` for images from files.
#[tokio::test(flavor = "multi_thread")]
async fn layers_that_are_never_kept_are_fetched_again_when_they_are_needed() {
    let scratch = set_up("keep_blobs = \"never\"\n");
    let registry = served(&scratch, &[]);
    let reference = format!("{}/app:1", registry.address);
    let image = scratch.pull(&reference).await.unwrap();
    assert_eq!(layers_of(&scratch, &image), 2);
    drop(ensure(&scratch.images, &image, VIRTUAL, &()).unwrap());
    assert_eq!(layers_of(&scratch, &image), 0);
    assert_eq!(scratch.blobs().len(), 2, "config and manifest stay");

    // The disk image stands for them: nothing is fetched, whatever is asked for.
    let always = PullOptions { policy: boxlite_types::PullPolicy::Always, ..PullOptions::default() };
    for options in [PullOptions::default(), always] {
        let again = scratch.images.pull(&reference.parse().unwrap(), &options, Arc::new(())).await.unwrap();
        assert_eq!((again.digest, again.layers.len()), (image.digest, 2));
    }
    scratch.images.complete(&image, &PullOptions::default(), Arc::new(())).await.unwrap();
    assert_eq!((layers_of(&scratch, &image), registry.gets(&largest(&image))), (0, 1));

    // The tag names another image meanwhile; the layers of this one come from its digest.
    let other = scratch.path("other");
    layout(&other, "v2", &[("new", 3000)]);
    registry.push(&other, "v2", "app:1");
    remove_disk_image(&scratch, &image);
    let error = ensure(&scratch.images, &image, VIRTUAL, &()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("boxlite pull"), "{error}");
    scratch.images.complete(&image, &PullOptions::default(), Arc::new(())).await.unwrap();
    assert_eq!(layers_of(&scratch, &image), 2);
    drop(ensure(&scratch.images, &image, VIRTUAL, &()).unwrap());
    assert_eq!(layers_of(&scratch, &image), 0);

    // Offline, the disk image serves; without it there is a clear error.
    drop(registry);
    scratch.images.complete(&image, &PullOptions::default(), Arc::new(())).await.unwrap();
    remove_disk_image(&scratch, &image);
    let error = scratch.images.complete(&image, &PullOptions::default(), Arc::new(())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let text = error.chain().to_string();
    assert!(
        text.contains("does not keep any more") && text.contains(&reference[..reference.len() - 2]),
        "{text}"
    );

    // An image from files is all that there is of it.
    let local = scratch.pull(&format!("oci:{}:v1", scratch.path("layout").display())).await.unwrap();
    drop(ensure(&scratch.images, &local, VIRTUAL, &()).unwrap());
    let other = scratch.pull(&format!("oci:{}:v2", other.display())).await.unwrap();
    drop(ensure(&scratch.images, &other, VIRTUAL, &()).unwrap());
    assert_eq!(layers_of(&scratch, &other), 1);
}

/// Collects as a start does that can't have enough.
fn press(scratch: &Scratch) {
    let settings =
        Settings::load(&scratch.home, &SettingsVariables::default(), &SettingsOptions::default()).unwrap();
    let store = Arc::new(Store::open(&scratch.home.database()).unwrap());
    let probe = Arc::new(RegistryProbe::new(None, &[], RegistryPolicy::default()));
    let collector = Automatic::new(scratch.home.clone(), store, settings).asking(probe);
    // One block is missing, so the pass ends with the first layer.
    let before = scratch.blobs().len();
    let missing = || {
        if scratch.blobs().len() < before {
            Missing::default()
        } else {
            Missing { bytes: 4096, ..Missing::default() }
        }
    };
    let goal = Goal { keep: &[], missing: &missing, outlook: &|_| Verdict::Ok };
    assert_eq!(collector.collect(&goal).unwrap().failures, [""; 0]);
}

/// Mutation tried: a 404 counted as an answer.
#[tokio::test(flavor = "multi_thread")]
async fn under_pressure_a_layer_goes_only_while_its_registry_has_the_image() {
    let pulled = async |scratch: &Scratch, registry: &Registry| {
        let image = scratch.pull(&format!("{}/app:1", registry.address)).await.unwrap();
        drop(ensure(&scratch.images, &image, VIRTUAL, &()).unwrap());
        image
    };
    let maker = Scratch::new();
    let registry = served(&maker, &[]);
    let scratch = set_up("");
    let image = pulled(&scratch, &registry).await;
    press(&scratch);
    assert_eq!(layers_of(&scratch, &image), 1, "one layer was enough");
    assert!(lease(&scratch.home, &digest(&image, VIRTUAL)).unwrap().is_some());

    // The registry is there, and has the image no more.
    let scratch = set_up("");
    let image = pulled(&scratch, &registry).await;
    registry.delete("app", &image.digest.to_string());
    press(&scratch);
    assert_eq!(layers_of(&scratch, &image), 2);
    let scratch = set_up("");
    registry.push(&maker.path("layout"), "v1", "app:1");
    let image = pulled(&scratch, &registry).await;
    drop(registry);
    press(&scratch);
    assert_eq!(layers_of(&scratch, &image), 2);
}

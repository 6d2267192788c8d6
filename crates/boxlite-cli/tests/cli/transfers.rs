//! `tag`, `history`, `save` and `load`.

use std::fs;

use boxlite_testkit::oracle;

use crate::home::Home;

#[test]
fn an_image_goes_into_an_archive_and_comes_back_under_its_names() {
    let Some(home) = Home::able() else { return };
    home.run(&["pull", "-q", &home.image("mini")]).ok();
    home.run(&["tag", &home.image("mini"), "web:1"]).ok();
    home.run(&["tag", "web:1", "registry.example:5000/team/web:2"]).ok();
    let history = home.run(&["history", "web:1"]).ok();
    assert!(history.starts_with("IMAGE") && history.contains("<missing>"), "{history}");
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("web.tar");
    let path = file.to_str().unwrap();
    home.run(&["save", "-o", path, "web:1", "registry.example:5000/team/web:2"]).ok();
    let names = |directory: &std::path::Path| fs::read_dir(directory).unwrap().count();
    assert_eq!(names(scratch.path()), 1, "nothing is left beside the archive");
    for name in ["web:1", "registry.example:5000/team/web:2", &home.image("mini")] {
        home.run(&["rmi", name]).ok();
    }
    home.run(&["run", "--rm", "--pull", "never", "web:1", "true"]).refused("web:1");
    let loaded = home.run(&["load", "-i", path]).ok();
    assert_eq!(loaded, "Loaded image: web:1\nLoaded image: registry.example:5000/team/web:2\n".to_owned());
    assert_eq!(home.run(&["run", "--rm", "--pull", "never", "web:1", "echo", "back"]).ok(), "back\n");
    let streamed = home.run(&["save", "web:1"]);
    assert_eq!(streamed.code(), Some(0));
    assert_eq!(home.run_with(&["load", "-q"], streamed.out.clone()).ok(), "web:1\n");
    let cut = streamed.out[..streamed.out.len() / 2].to_vec();
    assert_eq!(home.run_with(&["load"], cut).code(), Some(125));
    if oracle::require("skopeo") {
        for transport in ["docker-archive", "oci-archive"] {
            let single = scratch.path().join(transport);
            home.run(&["save", "--format", transport, "-o", single.to_str().unwrap(), "web:1"]).ok();
            let inspect = std::process::Command::new("skopeo")
                .args(["inspect", &format!("{transport}:{}", single.display())])
                .output()
                .unwrap();
            assert!(inspect.status.success(), "{}", String::from_utf8_lossy(&inspect.stderr));
        }
    }
}

#[test]
fn what_cannot_be_named_saved_or_loaded_says_why() {
    let Some(home) = Home::able() else { return };
    home.run(&["pull", "-q", &home.image("mini")]).ok();
    let mini = home.image("mini");
    home.run(&["tag", &mini, "oci:/tmp/x"]).refused("names files");
    home.run(&["tag", &mini, "Web:1"]).refused("lower-case");
    home.run(&["tag", "absent", "web:1"]).refused("absent");
    home.run(&["history", "absent"]).refused("absent");
    home.run(&["save", "absent"]).refused("absent");
    home.run(&["save", "-o", "/nonexistent/x", &mini]).refused("/nonexistent");
    let scratch = tempfile::tempdir().unwrap();
    home.run(&["save", "-o", scratch.path().to_str().unwrap(), &mini]).refused("directory");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    home.run(&["load", "-i", "/nonexistent"]).refused("/nonexistent");
    home.run_with(&["load"], b"no archive".to_vec()).refused("archive");
    home.run(&["push", &mini]).refused("names no registry");
}

//! `cp` both ways, against one running box.

use std::fs;
use std::os::unix::fs::symlink;

use crate::home::Home;

#[test]
fn files_are_copied_both_ways_by_docker_s_rules() {
    let Some(home) = Home::able() else { return };
    home.sleeper("disk");
    let here = tempfile::tempdir().unwrap();
    let at = |path: &str| here.path().join(path).to_str().unwrap().to_owned();
    let inside = |script: &str| home.run(&["exec", "disk", "sh", "-c", script]).ok();
    fs::create_dir_all(at("tree/sub")).unwrap();
    fs::write(at("tree/sub/file"), "contents\n").unwrap();
    symlink("sub/file", at("tree/link")).unwrap();
    fs::write(at("one"), "first\n").unwrap();

    inside("mkdir -p /srv /opt /var");
    home.run(&["cp", &at("one"), "disk:/tmp"]).ok();
    home.run(&["cp", &at("one"), "disk:tmp/renamed"]).ok();
    assert_eq!(inside("cat /tmp/one /tmp/renamed"), "first\nfirst\n");
    home.run(&["cp", &at("tree"), "disk:/srv"]).ok();
    home.run(&["cp", &at("tree"), "disk:/srv/new"]).ok();
    home.run(&["cp", &at("tree/."), "disk:/opt"]).ok();
    let listing =
        inside("cd /; find srv opt -type f | sort; readlink srv/tree/link; stat -c %u srv/tree/sub/file");
    assert_eq!(listing, "opt/sub/file\nsrv/new/sub/file\nsrv/tree/sub/file\nsub/file\n0\n");
    home.run(&["cp", &at("one"), "disk:/no/such/place/"]).refused("/no/such/place");
    home.run(&["cp", &at("missing"), "disk:/tmp"]).refused("missing");

    inside("mkdir -p /data/deep; head -c 3000000 /dev/urandom >/data/deep/noise; chmod 640 /data/deep/noise");
    home.run(&["cp", "disk:/data", &at("as")]).ok();
    home.run(&["cp", "disk:/data/", &at("tree")]).ok();
    home.run(&["cp", "disk:/data/.", &at("contents")]).ok();
    home.run(&["cp", "disk:/data/deep/noise", &at("noise")]).ok();
    let sum = inside("sha256sum </data/deep/noise");
    for copy in ["as/deep/noise", "tree/data/deep/noise", "contents/deep/noise", "noise"] {
        let output =
            std::process::Command::new("sha256sum").stdin(fs::File::open(at(copy)).unwrap()).output();
        assert_eq!(String::from_utf8(output.unwrap().stdout).unwrap(), sum, "{copy}");
    }
    home.run(&["cp", "disk:/data", &at("one")]).refused("is a file");
    home.run(&["cp", "disk:/data/deep/noise", &at("absent/")]).refused("does not exist");
    home.run(&["cp", "disk:/not/there", &at("x")]).refused("/not/there");
    assert_eq!(fs::read_to_string(at("one")).unwrap(), "first\n");

    let tar = home.run(&["cp", "disk:/data/deep", "-"]);
    assert_eq!(tar.code(), Some(0));
    assert_eq!(home.run_with(&["cp", "-", "disk:/var"], tar.out).ok(), "");
    assert_eq!(inside("sha256sum </var/deep/noise"), sum);

    let tar =
        std::process::Command::new("tar").args(["-C", &at("."), "-cf", "-", "one", "tree"]).output().unwrap();
    inside("mkdir /several");
    home.run_with(&["cp", "-", "disk:/several"], tar.stdout.clone()).ok();
    assert_eq!(inside("cd /several; cat one tree/sub/file"), "first\ncontents\n");
    home.run_with(&["cp", "-", "disk:/absent"], tar.stdout).refused("/absent");
    assert_eq!(inside("ls / | grep -c absent || true"), "0\n");

    home.run(&["cp", &at("one"), &at("two")]).refused("in a box");
    home.run(&["cp", "disk:/tmp/one", "disk:/tmp/two"]).refused("two boxes");
    home.run(&["cp", &at("one"), "nobody:/tmp"]).refused("nobody");
}

use boxlite_types::ErrorKind;
use proptest::prelude::*;

use super::*;

const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn canonical(text: &str) -> String {
    text.parse::<Reference>().unwrap_or_else(|error| panic!("{text}: {error}")).to_string()
}

#[test]
fn docker_users_get_dockers_defaults() {
    let cases = [
        ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"),
        ("user/tool", "docker.io/user/tool:latest", "user/tool:latest"),
        ("docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("index.docker.io/a/b:1", "docker.io/a/b:1", "a/b:1"),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        ("localhost:5000/x", "localhost:5000/x:latest", "localhost:5000/x:latest"),
        ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
        ("host:80/a/b:tag", "host:80/a/b:tag", "host:80/a/b:tag"),
        ("ghcr.io/a/b/c:V1.0_x-y", "ghcr.io/a/b/c:V1.0_x-y", "ghcr.io/a/b/c:V1.0_x-y"),
        ("Registry/team/app", "Registry/team/app:latest", "Registry/team/app:latest"),
        ("a__b/c-d.e", "docker.io/a__b/c-d.e:latest", "a__b/c-d.e:latest"),
    ];
    for (written, full, familiar) in cases {
        assert_eq!(canonical(written), full, "{written}");
        assert_eq!(written.parse::<Reference>().unwrap().familiar(), familiar, "{written}");
    }
}

#[test]
fn a_digest_decides_over_the_tag() {
    let text = format!("host:5000/a/b:tag@sha256:{HEX}");
    let Reference::Registry(reference) = text.parse().unwrap() else { panic!("not a registry's") };
    assert_eq!(reference.tag(), Some("tag"));
    assert_eq!(reference.digest().unwrap().hex(), HEX);
    assert_eq!(reference.to_string(), format!("host:5000/a/b@sha256:{HEX}"));
    assert_eq!(canonical(&format!("alpine@sha256:{HEX}")), format!("docker.io/library/alpine@sha256:{HEX}"));
}

#[test]
fn files_and_directories_are_references_too() {
    let layout =
        |path: &str, tag: Option<&str>| Reference::Layout { path: path.into(), tag: tag.map(str::to_owned) };
    assert_eq!("oci:/a/b".parse::<Reference>().unwrap(), layout("/a/b", None));
    assert_eq!("oci:dir:1.0".parse::<Reference>().unwrap(), layout("dir", Some("1.0")));
    assert_eq!("oci:/with:colon/dir".parse::<Reference>().unwrap(), layout("/with:colon/dir", None));
    assert_eq!(layout("dir", None).absolute_from(Path::new("/base/./x")), layout("/base/x/dir", None));
    assert_eq!(
        "oci-archive:x.tar:v1".parse::<Reference>().unwrap(),
        Reference::OciArchive { path: "x.tar".into(), tag: Some("v1".into()) }
    );
    let name = RegistryReference::parse("busybox:1").unwrap();
    assert_eq!(
        "docker-archive:/x.tar:busybox:1".parse::<Reference>().unwrap(),
        Reference::DockerArchive { path: "/x.tar".into(), name: Some(name) }
    );
}

#[test]
fn malformed_references_say_what_is_wrong() {
    let long = "a".repeat(256);
    let cases = [
        ("", "empty"),
        ("https://ghcr.io/a", "scheme"),
        ("al pine", "white space"),
        ("Alpine", "lower-case"),
        ("ghcr.io/Team/app", "lower-case"),
        ("alpine:", "tag after the colon is empty"),
        ("alpine:-x", "a tag is made of"),
        ("alpine:ä", "a tag is made of"),
        ("/alpine", "between slashes"),
        ("a//b", "between slashes"),
        ("a/", "between slashes"),
        (HEX, "64 hex digits"),
        ("host:99999999/a", "port"),
        ("alpine@sha256:123", "64 lower-case hex digits"),
        ("alpine@md5:123", "not a digest"),
        (&long, "255"),
        ("-x", "format"),
        ("oci:", "no path"),
        ("oci:dir:", "ends in a colon"),
        ("docker-archive:", "no path"),
        ("docker-archive:x.tar:Bad", "lower-case"),
    ];
    for (text, expected) in cases {
        let error = text.parse::<Reference>().expect_err(text);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
        assert!(error.to_string().contains(expected), "'{text}' gave: {error}");
    }
    let sha512 = format!("alpine@sha512:{HEX}{HEX}");
    assert_eq!(sha512.parse::<Reference>().unwrap_err().kind(), ErrorKind::Unsupported);
}

proptest! {
    /// Mutation tried: writing the tag before the digest in `Display` fails at once.
    #[test]
    fn the_canonical_form_of_whatever_parses_parses_to_itself(text in "[a-zA-Z0-9:/._@-]{0,40}") {
        if let Ok(reference) = text.parse::<Reference>() {
            let written = reference.to_string();
            let again: Reference = written.parse().unwrap();
            prop_assert_eq!(written, again.to_string());
        }
    }

    #[test]
    fn nothing_that_users_type_panics(text in any::<String>()) {
        let _ = text.parse::<Reference>();
    }
}

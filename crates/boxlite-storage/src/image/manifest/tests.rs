use boxlite_types::ErrorKind;
use serde_json::{Value, json};

use super::*;

fn descriptor(media_type: &str, length: u64) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::of(media_type.as_bytes()), "size": length })
}

fn manifest(layers: &[Value]) -> Value {
    json!({ "schemaVersion": 2, "config": descriptor(OCI_CONFIG, 2), "layers": layers })
}

fn kind(value: &Value) -> ErrorKind {
    parse(value.to_string().as_bytes(), "x").expect_err("accepted").kind()
}

#[test]
fn both_families_of_manifests_are_read() {
    for layer in [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ] {
        let text = manifest(&[descriptor(layer, 7)]).to_string();
        let ManifestDocument::Manifest(read) = parse(text.as_bytes(), "x").unwrap() else {
            panic!("an index")
        };
        assert_eq!(read.layers[0].length, 7);
    }
}

/// Mutation tried: taking a document with both `layers` and `manifests` for an index makes this fail.
#[test]
fn hostile_and_foreign_documents_are_refused() {
    let mut both = manifest(&[]);
    both["manifests"] = json!([]);
    assert_eq!(kind(&both), ErrorKind::Corrupt);
    let mut disguised = manifest(&[]);
    disguised["mediaType"] = json!(OCI_INDEX);
    assert_eq!(kind(&disguised), ErrorKind::Corrupt);
    let mut chart = manifest(&[]);
    chart["config"] = descriptor("application/vnd.cncf.helm.config.v1+json", 2);
    assert_eq!(kind(&chart), ErrorKind::Unsupported);
    assert_eq!(kind(&manifest(&[descriptor("application/wasm", 2)])), ErrorKind::Unsupported);
    let layer = "application/vnd.oci.image.layer.v1.tar";
    assert_eq!(kind(&manifest(&[descriptor(layer, u64::MAX), descriptor(layer, 2)])), ErrorKind::Corrupt);
    assert_eq!(kind(&manifest(&vec![descriptor(layer, 1); 513])), ErrorKind::Unsupported);
    let mut config = manifest(&[]);
    config["config"] = descriptor(OCI_CONFIG, DOCUMENT_LIMIT + 1);
    assert_eq!(kind(&config), ErrorKind::Corrupt);
    assert_eq!(kind(&json!({ "schemaVersion": 1, "fsLayers": [] })), ErrorKind::Unsupported);
    for text in
        ["", "{}", "[]", "null", "{\"schemaVersion\": 2}", "{\"schemaVersion\": 3, \"manifests\": []}"]
    {
        assert_eq!(parse(text.as_bytes(), "x").unwrap_err().kind(), ErrorKind::Corrupt, "{text}");
    }
    let mut negative = manifest(&[descriptor(layer, 1)]);
    negative["layers"][0]["size"] = json!(-1);
    assert_eq!(kind(&negative), ErrorKind::Corrupt);
}

#[test]
fn an_index_is_searched_by_platform() {
    let entry = |platform: Option<&str>| Descriptor {
        media_type: OCI_MANIFEST.to_owned(),
        digest: Digest::of(platform.unwrap_or("none").as_bytes()),
        length: 1,
        platform: platform.map(|text| text.parse().unwrap()),
        annotations: BTreeMap::new(),
    };
    let entries = [entry(Some("linux/arm64/v8")), entry(Some("linux/amd64")), entry(Some("unknown/unknown"))];
    let wanted = |text: &str| text.parse::<Platform>().unwrap();
    assert_eq!(choose(&entries, &wanted("linux/amd64"), "x").unwrap(), &entries[1]);
    assert_eq!(choose(&entries, &wanted("linux/arm64"), "x").unwrap(), &entries[0]);
    let error = choose(&entries, &wanted("linux/s390x"), "x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("linux/arm64/v8, linux/amd64"), "{error}");
    assert!(!error.to_string().contains("unknown"), "{error}");
    let bare = [entry(None)];
    assert_eq!(choose(&bare, &wanted("linux/amd64"), "x").unwrap(), &bare[0]);
    assert!(choose(&[entry(None), entry(None)], &wanted("linux/amd64"), "x").is_err());
}

#[test]
fn an_index_entry_of_an_unknown_algorithm_is_no_candidate() {
    let text = json!({ "schemaVersion": 2, "manifests": [
        { "mediaType": OCI_MANIFEST, "digest": format!("sha512:{}", "0".repeat(128)), "size": 3 },
        descriptor(OCI_MANIFEST, 3),
    ]});
    let ManifestDocument::Index(entries) = parse(text.to_string().as_bytes(), "x").unwrap() else { panic!() };
    assert_eq!(entries.len(), 1);
}

#[test]
fn configs_may_be_full_of_nulls() {
    let digest = Digest::of(b"layer");
    let text = json!({
        "architecture": "amd64", "os": "linux", "created": null,
        "config": { "Entrypoint": null, "Cmd": ["sh"], "Env": null, "Labels": null, "Volumes": {"/data": {}},
                    "ExposedPorts": {"80/tcp": {}}, "User": "", "StopSignal": "SIGINT", "OnBuild": null },
        "rootfs": { "type": "layers", "diff_ids": [digest] }
    });
    let parsed = parse_config(text.to_string().as_bytes(), 1, "x").unwrap();
    assert_eq!(parsed.diff_ids, [digest]);
    assert_eq!(parsed.platform, Some(Platform::host()));
    assert_eq!(parsed.config.cmd, ["sh"]);
    assert_eq!(parsed.config.exposed_ports, ["80/tcp"]);
    assert_eq!(parsed.config.volumes, ["/data"]);
    assert_eq!(parsed.config.stop_signal.as_deref(), Some("SIGINT"));
    let error = parse_config(text.to_string().as_bytes(), 2, "x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let bare = json!({ "config": null, "rootfs": { "diff_ids": null } });
    assert_eq!(parse_config(bare.to_string().as_bytes(), 0, "x").unwrap().platform, None);
}

#[test]
fn a_synthesised_manifest_reads_back_and_is_always_the_same() {
    let text = manifest(&[descriptor("application/vnd.oci.image.layer.v1.tar", 7)]).to_string();
    let ManifestDocument::Manifest(first) = parse(text.as_bytes(), "x").unwrap() else { panic!("an index") };
    let written = first.to_json();
    assert_eq!(parse(&written, "x").unwrap(), ManifestDocument::Manifest(first.clone()));
    assert_eq!(written, first.to_json());
}

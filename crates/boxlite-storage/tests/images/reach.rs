//! Where a registry may lead a pull, and who may be told a secret.

use std::process::Command;
use std::sync::Arc;

use boxlite_storage::image::RegistryPolicy;
use boxlite_storage::reference::Reference;
use boxlite_testkit::oracle;
use boxlite_types::{ErrorKind, Image, PullOptions, Result};

use crate::fixture::*;
use crate::proxy::{Fate, Proxy, Request};
use crate::registry::served;

/// An address that counts as public. In its network of its own, a test has it to itself.
const PUBLIC: &str = "203.0.113.5";

/// Runs the ignored test `name` of this program in a network of its own, where this host has the address [`PUBLIC`].
fn in_own_network(name: &str) {
    if !oracle::require_root("a network of its own") || !oracle::require("ip") {
        return;
    }
    let prepare = format!("ip link set lo up && ip address add {PUBLIC}/32 dev lo && exec \"$@\"");
    let output = Command::new("unshare")
        .args(["--net", "sh", "-c", &prepare, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{text}");
}

async fn pull(scratch: &Scratch, address: &str, options: PullOptions) -> Result<Image> {
    let reference: Reference = format!("{address}/app:1").parse().unwrap();
    scratch.images.pull(&reference, &options, Arc::new(())).await
}

fn insecure() -> PullOptions {
    PullOptions { insecure: true, ..PullOptions::default() }
}

#[test]
fn a_registry_of_the_internet_is_told_nothing_that_only_this_host_can_read() {
    in_own_network("reach::relay");
}

/// The attack: the registry names a token server on this host, and is given the token that this host fetches there.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs in a network of its own"]
async fn relay() {
    let scratch = Scratch::new();
    let registry = served(&scratch, &[]);
    let inside = Proxy::before(&registry.address, |_: &Request| {
        Fate::Answer("200 OK", String::new(), br#"{"token": "secret"}"#.to_vec())
    });
    for scheme in ["http", "https"] {
        let realm = format!("{scheme}://{}/token", inside.address);
        let challenge = format!("WWW-Authenticate: Bearer realm=\"{realm}\"\r\n");
        let attacker =
            Proxy::on(PUBLIC, &registry.address, move |request: &Request| match request.authorization {
                Some(_) => Fate::Pass,
                None => Fate::Answer("401 Unauthorized", challenge.clone(), Vec::new()),
            });
        let refused = pull(&scratch, &attacker.address, insecure()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Denied, "{refused}");
        assert!(attacker.requests().iter().all(|request| request.authorization.is_none()));

        let target = format!("Location: {scheme}://{}/admin\r\n", inside.address);
        let attacker = Proxy::on(PUBLIC, &registry.address, move |_: &Request| {
            Fate::Answer("307 Temporary Redirect", target.clone(), Vec::new())
        });
        let refused = pull(&scratch, &attacker.address, insecure()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Denied, "{refused}");
    }
    assert_eq!(inside.requests(), []);
}

#[test]
fn an_insecure_registry_gets_no_credentials_unless_that_is_asked_for() {
    in_own_network("reach::credentials");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs in a network of its own"]
async fn credentials() {
    let scratch = Scratch::new();
    let registry = served(&scratch, &["--auth"]);
    let front = Proxy::on(PUBLIC, &registry.address, |_: &Request| Fate::Pass);
    let config = scratch.path("config.json");
    let text = format!(r#"{{"auths": {{"{}": {{"auth": "dGVzdGVyOnNlY3JldA=="}}}}}}"#, front.address);
    std::fs::write(&config, text).unwrap();
    let scratch = Scratch { images: scratch.images.clone().with_registry_config(Some(config)), ..scratch };
    let sent = || front.requests().iter().any(|request| request.authorization.is_some());

    let refused = pull(&scratch, &front.address, insecure()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied, "{refused}");
    assert!(refused.to_string().contains("--insecure-credentials"), "{refused}");
    assert!(!sent());
    let asked = PullOptions { insecure_credentials: true, ..insecure() };
    pull(&scratch, &front.address, asked).await.unwrap();
    assert!(sent());
}

#[tokio::test]
async fn clients_of_a_server_use_the_private_registries_that_its_operator_names() {
    let scratch = Scratch::new();
    let registry = served(&scratch, &[]);
    let front = Proxy::before(&registry.address, |_: &Request| Fate::Pass);
    let with = |named: &[&str]| {
        let policy = RegistryPolicy::PublicAnd(named.iter().map(|&name| name.to_owned()).collect());
        scratch.images.clone().with_registry_policy(policy)
    };
    let pull = async |images: &boxlite_storage::image::Images, options: &PullOptions| {
        let reference: Reference = format!("{}/app:1", front.address).parse().unwrap();
        images.pull(&reference, options, Arc::new(())).await
    };
    let (none, named) = (with(&["registry.example"]), with(&[&front.address]));
    for options in [PullOptions::default(), insecure()] {
        let refused = pull(&none, &options).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Denied, "{refused}");
        assert!(refused.to_string().contains(&format!("--allow-registry {}", front.address)), "{refused}");
    }
    let by_name = format!("localhost:{}/app:1", front.address.rsplit(':').next().unwrap());
    let refused = none.pull(&by_name.parse().unwrap(), &PullOptions::default(), Arc::new(())).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(front.requests(), []);
    pull(&named, &insecure()).await.unwrap();
}

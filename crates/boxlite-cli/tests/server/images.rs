//! Images over plain HTTP: the published clients have no pull of their own.

use reqwest::Method;
use serde_json::json;

use crate::home::Home;
use crate::serving::{Server, registry_with_mini};

#[tokio::test]
async fn images_are_pulled_listed_and_found() {
    let Some(home) = Home::able() else { return };
    let (registry, image) = registry_with_mini(&home);
    let server = Server::start(&home, &["--allow-registry", &registry.address]);
    assert_eq!(server.get("/v1/images").await["images"], json!([]));

    let pulled = server.post("/v1/images/pull", json!({"reference": image})).await;
    let id = pulled["id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("sha256:") && pulled["size_bytes"].as_u64() > Some(1 << 20), "{pulled}");
    assert_eq!((pulled["tag"].as_str(), pulled["reference"].as_str()), (Some("1"), Some(&*image)));
    assert_eq!(server.get("/v1/images").await["images"], json!([pulled]));
    assert_eq!(server.get(&format!("/v1/images/{id}")).await["id"], json!(id));
    assert_eq!(server.ask(Method::HEAD, &format!("/v1/images/{id}"), None).await.0.as_u16(), 204);
    let again = server.post("/v1/images/pull", json!({"reference": image})).await;
    assert_eq!(again["id"], json!(id));

    let unknown = format!("/v1/images/sha256:{}", "0".repeat(64));
    assert_eq!(server.ask(Method::GET, &unknown, None).await.0.as_u16(), 404);
    let missing = image.replace(":1", ":none");
    for reference in [missing.as_str(), "127.0.0.1:1/library/mini:1"] {
        let (status, answer) =
            server.ask(Method::POST, "/v1/images/pull", Some(json!({"reference": reference}))).await;
        let code = answer["error"]["code"].as_str();
        assert_eq!((status.as_u16(), code), (422, Some("image_pull_failed")), "{reference}: {answer}");
    }
}

//! What clients that were not written here rely on: statuses, codes, and requests that are sent again.

use boxlite_testkit::deadline::{TEST_TIMEOUT, within_async};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::home::Home;
use crate::serving::{Server, answer};

fn code(answer: &(StatusCode, Value)) -> (u16, &str) {
    (answer.0.as_u16(), answer.1["error"]["code"].as_str().unwrap_or_default())
}

/// Serves a home with the running box `web`.
async fn served(home: &Home) -> Server {
    let server = Server::start(home, &["--allow-path", home.layout().to_str().unwrap()]);
    let body = json!({"image": home.image("mini"), "name": "web", "memory_mib": 128, "disk_size_gb": 1});
    server.post("/v1/boxes", body).await;
    server.post("/v1/boxes/web/start", json!({})).await;
    server
}

#[tokio::test]
async fn the_size_of_a_volume_is_kept_and_shown() {
    let Some(home) = Home::able() else { return };
    let folder = tempfile::tempdir().unwrap();
    let allowed =
        ["--allow-path", home.layout().to_str().unwrap(), "--allow-path", folder.path().to_str().unwrap()];
    let server = Server::start(&home, &allowed);
    let volume = |options: &str| format!("{}:/data:{options}", folder.path().display());
    let body =
        |options: &str| json!({"image": home.image("mini"), "name": "web", "volumes": [volume(options)]});
    for (options, part) in [("size=0", "a size of 0"), ("size=1g,ro", "no meaning with ro")] {
        let refused = server.ask(Method::POST, "/v1/runtime/boxes", Some(body(options))).await;
        assert_eq!(refused.0.as_u16(), 400, "{}", refused.1);
        assert!(refused.1.to_string().contains(part), "{}", refused.1);
    }
    server.post("/v1/runtime/boxes", body("size=2g")).await;
    let shown = server.get("/v1/runtime/boxes/web").await;
    assert!(
        shown.to_string().contains(":/data:rw,size=2147483648")
            || shown.to_string().contains(":/data:size=2g"),
        "{shown}"
    );
}

/// Mutation tried: without the comparison of the body's first byte, `["true"]` runs `true`.
#[tokio::test]
async fn each_refusal_has_its_status_and_code() {
    let Some(home) = Home::able() else { return };
    let server = served(&home).await;
    for (body, status, expected) in [
        (json!({"command": "no-such-program"}), 422, "execution_failed"),
        (json!({"command": "true", "colour": "red"}), 400, "invalid_argument"),
        (json!(["true"]), 400, "invalid_argument"),
    ] {
        let refused = server.ask(Method::POST, "/v1/boxes/web/exec", Some(body.clone())).await;
        assert_eq!(code(&refused), (status, expected), "{body}: {}", refused.1);
        let message = refused.1["error"]["message"].as_str().unwrap();
        assert!(expected != "execution_failed" || message.contains("no-such-program"), "{message}");
    }
    let exec = async |script: &str| {
        let body = json!({"command": "sh", "args": ["-c", script]});
        server.post("/v1/boxes/web/exec?wait=true", body).await
    };
    let done = exec("cat; echo out; echo err >&2; exit 3").await;
    let said = json!([done["exit_code"], done["stdout"], done["stderr"], done["encoding"]]);
    assert_eq!(said, json!([3, "out\n", "err\n", "utf-8"]));
    let done = exec("printf '\\377'; head -c 2000000 /dev/zero >&2").await;
    assert_eq!((&done["encoding"], &done["stdout"]), (&json!("base64"), &json!("/w==")));
    assert_eq!(done["dropped_bytes"], 2_000_001 - (1 << 20));

    let path = server.exec("web", "read x").await;
    let size = Some(json!({"cols": 80, "rows": 24}));
    assert_eq!(
        code(&server.ask(Method::POST, &format!("{path}/resize"), size).await),
        (409, "invalid_state")
    );
    assert_eq!(code(&server.ask(Method::PUT, "/v1/boxes", None).await), (405, "method_not_allowed"));
    // Before, a misspelt dry run collected.
    let misspelt = server.ask(Method::POST, "/v1/runtime/gc", Some(json!({"dry-run": true}))).await;
    assert_eq!(code(&misspelt), (400, "invalid_argument"));
    assert_eq!(server.get("/v1/config").await["capabilities"]["exec_user_enabled"], true);
    assert_eq!(server.get("/v1/org/project/boxes/web").await["name"], "web");

    assert_eq!(server.get("/v1/images/usage").await["count"], 1);
    let image = server.get("/v1/images").await["images"][0]["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/images/{image}");
    assert_eq!(server.ask(Method::DELETE, &path, None).await.0.as_u16(), 409, "a box uses it");
    assert_eq!(server.ask(Method::DELETE, "/v1/boxes/web?force=true", None).await.0.as_u16(), 204);
    assert_eq!(server.ask(Method::DELETE, &path, None).await.0.as_u16(), 204);
    assert_eq!(server.get("/v1/images/usage").await["count"], 0);
}

/// Before, the guest refused the 129th command with 422, a tunnel with 500, and idle tunnels kept every command out.
#[tokio::test]
async fn what_is_too_much_for_a_box_is_refused_with_429() {
    let Some(home) = Home::able() else { return };
    let server = &served(&home).await;
    server.post("/v1/boxes/web/start", json!({})).await;
    server.exec("web", "exec busybox nc -ll -p 7000 -e cat").await;
    let refused = |answer: &(StatusCode, Value), what: &str| {
        assert_eq!(code(answer), (429, what), "{answer:?}");
    };
    // A tunnel that nobody uses.
    let open = async || {
        let request = server.request(Method::GET, "/v1/boxes/web/network/tunnel?port=7000");
        let asked = request.header("Connection", "Upgrade").header("Upgrade", "tcp");
        asked.send().await.expect("an answer")
    };
    let listening = async || (open().await.status().as_u16() == 101).then_some(());
    within_async(TEST_TIMEOUT, "a service", listening).await;
    let mut tunnels = Vec::new();
    let surplus = loop {
        let response = open().await;
        match response.status().as_u16() {
            101 => tunnels.push(response.upgrade().await.expect("a tunnel")),
            _ => break response,
        }
    };
    assert!((47..=48).contains(&tunnels.len()), "{}", tunnels.len());
    assert_eq!(surplus.headers()["retry-after"], "1");
    let status = surplus.status();
    refused(&(status, surplus.json().await.unwrap()), "too_many_tunnels");

    let sleep = json!({"command": "sleep", "args": ["1000"]});
    let mut begun = 0;
    let surplus = loop {
        let asked = (0..8).map(|_| server.ask(Method::POST, "/v1/boxes/web/exec", Some(sleep.clone())));
        let answers = futures::future::join_all(asked).await;
        begun += answers.iter().filter(|answer| answer.0.as_u16() == 201).count();
        if let Some(surplus) = answers.into_iter().find(|answer| answer.0.as_u16() != 201) {
            break surplus;
        }
    };
    refused(&surplus, "too_many_executions");
    assert!((60..=72).contains(&begun), "{begun}");
    assert_eq!(home.run(&["exec", "web", "echo", "still"]).ok(), "still\n", "a person at the host still can");
}

/// Before: a box without a name was made again by the next server.
///
/// Mutations tried: without the lock around the answer, each is carried out, and all but one are refused the name; without the look
/// for a box that was made before, or without that of the database, there are two.
#[tokio::test]
async fn a_request_under_a_key_is_carried_out_once() {
    let Some(home) = Home::able() else { return };
    let server = &served(&home).await;
    let ask = async |path: &str, body: Value, key: &str| {
        answer(server.request(Method::POST, path).header("Idempotency-Key", key).json(&body)).await
    };
    let body = json!({"image": home.image("mini"), "name": "once", "memory_mib": 128});
    let asked = (0..4).map(|_| ask("/v1/boxes", body.clone(), "a"));
    let created = futures::future::join_all(asked).await;
    assert!(created.iter().all(|answer| answer.0.as_u16() == 201 && *answer == created[0]), "{created:?}");
    let other = ask("/v1/boxes", json!({"image": home.image("mini"), "name": "other"}), "a").await;
    assert_eq!(code(&other), (422, "idempotency_key_reused"));
    assert_eq!(code(&ask("/v1/boxes", body.clone(), "b").await), (409, "already_exists"));
    assert_eq!(code(&ask("/v1/boxes", body, "").await), (400, "invalid_argument"));

    let append = json!({"command": "sh", "args": ["-c", "echo x >>/root/count"]});
    let first = ask("/v1/boxes/web/exec", append.clone(), "a").await;
    assert_eq!((first.0.as_u16(), &ask("/v1/boxes/web/exec", append.clone(), "a").await), (201, &first));
    // A box without a name is found by its record.
    let unnamed = json!({"image": home.image("mini"), "memory_mib": 128});
    let made = ask("/v1/boxes", unnamed.clone(), "n").await;
    let copy = ask("/v1/boxes/once/clone", json!({}), "c").await;
    assert_eq!((made.0.as_u16(), copy.0.as_u16()), (201, 201), "{made:?} {copy:?}");

    // Another server has none of the answers, and the box knows the command.
    let next = &Server::start(&home, &["--allow-path", home.layout().to_str().unwrap()]);
    let ask_next = async |path: &str, body: Value, key: &str| {
        answer(next.request(Method::POST, path).header("Idempotency-Key", key).json(&body)).await
    };
    assert_eq!(ask_next("/v1/boxes/web/exec", append, "a").await, first);
    for (path, body, key, known) in
        [("/v1/boxes", unnamed.clone(), "n", &made), ("/v1/boxes/once/clone", json!({}), "c", &copy)]
    {
        assert_eq!(ask_next(path, body, key).await, *known);
        let other = ask_next(path, json!({"image": home.image("mini"), "name": "third"}), key).await;
        assert_eq!(code(&other), (422, "idempotency_key_reused"), "{path}: {other:?}");
    }
    // Of two servers that are asked at once, one makes it.
    let (one, another) =
        tokio::join!(ask("/v1/boxes", unnamed.clone(), "r"), ask_next("/v1/boxes", unnamed, "r"));
    assert_eq!(one.0.as_u16(), 201, "{one:?}");
    assert_eq!(one.1["box_id"], another.1["box_id"], "{one:?} {another:?}");
    assert_eq!(server.get("/v1/boxes").await["boxes"].as_array().unwrap().len(), 5);
    let end = server.exec("web", "while ! grep x /root/count; do :; done; wc -l </root/count").await;
    let socket = crate::executions::attach(server, &end).await;
    assert_eq!(crate::executions::collect(socket).await.0, "x\n1\n");
}

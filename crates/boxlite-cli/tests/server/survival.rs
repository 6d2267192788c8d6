//! Boxes and commands that outlive a server, and how a server ends.

use std::time::{Duration, Instant};

use boxlite_testkit::deadline::{self, TEST_TIMEOUT};
use futures::{SinkExt, StreamExt};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::executions::{attach, collect};
use crate::home::Home;
use crate::serving::Server;

#[tokio::test]
async fn boxes_outlive_a_killed_server_and_are_found_again() {
    let Some(home) = Home::able() else { return };
    let mut server = Server::start(&home, &["--allow-path", home.layout().to_str().unwrap()]);
    server.post("/v1/boxes", json!({"image": home.image("mini"), "name": "kept", "memory_mib": 128})).await;
    let path = server.exec("kept", "sleep 1000 & echo $! > /tmp/pid; wait").await;
    server.signal(Signal::KILL);
    server.wait();
    let server = Server::start(&home, &[]);
    let found = server.get("/v1/boxes/kept").await;
    assert_eq!(found["status"], "running");
    assert_eq!(server.get(&path).await["status"], "running", "a new server does not know old executions");
    // That the command began did not say that it has written already.
    let script = "until [ -s /tmp/pid ]; do sleep 1; done; kill -0 $(cat /tmp/pid) && echo on";
    let path = server.exec("kept", script).await;
    assert_eq!(collect(attach(&server, &path).await).await, ("on\n".into(), String::new(), Some(0)));
}

#[tokio::test]
async fn what_is_going_on_at_the_order_to_stop_is_finished() {
    let Some(home) = Home::able() else { return };
    let mut server = Server::start(&home, &["--allow-path", home.layout().to_str().unwrap()]);
    server.post("/v1/boxes", json!({"image": home.image("mini"), "name": "kept", "memory_mib": 128})).await;
    let short = server.exec("kept", "read x; echo done; exit 6").await;
    let (mut socket, waiting) = (attach(&server, &short).await, server.exec("kept", "sleep 1000").await);
    let endless = attach(&server, &waiting).await;
    server.signal(Signal::TERM);
    let began = Instant::now();
    // A command that ends soon still says how.
    socket.send(Message::binary(b"\n".to_vec())).await.unwrap();
    // A load balancer sees why, and nothing new begins. A connection that was kept alive may end under its next request.
    deadline::within_async(TEST_TIMEOUT, "readiness to end", async || {
        let answer = reqwest::get(format!("{}/readyz", server.url)).await.ok()?;
        let status = answer.status();
        let body: Value = answer.json().await.ok()?;
        (status == 503 && body["reason"] == "this server is stopping").then_some(())
    })
    .await;
    assert_eq!(server.ask(Method::GET, "/healthz", None).await.0.as_u16(), 200);
    let exec = json!({"command": "true"});
    let (status, body) = server.ask(Method::POST, "/v1/boxes/kept/exec", Some(exec)).await;
    assert_eq!((status.as_u16(), body["error"]["code"].as_str()), (503, Some("upstream_unavailable")));
    let mut said = String::new();
    while let Some(Ok(message)) = socket.next().await {
        said.push_str(&String::from_utf8_lossy(&message.into_data()));
    }
    assert!(said.contains("done\n") && said.contains("\"exit_code\":6"), "{said}");
    // A client whose command does not end is told that the server stops, and the server stops.
    let (_, _, status) = collect(endless).await;
    assert_eq!(status, None);
    assert!(server.wait().success());
    let took = began.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(9)).contains(&took), "{took:?}");
    assert!(home.run(&["ls"]).ok().contains("kept"));

    let mut idle = Server::start(&home, &[]);
    idle.get("/v1/boxes").await;
    idle.signal(Signal::INT);
    let began = Instant::now();
    assert!(idle.wait().success());
    assert!(began.elapsed() < Duration::from_secs(9), "an idle connection held the server up");
}

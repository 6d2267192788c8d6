//! Boxes whose health is checked, by the image's check or by the options'.

use boxlite_testkit::deadline::eventually;

use crate::home::Home;

fn inspect(home: &Home, name: &str) -> serde_json::Value {
    home.run(&["inspect", name]).json()[0].clone()
}

fn is_running(home: &Home, name: &str, command: &str) -> bool {
    home.run(&["top", name]).ok().lines().any(|line| line.ends_with(command))
}

/// A probe that hangs, and that has left its session, its group and its parent.
const HANGING: &str = "echo hangs; (setsid sleep 4321 & ) ; sleep 4322";

#[test]
fn the_health_of_a_box_is_probed_shown_and_waited_for() {
    let Some(home) = Home::able() else { return };
    let image = home.image("mini");
    let options = ["--health-cmd", "bash /check", "--health-interval", "250ms", "--health-retries", "2"];
    let times = ["--health-timeout", "2s", "--health-start-period", "1h", "--health-start-interval", "100ms"];
    let line =
        [&["run", "-d", "--name", "web"], &options[..], &times[..], &[&image, "sleep", "infinity"]].concat();
    home.run(&line).ok();
    // There is no such file yet, and that does not count.
    // On a busy host a probe may take too long besides.
    let probed = |code: i32| {
        let health = inspect(&home, "web")["health"].clone();
        let found =
            health["log"].as_array().into_iter().flatten().find(|probe| probe["exit_code"] == code).cloned();
        found.map(|probe| (health, probe))
    };
    let (first, _) = eventually("a probe", || probed(127));
    assert_eq!((&first["status"], &first["failing_streak"]), (&"starting".into(), &0.into()), "{first}");
    assert!(home.run(&["ls"]).ok().contains(" (health: starting) "));
    assert_eq!(home.run(&["ls", "-q", "--filter", "health=healthy"]).ok(), "");

    home.run(&["exec", "web", "sh", "-c", "echo 'echo fine' > /check"]).ok();
    assert_eq!(home.run(&["wait", "--condition", "healthy", "web"]).ok(), "healthy\n");
    assert!(home.run(&["ls"]).ok().contains(" (healthy) "));
    assert_eq!(
        home.run(&["ls", "--filter", "health=healthy", "--format", "{{.health.status}}"]).ok(),
        "healthy\n"
    );
    let (_, fine) = eventually("a probe that succeeded", || probed(0));
    assert_eq!(fine["output"], "fine\n", "{fine}");

    home.run(&["exec", "web", "sh", "-c", &format!("echo '{HANGING}' > /check")]).ok();
    eventually("the probe to hang", || is_running(&home, "web", "sleep 4321").then_some(()));
    eventually("the box to be unhealthy", || {
        (inspect(&home, "web")["health"]["status"] == "unhealthy").then_some(())
    });
    home.run(&["exec", "web", "sh", "-c", "echo 'echo broken; exit 3' > /check"]).ok();
    let (_, broken) = eventually("a probe that does not hang", || probed(3));
    assert_eq!(broken["output"], "broken\n", "{broken}");
    assert!(!is_running(&home, "web", "sleep 4321") && !is_running(&home, "web", "sleep 4322"));
    let log = inspect(&home, "web")["health"]["log"].clone();
    assert!(log.as_array().unwrap().len() <= 5, "{log}");
    home.run(&["wait", "--condition", "healthy", "web"]).refused("is unhealthy; the last probe said: ");
    let events = ["events", "--since", "10m", "--until", "0s", "--filter", "event=health_status"];
    let told = home.run(&[&events[..], &["--format", "{{.name}} {{.details.health_status}}"]].concat()).ok();
    assert!(told.starts_with("web healthy\n") && told.ends_with("web unhealthy\n"), "{told}");

    images_have_checks(&home);
}

fn images_have_checks(home: &Home) {
    let check = "HEALTHCHECK --interval=250ms --retries=9 CMD [\"sh\", \"/check\"]";
    home.run(&["exec", "web", "sh", "-c", "echo true > /check"]).ok();
    home.run(&["commit", "-q", "-c", check, "web", "with/check"]).ok();
    home.run(&["rm", "-f", "web"]).ok();
    let image = home.run(&["inspect", "with/check"]).json()[0].clone();
    let expected = serde_json::json!({"test": ["CMD", "sh", "/check"], "interval_ms": 250, "retries": 9});
    assert_eq!(image["config"]["healthcheck"], expected);

    let idle = ["--idle-timeout", "4s", "--name", "idle", "with/check", "sleep", "infinity"];
    home.run(&[&["run", "-d"], &idle[..]].concat()).ok();
    assert_eq!(home.run(&["wait", "--condition", "healthy", "idle"]).ok(), "healthy\n");
    let unchecked =
        ["run", "-d", "--no-healthcheck", "--name", "unchecked", "with/check", "sleep", "infinity"];
    home.run(&unchecked).ok();
    assert_eq!(inspect(home, "unchecked")["health"], serde_json::Value::Null);
    home.run(&["wait", "--condition", "healthy", "unchecked"]).refused("nothing checks the health");
    // Probes are no use of the box.
    eventually("the idle box to end", || (inspect(home, "idle")["state"] == "stopped").then_some(()));
    home.run(&["wait", "--condition", "healthy", "idle"]).refused("is not running, but stopped");

    for (options, says) in [
        (&["--no-healthcheck", "--health-cmd", "true"][..], "cannot be used with"),
        (&["--health-cmd", ""], "is not a check of health"),
        (&["--health-interval", "soon"], "duration"),
    ] {
        home.run(&[&["create"], options, &["with/check"]].concat()).refused(says);
    }
}

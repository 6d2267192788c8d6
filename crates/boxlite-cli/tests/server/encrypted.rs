//! TLS of the server itself, and the recipes for proxies as they stand in `docs/proxies`.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use boxlite_testkit::assets::Assets;
use boxlite_testkit::deadline::{TEST_TIMEOUT, until};
use boxlite_testkit::oracle;
use boxlite_testkit::program::{Output, noise, run};

use crate::home::{Home, program};
use crate::refusals::key;
use crate::serving::Server;

/// Makes a certificate for this host in `directory`, as the files that the recipes name.
fn certificate(directory: &Path) -> (PathBuf, PathBuf) {
    std::fs::create_dir_all(directory).unwrap();
    let (certificate, key) = (directory.join("fullchain.pem"), directory.join("key.pem"));
    let mut make = Command::new("openssl");
    make.args([
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=boxes.example.com",
    ]);
    make.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    make.args(["-addext", "subjectAltName=DNS:boxes.example.com,DNS:localhost,IP:127.0.0.1"]);
    make.arg("-keyout").arg(&key).arg("-out").arg(&certificate).stderr(Stdio::null());
    run(&mut make);
    (certificate, key)
}

/// `boxlite ARGUMENTS` on the server at `url`, for a client that trusts `certificate` alone.
fn client(url: &str, certificate: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(arguments).env("BOXLITE_REST_URL", url).env("SSL_CERT_FILE", certificate);
    command.env("BOXLITE_API_KEY", "secret").env_remove("BOXLITE_HOME").env_remove("HTTPS_PROXY");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn asked(url: &str, certificate: &Path) -> Output {
    Output::of(client(url, certificate, &["ls"]).spawn().unwrap())
}

#[test]
fn the_certificate_that_is_shown_is_the_one_in_the_file() {
    let home = Home::bare();
    let (shown, next) = (home.path().join("shown"), home.path().join("next"));
    let (certificate_file, key_file) = certificate(&shown);
    certificate(&next);
    let first = home.path().join("first.pem");
    std::fs::copy(&certificate_file, &first).unwrap();
    let secret = key(&home, "secret", 0o600);
    let tls = ["--tls-cert", certificate_file.to_str().unwrap(), "--tls-key", key_file.to_str().unwrap()];
    let arguments = [&tls[..], &["--api-key-file", secret.to_str().unwrap()]].concat();
    let server = Server::start(&home, &arguments);
    assert!(server.url.starts_with("https://127.0.0.1:"), "{}", server.url);
    asked(&server.url, &first).ok();
    asked(&server.url, &next.join("fullchain.pem")).refused("certificate");

    // The new key does not fit the old certificate; nothing changes until both are there.
    std::fs::copy(next.join("key.pem"), &key_file).unwrap();
    asked(&server.url, &first).ok();
    std::fs::copy(next.join("fullchain.pem"), &certificate_file).unwrap();
    until(TEST_TIMEOUT, "the new certificate", || asked(&server.url, &certificate_file).code() == Some(0));
    drop(server);

    std::fs::write(&certificate_file, "no certificate").unwrap();
    home.run(&["serve", "--tls-cert", tls[1], "--tls-key", tls[3]]).refused("holds no certificate in PEM");
    run(Command::new("chmod").arg("644").arg(&key_file));
    home.run(&["serve", "--tls-cert", tls[1], "--tls-key", tls[3]]).refused("mode 644");
}

/// A proxy; killed when dropped.
struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A configuration that was changed for one test.
struct Recipe(String);

impl Recipe {
    fn read(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/proxies").join(name);
        Self(std::fs::read_to_string(path).unwrap())
    }

    fn with(self, given: &str, here: &str) -> Self {
        assert!(self.0.contains(given), "the recipe lacks {given:?}");
        Self(self.0.replace(given, here))
    }
}

/// Begins a server with a box and a proxy before it, and has a client work through both.
fn work_through(proxy: &str, prepare: impl Fn(&Path, Recipe, &str) -> Command, recipe: &str) {
    let Some(home) = Home::able() else { return };
    let program = Assets::locate().directory().join("bin").join(proxy);
    if !oracle::require(&program) {
        return;
    }
    home.sleeper("web");
    let secret = key(&home, "secret", 0o600);
    let server = Server::start(&home, &["--api-key-file", secret.to_str().unwrap()]);
    let scratch = tempfile::tempdir().unwrap();
    let tls = scratch.path().join("tls");
    let (certificate, _) = certificate(&tls);
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let recipe = Recipe::read(recipe)
        .with("/etc/boxlite/tls", tls.to_str().unwrap())
        .with("127.0.0.1:8100", server.url.strip_prefix("http://").unwrap());
    let mut command = prepare(scratch.path(), recipe, &address);
    command.env("HOME", scratch.path()).stdin(Stdio::null());
    let _proxy = Proxy(command.spawn().unwrap());
    until(TEST_TIMEOUT, proxy, || TcpStream::connect(&address).is_ok());

    let url = format!("https://{address}");
    until(TEST_TIMEOUT, "an answer", || asked(&url, &certificate).code() == Some(0));
    let input = noise(3 << 20);
    let (file, back) = (scratch.path().join("input"), scratch.path().join("back"));
    std::fs::write(&file, &input).unwrap();
    let mut exec = client(&url, &certificate, &["exec", "-i", "web", "sh", "-c", "sleep 1; cat; exit 7"]);
    exec.stdin(std::fs::File::open(&file).unwrap()).stdout(std::fs::File::create(&back).unwrap());
    assert_eq!(exec.status().unwrap().code(), Some(7));
    assert_eq!(std::fs::read(&back).unwrap(), input, "a WebSocket carries input and output");
    for copy in [["cp", file.to_str().unwrap(), "web:/input"], ["cp", "web:/input", back.to_str().unwrap()]] {
        Output::within(client(&url, &certificate, &copy).spawn().unwrap(), Duration::from_secs(180)).ok();
    }
    assert_eq!(std::fs::read(&back).unwrap(), input, "an archive streams in both directions");
    home.run(&["rm", "-f", "web"]).ok();
}

/// Mutation tried: without the line `proxy_set_header Upgrade`, the command cannot be attached to.
#[test]
fn a_client_works_through_nginx() {
    if !oracle::require_root("nginx with its own paths") {
        return;
    }
    let prepare = |scratch: &Path, recipe: Recipe, address: &str| {
        let at = scratch.display();
        let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {at}/{name};"))
            .concat();
        let recipe = recipe
            .with("listen 443 ssl", &format!("listen {address} ssl"))
            .with("http {", &format!("http {{ access_log off; {paths}"));
        let file = scratch.join("nginx.conf");
        std::fs::write(&file, recipe.0).unwrap();
        let mut command = Command::new(Assets::locate().directory().join("bin/nginx"));
        command.arg("-e").arg("stderr").arg("-p").arg(scratch).arg("-c").arg(file);
        command.args(["-g", &format!("daemon off; master_process off; pid {at}/pid;")]);
        command
    };
    work_through("nginx", prepare, "nginx.conf");
}

#[test]
fn a_client_works_through_caddy() {
    let prepare = |scratch: &Path, recipe: Recipe, address: &str| {
        let recipe = recipe.with("boxes.example.com {", &format!("https://{address} {{"));
        let file = scratch.join("Caddyfile");
        let options = "{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n}\n";
        std::fs::write(&file, options.to_owned() + &recipe.0).unwrap();
        let mut command = Command::new(Assets::locate().directory().join("bin/caddy"));
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file);
        command.stderr(Stdio::null());
        command
    };
    work_through("caddy", prepare, "Caddyfile");
}

use boxlite::{
    Allotment, BoxFilter, BoxOptions, BoxState, MainProcess, NetworkJoin, NetworkMode, PullPolicy, WindowSize,
};
use clap::CommandFactory;

use super::*;

/// Bounds of the process that runs these command lines.
const ALLOTMENT: Allotment = Allotment { cpus: 3, cpu_limit: Some(250), memory: Some(100 << 20) };

fn parse(line: &[&str]) -> Result<Cli, String> {
    Cli::try_parse_from(std::iter::once(&"boxlite").chain(line)).map_err(|error| error.to_string())
}

fn options(line: &[&str]) -> BoxOptions {
    match parse(line).unwrap().command {
        CliCommand::Run(args) => args.options.options_within(&ALLOTMENT, &Environment::default()).unwrap(),
        CliCommand::Create(args) => args.options_within(&ALLOTMENT, &Environment::default()).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn auto_takes_what_the_process_may_use() {
    let auto = options(&["run", "--cpus", "auto", "-m", "auto", "a"]);
    assert_eq!((auto.cpus, auto.cpu_limit, auto.memory), (3, Some(250), 100 << 20));
    let given = options(&["create", "--cpus", "1.5", "-m", "64m", "a"]);
    assert_eq!((given.cpus, given.cpu_limit, given.memory), (2, Some(150), 64 << 20));
    assert!(parse(&["run", "--cpus", "automatic", "a"]).is_err());
}

#[test]
fn a_box_is_tied_in_a_job_unless_it_outlives_its_starter() {
    let tied = |line: &[&str], job: bool, remote: bool| match parse(line).unwrap().command {
        CliCommand::Run(args) => {
            let job = job.then(|| ("SLURM_JOB_ID".into(), "7".into()));
            args.is_tied(&Environment::of(job), remote).map_err(|failure| failure.to_string())
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(tied(&["run", "a"], false, false), Ok(false));
    assert_eq!(tied(&["run", "a"], true, false), Ok(true));
    assert_eq!(tied(&["run", "--tie=false", "a"], true, false), Ok(false));
    assert_eq!(tied(&["run", "--tie", "a"], false, false), Ok(true));
    for line in [["run", "-d", "a"], ["run", "--restart=always", "a"]] {
        assert_eq!(tied(&line, true, false), Ok(false), "{line:?}");
        let asked = [&["run", "--tie"], &line[1..]].concat();
        assert!(tied(&asked, true, false).unwrap_err().contains("outlive"), "{asked:?}");
    }
    assert_eq!(tied(&["run", "a"], true, true), Ok(false));
    assert!(tied(&["run", "--tie", "a"], false, true).unwrap_err().contains("a server"));
}

/// Aliases of shells say some options twice. Mutation tried: without `args_override_self`.
#[test]
fn the_last_of_an_option_counts() {
    let parsed =
        options(&["run", "--rm", "-it", "-m", "1g", "--rm", "-t", "-e", "A=1", "-m", "2g", "-e", "B=2", "a"]);
    assert!(parsed.auto_remove && parsed.tty);
    assert_eq!((parsed.memory, parsed.env), (2 << 30, words("A=1 B=2")));
    assert!(parse(&["ls", "-a", "-a", "--format", "json", "--format", "table"]).is_ok());
}

#[test]
fn options_end_at_the_image() {
    // Mutation tried: without trailing_var_arg, `-e` after the image is taken for boxlite's own.
    let parsed = options(&["run", "--rm", "-it", "alpine", "sh", "-e", "--rm", "-c", "--", "ls"]);
    assert_eq!(parsed.image, "alpine");
    assert_eq!(
        parsed.main,
        MainProcess::Image { entrypoint: None, command: Some(words("sh -e --rm -c -- ls")) }
    );
    assert!(parsed.auto_remove && parsed.stdin && parsed.tty && parsed.env.is_empty());
    let first = options(&["create", "alpine", "-e", "X"]);
    assert_eq!(first.main, MainProcess::Image { entrypoint: None, command: Some(words("-e X")) });
}

#[test]
fn an_exec_s_options_end_at_the_box() {
    let CliCommand::Exec(args) = parse(&["exec", "-i", "web", "ls", "-t", "-u"]).unwrap().command else {
        panic!()
    };
    let size = WindowSize { rows: 1, columns: 2 };
    let (id, options) = args.options(&Environment::default(), size).unwrap();
    assert_eq!(id, "web");
    assert_eq!(options.command, words("ls -t -u"));
    assert!(options.stdin && options.tty.is_none() && options.user.is_none());
    assert!(parse(&["exec", "web"]).is_err());
}

#[test]
fn an_entrypoint_replaces_the_image_s_and_an_empty_one_clears_it() {
    let entrypoint = |line: &[&str]| match options(line).main {
        MainProcess::Image { entrypoint, .. } => entrypoint,
        MainProcess::Idle => panic!(),
    };
    assert_eq!(entrypoint(&["run", "a"]), None);
    assert_eq!(entrypoint(&["run", "--entrypoint", "sh", "a"]), Some(words("sh")));
    assert_eq!(entrypoint(&["run", "--entrypoint", "", "a"]), Some(Vec::new()));
}

#[test]
fn every_option_reaches_the_library() {
    let parsed = options(&[
        "run",
        "-d",
        "--name",
        "web",
        "-h",
        "host",
        "-e",
        "A=1",
        "-e",
        "NOT_HERE",
        "-w",
        "/srv",
        "-u",
        "app:app",
        "-l",
        "tier=front",
        "--label",
        "bare",
        "--cpus",
        "1.5",
        "-m",
        "512m",
        "--disk-size",
        "20g",
        "--disk-io",
        "20m",
        "--disk-quota",
        "5g",
        "--claim",
        "64m",
        "-v",
        "/h:/b:ro",
        "--mount",
        "type=bind,src=/m,dst=/n",
        "--mount",
        "type=tmpfs,dst=/t",
        "--tmpfs",
        "/run:size=1m",
        "--read-only",
        "--shm-size",
        "128m",
        "-p",
        "8080:80",
        "--nested",
        "--kernel",
        "/k/vmlinux",
        "--network",
        "none",
        "--allow-net",
        "a.example:443",
        "--allow-host",
        "5432",
        "--add-host",
        "h:host-gateway",
        "--dns",
        "1.1.1.1",
        "--dns-search",
        "lan",
        "--ulimit",
        "nofile=1:2",
        "--sysctl",
        "a.b=c",
        "-P",
        "--init-system",
        "--stop-signal",
        "SIGINT",
        "--stop-timeout",
        "3",
        "--pull",
        "never",
        "--insecure",
        "alpine",
    ]);
    let labels = [("tier", "front"), ("bare", "")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let expected = BoxOptions {
        image: "alpine".into(),
        pull: PullPolicy::Never,
        insecure: true,
        name: Some("web".into()),
        env: words("A=1"),
        workdir: Some("/srv".into()),
        user: Some("app:app".into()),
        hostname: Some("host".into()),
        cpus: 2,
        cpu_limit: Some(150),
        memory: 512 << 20,
        nested: true,
        kernel: Some("/k/vmlinux".into()),
        disk_size: Some(20 << 30),
        disk_quota: Some(5 << 30),
        disk_io: Some(20 << 20),
        volumes: words("/h:/b:ro /m:/n:rw"),
        tmpfs: words("/run:size=1m /t:rw"),
        shm_size: Some(128 << 20),
        read_only: true,
        ports: words("8080:80"),
        network: NetworkMode::None,
        allow_net: words("a.example:443"),
        allow_host: vec![5432],
        add_host: words("h:host-gateway"),
        dns: words("1.1.1.1"),
        dns_search: words("lan"),
        ulimits: words("nofile=1:2"),
        sysctls: words("a.b=c"),
        publish_all: true,
        labels: labels.into(),
        init_system: Some(true),
        stop_signal: Some("SIGINT".into()),
        stop_timeout: 3,
        claim: Some(64 << 20),
        ..BoxOptions::default()
    };
    assert_eq!(parsed, expected);
}

#[test]
fn defaults_are_the_library_s() {
    assert_eq!(options(&["run", "a"]), BoxOptions { image: "a".into(), ..BoxOptions::default() });
}

#[test]
fn bad_values_are_refused_with_what_would_be_right() {
    let refused = |line: &[&str], part: &str| {
        let error = parse(line).unwrap_err();
        assert!(error.contains(part), "{line:?}: {error}");
    };
    refused(&["run", "-m", "lots", "a"], "512MiB");
    refused(&["run", "--cpus", "0", "a"], "from 0.05 to 255");
    refused(&["run", "--stop-signal", "NOPE", "a"], "a name such as TERM");
    refused(&["run", "--network", "host", "a"], "a network of its own");
    refused(&["run", "--network", "container:a", "a"], "share no network card");
    refused(&["run", "--network", "a:mac=1", "a"], "ip=ADDRESS and alias=NAME");
    for command in [&["run"][..], &["volume", "create"], &["network", "create"]] {
        refused(&[command, &["--label", "=x", "a"]].concat(), "a label has a name");
    }
    refused(&["kill", "-s", "65", "a"], "from 1 to 64");
    refused(&["update", "a"], "--disk-quota");
    refused(&["update", "--disk-quota", "much", "a"], "512MiB");
    refused(&["ls", "--filter", "colour=red"], "there are name, id, status");
    refused(&["ls", "--filter", "status=odd"], "created, running, paused, restarting, stopped and failed");
    refused(&["logs", "--since", "whenever", "a"], "a duration such as 10m");
    refused(&["logs", "-n", "few", "a"], "a number of lines, or all");
    refused(&["run"], "IMAGE");
}

#[test]
fn a_box_joins_several_networks_each_in_its_own_way() {
    let networks = |line: &[&str]| options(&[&["run"], line, &["a"]].concat()).networks;
    let join = |name: &str, aliases: &str, address: Option<[u8; 4]>| NetworkJoin {
        name: name.into(),
        aliases: words(aliases),
        address: address.map(Into::into),
    };
    assert_eq!(
        networks(&["--network", "back", "--ip", "10.89.0.7", "--network-alias", "db"]),
        [join("back", "db", Some([10, 89, 0, 7]))]
    );
    assert_eq!(
        networks(&["--net=back:alias=sql,ip=10.89.0.7", "--net=name=front", "--net-alias=db"]),
        [join("back", "sql db", Some([10, 89, 0, 7])), join("front", "db", None)]
    );
    assert_eq!(networks(&["--network", "user"]), []);
    let refused = |line: &[&str]| match parse(&[&["create"], line, &["a"]].concat()).unwrap().command {
        CliCommand::Create(args) => {
            args.options_within(&ALLOTMENT, &Environment::default()).unwrap_err().to_string()
        }
        other => panic!("{other:?}"),
    };
    assert!(refused(&["--network", "user", "--network", "back"]).contains("stand alone"));
    assert!(refused(&["--ip", "10.89.0.7"]).contains("add --network NAME"));
    let two = ["--network", "a", "--network", "b", "--ip", "10.89.0.7"];
    assert!(refused(&two).contains("--network NAME:ip=10.89.0.7"));
}

#[test]
fn filters_speak_docker_too() {
    assert_eq!(ls::box_filter("status=exited"), Ok(BoxFilter::State(BoxState::Stopped)));
    assert_eq!(ls::box_filter("ancestor=alpine"), Ok(BoxFilter::Image("alpine".into())));
    assert_eq!(ls::box_filter("label=a=b=c"), Ok(BoxFilter::Label("a".into(), Some("b=c".into()))));
    assert_eq!(ls::box_filter("label=a"), Ok(BoxFilter::Label("a".into(), None)));
    assert_eq!(ls::box_filter("id=AB"), Ok(BoxFilter::Id("ab".into())));
    assert!(ls::box_filter("name").is_err() && ls::box_filter("name=").is_err());
}

#[test]
fn gc_is_told_what_to_spare() {
    let CliCommand::Gc(args) = parse(&[
        "gc",
        "--dry-run",
        "-a",
        "--keep-storage",
        "2g",
        "--filter",
        "until=36h",
        "--free",
        "1g",
        "--verify",
    ])
    .unwrap()
    .command
    else {
        panic!()
    };
    let expected = boxlite::GcOptions {
        dry_run: true,
        all: true,
        local: false,
        keep_storage: Some(2 << 30),
        until: Some(std::time::Duration::from_secs(36 * 3600)),
        free: Some(1 << 30),
        verify: true,
    };
    assert_eq!(args.options(), expected);
    assert!(gc::until("until=2020-01-01T00:00:00Z").unwrap().as_secs() > 86_400 * 365);
    for bad in ["until", "until=", "until=soon", "until=2999-01-01T00:00:00Z", "label=a"] {
        assert!(gc::until(bad).is_err(), "{bad}");
    }
}

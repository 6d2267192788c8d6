use serde_json::{Value, json};

use super::*;

fn with(template: &str, value: &Value, docker: Value) -> Result<String, String> {
    template.parse::<Template>()?.line(value, docker).map_err(|failure| failure.to_string())
}

fn line(template: &str, value: &Value) -> Result<String, String> {
    with(template, value, Value::Null)
}

#[test]
fn fields_stand_between_text() {
    let value = json!({"name": "web", "exit_code": 3, "reason": null, "options": {"cpus": 2}, "ports": [{"host": 80}]});
    let text = |template| line(template, &value).unwrap();
    assert_eq!(text("{{.Name}}"), "web\n");
    assert_eq!(text("{{ .name }}\\t{{.ExitCode}} {{.exit_code}}"), "web\t3 3\n");
    assert_eq!(text("cpus={{.Options.CPUs}};{{.reason}};{{.reason.text}}"), "cpus=2;;\n");
    assert_eq!(text("{{json .ports}} {{json .name}}"), "[{\"host\":80}] \"web\"\n");
    assert_eq!(text("{{json .}}"), format!("{value}\n"));
    assert_eq!(text(""), "\n");
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let value = json!({"name": "web", "ports": []});
    assert!(line("{{.nam}}", &value).unwrap_err().contains("there are name, ports"));
    assert!(line("{{frob .name}}", &value).unwrap_err().contains("there are json, join"));
    for template in [
        "{{.name",
        "{{name}}",
        "{{range .ports}}",
        "{{if .name}}a{{else}}b",
        "{{end}}",
        "{{else}}",
        "{{}}",
        "{{.name.first}}",
        "{{.name .ports .name}}",
        "{{(.name}}",
        "{{.name)}}",
        "{{\"open}}",
        "{{$x}}",
        "{{index .ports 0}}",
        "{{range .name}}{{end}}",
        "{{$x, $y := .name}}",
        "{{json}}",
        "{{1.2.3}}",
        "{{.name | }}",
        "{{printf \"%d\"}}",
        "{{printf \"%x\" 1}}",
        "{{lt .name 1}}",
        "{{\"\\x\"}}",
        "{{.name}} {{%}}",
        "{{if}}{{end}}",
        "{{if .name}}{{$y := 1}}{{end}}{{$y}}",
        "{{define \"x\"}}{{end}}",
    ] {
        assert!(line(template, &value).is_err(), "{template}");
    }
}

/// The notation as people write it for Docker and Podman. Mutations tried: variables outlive their part; `{{- ` trims nothing; the
/// key of a range is its element; `and` looks everything up.
#[test]
fn parts_depend_on_values() {
    let value = json!({
        "name": "web", "up": true, "code": 0, "env": ["A=1", "B=2"], "labels": {"tier": "front", "a.b": "c"},
        "nets": {"back": {"ip": "10.89.0.2"}, "zone": {"ip": "10.89.1.2"}}, "ports": {"80/tcp": [{"HostPort": "8080"}], "81/tcp": null},
        "none": [],
    });
    for (template, expected) in [
        ("{{range .env}}{{.}};{{end}}", "A=1;B=2;"),
        ("{{range .nets}}{{.ip}} {{end}}", "10.89.0.2 10.89.1.2 "),
        ("{{range $k, $v := .nets}}{{$k}}={{$v.ip}} {{end}}", "back=10.89.0.2 zone=10.89.1.2 "),
        (
            "{{range $p, $conf := .ports}}{{if $conf}}{{$p}} -> {{(index $conf 0).HostPort}}{{end}}{{end}}",
            "80/tcp -> 8080",
        ),
        ("{{(index (index .ports \"80/tcp\") 0).HostPort}}", "8080"),
        ("{{with index .ports \"80/tcp\"}}{{len .}}{{end}}", "1"),
        ("{{range $i, $e := .env}}{{$i}}{{$e}}{{end}}", "0A=11B=2"),
        ("{{range .none}}x{{else}}nothing{{end}}", "nothing"),
        (
            "{{if .up}}up{{else}}down{{end}} {{if not .up}}down{{else if eq .code 1}}one{{else}}else{{end}}",
            "up else",
        ),
        ("{{if and .up (eq .name \"web\")}}yes{{end}}{{if or .code .none}}no{{end}}", "yes"),
        ("{{if and .none .absent}}{{else}}short{{end}}", "short"),
        (
            "{{if eq .name \"a\" \"web\"}}{{.name}}{{end}}{{ne .code 0}} {{lt .code 1}} {{ge 2.5 .code}}",
            "webfalse true true",
        ),
        ("{{with .name}}{{.}} of {{$.code}}{{end}}{{with .none}}x{{else}}-{{end}}", "web of 0-"),
        ("{{with $n := .name}}{{$n}}{{end}}", "web"),
        ("{{$n := .name}}{{if true}}{{$n = \"other\"}}{{end}}{{$n}}", "other"),
        ("a {{- /* nothing */ -}} b {{- \" }} \" -}} c", "ab }} c"),
        ("{{.name | upper | printf \"%-5s|%3d|%v\" .code 7}}", "0    |  7|WEB"),
        ("{{printf \"%.2f%% %q\" 1.5 .name}}", "1.50% \"web\""),
        (
            "{{join .env \", \"}} {{index (split .name \"e\") 1}} {{title .name}} {{truncate .name 2}} {{lower \"AB\"}}",
            "A=1, B=2 b Web we ab",
        ),
        ("{{index .labels \"a.b\"}} {{.labels.tier}} {{index .labels \"absent\"}}", "c front "),
        (
            "{{json .labels}} {{.labels.tier | json}} {{println .code .name}}",
            "{\"a.b\":\"c\",\"tier\":\"front\"} \"front\" 0 web\n",
        ),
        ("{{`raw \\n`}}{{print .code .name}}", "raw \\n0web"),
    ] {
        assert_eq!(line(template, &value).as_deref(), Ok(format!("{expected}\n").as_str()), "{template}");
    }
}

/// Mutations tried: Docker's names before a plain value of ours; only ours; Docker's in any case of letters.
#[test]
fn docker_s_names_are_understood_where_ours_mean_nothing_plain() {
    let value = json!({"name": "web", "state": "running", "ports": [{"host": 80}], "labels": {"a": "b"}});
    let docker = json!({
        "Name": "/web", "Ports": "80->80/tcp", "State": {"Running": true, "Health": null}, "Labels": "a=b", "Label": {"a": "b"},
    });
    let text = |template| with(template, &value, docker.clone()).unwrap();
    assert_eq!(
        text("{{.Name}} {{.State}} {{.State.Running}} {{.State.Health.Status}}"),
        "web running true \n"
    );
    assert_eq!(
        text("{{.Ports}} {{.ports}} {{range .ports}}{{.host}}{{end}}"),
        "80->80/tcp [{\"host\":80}] 80\n"
    );
    assert_eq!(text("{{.Labels}} {{.labels.a}} {{.Label \"a\"}}{{.Label \"x\"}}"), "a=b b b\n");
    assert_eq!(text("{{range .ports}}{{$.State.Running}}{{end}} {{json .State}}"), "true \"running\"\n");
    let wrong = with("{{.State.Pid}}", &value, docker.clone()).unwrap_err();
    assert!(wrong.contains("`Pid`; there are Health, Running"), "{wrong}");
    let unknown = with("{{.Path}}", &value, docker.clone()).unwrap_err();
    assert!(
        unknown.contains("there are labels, name, ports, state, and of Docker's Label, Labels"),
        "{unknown}"
    );
    assert!(with("{{.state.running}}", &value, docker.clone()).is_err());
}

/// Before: an event without an exit status ended `events`, and a box without a check of its health a list of boxes. Mutations tried:
/// `OPEN` empty; `MAY_BE_ABSENT` empty.
#[test]
fn what_may_be_absent_is_empty() {
    let value = json!({"details": {"reason": "r"}, "options": {"labels": {}}, "id": "1"});
    let text = |template| line(template, &value).unwrap();
    assert_eq!(
        text("{{.details.exit_code}}{{.Details.Reason}}{{.options.labels.tier}}{{.Name}}{{.health.status}}-"),
        "r-\n"
    );
    for unknown in ["{{.nmae}}", "{{.options.cpu}}", "{{.options.name}}"] {
        assert!(line(unknown, &value).is_err(), "{unknown}");
    }
}

#[test]
fn a_table_has_the_fields_for_headings() {
    let heading = |template: &str| template.parse::<Template>().unwrap().heading();
    assert_eq!(
        heading("table {{.ID}}\\t{{.CreatedAt}}\\t{{.exit_code}}"),
        Some("ID\tCREATED AT\tEXIT CODE".to_owned())
    );
    assert_eq!(heading("table {{upper .Names}}\t{{json .Ports}}"), Some("NAMES\tPORTS".to_owned()));
    assert_eq!(heading("table {{.CPUPerc}}\t{{.cpu_percent}}"), Some("CPU %\tCPU PERCENT".to_owned()));
    assert_eq!(heading("table of {{.ID}}").as_deref(), Some("of ID"));
    assert_eq!(heading("tables {{.ID}}"), None);
    assert_eq!(heading("{{.ID}}"), None);
}

/// A name of a box's making could steer the terminal, or look like more lines. Before: one that is the format of `printf` did.
/// Mutations tried: the string as it is; joined as it is; JSON as it is.
#[test]
fn control_characters_are_escaped() {
    let value = json!({"reason": "a\u{1b}[2Jb", "list": ["x\ny"], "turned": "\u{202e}"});
    assert_eq!(line("{{.reason}}", &value).unwrap(), "a\\u{1b}[2Jb\n");
    assert_eq!(line("{{join .list \"\\n\"}}{{print .reason}}", &value).unwrap(), "x\\nya\\u{1b}[2Jb\n");
    assert_eq!(
        line("{{printf .reason}}{{printf \"\\t%s\" .turned}}", &value).unwrap(),
        "a\\u{1b}[2Jb\t\\u{202e}\n"
    );
    assert_eq!(line("{{json .turned}}{{json .list}}", &value).unwrap(), "\"\\u202e\"[\"x\\ny\"]\n");
    assert_eq!(line("{{range .list}}{{upper .}}{{end}}{{.list}}", &value).unwrap(), "X\\nY[\"x\\ny\"]\n");
}

/// Before: each of the first five ended the program, whose stack was full, and the last two took all memory.
#[test]
fn what_is_too_deep_or_too_long_is_refused() {
    let value = json!({"id": "a\"b", "list": ["x"]});
    let many = |before: &str, middle: &str, after: &str, count: usize| {
        [&before.repeat(count), middle, &after.repeat(count)].concat()
    };
    for (count, is_fine) in [(90, true), (20_000, false)] {
        for template in [
            format!("{{{{{}}}}}", many("(", ".id", ")", count)),
            many("{{if .id}}", "x", "{{end}}", count),
            many("{{range .list}}{{with $}}", "x", "{{end}}{{end}}", count / 2),
            format!("{{{{if .none}}}}{}{{{{end}}}}", "{{else if .none}}".repeat(count)),
            format!("{{{{.id{}}}}}", "|upper".repeat(count)),
        ] {
            let value = json!({"id": "a", "list": ["x"], "none": null});
            let refused = line(&template, &value).err();
            assert_eq!(refused.is_none(), is_fine, "{refused:?}");
            assert!(is_fine || refused.unwrap().contains("more than 100"));
        }
    }
    for template in [
        format!("{{{{.id{}}}}}", "|json".repeat(60)),
        format!("{{{{$x := .id}}}}{}", "{{$x = print $x $x}}".repeat(60)),
    ] {
        assert!(line(&template, &value).unwrap_err().contains("longer than"));
    }
}

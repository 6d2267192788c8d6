use boxlite_types::ErrorKind;
use proptest::prelude::*;

use super::*;

fn resolve(file: &str, env: &[(&str, &str)]) -> Result<Settings> {
    Settings::resolve(Some((Path::new("/h/config.toml"), file)), &variables(env), &SettingsOptions::default())
}

fn variables(env: &[(&str, &str)]) -> SettingsVariables {
    SettingsVariables::from_lookup(|name| {
        env.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
    })
}

#[test]
fn sizes_read_as_people_write_them() {
    for (text, bytes) in [
        ("0", 0),
        ("4096", 4096),
        ("512MiB", 512 << 20),
        ("1GiB", 1 << 30),
        ("5G", 5 << 30),
        ("5 gb", 5 << 30),
        ("1.5GiB", 3 << 29),
        ("2t", 2 << 40),
        ("18446744073709551615", u64::MAX),
    ] {
        assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
    }
    for text in
        ["", "G", "-1", "1.5", "1.G", "5X", "0x10", "1e9", "18446744073709551616", "99999999999T", "１G"]
    {
        assert!(text.parse::<Bytes>().is_err(), "{text:?} was accepted");
    }
}

#[test]
fn durations_read_as_people_write_them() {
    for (text, seconds) in [
        ("90", 90),
        ("90s", 90),
        ("10m", 600),
        ("10min", 600),
        ("2h", 7_200),
        ("1h30m", 5_400),
        ("7d", 604_800),
    ] {
        assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
    }
    for text in ["", "m", "-5m", "10x", "1h m", "99999999999999999999d", "10mm"] {
        assert!(parse_duration(text).is_err(), "{text:?} was accepted");
    }
}

#[test]
fn later_layers_win_and_say_so() {
    let file = "hard_floor = \"512MiB\"\nsoft_floor = 2147483648\ngrace = 60\nauto_gc = false\n";
    let variables = variables(&[("BOXLITE_GRACE", "5m")]);
    let options = SettingsOptions { soft_percent: Some(Percent(3)), ..SettingsOptions::default() };
    let path = Path::new("/h/config.toml");
    let settings = Settings::resolve(Some((path, file)), &variables, &options).unwrap();
    assert_eq!(settings.hard_floor, Setting { value: Bytes(512 << 20), origin: Origin::File(path.into()) });
    assert_eq!(settings.soft_floor.value, Bytes(2 << 30));
    let grace = Setting { value: Duration::from_secs(300), origin: Origin::Env("BOXLITE_GRACE".into()) };
    assert_eq!(settings.grace, grace);
    assert!(!settings.auto_gc.value);
    assert_eq!(settings.soft_percent, Setting { value: Percent(3), origin: Origin::Options });
    assert_eq!(settings.claim, Settings::default().claim);
    let line = settings.describe().into_iter().find(|line| line.name == "grace").unwrap();
    assert_eq!((line.value.as_str(), line.origin.to_string().as_str()), ("5m", "BOXLITE_GRACE"));
}

/// Mutation tried: skipping `unknown_key` (a typo was ignored), and clamping instead of refusing.
#[test]
fn what_is_wrong_is_refused_and_named() {
    for (file, env, needle) in [
        ("hard_flor = 1", None, "hard_flor"),
        ("hard_floor = \"lots\"", None, "/h/config.toml: hard_floor"),
        ("hard_floor = -1", None, "hard_floor"),
        ("soft_percent = 101", None, "soft_percent"),
        ("grace = []", None, "grace"),
        ("= nonsense", None, "/h/config.toml"),
        ("", Some(("BOXLITE_HARD_FLOOR", "10%")), "BOXLITE_HARD_FLOOR"),
        ("", Some(("BOXLITE_AUTO_GC", "maybe")), "BOXLITE_AUTO_GC"),
        ("soft_floor = \"1MiB\"\nemergency_floor = 0", None, "/h/config.toml"),
        ("", Some(("BOXLITE_HARD_FLOOR", "6GiB")), "BOXLITE_HARD_FLOOR"),
        ("emergency_floor = \"2GiB\"", None, "emergency_floor"),
        ("disk_size = \"1MiB\"", None, "disk_size"),
        ("jail = \"maybe\"", None, "/h/config.toml: jail"),
        ("jail_first_id = 1000", None, "jail_first_id"),
        ("jail_ids = 0", None, "jail_ids"),
        ("", Some(("BOXLITE_JAIL_FIRST_ID", "4294967290")), "BOXLITE_JAIL_FIRST_ID"),
    ] {
        let error = resolve(file, env.as_slice()).expect_err(file);
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(needle), "{error} does not name {needle}");
    }
}

#[test]
fn equal_floors_are_legal() {
    let settings = resolve("hard_floor = \"5GiB\"", &[]).unwrap();
    assert_eq!(settings.hard_floor.value, settings.soft_floor.value);
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_a_panic(text in "\\PC*") {
        let _ = text.parse::<Bytes>();
        let _ = parse_duration(&text);
    }

    #[test]
    fn whole_bytes_read_back(bytes: u64) {
        prop_assert_eq!(bytes.to_string().parse(), Ok(Bytes(bytes)));
    }

    #[test]
    fn durations_read_back(seconds in 0..u64::from(u32::MAX)) {
        let duration = Duration::from_secs(seconds);
        prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
    }
}

/// Each of them hung or failed late: `read_to_string` waits for a writer of a FIFO and never ends on a device.
#[test]
fn a_settings_file_that_is_not_a_file_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::open(&dir.path().join("home")).unwrap();
    let refused = |what: &str| {
        let error =
            Settings::load(&home, &SettingsVariables::default(), &SettingsOptions::default()).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("config.toml") && error.contains("not a regular file"), "{what}: {error}");
        std::fs::remove_file(home.config()).or_else(|_| std::fs::remove_dir(home.config())).unwrap();
    };
    rustix::fs::mknodat(
        rustix::fs::CWD,
        home.config(),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    refused("a FIFO");
    std::fs::create_dir(home.config()).unwrap();
    refused("a directory");
    std::os::unix::fs::symlink("/dev/zero", home.config()).unwrap();
    refused("a device");
}

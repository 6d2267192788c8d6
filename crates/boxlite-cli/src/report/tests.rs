use boxlite::{Error, ErrorCause, ErrorKind, Shortage};

use super::*;

#[test]
fn a_shortage_names_what_gc_can_free() {
    let shortage = Shortage { need: 1 << 30, have: 5 << 20, inodes: false, reclaimable: Some(3 << 30) };
    let error = Error::exhausted("starting web needs 1 GiB free, /h has 5 MiB", shortage);
    assert_eq!(
        CommandFailure::of(&error, Topic::Start).text(),
        "boxlite: starting web needs 1 GiB free, /h has 5 MiB\n\
         hint: `boxlite gc` can free about 3 GiB\n\
         hint: `boxlite system df` shows what takes the space"
    );
}

#[test]
fn hints_depend_on_what_the_command_is_about() {
    let error = || Error::conflict("box web is running");
    assert!(CommandFailure::of(&error(), Topic::Removal).text().contains("rm -f"));
    assert!(CommandFailure::of(&error(), Topic::NewBox).text().contains("--name"));
    assert_eq!(CommandFailure::of(&error(), Topic::Host).text(), "boxlite: box web is running");
}

#[test]
fn a_hint_is_about_what_the_error_is_about() {
    let hinted = |error: Error, topic| CommandFailure::of(&error, topic).text().contains("hint: ");
    let local = Error::not_found("there is no /nonexist").at("/nonexist");
    let text = CommandFailure::of(&local, Topic::NewBox).text();
    assert!(text.contains("oci:DIR") && !text.contains("image's name"), "{text}");
    assert!(CommandFailure::of(&Error::not_found("x"), Topic::NewBox).text().contains("image's name"));
    assert!(!hinted(Error::not_found("there is no /nope in the box"), Topic::Copy));
    assert!(!hinted(Error::conflict("/nope is no directory"), Topic::Copy));
    for kind in [ErrorKind::Unavailable, ErrorKind::Corrupt] {
        assert!(!hinted(Error::new(kind, "x"), Topic::RunningBox));
        assert!(!hinted(Error::new(kind, "x"), Topic::Copy));
        assert!(hinted(Error::new(kind, "x"), Topic::Image));
        assert!(hinted(Error::new(kind, "x"), Topic::NewBox));
    }
    // Before: `pull` was told of an option that it does not have.
    let unreached = |topic| CommandFailure::of(&Error::new(ErrorKind::Unavailable, "x"), topic).text();
    assert!(unreached(Topic::NewBox).contains("--pull") && !unreached(Topic::Image).contains("--pull"));
}

/// Kinds are coarse: these had hints about owners of paths, the host's abilities, lists of boxes and pulls.
/// Mutation tried: no look at the cause.
#[test]
fn the_cause_decides_before_the_kind_and_the_topic() {
    let cases = [
        (ErrorKind::Denied, ErrorCause::Credentials, Topic::Image, "boxlite login"),
        (ErrorKind::Unsupported, ErrorCause::Platform, Topic::NewBox, "processors"),
        (ErrorKind::Unsupported, ErrorCause::Volume, Topic::NewBox, "HOST is a directory or a file"),
        (ErrorKind::NotFound, ErrorCause::Volume, Topic::Start, "put it back"),
        (ErrorKind::NotFound, ErrorCause::Volume, Topic::NewBox, "make it first, or mount a named volume"),
        (ErrorKind::NotFound, ErrorCause::Volume, Topic::Volume, "volume ls"),
        (ErrorKind::InvalidInput, ErrorCause::Tmpfs, Topic::NewBox, "--tmpfs takes BOX[:OPTIONS]"),
        (ErrorKind::Corrupt, ErrorCause::LocalImage, Topic::NewBox, "make it anew"),
        (ErrorKind::Denied, ErrorCause::Port, Topic::Start, "from 1024 on"),
        (ErrorKind::Conflict, ErrorCause::Port, Topic::NewBox, "another port"),
        (ErrorKind::Unsupported, ErrorCause::Limit, Topic::NewBox, "raise the setting"),
        (ErrorKind::NotFound, ErrorCause::LogRun, Topic::Box, "without --run"),
    ];
    for (kind, cause, topic, hint) in cases {
        let text = CommandFailure::of(&Error::new(kind, "x").about(cause).at("/x"), topic).text();
        assert!(text.contains(hint) && text.matches("hint: ").count() == 1, "{cause:?}: {text}");
    }
}

/// Its sentence says how to list them; before, the hint was to list boxes, of which the one that was named is there.
#[test]
fn a_missing_snapshot_has_no_hint_about_boxes() {
    let error = Error::not_found("box web has no snapshot 's'").about(ErrorCause::Snapshot);
    assert!(!CommandFailure::of(&error, Topic::Box).text().contains("hint: "));
}

/// Garbage collection would not help.
#[test]
fn a_quota_that_is_used_up_has_no_hint_about_the_host() {
    let shortage = boxlite::Shortage { need: 1, have: 0, inodes: false, reclaimable: None };
    let error = Error::exhausted("x", shortage).about(ErrorCause::DiskQuota);
    assert!(!CommandFailure::of(&error, Topic::Start).text().contains("hint: "));
}

#[test]
fn a_closed_pipe_is_quiet_and_other_failures_are_not() {
    let broken = io::Error::from(io::ErrorKind::BrokenPipe);
    assert_eq!(CommandFailure::output(&broken).exit(), Exit::BROKEN_PIPE);
    let full = io::Error::from(io::ErrorKind::StorageFull);
    assert_eq!(CommandFailure::output(&full).exit(), Exit::FAILED);
}

#[test]
fn a_command_s_status_is_passed_on() {
    assert_eq!(ExitCode::from(Exit::of_command(3)), ExitCode::from(3));
    assert_eq!(Exit::of_signal(9), Exit::of_command(137));
}

/// Mutation tried: `visible` left out of `CommandFailure::text`.
#[test]
fn what_a_box_says_is_escaped_wherever_it_is_printed() {
    let text = "a\u{1b}]0;title\u{7}b\nboxlite: done\u{202e}\u{9b}31m \u{e9}\tend";
    let shown = r"a\u{1b}]0;title\u{7}b\nboxlite: done\u{202e}\u{9b}31m é".to_owned() + "\tend";
    assert_eq!(visible(text), shown);
    assert_eq!(CommandFailure::local(text).text(), format!("boxlite: {shown}"));
    let error = Error::not_found(text);
    assert!(CommandFailure::of(&error, Topic::Copy).text().contains(&shown));
    assert!(!CommandFailure::local("x").hint("a\nb").text().contains("a\nb"));
}

/// Mutation tried: `Exit::FAILED` for every error.
#[test]
fn a_refusal_for_lack_of_room_has_its_own_status() {
    let shortage = Shortage { need: 1 << 30, have: 5 << 20, inodes: true, reclaimable: None };
    let exit = |error| CommandFailure::of(&error, Topic::Start).exit();
    assert_eq!(exit(Error::exhausted("x", shortage)), Exit::NO_ROOM);
    assert_eq!(exit(Error::conflict("x")), Exit::FAILED);
    assert_eq!(ExitCode::from(Exit::NO_ROOM), ExitCode::from(75));
}

/// Before: the carriage returns were escaped like those of a box's text. Mutation tried: `visible` around the whole line.
#[test]
fn a_note_in_raw_mode_returns_to_the_first_column_and_escapes_the_rest() {
    assert_eq!(raw_line("box \u{1b}[2Jx"), "\rbox \\u{1b}[2Jx\r\n");
}

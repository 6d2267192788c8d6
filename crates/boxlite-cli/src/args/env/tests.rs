use super::*;

fn host(name: &str) -> Option<String> {
    (name == "FROM_HOST").then(|| "there".to_owned())
}

fn parse(text: &str) -> Result<Vec<String>, String> {
    parse_file(text, Path::new("f.env"), &host).map_err(|failure| failure.to_string())
}

#[test]
fn files_hold_entries_comments_and_names_of_the_host() {
    let text = "\u{feff}# comment\n\nA=1\n  B=two words # kept \nEMPTY=\nFROM_HOST\nNOT_THERE\nEQ=a=b\r\n";
    assert_eq!(parse(text).unwrap(), ["A=1", "B=two words # kept ", "EMPTY=", "FROM_HOST=there", "EQ=a=b"]);
}

#[test]
fn a_malformed_line_is_named() {
    assert_eq!(parse("A=1\n=x\n").unwrap_err(), "f.env line 2: `=x` has no name before its `=`");
    assert_eq!(parse("A B=x").unwrap_err(), "f.env line 1: the name `A B` contains white space");
}

#[test]
fn options_follow_files() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "A=file\n").unwrap();
    let entries =
        environment(&[file.path().to_owned()], &["A=option".into(), "FROM_HOST".into()], host).unwrap();
    assert_eq!(entries, ["A=file", "A=option", "FROM_HOST=there"]);
    let missing = environment(&["/no/such/file".into()], &[], host).unwrap_err();
    assert!(missing.to_string().contains("/no/such/file"), "{missing}");
}

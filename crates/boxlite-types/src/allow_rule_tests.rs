use proptest::prelude::*;

use super::*;
use crate::ErrorKind;

fn rule(text: &str) -> AllowRule {
    text.parse().unwrap()
}

#[test]
fn names_blocks_and_ports_are_told_apart() {
    for (text, target, port) in [
        ("Example.COM", AllowTarget::Name("example.com".into()), None),
        ("example.com.:443", AllowTarget::Name("example.com".into()), Some(443)),
        ("*.example.com:80", AllowTarget::Below("example.com".into()), Some(80)),
        ("db_1", AllowTarget::Name("db_1".into()), None),
        ("10.1.2.3", AllowTarget::Block { address: Ipv4Addr::new(10, 1, 2, 3), prefix: 32 }, None),
        ("10.0.0.0/8:22", AllowTarget::Block { address: Ipv4Addr::new(10, 0, 0, 0), prefix: 8 }, Some(22)),
        ("0.0.0.0/0", AllowTarget::Block { address: Ipv4Addr::UNSPECIFIED, prefix: 0 }, None),
    ] {
        assert_eq!(rule(text), AllowRule { target, port }, "{text}");
    }
}

#[test]
fn malformed_rules_are_refused() {
    for text in [
        "",
        ":80",
        "a..b",
        "a b",
        "*",
        "*.",
        "a.*.b",
        "http://a",
        "a:0",
        "a:+1",
        "a:65536",
        "a:",
        "1.2.3",
        "1.2.3.256",
        "1.2.3.4.",
        "0.",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "10.0.0.0/+8",
        "10.0.0.0/",
        "a/8",
        "münchen.de",
        "*.1.2.3.4",
        "dns.example.com:53",
        "*.example.com:853",
    ] {
        let error = text.parse::<AllowRule>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text:?}: {error}");
    }
    for text in ["::1", "[::1]:80", "2001:db8::/32"] {
        assert_eq!(text.parse::<AllowRule>().unwrap_err().kind(), ErrorKind::Unsupported, "{text}");
    }
}

// Mutation tried: a limit one higher.
#[test]
fn a_list_has_a_bound() {
    let texts = vec!["a.b".to_owned(); MAX_ALLOW_RULES];
    assert_eq!(AllowRule::parse_list(&texts).unwrap().len(), MAX_ALLOW_RULES);
    let more = [&texts[..], &texts[..1]].concat();
    assert_eq!(AllowRule::parse_list(&more).unwrap_err().kind(), ErrorKind::InvalidInput);
}

// Mutations tried: `rest.ends_with('.')` left out, and `rest.len() > 0`.
#[test]
fn a_wildcard_is_for_names_below_and_no_neighbour() {
    let target = rule("*.example.com").target;
    for (name, inside) in [
        ("a.example.com", true),
        ("a.b.example.com", true),
        ("example.com", false),
        (".example.com", false),
        ("notexample.com", false),
        ("example.com.evil.org", false),
    ] {
        assert_eq!(target.names(name), inside, "{name}");
    }
    assert!(
        rule("example.com").target.names("example.com") && !rule("example.com").target.names("a.example.com")
    );
}

proptest! {
    #[test]
    fn what_is_shown_is_parsed_again(text in "[a-z0-9*./:-]{1,24}") {
        if let Ok(rule) = text.parse::<AllowRule>() {
            prop_assert_eq!(rule.to_string().parse::<AllowRule>().unwrap(), rule);
        }
    }
}

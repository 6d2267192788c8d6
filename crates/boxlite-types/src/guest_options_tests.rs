use super::*;

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// The refusals of `parse` of one text each, which must contain their part.
fn refused<T: std::fmt::Debug>(parse: fn(&[String]) -> Result<T>, texts: &[(&str, &str)]) {
    for (text, part) in texts {
        let error = parse(&words(text)).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn added_hosts_are_names_and_addresses() {
    let parsed =
        AddedHost::parse_list(&words("db:10.1.2.3 a.b_c=1.2.3.4 six:::1 also:[fe80::2] h:host-gateway"))
            .unwrap();
    let lines: Vec<String> = parsed.iter().map(|host| format!("{} {:?}", host.name, host.target)).collect();
    assert_eq!(
        lines,
        [
            "db Address(10.1.2.3)",
            "a.b_c Address(1.2.3.4)",
            "six Address(::1)",
            "also Address(fe80::2)",
            "h Host"
        ]
    );
    refused(
        AddedHost::parse_list,
        &[
            ("db", "expected NAME:IP"),
            (":1.2.3.4", "the name has"),
            ("a/b:1.2.3.4", "the name has"),
            ("-a:1.2.3.4", "the name has"),
            ("db:", "neither an IP address"),
            ("db:1.2.3", "neither an IP address nor host-gateway"),
            ("db:host-gatewayx", "neither an IP address"),
        ],
    );
    let many = vec!["a:1.1.1.1".to_owned(); MAX_ADDED_HOSTS + 1];
    assert!(AddedHost::parse_list(&many).unwrap_err().to_string().contains("257 added hosts"));
    // A line of its own in the box's file would be another host's.
    assert!(AddedHost::parse_list(&["a\n1.1.1.1 b:1.2.3.4".to_owned()]).is_err());
}

#[test]
fn name_servers_and_domains() {
    assert_eq!(parse_name_servers(&words("1.1.1.1 10.0.2.3")).unwrap().len(), 2);
    refused(
        parse_name_servers,
        &[
            ("::1", "no IPv6"),
            ("dns.example", "not an IP address"),
            ("1.1.1.1 2.2.2.2 3.3.3.3 4.4.4.4", "4 name servers"),
        ],
    );
    assert_eq!(parse_search_domains(&words("example.org. lan")).unwrap(), ["example.org", "lan"]);
    assert!(parse_search_domains(&words(".")).unwrap().is_empty());
    refused(parse_search_domains, &[("a..b", "not a domain"), ("a/b", "not a domain")]);
    assert!(parse_search_domains(&["a b".to_owned()]).is_err());
}

#[test]
fn limits_are_soft_and_hard() {
    let parsed = parse_ulimits(&words("nofile=1024:4096 core=0 memlock=-1 nproc=10:unlimited")).unwrap();
    let figures: Vec<_> = parsed.iter().map(|limit| (limit.soft, limit.hard)).collect();
    assert_eq!(figures, [(Some(1024), Some(4096)), (Some(0), Some(0)), (None, None), (Some(10), None)]);
    assert_eq!((parsed[0].kind, parsed[1].kind), (UlimitKind::Nofile, UlimitKind::Core));
    refused(
        parse_ulimits,
        &[
            ("nofile", "expected TYPE"),
            ("files=1", "\"files\" is none of as, core"),
            ("nofile=9:8", "above the hard"),
            ("nofile=-1:8", "above the hard"),
            ("nofile=x", "neither a number"),
            ("nofile=+1", "neither a number"),
            ("nofile=", "neither a number"),
            ("nofile=99999999999999999999", "too large"),
            ("nofile=1 nofile=2", "a second time"),
        ],
    );
}

#[test]
fn kernel_parameters_are_paths_below_proc_sys() {
    let paths = |text: &str| -> Vec<String> {
        parse_sysctls(&words(text)).unwrap().into_iter().map(|sysctl| sysctl.path).collect()
    };
    assert_eq!(paths("net.core.somaxconn=1024"), ["net/core/somaxconn"]);
    assert_eq!(paths("net/ipv4/conf/eth0.1/x=1"), ["net/ipv4/conf/eth0.1/x"]);
    assert_eq!(paths("net.ipv4.conf.eth0/1.x=1"), ["net/ipv4/conf/eth0.1/x"]);
    let ranges = parse_sysctls(&["net.ipv4.ip_local_port_range=1024 2000".to_owned()]).unwrap();
    assert_eq!(ranges[0].value, "1024 2000");
    refused(
        parse_sysctls,
        &[
            ("net.core.somaxconn", "expected NAME"),
            ("somaxconn=1", "is not one such as"),
            ("../etc/x=1", "is not one such as"),
            ("net/../x=1", "is not one such as"),
            ("/net/x=1", "is not one such as"),
            ("net..x=1", "is not one such as"),
            ("net.x=", "value is empty"),
            ("net.x=1 net/x=2", "a second time"),
        ],
    );
    assert!(parse_sysctls(&["net.x=1\n2".to_owned()]).is_err());
}

#[test]
fn ports_of_the_host_are_few_and_each_named_once() {
    check_host_ports(&[5432, 6379]).unwrap();
    assert!(check_host_ports(&[0]).is_err());
    assert!(check_host_ports(&[80, 81, 80]).unwrap_err().to_string().contains("port 80"));
    assert!(check_host_ports(&(1..=65).collect::<Vec<u16>>()).is_err());
}

use boxlite_types::parse_ports;

use super::*;

fn ports(texts: &[&str]) -> Vec<PortForward> {
    texts.iter().flat_map(|text| parse_ports(text).unwrap()).collect()
}

#[test]
fn free_ports_are_chosen_and_differ() {
    let claim = claim_ports(&ports(&["80", "81", "80/udp", "0.0.0.0::82"])).unwrap();
    let chosen: std::collections::HashSet<_> = claim.ports().iter().map(|p| (p.protocol, p.host)).collect();
    assert_eq!(chosen.len(), 4);
    assert!(chosen.iter().all(|(_, host)| *host != 0));
    assert_eq!(claim.ports().iter().map(|p| p.guest).collect::<Vec<_>>(), [80, 81, 80, 82]);
}

#[test]
fn a_port_in_use_is_a_conflict_that_names_it_and_is_free_again_after_release() {
    for (index, protocol) in ["tcp", "udp"].into_iter().enumerate() {
        let held = claim_ports(&ports(&[&format!("80/{protocol}")])).unwrap();
        let busy = ports(&[&format!("{}:90/{protocol}", held.ports()[0].host)]);
        let error = claim_ports(&busy).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{index}");
        assert!(error.to_string().contains(&busy[0].host.to_string()), "{error}");
        held.release();
        claim_ports(&busy).unwrap();
    }
}

#[test]
fn an_address_of_another_host_is_invalid_input() {
    let error = claim_ports(&ports(&["203.0.113.9:0:80"])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

#[test]
fn the_loopback_addresses_include_the_usual_one() {
    assert!(interface_addresses().unwrap().contains(&(Ipv4Addr::LOCALHOST, true)));
    assert!(own_addresses().unwrap().contains(&Ipv4Net::host(Ipv4Addr::LOCALHOST)));
    assert!(loopback_aliases().unwrap().iter().all(|alias| !alias.contains(Ipv4Addr::LOCALHOST)));
}
